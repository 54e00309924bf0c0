"""The tables: what an arm chooses, what it may look at when it does, and what becomes of failures."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import csv

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
        key |= {"classifier": "l2", "status": "ok", "reason": "", "validation": validation, "c": 1.0} | columns
        for subset in ("all", "de", "en"):
            inside = np.ones(20, bool) if subset == "all" else SUBSETS[tested] == subset
            score = macro_f1(TRUTH[tested][inside], predicted[inside], 2)
            scores = {"macro_f1": score, "accuracy": np.mean((predicted == TRUTH[tested])[inside]), "brier": 0.25}
            scores = scores if key["status"] == "ok" else {"validation": None}
            rows.append(key | {"subset": subset, "n_test": int(inside.sum())} | scores)
        if key["status"] == "ok":
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


NAMES = ("cells", "arms", "differences")


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
    assert choice == {"head": "a", "pooling": "last", "threshold": 1.0, "c": 1.0}


def test_the_threshold_tells_which_predictions_belong_to_the_cell(job):
    job.cell("a", threshold=None, validation=0.1, right=20).cell("a", threshold=1.0, validation=0.9, right=5)
    row = arm(job.collect())
    assert row["accuracy"] == pytest.approx(0.25)
    assert row["low"] <= row["macro_f1"] <= row["high"] < 0.6


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
    assert {row["arm"] for row in found["arms"]} == {"hidden", "hidden-last", "sae"}


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


def test_a_metric_that_a_seed_lacks_is_the_mean_of_the_others(job):
    job.cell("a", seed=0, auroc=0.7).cell("a", seed=1, auroc=None)
    row = arm(job.collect())
    assert row["auroc"] == pytest.approx(0.7)
    assert row["auprc"] is None


def test_differences_are_paired_on_the_seeds_that_both_arms_have(job):
    for seed in (0, 1):
        job.cell("x", right=16, seed=seed)
        job.cell("layer-1", arm="hidden", pooling="mean", right=12, seed=seed)
    job.cell("tfidf-word", arm="tfidf", model="text", right=20, seed=0)
    job.cell("majority", arm="majority", model="text", right=10, seed=0)
    rows = {(row["arm_a"], row["arm_b"]): row for row in job.collect()["differences"]}
    assert set(rows) == {("sae", "hidden"), ("sae", "tfidf"), ("hidden", "tfidf")}
    row = rows["sae", "hidden"]
    assert (row["model"], row["n_seeds"]) == ("small", 2)
    assert row["low"] <= row["difference"] <= row["high"]
    assert row["difference"] > 0
    assert rows["sae", "tfidf"]["n_seeds"] == 1
    assert rows["sae", "tfidf"]["difference"] < 0


def test_every_table_has_a_twin_that_people_can_read(job):
    found = job.cell("a").cell("b", threshold=1.0).collect()
    for name in NAMES:
        twin = csv.read_csv(job.folder / "tables" / f"{name}.csv")
        assert twin.num_rows == len(found[name])
        assert twin.column_names == pq.read_schema(job.folder / "tables" / f"{name}.parquet").names


def test_the_same_jobs_give_the_same_bytes(job):
    job.cell("a", right=15).cell("b", arm="hidden", pooling="last", right=12)
    job.collect()
    before = {file.name: file.read_bytes() for file in (job.folder / "tables").iterdir()}
    job.collect()
    assert before == {file.name: file.read_bytes() for file in (job.folder / "tables").iterdir()}


def test_a_run_without_probes_has_empty_tables(job):
    assert job.collect() == {"cells": [], "arms": [], "differences": []}
