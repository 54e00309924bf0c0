"""The tables of a run: every cell, the configuration each arm chooses, and how arms differ.

An arm has a search space: heads, poolings, thresholds. What it is worth is what it scores when it has to choose, and the
two protocols choose differently:

- Under `strict`, an arm chooses for each seed the cell with the best inner validation score. Only then are that cell's
  test predictions opened. With C chosen inside every cell, all of an arm's search is inside the training part.
- Under `paper`, an arm takes the cell with the best test score, as the published numbers do. The row says `optimistic`.

Of equal cells the first by head, then pooling, then threshold is taken, values before thresholds after all others.
A cell that failed is not chosen; an arm that loses seeds to failed cells says so, and an arm without any other is a
failed row with the reasons.
"""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import csv

from tessera import statistics
from tessera.files import replacing
from tessera.probes import predictions_path
from tessera.protocols import CELLS, METRICS
from tessera.statistics import Answers

Array = npt.NDArray[Any]
Cell = dict[str, Any]

PAIRS = (("sae", "hidden"), ("sae", "hidden-last"), ("sae", "tfidf"), ("hidden", "tfidf"))
REASONS_SHOWN = 3

ARMS = pa.schema(
    [(name, pa.string()) for name in ("protocol", "dataset", "model", "arm", "subset")]
    + [(name, pa.float64()) for name in ("macro_f1", "low", "high", "accuracy", "auroc", "auprc", "ece", "brier")]
    + [("n_seeds", pa.int32()), ("n_test", pa.float64()), ("chosen", pa.string()), ("optimistic", pa.bool_())]
    + [("status", pa.string()), ("reason", pa.string())]
)
DIFFERENCES = pa.schema(
    [(name, pa.string()) for name in ("protocol", "dataset", "model", "arm_a", "arm_b")]
    + [(name, pa.float64()) for name in ("difference", "low", "high")]
    + [("n_seeds", pa.int32())]
)


def collect(cell_files: Sequence[Path], dataset_tables: Mapping[str, Path | str], folder: Path | str) -> None:
    """Write cells, arms and differences into `folder`, as Parquet for programs and CSV for people.

    Predictions lie beside the cells. `dataset_tables` is by dataset.
    """
    tables = [pq.ParquetFile(path).read().replace_schema_metadata(None) for path in cell_files]
    cells = pa.concat_tables([CELLS.empty_table(), *tables])
    files = [predictions_path(path) for path, table in zip(cell_files, tables, strict=True) for _ in range(len(table))]
    rows = [cell | {"predictions": str(path)} for cell, path in zip(cells.to_pylist(), files, strict=True)]
    chosen = {key: choose(of_arm) for key, of_arm in _by_arm(rows).items()}
    slices = _Slices(rows, {name: str(path) for name, path in dataset_tables.items()})
    write(cells, Path(folder) / "cells.parquet")
    write(pa.Table.from_pylist(list(_arm_rows(chosen, slices)), ARMS), Path(folder) / "arms.parquet")
    write(
        pa.Table.from_pylist(list(_difference_rows(chosen, slices)), DIFFERENCES), Path(folder) / "differences.parquet"
    )


def write(table: pa.Table, path: Path) -> None:
    """The table at `path`, and its twin for people beside it."""
    with replacing(path) as partial:
        pq.write_table(table, partial, compression="zstd")
    with replacing(path.with_suffix(".csv")) as partial:
        csv.write_csv(table, partial)


# --- choosing ------------------------------------------------------------------------------------------------------

Key = tuple[str, str, str, str]


@dataclass(frozen=True)
class Chosen:
    """The cell an arm chooses for each seed, and what became of the seeds for which it has none."""

    cells: dict[int, Cell]
    failures: dict[int, list[str]]

    def reason(self) -> str:
        return "; ".join(f"seed {seed}: {_shown(reasons)}" for seed, reasons in sorted(self.failures.items()))


