"""The bootstrap: known answers, clusters, pairs."""

import numpy as np
import pytest
from scipy import stats

from tessera import statistics
from tessera.metrics import f1_of_confusions, macro_f1
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
    value, scores = np.mean([part.macro_f1() for part in parts]), np.array(by_hand(parts, 60))
    # Thirty groups in one part and forty in the other.
    widening, t = np.sqrt(35 / 34), stats.t(34).ppf(0.975)
    middle = 2 * stats.norm.ppf(((scores < value - 1e-9).mean() + (scores < value + 1e-9).mean()) / 2)
    low, high = np.quantile(scores, stats.norm.cdf([middle - widening * t, middle + widening * t]))
    assert found.value == pytest.approx(value)
    assert (found.low, found.high) == pytest.approx((low, high))
    assert found.error == pytest.approx(scores.std() * widening)


def population(rng, groups, size, right, together, shares):
    """Answers in groups: labels drawn by their shares, right as often as `right` says, else any other label."""
    truth = rng.choice(len(shares), p=shares, size=groups * size)
    group = np.repeat(np.arange(groups), size)
    chance = np.where((rng.random(groups) < together)[group], rng.random(groups)[group], rng.random(groups * size))
    other = (truth + rng.integers(1, len(shares), groups * size)) % len(shares)
    return Answers(truth, np.where(chance < np.asarray(right)[truth], truth, other), group, len(shares))


def part_of(whole, groups):
    inside = np.isin(whole.groups, groups)
    return Answers(whole.truth[inside], whole.predicted[inside], whole.groups[inside], whole.n_classes)


def its_macro_f1(right, shares):
    """Of a population without end."""
    wrong = (1 - np.asarray(right)) / (len(shares) - 1)
    confusion = np.where(np.eye(len(shares), dtype=bool), np.asarray(right)[:, None], wrong[:, None])
    return float(f1_of_confusions((np.asarray(shares)[:, None] * confusion).ravel()))


# Groups, their size, how often each label is answered right, share of groups that are right or wrong as one, labels.
POPULATIONS = {
    "two labels, groups as one": (40, 4, [0.7] * 2, 1.0, [0.5] * 2),
    "few groups": (30, 2, [0.8] * 2, 0.5, [0.5] * 2),
    "a rare label": (100, 2, [0.95, 0.6], 0.5, [0.9, 0.1]),
    "eight labels": (60, 2, [0.6] * 8, 0.5, [1 / 8] * 8),
}


@pytest.mark.parametrize("name", POPULATIONS)
def test_intervals_hold_the_truth_as_often_as_they_say(name):
    rng = np.random.default_rng(1)
    groups, size, right, together, shares = POPULATIONS[name]
    truth = its_macro_f1(right, shares)
    found = [statistics.score([population(rng, groups, size, right, together, shares)]) for _ in range(1500)]
    assert 0.93 <= np.mean([one.low <= truth <= one.high for one in found]) <= 0.97
    assert np.mean([one.error for one in found]) == pytest.approx(np.std([one.value for one in found]), rel=0.1)


def test_intervals_over_seeds_that_share_groups_hold_the_truth_as_often_as_they_say():
    rng = np.random.default_rng(2)
    right, shares, held = [0.85] * 2, [0.5] * 2, []
    for _ in range(600):
        whole = population(rng, 150, 3, right, 0.5, shares)
        found = statistics.score([part_of(whole, rng.permutation(150)[:30]) for _ in range(5)])
        held.append(found.low <= its_macro_f1(right, shares) <= found.high)
    assert 0.93 <= np.mean(held) <= 0.97


def test_intervals_of_a_difference_between_equals_leave_zero_out_as_seldom_as_they_say():
    rng = np.random.default_rng(3)
    held = []
    for _ in range(1000):
        a = population(rng, 60, 3, [0.8] * 3, 0.5, [1 / 3] * 3)
        again = np.where(rng.random(len(a.truth)) < 0.8, a.truth, (a.truth + rng.integers(1, 3, len(a.truth))) % 3)
        b = Answers(a.truth, np.where(rng.random(len(a.truth)) < 0.4, again, a.predicted), a.groups, 3)
        found = statistics.difference([a], [b])
        held.append(found.low <= 0 <= found.high)
    assert 0.93 <= np.mean(held) <= 0.97


def test_where_labels_have_few_examples_percentiles_alone_promise_too_much():
    rng = np.random.default_rng(4)
    right, shares, held, held_by_percentiles = [0.5] * 8, [1 / 8] * 8, [], []
    truth = its_macro_f1(right, shares)
    for _ in range(250):
        whole = population(rng, 240, 2, right, 0.5, shares)
        parts = [part_of(whole, rng.permutation(240)[:48]) for _ in range(5)]
        low, high = np.quantile(next(statistics._replicated([parts], 1000)), [0.025, 0.975])
        found = statistics.score(parts)
        held_by_percentiles.append(low <= truth <= high)
        held.append(found.low <= truth <= found.high)
    # Twelve examples a label in each part: the correction is itself estimated, and gets most of the way.
    assert np.mean(held_by_percentiles) < 0.88
    assert 0.9 <= np.mean(held) <= 0.97


def test_a_faultless_arm_is_not_certain_to_be_so():
    part = answers(np.random.default_rng(7), 40, 2, right=1.0)
    found = statistics.score([part])
    # Were fewer than this share of all groups free of errors, forty in a row would be rarer than one case in forty.
    assert (found.value, found.high) == (1, 1)
    assert found.low**40 == pytest.approx(0.025)


def test_a_single_group_tells_nothing_of_others():
    single = Answers(np.array([0, 1]), np.array([0, 0]), np.array([3, 3]), 2)
    found = statistics.score([single])
    assert (found.low, found.high, found.error) == (None, None, None)


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


# --- the share of a gap --------------------------------------------------------------------------------------------


def answering(truth: np.ndarray, wrong: float, seed: int) -> Answers:
    """Answers of which a share, drawn by seed, is wrong."""
    flipped = np.random.default_rng(seed).random(len(truth)) < wrong
    return Answers(truth, np.where(flipped, 1 - truth, truth), np.arange(len(truth)), 2)


def test_the_share_of_a_gap_is_that_of_the_scores_and_its_interval_holds_the_true_one() -> None:
    truth = np.arange(600) % 2
    inside = 0
    for seed in range(40):
        ceiling, reached = answering(truth, 0.1, 2 * seed), answering(truth, 0.3, 2 * seed + 1)
        found = statistics.share_closed(reached, ceiling, 0.5)
        assert found is not None
        assert found.value == pytest.approx((reached.macro_f1() - 0.5) / (ceiling.macro_f1() - 0.5))
        inside += found.low <= 0.5 <= found.high
    assert inside >= 34
    same = statistics.share_closed(ceiling, ceiling, 0.5)
    assert (same.value, same.low, same.high) == (1.0, 1.0, 1.0)


def test_there_is_no_share_of_a_gap_that_is_not_there() -> None:
    truth = np.arange(100) % 2
    assert statistics.share_closed(answering(truth, 0.2, 0), answering(truth, 0.5, 1), 0.5) is None
    single = Answers(truth, truth, np.zeros(100, int), 2)
    assert statistics.share_closed(single, single, 0.5) is None
