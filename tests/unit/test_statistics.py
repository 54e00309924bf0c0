"""The bootstrap: known answers, clusters, pairs."""

import numpy as np
import pytest

from tessera import statistics
from tessera.metrics import macro_f1
from tessera.statistics import Answers


def answers(rng, groups, size, right=0.8, together=1.0):
    """Balanced binary answers in groups; a share `together` of the groups is right or wrong as one."""
    truth = np.tile([0, 1], groups * size // 2)
    group = np.repeat(np.arange(groups), size)
    of_group = (rng.random(groups) < right)[group]
    of_example = rng.random(groups * size) < right
    correct = np.where((rng.random(groups) < together)[group], of_group, of_example)
    return Answers(truth, np.where(correct, truth, 1 - truth), group, 2)


def by_hand(parts, replicates):
    """Groups drawn one by one and examples repeated."""
    names = np.unique(np.concatenate([part.groups for part in parts]))
    scores = []
    for weights in np.concatenate(list(statistics.draws(len(names), replicates))):
        times = [weights[np.searchsorted(names, part.groups)].astype(int) for part in parts]
        drawn = [(np.repeat(p.truth, t), np.repeat(p.predicted, t)) for p, t in zip(parts, times, strict=True)]
        scores.append(np.mean([macro_f1(truth, predicted, parts[0].n_classes) for truth, predicted in drawn]))
    return scores


def test_the_interval_is_that_of_scores_recomputed_one_replicate_at_a_time():
    rng = np.random.default_rng(0)
    parts = [answers(rng, 30, 2), answers(rng, 40, 2, 0.6)]
    found = statistics.score(parts, replicates=60)
    low, high = np.quantile(by_hand(parts, 60), [0.025, 0.975])
    assert found.value == pytest.approx(np.mean([part.macro_f1() for part in parts]))
    assert (found.low, found.high) == pytest.approx((low, high))


def test_intervals_hold_the_truth_about_as_often_as_they_say():
    # With balanced labels and errors alike for both, the macro-F1 of the population is the share of right answers.
    rng = np.random.default_rng(1)
    found = [statistics.score([answers(rng, 100, 4, right=0.7)], replicates=200) for _ in range(200)]
    held = np.mean([one.low <= 0.7 <= one.high for one in found])
    assert 0.9 <= held <= 0.985


def test_examples_drawn_as_if_they_were_not_in_groups_would_promise_too_much():
    rng = np.random.default_rng(2)
    parts = [answers(rng, 80, 6, right=0.7) for _ in range(60)]
    loose = [Answers(part.truth, part.predicted, np.arange(len(part.truth)), 2) for part in parts]
    held, held_loose = (
        np.mean([one.low <= 0.7 <= one.high for one in (statistics.score([part], 200) for part in of_kind)])
        for of_kind in (parts, loose)
    )
    assert held > 0.88
    assert held_loose < 0.75


def test_a_difference_is_of_the_same_examples_and_so_narrower_than_its_scores():
    rng = np.random.default_rng(3)
    a = answers(rng, 150, 2, right=0.7)
    flips = rng.random(len(a.truth)) < 0.03
    b = Answers(a.truth, np.where(flips, 1 - a.predicted, a.predicted), a.groups, 2)
    found, of_a = statistics.difference([a], [b]), statistics.score([a])
    assert found.value == pytest.approx(a.macro_f1() - b.macro_f1())
    assert found.low <= found.value <= found.high
    assert found.high - found.low < 0.6 * (of_a.high - of_a.low)


def test_an_arm_does_not_differ_from_itself():
    part = answers(np.random.default_rng(4), 50, 2)
    found = statistics.difference([part], [part])
    assert (found.value, found.low, found.high) == (0, 0, 0)


def test_answers_about_other_examples_are_not_paired():
    rng = np.random.default_rng(5)
    with pytest.raises(ValueError, match="different examples"):
        statistics.difference([answers(rng, 20, 2)], [answers(rng, 21, 2)])


def test_draws_are_the_same_for_every_arm_and_run(monkeypatch):
    first = np.concatenate(list(statistics.draws(30, 50)))
    statistics._drawn.cache_clear()
    np.testing.assert_array_equal(first, np.concatenate(list(statistics.draws(30, 50))))
    assert (first.sum(axis=1) == 30).all()
    assert first.shape == (50, 30)


def test_many_groups_are_drawn_in_blocks(monkeypatch):
    monkeypatch.setattr(statistics, "BLOCK", 200)
    blocks = list(statistics.draws(30, 50))
    assert [len(block) for block in blocks] == [6] * 8 + [2]
    assert len(np.unique(np.concatenate(blocks), axis=0)) == 50


def test_replicates_that_leave_a_test_part_empty_do_not_count_for_it():
    full = answers(np.random.default_rng(6), 40, 2)
    single = Answers(np.array([0, 1]), np.array([0, 1]), np.array([40, 40]), 2)
    found = statistics.score([full, single], replicates=100)
    # The single group is perfect whenever it is drawn, and drawn in about 63 % of the replicates.
    assert found.value == pytest.approx((full.macro_f1() + 1) / 2)
    assert np.isfinite([found.low, found.high]).all()
    assert found.low < full.macro_f1() + 0.05