def _shown(reasons: list[str]) -> str:
    distinct = sorted(set(reasons))
    more = len(distinct) - REASONS_SHOWN
    return ", or ".join(distinct[:REASONS_SHOWN]) + (f", or {more} other reasons" if more > 0 else "")


def _by_arm(rows: list[Cell]) -> dict[Key, list[Cell]]:
    """The cells on all test examples by protocol, dataset, model and arm; the last token alone is an arm as well."""
    found: dict[Key, list[Cell]] = defaultdict(list)
    for cell in rows:
        if cell["subset"] == "all":
            key = (cell["protocol"], cell["dataset"], cell["model"])
            found[*key, cell["arm"]].append(cell)
            if cell["arm"] == "hidden" and cell["pooling"] == "last":
                found[*key, "hidden-last"].append(cell)
    return dict(sorted(found.items()))


def choose(cells: list[Cell]) -> Chosen:
    """The cell of each seed: by its inner validation score, or under `paper` by its test score."""
    by = "macro_f1" if cells[0]["protocol"] == "paper" else "validation"
    chosen: dict[int, Cell] = {}
    failures: dict[int, list[str]] = {}
    for seed in sorted({cell["seed"] for cell in cells}):
        of_seed = [cell for cell in cells if cell["seed"] == seed]
        good = [cell for cell in of_seed if cell["status"] == "ok"]
        if good:
            chosen[seed] = min(good, key=lambda cell: (-cell[by], *_place(cell)))
        else:
            failures[seed] = [cell["reason"] for cell in of_seed]
    return Chosen(chosen, failures)


def _place(cell: Cell) -> tuple[Any, ...]:
    """Where a cell stands among equals: no pooling and no threshold come last."""
    pooling, threshold = cell["pooling"], cell["threshold"]
    return cell["head"], pooling is None, pooling or "", threshold is None, threshold or 0.0


# --- slices of chosen cells ----------------------------------------------------------------------------------------

IDENTITY = ("predictions", "protocol", "seed", "threshold")


class _Slices:
    """The subsets of a cell's test part: their rows among the cells, and the answers behind them."""

    def __init__(self, rows: list[Cell], dataset_tables: Mapping[str, str]) -> None:
        self.dataset_tables = dataset_tables
        self.rows: dict[tuple[Any, ...], dict[str, Cell]] = defaultdict(dict)
        for cell in rows:
            self.rows[_identity(cell)][cell["subset"]] = cell

    def of(self, cell: Cell) -> dict[str, Cell]:
        return self.rows[_identity(cell)]

    def answers(self, cell: Cell, subset: str) -> Answers:
        """What the cell answered on the test examples of a subset, in the order of their ids."""
        table, n_classes = _answers(cell["predictions"], cell["protocol"], cell["seed"], cell["threshold"])
        ids, truth, predicted = table
        where = _examples(self.dataset_tables[cell["dataset"]])
        groups = np.array([where[name][0] for name in ids], np.int64)
        inside = np.array([subset in ("all", where[name][1]) for name in ids])
        return Answers(truth[inside], predicted[inside], groups[inside], n_classes)


def _identity(cell: Cell) -> tuple[Any, ...]:
    return tuple(cell[name] for name in IDENTITY)


@lru_cache(maxsize=8)
def _examples(path: str) -> dict[str, tuple[int, str]]:
    """Group and subset of each example of a dataset."""
    table = pq.ParquetFile(path).read(columns=["id", "group", "subset"])
    columns = (table[name].to_pylist() for name in ("group", "subset"))
    return dict(zip(table["id"].to_pylist(), zip(*columns, strict=True), strict=True))


