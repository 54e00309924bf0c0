"""The tables of a run: every cell, the configuration each arm chooses, how arms differ, and on how much that stands.

An arm has a search space: heads, poolings, thresholds. What it is worth is what it scores when it has to choose, and the
two protocols choose differently:

- Under `strict`, an arm chooses for each seed the cell with the best inner validation score. Only then are that cell's
  test predictions opened. With C chosen inside every cell, all of an arm's search is inside the training part.
- Under `paper`, an arm takes the cell with the best test score, as the published numbers do. The row says `optimistic`.

Of equal cells the first by head, then pooling, then threshold is taken, values before thresholds after all others.
A cell that failed is not chosen; an arm that loses seeds to failed cells says so, and an arm without any other is a
failed row with the reasons.

What competes are probes on the whole training part with all features. Points of curves (fewer features, less or worse
training data) are there to be drawn, in a table of their own.

SAE features may be worth having beside the baselines without being better than they are. So there are two arms more under
`strict`: `baselines` has the search space of hidden states, TF-IDF and length together, and `quiver` has SAE features
in it, too. Both take what validation picks, so their difference is what one more arrow in the quiver is worth.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from sklearn.metrics import precision_recall_fscore_support

from tessera import comparisons, statistics
from tessera.files import replacing
from tessera.plan import ATTENTION
from tessera.probes import predictions_path
from tessera.protocols import CELLS, METRICS
from tessera.quoting import in_a_cell
from tessera.regimes import FULL
from tessera.statistics import Answers, Estimate

Array = npt.NDArray[Any]
Cell = dict[str, Any]

BASELINES = ("hidden", "tfidf", "length")
POOLED = ("baselines", "quiver")
WITHOUT_MODEL = ("tfidf", "length", "majority")
PAIRS = (
    ("sae", "hidden"), ("sae", "hidden-last"), ("sae", "hidden-attention"), ("sae", "tfidf"), ("sae", "random"), ("hidden", "tfidf"),
    ("quiver", "baselines"),
)  # fmt: skip
PLAIN = ("l2", "majority")
COMPETING = ("l2", "l1", "tree", "means", "majority")
REASONS_SHOWN = 3

# How many standard errors a difference must have to be seen at the 5 % level in 80 % of the studies that look for it.
DETECTABLE = 1.96 + 0.84

ARMS = pa.schema(
    [(name, pa.string()) for name in ("protocol", "dataset", "model", "arm", "subset")]
    + [(name, pa.float64()) for name in ("macro_f1", "low", "high", *(name for name in METRICS if name != "macro_f1"))]
    + [("n_seeds", pa.int32()), ("n_test", pa.float64()), ("chosen", pa.string()), ("optimistic", pa.bool_())]
    + [("status", pa.string()), ("reason", pa.string())]
)
DIFFERENCES = pa.schema(
    [(name, pa.string()) for name in ("protocol", "dataset", "model", "arm_a", "arm_b")]
    + [(name, pa.float64()) for name in ("difference", "low", "high")]
    + [("n_seeds", pa.int32())]
)
CURVES = pa.schema(
    [(name, pa.string()) for name in ("protocol", "dataset", "model", "arm", "classifier", "regime")]
    + [("k", pa.int32()), ("penalty", pa.float64()), ("n_weighed", pa.float64())]
    + [(name, pa.float64()) for name in ("macro_f1", "lowest", "highest")]
    + [("n_seeds", pa.int32()), ("status", pa.string()), ("reason", pa.string())]
)
CLASSES = pa.schema(
    [(name, pa.string()) for name in ("protocol", "dataset", "model", "arm", "label")]
    + [(name, pa.float64()) for name in ("precision", "recall", "f1", "n_test")]
    + [("n_seeds", pa.int32())]
)
NOISE = pa.schema(
    [(name, pa.string()) for name in ("protocol", "dataset", "model", "arm")]
    + [("seed_sd", pa.float64()), ("se", pa.float64()), ("baseline", pa.string())]
    + [("se_difference", pa.float64()), ("detectable", pa.float64()), ("n_seeds", pa.int32())]
)


def collect(cell_files: Sequence[Path], dataset_tables: Mapping[str, Path | str], folder: Path | str) -> None:
    """Write every table that comes from cells into `folder`, as Parquet for programs and CSV for people.

    Predictions lie beside the cells. `dataset_tables` is by dataset.
    """
    tables = [pq.ParquetFile(path).read().replace_schema_metadata(None) for path in cell_files]
    cells = pa.concat_tables([CELLS.empty_table(), *tables])
    files = [predictions_path(path) for path, table in zip(cell_files, tables, strict=True) for _ in range(len(table))]
    rows = [cell | {"predictions": str(path)} for cell, path in zip(cells.to_pylist(), files, strict=True)]
    competing = [cell for cell in rows if _competes(cell)]
    by_arm = _by_arm(competing)
    chosen = {key: choose(of_arm) for key, of_arm in by_arm.items()}
    chosen = dict(sorted((chosen | _pooled(by_arm, chosen)).items()))
    slices = _Slices(competing, {name: str(path) for name, path in dataset_tables.items()})
    arms = pa.Table.from_pylist(list(_arm_rows(chosen, slices)), ARMS)
    differences = pa.Table.from_pylist(list(_difference_rows(chosen, slices)), DIFFERENCES)
    ranked = [row for row in arms.to_pylist() if row["subset"] == "all" and row["arm"] not in POOLED]
    found = {
        "cells": cells,
        "arms": arms,
        "differences": differences,
        "curves": pa.Table.from_pylist(list(_curve_rows(rows)), CURVES),
        "comparisons": comparisons.compared(differences.to_pylist()),
        "ranks": comparisons.ranked(ranked),
        "classes": pa.Table.from_pylist(list(_class_rows(chosen, slices)), CLASSES),
        "noise": pa.Table.from_pylist(list(_noise_rows(chosen, slices)), NOISE),
    }
    for name, table in found.items():
        write(table, Path(folder) / f"{name}.parquet")


def write(table: pa.Table, path: Path) -> None:
    """The table at `path`, and its twin for people beside it."""
    with replacing(path) as partial:
        pq.write_table(table, partial, compression="zstd")
    with replacing(path.with_suffix(".csv")) as partial:
        csv.write_csv(_for_people(table), partial)


def _for_people(table: pa.Table) -> pa.Table:
    """The table with texts as a spreadsheet is to show them."""
    for place, field in enumerate(table.schema):
        if pa.types.is_string(field.type):
            coded = table.column(place).combine_chunks().dictionary_encode()
            shown = pa.array([in_a_cell(text) for text in coded.dictionary.to_pylist()], field.type)
            table = table.set_column(place, field, shown.take(coded.indices))
    return table


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


def _competes(cell: Cell) -> bool:
    return cell["regime"] == FULL and cell["k"] is None and cell["classifier"] in COMPETING


def _by_arm(rows: list[Cell]) -> dict[Key, list[Cell]]:
    """The cells on all test examples by protocol, dataset, model and arm.

    The last token alone is an arm as well, and so are states pooled by attention, and an input with another classifier than
    the plain regression.
    """
    found: dict[Key, list[Cell]] = defaultdict(list)
    for cell in rows:
        if cell["subset"] == "all":
            key = (cell["protocol"], cell["dataset"], cell["model"])
            plain = cell["classifier"] in PLAIN
            found[*key, cell["arm"] if plain else f"{cell['arm']}-{cell['classifier']}"].append(cell)
            if cell["arm"] == "hidden" and cell["pooling"] in ("last", ATTENTION) and plain:
                found[*key, f"hidden-{cell['pooling']}"].append(cell)
    return found


def choose(cells: list[Cell], by: str | None = None) -> Chosen:
    """The cell of each seed: by its inner validation score, or under `paper` by its test score."""
    by = by or _criterion(cells[0]["protocol"])
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


def _criterion(protocol: str) -> str:
    """The column that cells are chosen by."""
    return "macro_f1" if protocol == "paper" else "validation"


def _place(cell: Cell) -> tuple[Any, ...]:
    """Where a cell stands among equals: no pooling and no threshold come last, and the strongest penalty first."""
    pooling, threshold = cell["pooling"], cell["threshold"]
    return cell["head"], pooling is None, pooling or "", threshold is None, threshold or 0.0, -(cell["penalty"] or 0.0)


def _owner(arm: str, model: str) -> str:
    """The model under which an arm of a model's comparisons is found."""
    return "text" if arm in WITHOUT_MODEL else model


