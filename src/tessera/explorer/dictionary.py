"""What an SAE says of its features by itself: which decode to nearly the same direction, and where others describe them."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import safe_open

from tessera.files import read_json

Array = npt.NDArray[Any]

CONFIG, WEIGHTS = "cfg.json", "sae_weights.safetensors"
NEIGHBOURS = 5
# Decoder rows that are looked at together.
BLOCK = 4096

NEURONPEDIA = "https://www.neuronpedia.org"
# Model and SAE, as Neuronpedia's addresses name them; anything else would be no address.
NEURONPEDIA_ID = re.compile(r"[\w.-]+/[\w.-]+")


def neighbours(folder: Path, features: Array, most: int = NEIGHBOURS) -> list[list[tuple[int, float]]]:
    """For each feature those whose decoder rows have the largest cosine with its own, the largest first.

    A row without length has no direction, and so neither has neighbours nor is one.
    """
    with safe_open(folder / WEIGHTS, framework="numpy") as file:
        rows = file.get_slice("W_dec")
        width = rows.get_shape()[0]
        own = _directions(np.stack([rows[feature : feature + 1][0] for feature in features.tolist()]))
        best, where = np.zeros((len(features), 0)), np.zeros((len(features), 0), np.intp)
        for start in range(0, width, BLOCK):
            block = _directions(rows[start : min(start + BLOCK, width)])
            cosines = own @ block.T
            cosines[:, ~block.any(axis=1)] = -np.inf
            inside = np.flatnonzero((features >= start) & (features < start + len(block)))
            cosines[inside, features[inside] - start] = -np.inf
            best = np.hstack([best, cosines])
            where = np.hstack([where, np.tile(np.arange(start, start + len(block)), (len(features), 1))])
            order = np.argsort(-best, axis=1, kind="stable")[:, :most]
            best, where = np.take_along_axis(best, order, 1), np.take_along_axis(where, order, 1)
    return [
        [(int(other), float(cosine)) for other, cosine in zip(others, cosines, strict=True) if np.isfinite(cosine)]
        if direction.any()
        else []
        for direction, others, cosines in zip(own, where, best, strict=True)
    ]


def _directions(rows: Array) -> Array:
    exact = rows.astype(np.float64)
    lengths = np.linalg.norm(exact, axis=1, keepdims=True)
    return np.divide(exact, lengths, out=np.zeros_like(exact), where=lengths > 0)


def link(folder: Path, feature: int) -> str | None:
    """The page that describes a feature, where the SAE's own config names one."""
    name = (read_json(folder / CONFIG).get("metadata") or {}).get("neuronpedia_id")
    if not isinstance(name, str) or not NEURONPEDIA_ID.fullmatch(name):
        return None
    return f"{NEURONPEDIA}/{name}/{feature}"
