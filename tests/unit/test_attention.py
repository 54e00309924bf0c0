"""Attention pooling against a plain loop, on a world only attention can read, and against leaks."""

import numpy as np
import pytest
from scipy.special import softmax
from test_protocols import run

from tessera.attention import Attended, States, learned


def world(n=240, d=12, seed=0):
    """Texts of noise in which one token, marked by its first coordinate, has the label in its second."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(3, 30, n)
    codes = rng.integers(0, 2, n)
    vectors = rng.standard_normal((counts.sum(), d)).astype(np.float32)
    vectors[:, 0] = 0
    marked = np.cumsum(counts) - counts + rng.integers(0, counts)
    vectors[marked, 0] = 4
    vectors[marked, 1] = np.where(codes == 1, 1.5, -1.5)
    return States(vectors, counts), codes


def test_pooling_is_a_softmax_over_the_tokens_of_a_text():
    states, _ = world(20)
    query = np.random.default_rng(1).standard_normal(12)
    ends = np.cumsum(states.counts)
    expected = []
    for end, count in zip(ends, states.counts, strict=True):
        own = states.vectors[end - count : end]
        expected.append(softmax(own @ query) @ own)
    np.testing.assert_allclose(states.pooled(query), expected, atol=1e-4)
    mean = [states.vectors[end - count : end].mean(axis=0) for end, count in zip(ends, states.counts, strict=True)]
    np.testing.assert_allclose(states.pooled(np.zeros(12)), mean, atol=1e-5)


def test_it_finds_the_token_that_tells_where_the_mean_cannot():
    states, codes = world()
    cells, _ = run(states, codes)
    attended = [row["macro_f1"] for row in cells.to_pylist()]
    mean, _ = run(states.pooled(np.zeros(12)), codes)
    assert min(attended) > 0.9
    assert max(row["macro_f1"] for row in mean.to_pylist()) < 0.8


def test_the_query_depends_on_the_training_part_alone():
    states, codes = world(80)
    train = np.arange(80) < 60
    spoilt = States(states.vectors.copy(), states.counts)
    spoilt.vectors[np.repeat(~train, states.counts)] = 50
    other = np.where(train, codes, 1 - codes)
    query = Attended(states, codes, 2).query(train)
    np.testing.assert_array_equal(Attended(spoilt, other, 2).query(train), query)
    assert not np.array_equal(Attended(states, codes, 2).query(~train), query)


def test_other_labels_have_another_query():
    states, codes = world(80)
    everyone = np.ones(80, dtype=bool)
    first = Attended(states, codes, 2).query(everyone)
    assert not np.array_equal(Attended(states, codes[::-1].copy(), 2).query(everyone), first)


@pytest.mark.parametrize("n_classes", [2, 4])
def test_what_is_learned_fits_its_texts_better_than_the_mean_and_is_the_same_every_time(n_classes):
    states, codes = world(100)
    codes = codes + 2 * (np.arange(100) % 2) if n_classes == 4 else codes
    query = learned(states, codes, n_classes)
    assert np.abs(query).max() > 0
    np.testing.assert_array_equal(learned(states, codes, n_classes), query)