def _pooled(by_arm: dict[Key, list[Cell]], chosen: dict[Key, Chosen]) -> dict[Key, Chosen]:
    """For each model with SAE features and a baseline beside them: what validation picks without them and with them."""
    found = {}
    for protocol, dataset, model, arm in by_arm:
        keys = [(protocol, dataset, _owner(name, model), name) for name in BASELINES]
        plain = [cell for key in keys for cell in by_arm.get(key, [])]
        if arm == "sae" and protocol == "strict" and plain:
            baselines = choose(plain)
            found[protocol, dataset, model, "baselines"] = baselines
            found[protocol, dataset, model, "quiver"] = _either(baselines, chosen[protocol, dataset, model, "sae"])
    return found


def _either(first: Chosen, second: Chosen) -> Chosen:
    """For each seed the one with the better validation score, `first` if equal. A seed that one of them lost is lost."""
    both = sorted(first.cells.keys() & second.cells.keys())
    cells = {seed: max(first.cells[seed], second.cells[seed], key=lambda cell: cell["validation"]) for seed in both}
    return Chosen(cells, first.failures | second.failures)


# --- slices of chosen cells ----------------------------------------------------------------------------------------

IDENTITY = ("predictions", "protocol", "seed", "threshold", "classifier", "penalty")


class _Slices:
    """The subsets of a cell's test part: their rows among the cells, the answers behind them, and what those are worth.

    A score or difference that several tables ask for is computed once.
    """

    def __init__(self, rows: list[Cell], dataset_tables: Mapping[str, str]) -> None:
        self.dataset_tables = dataset_tables
        self.rows: dict[tuple[Any, ...], dict[str, Cell]] = defaultdict(dict)
        for cell in rows:
            self.rows[_identity(cell)][cell["subset"]] = cell
        self.known: dict[tuple[Any, ...], Estimate] = {}

    def of(self, cell: Cell) -> dict[str, Cell]:
        return self.rows[_identity(cell)]

    def answers(self, cell: Cell, subset: str) -> Answers:
        """What the cell answered on the test examples of a subset, in the order of their ids."""
        (ids, truth, predicted), labels = _answers(*_identity(cell))
        where = _examples(self.dataset_tables[cell["dataset"]])
        groups = np.array([where[name][0] for name in ids], np.int64)
        inside = np.array([subset in ("all", where[name][1]) for name in ids])
        return Answers(truth[inside], predicted[inside], groups[inside], len(labels))

    def by_class(self, cell: Cell) -> dict[str, tuple[float, ...]]:
        """Label -> precision, recall, F1 and the number of test examples; F1 is 0 where a label is never named."""
        (_, truth, predicted), labels = _answers(*_identity(cell))
        scores = precision_recall_fscore_support(truth, predicted, labels=range(len(labels)), zero_division=0)
        return dict(zip(labels, zip(*(part.tolist() for part in scores), strict=True), strict=True))

    def score(self, cells: Sequence[Cell]) -> Estimate:
        return self._once(statistics.score, cells)

    def difference(self, a: Sequence[Cell], b: Sequence[Cell]) -> Estimate:
        return self._once(statistics.difference, a, b)

    def _once(self, measure: Callable[..., Estimate], *arms: Sequence[Cell]) -> Estimate:
        key = tuple(tuple((*_identity(cell), cell["subset"]) for cell in cells) for cells in arms)
        if key not in self.known:
            self.known[key] = measure(*([self.answers(cell, cell["subset"]) for cell in cells] for cells in arms))
        return self.known[key]


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
    path: str, protocol: str, seed: int, threshold: float | None, classifier: str, penalty: float | None
) -> tuple[tuple[list[str], Array, Array], list[str]]:
    """Ids, truth and predictions of one cell, ordered by id, and the labels they are places among."""
    file = pq.ParquetFile(path)
    labels = json.loads(file.schema_arrow.metadata[b"labels"])
    table = file.read(columns=[*IDENTITY[1:], "example", "label", "predicted"])
    same = pc.scalar(True)
    wanted = {"protocol": protocol, "seed": seed, "threshold": threshold, "classifier": classifier, "penalty": penalty}
    for name, value in wanted.items():
        same &= pc.field(name).is_null() if value is None else pc.field(name) == value
    table = table.filter(same)
    table = table.sort_by("example")
    code = {label: place for place, label in enumerate(labels)}
    truth, predicted = (np.array([code[label] for label in table[name].to_pylist()]) for name in ("label", "predicted"))
    return (table["example"].to_pylist(), truth, predicted), labels


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
    names = ("arm", "head", "pooling", "threshold", "c", "penalty", "settings")
    return {str(seed): {name: cell[name] for name in names} for seed, cell in choice.cells.items()}


