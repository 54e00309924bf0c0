"""The tables: what an arm chooses, what it may look at when it does, and what becomes of failures."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import csv
from sklearn.metrics import precision_recall_fscore_support

from tessera import probes, statistics, tables
from tessera.metrics import macro_f1
from tessera.protocols import CELLS, PREDICTIONS
from tessera.statistics import Answers

LABELS = ["no", "yes"]
EXAMPLES = [f"id-{row:02}" for row in range(40)]
GROUPS = np.arange(40) // 2
SUBSETS = np.where(np.arange(40) % 4 < 2, "de", "en")
TRUTH = np.arange(40) // 2 % 2


class Run:
    """Jobs on disk, made of nothing but the scores and answers that a test is about."""

    def __init__(self, folder):
        self.folder, self.jobs = folder, {}
        columns = {"id": EXAMPLES, "label": [LABELS[code] for code in TRUTH], "subset": SUBSETS, "group": GROUPS}
        pq.write_table(pa.table(columns), folder / "toy.parquet")

    def cell(self, head, *, right=20, validation=0.5, arm="sae", model="small", seed=0, protocol="strict", **columns):
        """A cell that is right on the first `right` of twenty test examples, which depend on the seed."""
        rows, answers = self.jobs.setdefault((model, head, columns.get("pooling")), ([], []))
        tested = np.arange(seed % 2 * 20, seed % 2 * 20 + 20)
        predicted = np.where(np.arange(20) < right, TRUTH[tested], 1 - TRUTH[tested])
        key = {"model": model, "dataset": "toy", "head": head, "arm": arm, "seed": seed, "protocol": protocol}
        key |= {"classifier": "l2", "regime": "full", "k": None, "threshold": None, "status": "ok", "reason": ""}
        key |= {"validation": validation, "c": 1.0} | columns
        for subset in ("all", "de", "en"):
            inside = np.ones(20, bool) if subset == "all" else SUBSETS[tested] == subset
            score = macro_f1(TRUTH[tested][inside], predicted[inside], 2)
            scores = {"macro_f1": score, "accuracy": np.mean((predicted == TRUTH[tested])[inside]), "brier": 0.25}
            scores = scores if key["status"] == "ok" else {"validation": None}
            rows.append(key | {"subset": subset, "n_test": int(inside.sum())} | scores)
        if key["status"] == "ok" and (key["regime"], key["k"]) == ("full", None):
            for row, code in zip(tested, predicted, strict=True):
                answer = {"example": EXAMPLES[row], "label": LABELS[TRUTH[row]], "predicted": LABELS[code]}
                answers.append({name: key.get(name) for name in PREDICTIONS.names} | answer)
        return self

    def failed(self, head, reason, **columns):
        return self.cell(head, status="failed", reason=reason, **columns)

    def collect(self):
        files = []
        for number, (rows, answers) in enumerate(self.jobs.values()):
            files.append(self.folder / f"job-{number}.parquet")
            schema = PREDICTIONS.with_metadata({"labels": json.dumps(LABELS)})
            probes.write(pa.Table.from_pylist(rows, CELLS), pa.Table.from_pylist(answers, schema), files[-1])
        return self.collected(files)

    def collected(self, files):
        tables.collect(files, {"toy": self.folder / "toy.parquet"}, self.folder / "tables")
        return {name: pq.ParquetFile(self.folder / "tables" / f"{name}.parquet").read().to_pylist() for name in NAMES}


NOTHING_ELSE = {"penalty": None, "settings": None}
NAMES = ("cells", "arms", "differences", "curves", "comparisons", "ranks", "noise", "classes")


@pytest.fixture
def job(tmp_path):
    return Run(tmp_path)


def arm(found, name="sae", **columns):
    wanted = {"arm": name, "protocol": "strict", "subset": "all"} | columns
    (row,) = (row for row in found["arms"] if all(row[column] == value for column, value in wanted.items()))
    return row


def heads(row):
    return {int(seed): choice["head"] for seed, choice in json.loads(row["chosen"]).items()}


def test_strict_chooses_for_each_seed_by_validation_and_not_by_test_score(job):
    job.cell("a", validation=0.9, right=10, seed=0).cell("b", validation=0.8, right=20, seed=0)
    job.cell("a", validation=0.1, right=20, seed=1).cell("b", validation=0.2, right=12, seed=1)
    row = arm(job.collect())
    assert heads(row) == {0: "a", 1: "b"}
    assert row["accuracy"] == pytest.approx((0.5 + 0.6) / 2)
    assert (row["n_seeds"], row["n_test"], row["optimistic"]) == (2, 20, False)


def test_paper_takes_the_best_test_score_and_says_that_it_is_optimistic(job):
    job.cell("a", validation=0.9, right=10, seed=42, protocol="paper")
    job.cell("b", validation=0.1, right=18, seed=42, protocol="paper")
    row = arm(job.collect(), protocol="paper")
    assert heads(row) == {42: "b"}
    assert row["optimistic"] is True


def test_predictions_of_cells_that_are_not_chosen_are_never_opened(job):
    job.cell("a", validation=0.9).cell("b", validation=0.8)
    job.collect()
    probes.predictions_path(job.folder / "job-1.parquet").unlink()
    found = job.collected([job.folder / "job-0.parquet", job.folder / "job-1.parquet"])
    assert heads(arm(found)) == {0: "a"}


def test_of_equal_cells_the_first_by_head_pooling_and_threshold_is_chosen_and_none_comes_last(job):
    for head, pooling, threshold in [("b", "sum", 1.0), ("a", "sum", None), ("a", "last", None), ("a", "last", 1.0)]:
        job.cell(head, pooling=pooling, threshold=threshold)
    (choice,) = json.loads(arm(job.collect())["chosen"]).values()
    assert choice == {"arm": "sae", "head": "a", "pooling": "last", "threshold": 1.0, "c": 1.0} | NOTHING_ELSE


def test_the_threshold_tells_which_predictions_belong_to_the_cell(job):
    job.cell("a", threshold=None, validation=0.1, right=20).cell("a", threshold=1.0, validation=0.9, right=5)
    row = arm(job.collect())
    assert row["accuracy"] == pytest.approx(0.25)
    assert row["low"] <= row["macro_f1"] <= row["high"] < 0.8


def test_intervals_are_the_clustered_bootstrap_of_the_chosen_answers(job):
    job.cell("a", right=15, seed=0).cell("a", right=11, seed=1)
    row = arm(job.collect())
    parts = [
        Answers(TRUTH[rows], np.where(np.arange(20) < right, TRUTH[rows], 1 - TRUTH[rows]), GROUPS[rows], 2)
        for rows, right in ((slice(0, 20), 15), (slice(20, 40), 11))
    ]
    expected = statistics.score(parts)
    assert (row["macro_f1"], row["low"], row["high"]) == pytest.approx((expected.value, expected.low, expected.high))


def test_every_subset_has_its_row_from_the_same_chosen_cell(job):
    job.cell("a", right=13, validation=0.9).cell("b", right=20, validation=0.1)
    found = job.collect()
    tested, right = np.arange(20), np.arange(20) < 13
    for subset in ("de", "en"):
        row = arm(found, subset=subset)
        assert heads(row) == {0: "a"}
        assert row["accuracy"] == pytest.approx(np.mean(right[SUBSETS[tested] == subset]))
        assert row["low"] <= row["macro_f1"] <= row["high"]


def test_the_last_token_is_an_arm_of_its_own_beside_hidden(job):
    job.cell("layer-1", arm="hidden", pooling="mean", validation=0.9)
    job.cell("layer-1", arm="hidden", pooling="last", validation=0.5)
    job.cell("layer-2", arm="hidden", pooling="last", validation=0.6)
    job.cell("x", pooling="last")
    found = job.collect()
    assert json.loads(arm(found, "hidden")["chosen"])["0"]["pooling"] == "mean"
    assert heads(arm(found, "hidden-last")) == {0: "layer-2"}
    assert {row["arm"] for row in found["arms"]} - set(tables.POOLED) == {"hidden", "hidden-last", "sae"}


def test_failed_cells_are_not_chosen_and_a_lost_seed_is_told(job):
    job.failed("a", "not done", seed=0).cell("b", validation=0.1, seed=0)
    job.failed("a", "not done", seed=1).failed("b", "nothing varies", seed=1)
    row = arm(job.collect())
    assert heads(row) == {0: "b"}
    assert (row["status"], row["n_seeds"]) == ("ok", 1)
    assert row["reason"] == "seed 1: not done, or nothing varies"


def test_an_arm_with_failed_cells_alone_is_a_failed_row_with_the_reasons(job):
    for number in range(5):
        job.failed(f"head-{number}", f"reason {number}")
    found = job.collect()
    row = arm(found)
    assert (row["status"], row["n_seeds"], row["macro_f1"], row["chosen"]) == ("failed", 0, None, "{}")
    assert row["reason"] == "seed 0: reason 0, or reason 1, or reason 2, or 2 other reasons"
    assert len(found["cells"]) == 15


def test_the_classifier_tells_which_predictions_belong_to_the_cell(job):
    job.cell("a", classifier="means", right=5, validation=0.9).cell("a", right=20, validation=0.1)
    found = job.collect()
    assert (arm(found)["macro_f1"], arm(found)["high"]) == (1, 1)
    assert arm(found, "sae-means")["high"] < 1


def test_distance_of_means_is_an_arm_of_its_own_and_not_one_of_the_last_token(job):
    job.cell("a", right=12, validation=0.3).cell("a", classifier="means", right=18, validation=0.9)
    job.cell("layer-1", arm="hidden", pooling="last", right=11)
    job.cell("layer-1", arm="hidden", pooling="last", classifier="means", right=19, validation=0.9)
    found = job.collect()
    assert arm(found)["accuracy"] == pytest.approx(12 / 20)
    assert arm(found, "sae-means")["accuracy"] == pytest.approx(18 / 20)
    assert arm(found, "hidden-means")["accuracy"] == pytest.approx(19 / 20)
    assert arm(found, "hidden-last")["accuracy"] == pytest.approx(11 / 20)


def test_every_penalty_is_a_configuration_and_together_they_are_a_path(job):
    job.cell("a", right=12, validation=0.3)
    for penalty, right, validation, weighed in [(0.5, 9, 0.2, 3), (0.1, 17, 0.8, 40), (0.02, 19, 0.6, 90)]:
        made = {"penalty": penalty, "right": right, "validation": validation, "n_weighed": weighed}
        job.cell("a", classifier="l1", **made).cell("a", classifier="l1", seed=1, **(made | {"n_weighed": weighed + 2}))
    found = job.collect()
    assert arm(found, "sae-l1")["accuracy"] == pytest.approx(17 / 20)
    assert json.loads(arm(found, "sae-l1")["chosen"])["0"]["penalty"] == 0.1
    path = [row for row in found["curves"] if row["classifier"] == "l1"]
    assert [(row["penalty"], row["n_weighed"]) for row in path] == [(0.5, 4), (0.1, 41), (0.02, 91)]


def test_each_label_has_its_scores(job):
    job.cell("a", right=15, seed=0).cell("a", right=10, seed=1)
    rows = {row["label"]: row for row in job.collect()["classes"]}
    expected = []
    for seed, right in ((0, 15), (1, 10)):
        truth = TRUTH[np.arange(seed % 2 * 20, seed % 2 * 20 + 20)]
        predicted = np.where(np.arange(20) < right, truth, 1 - truth)
        expected.append(precision_recall_fscore_support(truth, predicted, labels=[0, 1]))
    for code, label in enumerate(LABELS):
        wanted = np.mean([[part[code] for part in scores] for scores in expected], axis=0)
        assert [rows[label][name] for name in ("precision", "recall", "f1", "n_test")] == pytest.approx(wanted)
        assert rows[label]["n_seeds"] == 2


@pytest.mark.parametrize("columns", [{"regime": "train-0.1"}, {"k": 5}])
def test_a_point_of_a_curve_competes_for_nothing(job, columns):
    job.cell("a", right=12, validation=0.3).cell("a", right=20, validation=0.9, **columns)
    job.cell("pca", arm="pca", right=20, k=5)
    found = job.collect()
    assert arm(found)["accuracy"] == pytest.approx(12 / 20)
    assert {row["arm"] for row in found["arms"]} == {"sae"}
    assert len(found["cells"]) == 9


def test_a_metric_that_a_seed_lacks_is_the_mean_of_the_others(job):
    job.cell("a", seed=0, auroc=0.7, recall_at_fpr=0.2).cell("a", seed=1, auroc=None, recall_at_fpr=0.4)
    row = arm(job.collect())
    assert row["auroc"] == pytest.approx(0.7)
    assert row["recall_at_fpr"] == pytest.approx(0.3)
    assert row["auprc"] is None


def test_differences_are_paired_on_the_seeds_that_both_arms_have(job):
    for seed in (0, 1):
        job.cell("x", right=16, seed=seed)
        job.cell("layer-1", arm="hidden", pooling="mean", right=12, seed=seed)
    job.cell("tfidf-word", arm="tfidf", model="text", right=20, seed=0)
    job.cell("majority", arm="majority", model="text", right=10, seed=0)
    rows = {(row["arm_a"], row["arm_b"]): row for row in job.collect()["differences"]}
    assert set(rows) == {("sae", "hidden"), ("sae", "tfidf"), ("hidden", "tfidf"), ("quiver", "baselines")}
    row = rows["sae", "hidden"]
    assert (row["model"], row["n_seeds"]) == ("small", 2)
    assert row["low"] <= row["difference"] <= row["high"]
    assert row["difference"] > 0
    assert rows["sae", "tfidf"]["n_seeds"] == 1
    assert rows["sae", "tfidf"]["difference"] < 0


# --- what another arrow is worth -----------------------------------------------------------------------------------


def test_the_quiver_picks_by_validation_and_never_by_test_score(job):
    job.cell("layer-1", arm="hidden", pooling="mean", validation=0.6, right=18, seed=0)
    job.cell("a", validation=0.7, right=11, seed=0)
    job.cell("layer-1", arm="hidden", pooling="mean", validation=0.8, right=12, seed=1)
    job.cell("a", validation=0.7, right=20, seed=1)
    found = job.collect()
    assert heads(arm(found, "baselines")) == {0: "layer-1", 1: "layer-1"}
    assert heads(arm(found, "quiver")) == {0: "a", 1: "layer-1"}
    assert arm(found, "quiver")["accuracy"] == pytest.approx((11 + 12) / 40)
    (row,) = (row for row in found["differences"] if row["arm_a"] == "quiver")
    assert row["arm_b"] == "baselines"
    assert row["difference"] == pytest.approx(arm(found, "quiver")["macro_f1"] - arm(found, "baselines")["macro_f1"])
    assert row["difference"] < 0


def test_the_baselines_search_hidden_states_tfidf_and_length_and_nothing_else(job):
    job.cell("a", validation=0.1)
    job.cell("layer-1", arm="hidden", pooling="mean", validation=0.5, seed=0)
    job.cell("tfidf-word", arm="tfidf", model="text", validation=0.6, seed=1).cell("a", validation=0.1, seed=1)
    job.cell("length", arm="length", model="text", validation=0.7, seed=2).cell("a", validation=0.1, seed=2)
    job.cell("layer-1", arm="hidden", pooling="mean", classifier="means", validation=0.9, seed=0)
    job.cell("noise", arm="random", validation=0.9).cell("majority", arm="majority", model="text", validation=0.9)
    found = job.collect()
    for name in tables.POOLED:
        choices = json.loads(arm(found, name)["chosen"])
        assert {seed: choice["arm"] for seed, choice in choices.items()} == {"0": "hidden", "1": "tfidf", "2": "length"}


def test_sae_features_that_are_only_as_good_in_validation_change_nothing(job):
    job.cell("a", validation=0.5, right=20).cell("layer-1", arm="hidden", pooling="mean", validation=0.5, right=12)
    assert heads(arm(job.collect(), "quiver")) == {0: "layer-1"}


def test_a_seed_without_sae_features_says_nothing_of_the_quiver(job):
    for seed in (0, 1):
        job.cell("layer-1", arm="hidden", pooling="mean", seed=seed)
    job.cell("a", validation=0.9, seed=0).failed("a", "not done", seed=1)
    row = arm(job.collect(), "quiver")
    assert heads(row) == {0: "a"}
    assert row["reason"] == "seed 1: not done"


def test_there_is_no_quiver_without_sae_features_without_baselines_or_under_paper(job):
    job.cell("layer-1", arm="hidden", pooling="mean")
    job.cell("a", model="other").cell("a", arm="random")
    job.cell("a", protocol="paper", seed=42).cell("layer-1", arm="hidden", pooling="mean", protocol="paper", seed=42)
    assert not {row["arm"] for row in job.collect()["arms"]} & set(tables.POOLED)


# --- curves, noise, datasets ---------------------------------------------------------------------------------------


def curve(found):
    return {(row["arm"], row["classifier"], row["regime"], row["k"]): row for row in found["curves"]}


def test_a_point_of_a_curve_is_chosen_by_validation_for_each_seed(job):
    job.cell("a", k=5, validation=0.9, right=12, seed=0).cell("b", k=5, validation=0.8, right=20, seed=0)
    job.cell("a", k=5, validation=0.1, right=20, seed=1).cell("b", k=5, validation=0.2, right=16, seed=1)
    found = job.collect()
    row = curve(found)["sae", "l2", "full", 5]
    scores = [
        cell["macro_f1"] for cell in found["cells"] if cell["subset"] == "all" and cell["validation"] in (0.9, 0.2)
    ]
    assert (row["lowest"], row["highest"], row["n_seeds"]) == (min(scores), max(scores), 2)
    assert row["macro_f1"] == pytest.approx(np.mean(scores))


def test_a_curve_ends_in_the_full_point_of_the_same_arm_without_a_threshold(job):
    job.cell("a", k=5, right=11).cell("a", right=14, validation=0.3)
    job.cell("a", threshold=1.0, right=20, validation=0.9)
    job.cell("a", regime="train-0.1", right=12)
    job.cell("a", classifier="means", right=20).cell("layer-1", arm="hidden", pooling="mean")
    found = job.collect()
    assert list(curve(found)) == [
        ("sae", "l2", "full", 5), ("sae", "l2", "full", None), ("sae", "l2", "train-0.1", None)
    ]  # fmt: skip
    (end,) = (cell for cell in found["cells"] if cell["validation"] == 0.3 and cell["subset"] == "all")
    assert curve(found)["sae", "l2", "full", None]["macro_f1"] == end["macro_f1"]


def test_a_point_that_failed_says_why(job):
    job.failed("a", "none left", regime="imbalance-10").cell("a")
    row = curve(job.collect())["sae", "l2", "imbalance-10", None]
    assert (row["status"], row["n_seeds"], row["macro_f1"]) == ("failed", 0, None)
    assert row["reason"] == "seed 0: none left"


def noise(found, name):
    (row,) = (row for row in found["noise"] if row["arm"] == name)
    return row


def test_noise_is_told_over_seeds_over_test_examples_and_for_the_pair_with_the_best_baseline(job):
    for seed, right in ((0, 15), (1, 11)):
        job.cell("a", right=right, seed=seed)
        job.cell("layer-1", arm="hidden", pooling="mean", right=13, seed=seed, validation=0.4)
        job.cell("length", arm="length", model="text", right=18, seed=seed, validation=0.3)
    found = job.collect()
    row = noise(found, "sae")
    scores = [cell["macro_f1"] for cell in found["cells"] if cell["arm"] == "sae" and cell["subset"] == "all"]
    assert row["seed_sd"] == pytest.approx(abs(scores[0] - scores[1]) / 2**0.5)
    parts = [
        [
            Answers(TRUTH[rows], np.where(np.arange(20) < right, TRUTH[rows], 1 - TRUTH[rows]), GROUPS[rows], 2)
            for rows, right in zip((slice(0, 20), slice(20, 40)), rights, strict=True)
        ]
        for rights in ((15, 11), (13, 13))
    ]
    assert row["se"] == pytest.approx(statistics.score(parts[0]).error)
    paired = statistics.difference(*parts).error
    assert (row["baseline"], row["n_seeds"]) == ("hidden", 2)
    assert (row["se_difference"], row["detectable"]) == pytest.approx((paired, 2.8 * paired))
    assert noise(found, "hidden")["baseline"] == "length"
    assert noise(found, "quiver")["baseline"] == "baselines"
    # Validation picks hidden states as the baseline, so the two answer alike and no difference is measured.
    assert noise(found, "baselines")["detectable"] is None


def test_an_arm_alone_with_one_seed_has_no_spread_and_no_difference_to_see(job):
    row = noise(job.cell("a", right=15).collect(), "sae")
    assert [row[name] for name in ("seed_sd", "baseline", "se_difference", "detectable")] == [None] * 4
    assert row["se"] > 0


def test_arms_are_compared_and_ranked_over_datasets_without_those_that_pool_others(job):
    job.cell("a", right=15).cell("layer-1", arm="hidden", pooling="mean", right=12)
    found = job.collect()
    assert {(row["arm_a"], row["arm_b"]): row["verdict"] for row in found["comparisons"]} == {
        ("sae", "hidden"): "too few datasets",
        ("quiver", "baselines"): "too few datasets",
    }
    assert {row["arm"]: row["mean_rank"] for row in found["ranks"]} == {"sae": 1, "hidden": 2}


def test_every_table_has_a_twin_that_people_can_read(job):
    found = job.cell("a").cell("b", threshold=1.0).collect()
    for name in NAMES:
        twin = csv.read_csv(job.folder / "tables" / f"{name}.csv")
        assert twin.num_rows == len(found[name])
        assert twin.column_names == pq.read_schema(job.folder / "tables" / f"{name}.parquet").names


def test_what_a_spreadsheet_would_compute_is_text_in_the_twin_and_itself_in_the_table(tmp_path):
    names = ["=1+1", None, "-1", "en", "@SUM(A1)"]
    tables.write(pa.table({"subset": names, "macro_f1": [-0.5, 0.5, None, 1.0, 0.0]}), tmp_path / "t.parquet")
    assert pq.read_table(tmp_path / "t.parquet")["subset"].to_pylist() == names
    shown = csv.read_csv(tmp_path / "t.csv").to_pydict()
    assert shown == {"subset": ["'=1+1", "", "-1", "en", "'@SUM(A1)"], "macro_f1": [-0.5, 0.5, None, 1.0, 0.0]}


def test_the_same_jobs_give_the_same_bytes(job):
    job.cell("a", right=15).cell("b", arm="hidden", pooling="last", right=12)
    job.collect()
    before = {file.name: file.read_bytes() for file in (job.folder / "tables").iterdir()}
    job.collect()
    assert before == {file.name: file.read_bytes() for file in (job.folder / "tables").iterdir()}


def test_a_run_without_probes_has_empty_tables(job):
    assert job.collect() == {name: [] for name in NAMES}
