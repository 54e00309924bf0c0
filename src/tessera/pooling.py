"""From the features of an example's tokens to one vector.

Over the content tokens of an example, for each feature: `sum`, `mean`, `max` and `last` are what they say; `top-N` is the
number of tokens in which the feature is among the token's N largest active ones (of equal ones, the lower index goes
first). Features are non-negative, so a feature that is active nowhere pools to zero and the result stays sparse.
"""

import numpy as np
from scipy import sparse

from tessera.shards import SparseTokens


def pool(features: SparseTokens, pooling: str) -> sparse.csr_matrix:
    """Examples x width, float32, in dataset order."""
    if pooling == "sum":
        return _summed(features, features.values)
    if pooling == "mean":
        scale = sparse.diags_array(1 / features.tokens, dtype=np.float64)
        return sparse.csr_matrix(scale @ _summed(features, features.values.astype(np.float64))).astype(np.float32)
    if pooling == "max":
        return _largest(features)
    if pooling == "last":
        return _summed(features, features.values, _of_last_token(features))
    return _summed(features, np.ones_like(features.values), _among_largest(features, int(pooling.removeprefix("top-"))))


def _token_of_entry(features: SparseTokens) -> np.ndarray:
    return np.repeat(np.arange(len(features.counts)), features.counts)


def _example_of_entry(features: SparseTokens) -> np.ndarray:
    examples = np.repeat(np.arange(len(features.tokens)), features.tokens)
    return np.repeat(examples, features.counts)


def _summed(features: SparseTokens, values: np.ndarray, kept: np.ndarray | None = None) -> sparse.csr_matrix:
    """The values summed per example and feature, in float64 so that the order of tokens leaves no trace."""
    rows, columns = _example_of_entry(features), features.indices
    if kept is not None:
        rows, columns, values = rows[kept], columns[kept], values[kept]
    shape = (len(features.tokens), features.width)
    matrix = sparse.csr_matrix((values.astype(np.float64), (rows, columns)), shape=shape)
    matrix.sum_duplicates()
    return matrix.astype(np.float32) if values.dtype == np.float32 else matrix


def _largest(features: SparseTokens) -> sparse.csr_matrix:
    place = _example_of_entry(features).astype(np.int64) * features.width + features.indices
    order = np.argsort(place, kind="stable")
    place = place[order]
    starts = np.flatnonzero(np.diff(place, prepend=-1))
    values = np.maximum.reduceat(features.values[order], starts) if len(starts) else features.values
    rows, columns = np.divmod(place[starts], features.width)
    return sparse.csr_matrix((values, (rows, columns)), shape=(len(features.tokens), features.width))


def _of_last_token(features: SparseTokens) -> np.ndarray:
    last = np.zeros(len(features.counts), dtype=bool)
    last[np.cumsum(features.tokens) - 1] = True
    return np.repeat(last, features.counts)


def _among_largest(features: SparseTokens, n: int) -> np.ndarray:
    tokens = _token_of_entry(features)
    order = np.lexsort((features.indices, -features.values, tokens))
    starts = np.cumsum(features.counts) - features.counts
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order)) - starts[tokens]
    return rank < n