def _summary(cells: dict[int, Cell], choice: Chosen, slices: _Slices) -> dict[str, Any]:
    """Means over seeds of one subset, and the interval of the macro-F1; or why there are none."""
    good = [cell for cell in cells.values() if cell["status"] == "ok"]
    failed = {seed: [cell["reason"]] for seed, cell in cells.items() if cell["status"] != "ok"}
    reason = Chosen({}, choice.failures | failed).reason()
    if not good:
        return {"n_seeds": 0, "status": "failed", "reason": reason}
    estimate = slices.score(good)
    means = {name: _mean([cell[name] for cell in good]) for name in (*METRICS, "n_test")}
    interval = {"low": estimate.low, "high": estimate.high}
    return means | interval | {"n_seeds": len(good), "status": "ok", "reason": reason}


def _mean(values: list[float | None]) -> float | None:
    """The mean over the seeds in which the metric is defined."""
    defined = [value for value in values if value is not None]
    return float(np.mean(defined)) if defined else None


def _paired(chosen: dict[Key, Chosen], slices: _Slices, a: Key, b: Key) -> tuple[Estimate, int] | None:
    """How two arms differ on the seeds for which both have a cell, and how many those are."""
    if a not in chosen or b not in chosen:
        return None
    of_a, of_b = chosen[a].cells, chosen[b].cells
    seeds = sorted(of_a.keys() & of_b.keys())
    if not seeds:
        return None
    return slices.difference([of_a[seed] for seed in seeds], [of_b[seed] for seed in seeds]), len(seeds)


