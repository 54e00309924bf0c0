"""Every pooling against the plain definition on dense token x feature matrices."""

import numpy as np
import pytest

from tessera import pooling
from tessera.pooling import of_tokens, pool
from tessera.shards import SparseTokens

WIDTH = 30


def random_tokens(seed: int) -> tuple[SparseTokens, list[np.ndarray]]:
    rng = np.random.default_rng(seed)
    dense = []
    for _ in range(12):
        tokens = rng.integers(1, 9)
        # Rounded, so that equal values within a token occur.
        dense.append(np.where(rng.random((tokens, WIDTH)) < 0.3, rng.random((tokens, WIDTH)).round(1) + 0.1, 0))
    dense[3][:] = 0
    dense[5][-1] = 0
    joined = np.concatenate(dense).astype(np.float32)
    rows, columns = joined.nonzero()
    features = SparseTokens(
        width=WIDTH,
        tokens=np.array([len(d) for d in dense], dtype=np.int32),
        counts=np.bincount(rows, minlength=len(joined)).astype(np.int32),
        indices=columns.astype(np.int32),
        values=joined[rows, columns],
    )
    return features, dense


def top(tokens: np.ndarray, n: int) -> np.ndarray:
    counts = np.zeros(WIDTH)
    for token in tokens:
        active = [f for f in range(WIDTH) if token[f] > 0]
        for feature in sorted(active, key=lambda f: (-np.float32(token[f]), f))[:n]:
            counts[feature] += 1
    return counts


PLAIN = {
    "sum": lambda tokens: tokens.sum(axis=0),
    "mean": lambda tokens: tokens.mean(axis=0),
    "max": lambda tokens: tokens.max(axis=0),
    "last": lambda tokens: tokens[-1],
    "top-1": lambda tokens: top(tokens, 1),
    "top-3": lambda tokens: top(tokens, 3),
    "top-999": lambda tokens: top(tokens, 999),
}


@pytest.mark.parametrize("pooling", PLAIN)
def test_pooling_equals_its_plain_definition(pooling: str) -> None:
    features, dense = random_tokens(1)
    found = pool(features, pooling)
    assert found.dtype == np.float32
    assert found.shape == (12, WIDTH)
    np.testing.assert_allclose(found.toarray(), [PLAIN[pooling](tokens) for tokens in dense], rtol=1e-6)


def test_nothing_active_anywhere_pools_to_zeros() -> None:
    none = np.zeros(0, dtype=np.int32)
    features = SparseTokens(5, np.array([2, 1]), np.zeros(3, dtype=np.int32), none, none.astype(np.float32))
    for way in PLAIN:
        assert pool(features, way).nnz == 0


def test_the_features_of_every_token_as_a_matrix() -> None:
    features, dense = random_tokens(4)
    assert (of_tokens(features).toarray() == np.concatenate(dense).astype(np.float32)).all()


@pytest.mark.parametrize("size", [1, 40, 1 << 22])
def test_the_size_of_blocks_leaves_no_trace(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    features, dense = random_tokens(5)
    monkeypatch.setattr(pooling, "BLOCK", size)
    assert (pool(features, "top-2").toarray() == [top(tokens, 2) for tokens in dense]).all()
