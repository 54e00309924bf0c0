"""What becomes of an SAE on another model than its own: health, and whether the same features are active on the same text.

Also how the features of SAEs of different widths correspond, by the directions they write.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from safetensors import safe_open
from scipy import sparse

from tessera import shards
from tessera.columns import flat, lengths
from tessera.errors import UserError
from tessera.files import read_json
from tessera.shards import SparseTokens

Array = npt.NDArray[Any]

DICTIONARIES = pa.schema(
    [(name, pa.string()) for name in ("transfer", "dataset", "sae", "home", "reader")]
    + [("layer", pa.int32()), ("width", pa.int32())]
    + [(name, pa.float64()) for name in ("l0", "explained_variance", "dead_fraction", "agreement", "agreement_chance")]
    + [(name, pa.float64()) for name in ("macro_f1", "low", "high", "closed", "closed_low", "closed_high")]
    + [("status", pa.string()), ("reason", pa.string())]
)
MATCHES = pa.schema(
    [("transfer", pa.string()), ("model", pa.string()), ("layer", pa.int32()), ("sae_a", pa.string())]
    + [("width_a", pa.int32()), ("sae_b", pa.string()), ("width_b", pa.int32())]
    + [(name, pa.float64()) for name in ("mean_cosine", "median_cosine", "share_above_07", "share_above_09", "chance")]
    + [("n_features", pa.int32())]
)

# Features that are looked up in another SAE, drawn by seed where there are more; and how many at once.
LOOKED_UP, AT_ONCE = 4096, 512
# Tokens whose active features are compared at once.
TOKENS_AT_ONCE = 1 << 16


def health(manifest: Path, head: str) -> dict[str, Any]:
    """What the capture measured of an SAE."""
    found = read_json(manifest)["heads"][head]["health"]
    return {name: found[name] for name in ("l0", "explained_variance", "dead_fraction")}


def agreement(home: tuple[Path, str], reader: tuple[Path, str]) -> tuple[float, float]:
    """The mean overlap (Jaccard) of the features active in a token in two captures of one text; and what it is by chance.

    Chance pairs each token with another one of the reader's, so that features which are active everywhere count for nothing.
    """
    if not _same_tokens(home[0].parent, reader[0].parent):
        wrong = "the two models cut the texts into different tokens, so there is nothing to compare token by token"
        raise UserError(str(reader[0]), wrong, "compare models of one tokenizer")
    a, b = (shards.read_sae(path.parent, head) for path, head in (home, reader))
    there = np.random.default_rng(0).permutation(len(a.counts))
    return _overlap(_active(a), _active(b)), _overlap(_active(a), _active(b)[there])


def _same_tokens(a: Path, b: Path) -> bool:
    one, other = (shards.in_order(folder, "tokens", ["token_ids"]).column("token_ids") for folder in (a, b))
    return np.array_equal(lengths(one), lengths(other)) and np.array_equal(flat(one), flat(other))


def _active(tokens: SparseTokens) -> sparse.csr_matrix:
    """Tokens x features: which are active."""
    ends = np.concatenate([[0], np.cumsum(tokens.counts)])
    ones = np.ones(len(tokens.indices), np.float32)
    return sparse.csr_matrix((ones, tokens.indices, ends), shape=(len(tokens.counts), tokens.width))


def _overlap(a: sparse.csr_matrix, b: sparse.csr_matrix) -> float:
    """The mean over tokens of shared features by all features; tokens without any feature in either are left out."""
    total, counted = 0.0, 0
    for start, stop in pairwise([*range(0, a.shape[0], TOKENS_AT_ONCE), a.shape[0]]):
        of_a, of_b = a[start:stop], b[start:stop]
        both = np.asarray(of_a.multiply(of_b).sum(axis=1)).ravel()
        either = np.diff(of_a.indptr) + np.diff(of_b.indptr) - both
        total += float((both[either > 0] / either[either > 0]).sum())
        counted += int((either > 0).sum())
    return total / counted if counted else float("nan")


# --- features across widths ------------------------------------------------------------------------------------------


def matches(
    pairs: Sequence[Sequence[str]], saes: Mapping[str, Mapping[str, Any]], folder: Path
) -> Iterator[dict[str, Any]]:
    """For each pair of SAEs, both ways: how near the nearest decoder direction of the other is to each feature's."""
    for pair in pairs:
        decoders = {name: _directions(folder / name / "sae_weights.safetensors") for name in pair}
        for a, b in (pair, pair[::-1]):
            chance = np.random.default_rng(0)
            of_a, n = decoders[a], min(LOOKED_UP, len(decoders[a]))
            looked_up = np.sort(chance.permutation(len(of_a))[:n])
            nearest = _nearest(of_a[looked_up], decoders[b])
            nowhere = chance.standard_normal((min(n, 1024), of_a.shape[1])).astype(np.float32)
            yield {
                "model": saes[a]["model"],
                "layer": saes[a]["layer"],
                "sae_a": a,
                "width_a": saes[a]["width"],
                "sae_b": b,
                "width_b": saes[b]["width"],
                "mean_cosine": float(nearest.mean()),
                "median_cosine": float(np.median(nearest)),
                "share_above_07": float((nearest > 0.7).mean()),
                "share_above_09": float((nearest > 0.9).mean()),
                "chance": float(_nearest(_unit(nowhere), decoders[b]).mean()),
                "n_features": n,
            }


def _directions(path: Path) -> Array:
    with safe_open(path, framework="numpy") as file:
        return _unit(file.get_tensor("W_dec").astype(np.float32))


def _unit(rows: Array) -> Array:
    sizes = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(sizes > 0, sizes, 1)


def _nearest(a: Array, b: Array) -> Array:
    """For each row of `a` its largest cosine with a row of `b`; both have unit rows."""
    blocks = (a[start : start + AT_ONCE] @ b.T for start in range(0, len(a), AT_ONCE))
    return np.concatenate([block.max(axis=1) for block in blocks])
