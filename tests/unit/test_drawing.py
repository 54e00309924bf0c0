from collections import Counter
from itertools import product

import numpy as np
import pytest

from tessera.drawing import draw, shares


def some_rows(n, seed, classes=3, subsets=2):
    generator = np.random.default_rng(seed)
    labels = generator.choice(classes, n, p=np.array([0.6, 0.3, 0.1])[:classes])
    labels[: 2 * classes] = np.repeat(np.arange(classes), 2)
    return labels, generator.integers(subsets, size=n), [f"text {i}".encode() for i in range(n)]


@pytest.mark.parametrize("total", [6, 7, 20, 50, 99])
def test_shares_add_up_and_stray_less_than_one_from_proportion(total):
    sizes = np.array([50, 30, 15, 5])
    result = shares(sizes, total, 0, list("abcd"), 1)
    assert result.sum() == total
    assert (abs(result - total * sizes / sizes.sum()) < 1).all()


def test_no_share_falls_below_the_least_and_the_others_stay_in_proportion():
    result = shares(np.array([600, 300, 3, 2]), 94, 2, list("abcd"), 1)
    assert result.tolist() == [60, 30, 2, 2]


def test_shares_never_exceed_what_there_is():
    generator = np.random.default_rng(0)
    for _ in range(300):
        sizes = generator.integers(2, 40, generator.integers(2, 8))
        total = int(generator.integers(2 * len(sizes), sizes.sum() + 1))
        result = shares(sizes, total, 2, [str(i) for i in range(len(sizes))], 3)
        assert result.sum() == total
        assert ((result >= 2) & (result <= sizes)).all()


def test_equal_remainders_do_not_favour_the_same_subsets_in_every_class():
    winners = [shares(np.full(8, 10), 4, 0, [f"{c} {s}" for s in range(8)], 5) for c in range(40)]
    assert (np.sum(winners, axis=0) > 8).all()


@pytest.mark.parametrize("total", [10, 37, 100])
def test_single_examples_are_drawn_to_the_exact_total_in_proportion(total):
    labels, subsets, contents = some_rows(400, 0)
    drawn = draw(labels, subsets, np.arange(400), contents, total=total, seed=1)
    assert drawn.sum() == total
    for label in range(3):
        share = max(2, total * (labels == label).mean())
        assert abs((drawn & (labels == label)).sum() - share) <= 2
        for subset in range(2):
            stratum = (labels == label) & (subsets == subset)
            assert abs((drawn & stratum).sum() - total * stratum.mean()) <= 3


def test_the_draw_does_not_depend_on_the_order_of_rows():
    labels, subsets, contents = some_rows(300, 2)
    units = np.random.default_rng(0).integers(120, size=300)
    order = np.random.default_rng(1).permutation(300)
    there = draw(labels, subsets, units, contents, total=60, seed=4)
    back = draw(labels[order], subsets[order], units[order], [contents[i] for i in order], total=60, seed=4)
    assert (there[order] == back).all()


def test_another_seed_draws_others():
    labels, subsets, contents = some_rows(300, 2)
    draws = [draw(labels, subsets, np.arange(300), contents, total=60, seed=seed) for seed in (1, 1, 2)]
    assert (draws[0] == draws[1]).all()
    assert (draws[0] != draws[2]).any()


def test_every_example_of_a_stratum_is_as_likely_as_any_other():
    labels, subsets = np.repeat([0, 1], 20), np.zeros(40, dtype=int)
    contents = [bytes([i]) for i in range(40)]
    times = sum(draw(labels, subsets, np.arange(40), contents, total=10, seed=seed).astype(int) for seed in range(800))
    # Binomial(800, 1/4): six standard deviations are 73.
    assert abs(times - 200).max() < 74


def test_units_are_drawn_whole_within_the_total_and_each_class_keeps_two():
    for seed in range(40):
        labels, subsets, contents = some_rows(200, seed)
        units = np.random.default_rng(seed).integers(90, size=200)
        drawn = draw(labels, subsets, units, contents, total=50, seed=seed)
        assert all(len(set(drawn[units == unit])) <= 1 for unit in range(90))
        assert min(Counter(labels[drawn].tolist()).values()) >= 2
        assert len(set(labels[drawn])) == 3
        assert 30 <= drawn.sum() <= 50


def test_parallel_translations_fill_the_total_but_for_an_incomplete_group():
    pairs = list(product(range(100), range(5)))
    units = np.array([meaning for meaning, _ in pairs])
    subsets = np.array([language for _, language in pairs])
    drawn = draw(units % 2, subsets, units, [str(pair).encode() for pair in pairs], total=103, seed=0)
    assert drawn.sum() == 100
    assert Counter(zip(units[drawn] % 2, subsets[drawn], strict=True)) == dict.fromkeys(product(range(2), range(5)), 10)


def test_a_class_that_lives_in_large_units_alone_gets_the_smallest_beyond_its_share():
    labels, units = np.array([0] * 40 + [1] * 7), np.array([*range(40), 50, 50, 50, 50, 51, 51, 51])
    contents = [bytes([i]) for i in range(47)]
    for seed in range(10):
        drawn = draw(labels, np.zeros(47, dtype=int), units, contents, total=10, seed=seed)
        assert drawn[40:].tolist() == [False] * 4 + [True] * 3
        assert drawn.sum() == 10


def test_rare_classes_take_their_two_from_all_others_alike():
    labels = np.array([0] * 300 + [1] * 100 + [*range(2, 12)] * 2)
    contents = [f"text {i}".encode() for i in range(420)]
    for seed in range(5):
        drawn = draw(labels, np.zeros(420, dtype=int), np.arange(420), contents, total=60, seed=seed)
        assert Counter(labels[drawn].tolist()) == {0: 30, 1: 10, **dict.fromkeys(range(2, 12), 2)}