@lru_cache(maxsize=64)
def _answers(
    path: str, protocol: str, seed: int, threshold: float | None
) -> tuple[tuple[list[str], Array, Array], int]:
    """Ids, truth and predictions of one cell, ordered by id, and the number of labels."""
    file = pq.ParquetFile(path)
    labels = json.loads(file.schema_arrow.metadata[b"labels"])
    table = file.read(columns=["protocol", "seed", "threshold", "example", "label", "predicted"])
    same_threshold = pc.field("threshold").is_null() if threshold is None else pc.field("threshold") == threshold
    table = table.filter((pc.field("protocol") == protocol) & (pc.field("seed") == seed) & same_threshold)
    table = table.sort_by("example")
    code = {label: place for place, label in enumerate(labels)}
    truth, predicted = (np.array([code[label] for label in table[name].to_pylist()]) for name in ("label", "predicted"))
    return (table["example"].to_pylist(), truth, predicted), len(labels)


# --- the rows ------------------------------------------------------------------------------------------------------


def _arm_rows(chosen: dict[Key, Chosen], slices: _Slices) -> Iterator[dict[str, Any]]:
    for (protocol, dataset, model, arm), choice in chosen.items():
        key: dict[str, Any] = {"protocol": protocol, "dataset": dataset, "model": model, "arm": arm}
        key |= {"optimistic": protocol == "paper", "chosen": json.dumps(_configurations(choice), sort_keys=True)}
        subsets = sorted({subset for cell in choice.cells.values() for subset in slices.of(cell)} - {"all"})
        for subset in ["all", *subsets]:
            of_subset = {seed: slices.of(cell)[subset] for seed, cell in choice.cells.items()}
            yield key | {"subset": subset} | _summary(of_subset, choice, slices)


def _configurations(choice: Chosen) -> dict[str, dict[str, Any]]:
    names = ("head", "pooling", "threshold", "c")
    return {str(seed): {name: cell[name] for name in names} for seed, cell in choice.cells.items()}


def _summary(cells: dict[int, Cell], choice: Chosen, slices: _Slices) -> dict[str, Any]:
    """Means over seeds of one subset, and the interval of the macro-F1; or why there are none."""
    good = [cell for cell in cells.values() if cell["status"] == "ok"]
    failed = {seed: [cell["reason"]] for seed, cell in cells.items() if cell["status"] != "ok"}
    reason = Chosen({}, choice.failures | failed).reason()
    if not good:
        return {"n_seeds": 0, "status": "failed", "reason": reason}
    estimate = statistics.score([slices.answers(cell, cell["subset"]) for cell in good])
    means = {name: _mean([cell[name] for cell in good]) for name in (*METRICS, "n_test")}
    interval = {"low": estimate.low, "high": estimate.high}
    return means | interval | {"n_seeds": len(good), "status": "ok", "reason": reason}


def _mean(values: list[float | None]) -> float | None:
    """The mean over the seeds in which the metric is defined."""
    defined = [value for value in values if value is not None]
    return float(np.mean(defined)) if defined else None


def _difference_rows(chosen: dict[Key, Chosen], slices: _Slices) -> Iterator[dict[str, Any]]:
    """Every pair of arms of a model, on the seeds for which both have a cell. Text arms belong to no model."""
    for protocol, dataset, model in sorted({key[:3] for key in chosen if key[2] != "text"}):
        for names in PAIRS:
            of_model = [(protocol, dataset, "text" if arm == "tfidf" else model, arm) for arm in names]
            if not all(key in chosen for key in of_model):
                continue
            cells = [chosen[key].cells for key in of_model]
            seeds = sorted(cells[0].keys() & cells[1].keys())
            if not seeds:
                continue
            a, b = ([slices.answers(of_arm[seed], "all") for seed in seeds] for of_arm in cells)
            estimate = statistics.difference(a, b)
            key = dict(zip(DIFFERENCES.names, (protocol, dataset, model, *names), strict=False))
            yield key | {
                "difference": estimate.value, "low": estimate.low, "high": estimate.high, "n_seeds": len(seeds)
            }  # fmt: skip
