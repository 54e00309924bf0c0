"""Made-up weights in the form of Gemma Scope, and sae-lens with a directory of small ones.

sae-lens takes an SAE's sizes from its release: the length of a vector from the model that the repository's name speaks of,
the width from the name of its folder. Weights of the real sizes take gigabytes. Its directory of releases can say
otherwise, and is a data file of the package, so a small Gemma Scope needs nothing but another such file.
"""

import importlib.util
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml

DIRECTORY = "pretrained_saes.yaml"
Weights = dict[str, np.ndarray]


def weights(
    d_in: int, width: int, *, seed: int = 0, thresholds: tuple[float, float] = (0.5, 2), scale: float = 1
) -> Weights:
    """The tensors of an SAE whose features read about a normal number in vectors of normal numbers of this `scale`."""
    random = np.random.default_rng(seed)
    return {
        "W_enc": random.standard_normal((d_in, width), np.float32) / np.float32(scale * d_in**0.5),
        "W_dec": random.standard_normal((width, d_in), np.float32),
        "b_enc": random.standard_normal(width, np.float32) / 10,
        "b_dec": random.standard_normal(d_in, np.float32),
        "threshold": random.uniform(*thresholds, width).astype(np.float32),
    }


def reconstructing(given: Weights, *, scale: float) -> Weights:
    """The same SAE with a decoder that gives back about what it reads, as well as random features can."""
    encoder = given["W_enc"]
    x = np.random.default_rng(1).standard_normal((64, len(encoder)), np.float32) * np.float32(scale)
    before = x @ encoder + given["b_enc"]
    back = (before * (before > given["threshold"])) @ encoder.T
    share = (x * back).sum() / (back**2).sum()
    return {**given, "W_dec": np.ascontiguousarray(encoder.T * share), "b_dec": np.zeros(len(encoder), np.float32)}


def packed(given: Weights) -> bytes:
    """The content of a params.npz."""
    buffer = io.BytesIO()
    np.savez(buffer, **given)
    return buffer.getvalue()


def package() -> Path:
    """Where sae-lens is installed; importing it would take seconds."""
    spec = importlib.util.find_spec("sae_lens")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


def directory() -> dict[str, Any]:
    """sae-lens's own list of releases."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return yaml.load((package() / DIRECTORY).read_text(encoding="utf-8"), loader)  # noqa: S506 - a SafeLoader either way


def beside(folder: Path, releases: Mapping[str, Any]) -> Path:
    """Put sae-lens as it is installed, with another directory of releases, into a folder to be found before the installed one."""
    there = folder / "sae_lens"
    there.mkdir(parents=True)
    for entry in package().iterdir():
        if entry.name != DIRECTORY:
            (there / entry.name).symlink_to(entry)
    (there / DIRECTORY).write_text(yaml.safe_dump(dict(releases), sort_keys=False), encoding="utf-8")
    return folder
