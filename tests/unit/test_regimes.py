"""Regimes change what a probe is trained on, by seed, and never what it is tested on."""

import numpy as np
import pytest

from tessera.regimes import FULL, all_of, fewer, noisy, shuffled, unequal
from tessera.splits import UNUSED, strict_splits

SETTINGS = {"train_shares": [0.2], "label_noise": [0.3], "imbalance": [8.0], "shuffled": True}
GROUPS = np.arange(600) // 2
CODES = np.random.default_rng(0).integers(0, 3, 300)[GROUPS]
SPLITS = strict_splits(CODES, GROUPS, seeds=3, test_size=0.25, inner_folds=3)


def test_the_unchanged_regime_comes_first_and_names_say_what_is_done() -> None:
    assert [regime.name for regime in all_of(SETTINGS)] == [FULL, "train-0.2", "noise-0.3", "imbalance-8", "shuffled"]
    assert [regime.name for regime in all_of({key: [] for key in SETTINGS}) if regime.name != FULL] == []


@pytest.mark.parametrize("regime", all_of(SETTINGS), ids=lambda regime: regime.name)
@pytest.mark.parametrize("split", SPLITS, ids=lambda split: f"seed {split.seed}")
def test_the_test_part_and_its_labels_stay_and_what_is_drawn_stays_drawn(regime, split) -> None:
    changed, labels = regime.apply(split, CODES, GROUPS)
    assert (changed.test == split.test).all()
    assert (labels[changed.test] == CODES[split.test]).all()
    assert not changed.problem
    assert not (changed.train & ~split.train).any()
    again, same = regime.apply(split, CODES, GROUPS)
    assert (again.folds == changed.folds).all()
    assert (same == labels).all()


def chance() -> np.random.Generator:
    return np.random.default_rng(1)


def test_fewer_examples_keep_proportions_and_whole_groups() -> None:
    folds, labels = fewer(0.2, SPLITS[0], CODES, GROUPS, chance())
    kept = folds >= 0
    assert kept.sum() == pytest.approx(0.2 * SPLITS[0].train.sum(), rel=0.05)
    shares = [np.bincount(CODES[part]) / part.sum() for part in (kept, SPLITS[0].train)]
    assert shares[0] == pytest.approx(shares[1], abs=0.03)
    assert not set(GROUPS[kept]) & set(GROUPS[folds == UNUSED])
    assert (labels == CODES).all()


def test_noise_changes_the_share_it_says_to_other_labels() -> None:
    folds, labels = noisy(0.3, SPLITS[0], CODES, GROUPS, chance())
    assert (labels != CODES).sum() == round(0.3 * SPLITS[0].train.sum())
    assert (folds == SPLITS[0].folds).all()


def test_imbalance_goes_in_equal_steps_from_frequent_to_rare() -> None:
    folds, _ = unequal(8.0, SPLITS[0], CODES, GROUPS, chance())
    counts = np.sort(np.bincount(CODES[folds >= 0]))[::-1]
    assert counts[0] / counts[2] == pytest.approx(8, rel=0.15)
    assert counts[0] / counts[1] == pytest.approx(8**0.5, rel=0.15)


def test_shuffled_labels_keep_their_counts_and_lose_their_meaning() -> None:
    _, labels = shuffled(SPLITS[0], CODES, GROUPS, chance())
    train = SPLITS[0].train
    assert (np.bincount(labels[train]) == np.bincount(CODES[train])).all()
    assert (labels[train] == CODES[train]).mean() == pytest.approx(1 / 3, abs=0.08)


def test_a_split_without_enough_left_says_so() -> None:
    codes = np.repeat([0, 1], [60, 6])
    (split,) = strict_splits(codes, np.arange(66), seeds=1, test_size=0.3, inner_folds=2)
    (_, few) = all_of({**{key: [] for key in SETTINGS}, "train_shares": [0.1]})
    assert "too few examples" in few.apply(split, codes, np.arange(66))[0].problem