def _difference_rows(chosen: dict[Key, Chosen], slices: _Slices) -> Iterator[dict[str, Any]]:
    """Every pair of arms of a model. Text arms belong to no model."""
    for protocol, dataset, model in sorted({key[:3] for key in chosen if key[2] != "text"}):
        for names in PAIRS:
            a, b = ((protocol, dataset, _owner(arm, model), arm) for arm in names)
            if found := _paired(chosen, slices, a, b):
                estimate, n_seeds = found
                key = dict(zip(DIFFERENCES.names, (protocol, dataset, model, *names), strict=False))
                yield key | {
                    "difference": estimate.value, "low": estimate.low, "high": estimate.high, "n_seeds": n_seeds
                }  # fmt: skip


# --- curves --------------------------------------------------------------------------------------------------------


def _curve_rows(rows: list[Cell]) -> Iterator[dict[str, Any]]:
    """Every point that some feature count or regime makes, and the full one of the same arm, where a curve ends.

    All are about features as they are, without a threshold: an end with a larger search space would not be on the curve.
    """
    points: dict[tuple[Any, ...], list[Cell]] = defaultdict(list)
    for cell in rows:
        if cell["subset"] == "all" and cell["threshold"] is None:
            points[tuple(cell[name] for name in CURVES.names[:8])].append(cell)
    with_others = {point[:5] for point in points if point[5:] != (FULL, None, None)}
    for point in sorted(points, key=lambda point: (*point[:6], point[6] is None, point[6] or 0, -(point[7] or 0))):
        if point[:5] in with_others:
            yield dict(zip(CURVES.names, point, strict=False)) | _point(choose(points[point], by="validation"))


