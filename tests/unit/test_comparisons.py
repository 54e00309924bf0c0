"""Over datasets: tests against hand-worked and enumerated answers, and how often they are wrong where nothing differs."""

from itertools import product

import numpy as np
import pytest
from scipy import stats

from tessera import comparisons


def rows(differences, a="sae", b="hidden", model="small", protocol="strict"):
    key = {"protocol": protocol, "model": model, "arm_a": a, "arm_b": b}
    return [key | {"dataset": f"task-{number}", "difference": value} for number, value in enumerate(differences)]


def compared(*families):
    return comparisons.compared([row for family in families for row in family]).to_pylist()


def enumerated(values):
    """Two-sided p of the signed-rank test, from every way to set the signs."""
    ranks = stats.rankdata(np.abs(values))
    sums = np.array([ranks[np.array(signs)].sum() for signs in product([False, True], repeat=len(values))])
    observed = ranks[np.asarray(values) > 0].sum()
    return min(1, 2 * min((sums >= observed).mean(), (sums <= observed).mean()))


def test_holm_is_the_example_worked_by_hand():
    # In order: 0.005 * 4, 0.01 * 3, 0.03 * 2, 0.04 * 1; the last may not be below the one before it.
    assert comparisons.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert comparisons.holm([0.7, 0.6]) == [1, 1]
    assert comparisons.holm([0.02]) == [0.02]
    assert comparisons.holm([]) == []


def test_the_signed_rank_test_is_exact():
    values = np.array([0.03, -0.01, 0.05, 0.02, 0.07, 0.004, -0.006, 0.08])
    assert comparisons.wilcoxon(values) == pytest.approx(enumerated(values))
    assert comparisons.wilcoxon(values) == pytest.approx(stats.wilcoxon(values, method="exact").pvalue)


def test_the_signed_rank_test_is_exact_where_differences_are_equally_large():
    values = np.array([0.02, 0.02, -0.02, 0.04, 0.04, 0.06, -0.06])
    assert comparisons.wilcoxon(values) == pytest.approx(enumerated(values))


def test_ties_are_no_evidence():
    values = np.array([0.03, -0.01, 0.05, 0.02, 0.07])
    assert comparisons.wilcoxon(np.array([*values, 0, 0, 0])) == pytest.approx(comparisons.wilcoxon(values))
    assert comparisons.wilcoxon(np.zeros(9)) == 1


def test_many_datasets_are_tested_by_the_normal_distribution():
    values = np.random.default_rng(0).normal(0.3, 1, 60)
    assert comparisons.wilcoxon(values) == pytest.approx(stats.wilcoxon(values, method="asymptotic").pvalue)


def test_the_rank_biserial_correlation_by_hand():
    # By size 1, 2, 3, 4 are ranked 1, 2, 3, 4: 1 + 3 + 4 above zero and 2 below, of 10.
    assert comparisons.rank_biserial(np.array([1, -2, 3, 4])) == pytest.approx(0.6)
    assert comparisons.rank_biserial(np.array([-1, -2, 0])) == -1
    assert comparisons.rank_biserial(np.zeros(3)) == 0


def test_a_comparison_describes_its_differences():
    (row,) = compared(rows([0.1, -0.02, 0.04, 0.0, 0.03, 0.05, 0.01]))
    values = np.array([0.1, -0.02, 0.04, 0.0, 0.03, 0.05, 0.01])
    assert (row["n_datasets"], row["wins"], row["ties"], row["losses"]) == (7, 5, 1, 1)
    assert (row["mean"], row["median"]) == pytest.approx((values.mean(), 0.03))
    assert row["standardised"] == pytest.approx(values.mean() / values.std(ddof=1))
    # Six differ; -0.02 has the second rank of them.
    assert row["rank_biserial"] == pytest.approx((21 - 2 - 2) / 21)
    assert row["p"] == pytest.approx(enumerated(values[values != 0]))


def test_what_differs_by_rounding_is_a_tie():
    (row,) = compared(rows([0.1 + 0.2 - 0.3] * 6))
    assert (row["ties"], row["p"], row["standardised"], row["verdict"]) == (6, 1, None, "cannot be told")


def test_fewer_than_six_datasets_have_no_p_and_no_verdict_however_clear_they_look():
    (row,) = compared(rows([0.3, 0.31, 0.32, 0.33, 0.34]))
    assert (row["p"], row["p_holm"], row["n_comparisons"], row["verdict"]) == (None, None, None, "too few datasets")
    assert (row["wins"], row["rank_biserial"]) == (5, 1)
    assert enumerated([0.3, 0.31, 0.32, 0.33, 0.34]) > comparisons.ALPHA
    (row,) = compared(rows([0.3]))
    assert row["standardised"] is None


def test_verdicts_name_the_better_arm():
    up = [0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.07]
    found = compared(rows(up), rows([-value for value in up], model="large"), rows([1, -1, 2, -2, 3, -3], b="tfidf"))
    assert [row["verdict"] for row in found] == ["a better", "b better", "cannot be told"]


