"""From the features of an example's tokens to one vector.

Over the content tokens of an example, for each feature: `sum`, `mean`, `max` and `last` are what they say; `top-N` is the
number of tokens in which the feature is among the token's N largest active ones (of equal ones, the lower index goes
first). Features are non-negative, so a feature that is active nowhere pools to zero and the result stays sparse.
"""

from collections.abc import Iterator

import numpy as np
from scipy import sparse

from tessera.shards import SparseTokens

# Numbers in a block of tokens x features that is looked through at once.
BLOCK = 1 << 22


def pool(features: SparseTokens, pooling: str) -> sparse.csr_matrix:
    """Examples x width, float32, in dataset order."""
    if pooling == "sum":
        return _reduced(features, features.values.astype(np.float64), np.add).astype(np.float32)
    if pooling == "mean":
        scale = sparse.diags_array(1 / features.tokens, dtype=np.float64)
        return sparse.csr_matrix(scale @ _reduced(features, features.values.astype(np.float64), np.add)).astype(
            np.float32
        )
    if pooling == "max":
        return _reduced(features, features.values, np.maximum)
    if pooling == "last":
        return _of_last_token(features)
    kept = _among_largest(features, int(pooling.removeprefix("top-")))
    return _reduced(kept, np.ones(len(kept.indices), np.float32), np.add)


def of_tokens(features: SparseTokens) -> sparse.csr_matrix:
    """Tokens x width, the features as they are."""
    ends = np.concatenate([[0], np.cumsum(features.counts, dtype=np.int64)])
    shape = (len(features.counts), features.width)
    return sparse.csr_matrix((features.values, features.indices, ends), shape=shape)


def _reduced(features: SparseTokens, values: np.ndarray, reduce: np.ufunc) -> sparse.csr_matrix:
    """Examples x width: all values of an example's feature made one, in the order of its tokens."""
    ends = np.concatenate([[0], np.cumsum(features.counts, dtype=np.int64)])
    ends = ends[np.concatenate([[0], np.cumsum(features.tokens)])]
    shape = (len(features.tokens), features.width)
    # Transposing twice sorts each example's entries by feature in two sweeps, and leaves those of one feature in order.
    matrix = sparse.csr_matrix((values, features.indices, ends), shape=shape).tocsc().tocsr()
    new = np.diff(matrix.indices, prepend=-1) != 0
    firsts = matrix.indptr[:-1][np.diff(matrix.indptr) > 0]
    new[firsts] = True
    starts = np.flatnonzero(new)
    values = reduce.reduceat(matrix.data, starts) if len(starts) else matrix.data
    ends = np.concatenate([[0], np.cumsum(new)])[matrix.indptr]
    return sparse.csr_matrix((values, matrix.indices[starts], ends), shape=shape)


def _of_last_token(features: SparseTokens) -> sparse.csr_matrix:
    return of_tokens(features)[np.cumsum(features.tokens) - 1]


def _among_largest(features: SparseTokens, n: int) -> SparseTokens:
    """The n largest features of each token; of equal ones those with the lower index."""
    ends = np.cumsum(features.counts, dtype=np.int64)
    kept = np.ones(len(features.indices), dtype=bool)
    for start, stop in _blocks(features.counts):
        counts = features.counts[start:stop]
        entries = slice(ends[start] - counts[0], ends[stop - 1])
        most = int(counts.max(initial=0))
        if most > n:
            filled = np.arange(most) < counts[:, None]
            values = np.full((len(counts), most), -np.inf, dtype=np.float32)
            values[filled] = features.values[entries]
            bound = np.partition(values, most - n, axis=1)[:, most - n, None]
            above, equal = values > bound, values == bound
            room = n - above.sum(axis=1, keepdims=True)
            kept[entries] = (above | (equal & (equal.cumsum(axis=1) <= room)))[filled]
    counts = np.minimum(features.counts, n)
    return SparseTokens(features.width, features.tokens, counts, features.indices[kept], features.values[kept])


def _blocks(counts: np.ndarray) -> Iterator[tuple[int, int]]:
    """Runs of tokens that stay within `BLOCK` when each is given as much room as the one with most features."""
    start = 0
    while start < len(counts):
        stop = min(len(counts), start + 1 + BLOCK // 64)
        while stop > start + 1 and int(counts[start:stop].max()) * (stop - start) > BLOCK:
            stop = start + (stop - start) // 2
        yield start, stop
        start = stop