def _point(choice: Chosen) -> dict[str, Any]:
    scores = [cell["macro_f1"] for cell in choice.cells.values()]
    found = {"n_seeds": len(scores), "status": "ok" if scores else "failed", "reason": choice.reason()}
    if not scores:
        return found
    weighed = _mean([cell["n_weighed"] for cell in choice.cells.values()])
    scored = {"macro_f1": float(np.mean(scores)), "lowest": min(scores), "highest": max(scores)}
    return found | scored | {"n_weighed": weighed}


# --- labels --------------------------------------------------------------------------------------------------------


def _class_rows(chosen: dict[Key, Chosen], slices: _Slices) -> Iterator[dict[str, Any]]:
    """How well each arm does label by label, as means over its seeds."""
    for key, choice in chosen.items():
        found: dict[str, list[tuple[float, ...]]] = defaultdict(list)
        for cell in choice.cells.values():
            for label, scores in slices.by_class(cell).items():
                found[label].append(scores)
        for label, of_seeds in sorted(found.items()):
            means = zip(("precision", "recall", "f1", "n_test"), np.mean(of_seeds, axis=0).tolist(), strict=True)
            yield dict(zip(CLASSES.names, (*key, label), strict=False)) | dict(means) | {"n_seeds": len(of_seeds)}


# --- noise ---------------------------------------------------------------------------------------------------------


def _noise_rows(chosen: dict[Key, Chosen], slices: _Slices) -> Iterator[dict[str, Any]]:
    """For each arm that has a score: how far it moves with the seed and with the test examples, and what that hides."""
    for key, choice in chosen.items():
        cells = list(choice.cells.values())
        if not cells:
            continue
        scores = [cell["macro_f1"] for cell in cells]
        row = dict(zip(NOISE.names, key, strict=False)) | {"n_seeds": len(scores)}
        row |= {"seed_sd": float(np.std(scores, ddof=1)) if len(scores) > 1 else None, "se": slices.score(cells).error}
        rival = _best_baseline(chosen, key)
        found = _paired(chosen, slices, key, rival) if rival else None
        if rival and found and (error := found[0].error):
            row |= {"baseline": rival[3], "se_difference": error, "detectable": DETECTABLE * error}
        yield row


def _best_baseline(chosen: dict[Key, Chosen], key: Key) -> Key | None:
    """The baseline that an arm has to be told from: another one than itself, the best by what its cells are chosen by."""
    protocol, dataset, model, arm = key
    names = ["baselines"] if arm == "quiver" else [name for name in BASELINES if name != arm]
    keys = [(protocol, dataset, _owner(name, model), name) for name in names]
    present = [key for key in keys if key in chosen and chosen[key].cells]
    by = _criterion(protocol)
    return max(present, key=lambda key: np.mean([cell[by] for cell in chosen[key].cells.values()]), default=None)
