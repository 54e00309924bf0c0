"""What features did in a capture, read shard by shard: memory grows with the examples, and not with their tokens."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from tessera.columns import flat, joined, lengths
from tessera.files import read_json
from tessera.pooling import pool
from tessera.shards import MANIFEST, SparseTokens, stream, stream_sae

Array = npt.NDArray[Any]


def pooled(folder: Path, head: str, pooling: str) -> sparse.csr_matrix:
    """Examples x width in dataset order: what `pooling.pool` makes of the whole head."""
    stacked, rows = _stacked(folder, head, pooling)
    return stacked[np.argsort(rows)]


def _stacked(folder: Path, head: str, pooling: str) -> tuple[sparse.csr_matrix, Array]:
    parts = [(rows, pool(tokens, pooling)) for rows, tokens in stream_sae(folder, head)]
    return sparse.vstack([part for _, part in parts], format="csr"), np.concatenate([rows for rows, _ in parts])


def largest(folder: Path, head: str, features: Array) -> Array:
    """Examples x features: the largest activation at any token, zero where the feature is active at none."""
    manifest = read_json(folder / MANIFEST)
    found = np.zeros((manifest["examples"], len(features)), np.float32)
    place = np.full(manifest["heads"][head]["width"], -1, np.int32)
    place[features] = np.arange(len(features))
    for rows, tokens in stream_sae(folder, head):
        places = place[tokens.indices]
        wanted = places >= 0
        examples = np.repeat(np.repeat(rows, tokens.tokens), tokens.counts)[wanted]
        np.maximum.at(found, (examples, places[wanted]), tokens.values[wanted])
    return found


def at_every_token(folder: Path, head: str, wanted: Mapping[int, Collection[int]]) -> dict[tuple[int, int], Array]:
    """(row, feature) -> the feature's activation at every content token of the example, for the `wanted` of each row."""
    found = {}
    for rows, tokens in stream_sae(folder, head):
        last_tokens = np.cumsum(tokens.tokens)
        ends = np.concatenate([[0], np.cumsum(tokens.counts, dtype=np.int64)])
        for place in np.flatnonzero(np.isin(rows, list(wanted))):
            row, stop = int(rows[place]), last_tokens[place]
            span = slice(stop - tokens.tokens[place], stop)
            entries = slice(ends[span.start], ends[span.stop])
            for feature in wanted[row]:
                found[row, feature] = _dense(tokens, span, entries, feature)
    return found


def _dense(tokens: SparseTokens, span: slice, entries: slice, feature: int) -> Array:
    here = tokens.indices[entries] == feature
    values = np.zeros(span.stop - span.start, np.float32)
    values[np.repeat(np.arange(len(values)), tokens.counts[span])[here]] = tokens.values[entries][here]
    return values


def token_ids(folder: Path, wanted: Collection[int]) -> dict[int, Array]:
    """Row -> the ids of its content tokens, for the `wanted` rows."""
    found = {}
    for table in stream(folder, "tokens", ["token_ids"]):
        rows, ids = joined(table.column("row")), flat(table.column("token_ids"))
        ends = np.cumsum(lengths(table.column("token_ids")))
        for place in np.flatnonzero(np.isin(rows, list(wanted))):
            found[int(rows[place])] = ids[ends[place - 1] if place else 0 : ends[place]]
    return found