def test_every_comparison_of_a_protocol_is_corrected_for_all_the_others():
    up = [0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.07]
    alone = compared(rows(up))[0]
    assert (alone["p_holm"], alone["n_comparisons"]) == (alone["p"], 1)
    among = compared(
        rows(up),
        *(rows([0.01, -0.02, 0.03, -0.04, 0.05, -0.06], model=f"model-{number}") for number in range(3)),
        rows(up[:5], b="tfidf"),
        rows(up, protocol="paper"),
    )
    assert (among[0]["p"], among[0]["n_comparisons"]) == (alone["p"], 4)
    assert among[0]["p_holm"] == pytest.approx(4 * alone["p"])
    assert among[0]["verdict"] == "cannot be told"
    assert (among[-1]["n_comparisons"], among[-1]["verdict"]) == (1, "a better")


def test_where_no_arm_is_better_at_most_one_study_in_twenty_says_that_any_is():
    rng = np.random.default_rng(0)
    wrong = 0
    for _ in range(1000):
        # Heavy tails, and what one dataset does to one pair of arms it does to the others, too.
        shared = rng.standard_t(3, 12)
        families = [rows(shared + rng.standard_t(3, 12), model=f"model-{number}") for number in range(5)]
        wrong += any(row["verdict"] != "cannot be told" for row in compared(*families))
    assert 0.005 < wrong / 1000 <= 0.05


def test_an_arm_that_is_better_is_mostly_found_so():
    rng = np.random.default_rng(1)
    found = [
        compared(*(rows(rng.normal(1.2, 1, 15), model=f"model-{number}") for number in range(4))) for _ in range(50)
    ]
    assert np.mean([row["verdict"] == "a better" for family in found for row in family]) > 0.8


def test_no_differences_are_an_empty_table():
    assert compared() == []


# --- ranks ---------------------------------------------------------------------------------------------------------


def scored(scores, model="small", protocol="strict"):
    """Rows of the table of arms; text arms belong to no model."""
    return [
        {"protocol": protocol, "dataset": dataset, "arm": arm, "macro_f1": score}
        | {"model": "text" if arm == "tfidf" else model}
        for dataset, of_dataset in scores.items()
        for arm, score in of_dataset.items()
    ]


def ranked(arms):
    return {(row["model"], row["arm"]): row for row in comparisons.ranked(arms).to_pylist()}


def test_ranks_are_means_over_datasets_and_equal_scores_share_one():
    found = ranked(
        scored({
            "a": {"sae": 0.9, "hidden": 0.8, "tfidf": 0.7},
            "b": {"sae": 0.9, "hidden": 0.9, "tfidf": 0.95},
            "c": {"sae": 0.6, "hidden": 0.7, "tfidf": 0.5},
        })
    )  # fmt: skip
    means = {arm: row["mean_rank"] for (_, arm), row in found.items()}
    assert means == pytest.approx({"sae": (1 + 2.5 + 2) / 3, "hidden": (2 + 2.5 + 1) / 3, "tfidf": (3 + 1 + 3) / 3})
    row = found["small", "sae"]
    assert (row["n_arms"], row["n_datasets"], row["n_left_out"]) == (3, 3, 0)
    assert (row["low"], row["high"]) == (None, None)


def test_a_dataset_without_a_score_of_every_arm_is_left_out():
    arms = scored({"a": {"sae": 0.9, "tfidf": 0.7}, "b": {"sae": 0.5, "tfidf": 0.7}, "c": {"sae": 0.5, "tfidf": None}})
    row = ranked(arms)["small", "sae"]
    assert (row["mean_rank"], row["n_datasets"], row["n_left_out"]) == (1.5, 2, 1)


def test_arms_that_share_no_dataset_have_no_rank():
    row = ranked(scored({"a": {"sae": 0.9}, "b": {"hidden": 0.7}}))["small", "sae"]
    assert (row["mean_rank"], row["low"], row["n_datasets"], row["n_left_out"]) == (None, None, 0, 2)


def test_text_arms_stand_in_every_model_and_alone_where_there_is_none():
    text = scored({"a": {"tfidf": 0.7}})
    assert set(ranked(text)) == {("text", "tfidf")}
    both = [*text, *scored({"a": {"sae": 0.9}}), *scored({"a": {"sae": 0.6}}, model="large")]
    assert {key: row["mean_rank"] for key, row in ranked(both).items()} == {
        ("small", "sae"): 1, ("small", "tfidf"): 2, ("large", "sae"): 2, ("large", "tfidf"): 1,
    }  # fmt: skip


def test_ranks_have_an_interval_from_as_many_datasets_as_a_test_needs():
    def over(datasets):
        return ranked(scored({f"task-{n}": {"sae": n % 3, "hidden": 1.5} for n in range(datasets)}))["small", "hidden"]

    assert (over(5)["low"], over(5)["high"]) == (None, None)
    assert over(6)["mean_rank"] == pytest.approx(8 / 6)
    assert 1 <= over(6)["low"] < 8 / 6 < over(6)["high"] <= 2


def test_the_interval_of_a_rank_holds_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(2)
    held = []
    for _ in range(400):
        ranks = stats.rankdata(rng.normal(size=(20, 4)), axis=1)
        found = comparisons._mean_ranks(-ranks)
        held += [one["low"] <= 2.5 <= one["high"] for one in found]
    assert 0.93 <= np.mean(held) <= 0.97
