"""Splits: the published ones draw by draw, and the strict ones by what they promise."""

import numpy as np
import pytest
from sklearn.model_selection import StratifiedKFold, train_test_split

from tessera import splits


@pytest.mark.parametrize("seed", range(6))
def test_the_paper_split_and_folds_are_scikit_learns(seed):
    rng = np.random.default_rng(seed)
    codes = rng.choice(4, size=rng.integers(60, 240), p=[0.4, 0.3, 0.2, 0.1])
    (split,) = splits.paper_splits(codes, np.zeros(len(codes), int))
    rows = np.arange(len(codes))
    train, _ = train_test_split(rows, test_size=0.2, random_state=42, stratify=codes)
    np.testing.assert_array_equal(np.flatnonzero(split.train), np.sort(train))
    for (fit, held_out), (_, theirs) in zip(split.inner(), StratifiedKFold(5).split(train, codes[train]), strict=True):
        np.testing.assert_array_equal(np.flatnonzero(held_out), np.sort(train[theirs]))
        np.testing.assert_array_equal(fit | held_out, split.train)


def test_paper_does_not_keep_groups_together():
    groups = np.arange(160) // 2
    codes = groups % 3
    (split,) = splits.paper_splits(codes, groups)
    assert set(groups[split.train]) & set(groups[~split.train])


@pytest.mark.parametrize(
    ("counts", "reason"),
    [
        ([40, 40, 1], "single example"),
        ([40, 40, 5], "4 training examples, too few for 5 folds"),
        ([2] * 40, "the test part fewer examples than labels"),
        ([60], "only one label"),
    ],
)
def test_paper_says_why_a_class_is_too_small(counts, reason):
    codes = np.repeat(np.arange(len(counts)), counts)
    (split,) = splits.paper_splits(codes, np.arange(len(codes)))
    assert reason in split.problem


def strict_splits(codes, groups, **settings):
    settings = {"seeds": 4, "test_size": 0.2, "inner_folds": 3} | settings
    return splits.strict_splits(np.asarray(codes), np.asarray(groups), **settings)


def test_groups_never_straddle_a_split_or_an_inner_fold():
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 60, 300)
    codes = rng.integers(0, 3, 300)
    for split in strict_splits(codes, groups):
        assert split.problem == ""
        assert not set(groups[split.train]) & set(groups[~split.train])
        for fit, held_out in split.inner():
            assert not set(groups[fit]) & set(groups[held_out])
            assert not (fit | held_out)[~split.train].any()


def test_labels_keep_their_proportions_as_well_as_groups_allow():
    codes = np.repeat([0, 1, 2], [300, 100, 40])
    for split in strict_splits(codes, np.arange(440)):
        np.testing.assert_allclose(np.bincount(codes[~split.train]), [60, 20, 8], atol=1)
        for _, held_out in split.inner():
            np.testing.assert_allclose(np.bincount(codes[held_out]), [80, 80 / 3, 32 / 3], atol=1)
    sizes = np.random.default_rng(1).integers(1, 12, 120)
    groups = np.repeat(np.arange(120), sizes)
    codes = np.random.default_rng(2).integers(0, 2, len(groups))
    for split in strict_splits(codes, groups):
        shares = np.bincount(codes[~split.train]) / np.bincount(codes)
        np.testing.assert_allclose(shares, 0.2, atol=0.03)


def test_splits_differ_by_seed_and_depend_on_labels_groups_and_seed_alone():
    codes, groups = np.tile([0, 1], 60), np.arange(120)
    first, again = strict_splits(codes, groups), strict_splits(codes, groups)
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one.folds, other.folds)
    tests = {tuple(np.flatnonzero(~split.train)) for split in first}
    assert len(tests) == len(first)
    more_seeds = strict_splits(codes, groups, seeds=6)
    np.testing.assert_array_equal(first[3].folds, more_seeds[3].folds)


@pytest.mark.parametrize(
    ("codes", "groups", "reason"),
    [
        ([0] * 60, range(60), "there is only one label"),
        ([0] * 40 + [1] * 20, [*range(40), *[99] * 20], "none in the test part"),
        ([0] * 40 + [1] * 2, range(42), "a label with too few examples or groups"),
    ],
)
def test_a_label_that_cannot_be_in_every_part_is_a_reason(codes, groups, reason):
    for split in strict_splits(codes, list(groups), seeds=2):
        assert reason in split.problem
