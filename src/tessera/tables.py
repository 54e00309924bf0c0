"""The tables of a run: every cell, the configuration each arm chooses, how arms differ, and on how much that stands.

What an arm is worth is what it scores when it has to choose, as `tessera.choosing` says. An arm without any cell that it
could choose is a failed row with the reasons. What competes are probes on the whole training part with all features;
points of curves (fewer features, less or worse training data) have a table of their own.

SAE features may be worth having beside the baselines without being better than they are. So there are two arms more under
`strict`: `baselines` has the search space of hidden states, TF-IDF and length together, and `quiver` has SAE features
in it, too. Both take what validation picks, so their difference is what one more arrow in the quiver is worth.
"""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import csv
from sklearn.metrics import precision_recall_fscore_support

from tessera import answers, choosing, comparisons
from tessera.answers import Slices
from tessera.choosing import BASELINES, POOLED, Cell, Chosen, Key, choose, criterion, owner
from tessera.files import replacing
from tessera.protocols import METRICS
from tessera.quoting import in_a_cell
from tessera.regimes import FULL
from tessera.statistics import Estimate

PAIRS = (
    ("sae", "hidden"), ("sae", "hidden-last"), ("sae", "hidden-attention"), ("sae", "tfidf"), ("sae", "random"), ("hidden", "tfidf"),
    ("quiver", "baselines"),
)  # fmt: skip

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
    cells, rows = choosing.read(cell_files)
    competing = [cell for cell in rows if choosing.competes(cell)]
    by_arm = choosing.by_arm(competing)
    chosen = {key: choose(of_arm) for key, of_arm in by_arm.items()}
    chosen = dict(sorted((chosen | choosing.pooled(by_arm, chosen)).items()))
    slices = Slices(competing, {name: str(path) for name, path in dataset_tables.items()})
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
        "classes": pa.Table.from_pylist(list(_class_rows(chosen)), CLASSES),
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


# --- the rows ------------------------------------------------------------------------------------------------------


def _arm_rows(chosen: dict[Key, Chosen], slices: Slices) -> Iterator[dict[str, Any]]:
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


def _summary(cells: dict[int, Cell], choice: Chosen, slices: Slices) -> dict[str, Any]:
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


def _paired(chosen: dict[Key, Chosen], slices: Slices, a: Key, b: Key) -> tuple[Estimate, int] | None:
    """How two arms differ on the seeds for which both have a cell, and how many those are."""
    if a not in chosen or b not in chosen:
        return None
    of_a, of_b = chosen[a].cells, chosen[b].cells
    seeds = sorted(of_a.keys() & of_b.keys())
    if not seeds:
        return None
    return slices.difference([of_a[seed] for seed in seeds], [of_b[seed] for seed in seeds]), len(seeds)


def _difference_rows(chosen: dict[Key, Chosen], slices: Slices) -> Iterator[dict[str, Any]]:
    """Every pair of arms of a model. Text arms belong to no model."""
    for protocol, dataset, model in sorted({key[:3] for key in chosen if key[2] != "text"}):
        for names in PAIRS:
            a, b = ((protocol, dataset, owner(arm, model), arm) for arm in names)
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


def _by_class(cell: Cell) -> dict[str, tuple[float, ...]]:
    """Label -> precision, recall, F1 and the number of test examples; F1 is 0 where a label is never named."""
    (_, truth, predicted), labels = answers.given(cell)
    scores = precision_recall_fscore_support(truth, predicted, labels=range(len(labels)), zero_division=0)
    return dict(zip(labels, zip(*(part.tolist() for part in scores), strict=True), strict=True))


def _class_rows(chosen: dict[Key, Chosen]) -> Iterator[dict[str, Any]]:
    """How well each arm does label by label, as means over its seeds."""
    for key, choice in chosen.items():
        found: dict[str, list[tuple[float, ...]]] = defaultdict(list)
        for cell in choice.cells.values():
            for label, scores in _by_class(cell).items():
                found[label].append(scores)
        for label, of_seeds in sorted(found.items()):
            means = zip(("precision", "recall", "f1", "n_test"), np.mean(of_seeds, axis=0).tolist(), strict=True)
            yield dict(zip(CLASSES.names, (*key, label), strict=False)) | dict(means) | {"n_seeds": len(of_seeds)}


# --- noise ---------------------------------------------------------------------------------------------------------


def _noise_rows(chosen: dict[Key, Chosen], slices: Slices) -> Iterator[dict[str, Any]]:
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
    keys = [(protocol, dataset, owner(name, model), name) for name in names]
    present = [key for key in keys if key in chosen and chosen[key].cells]
    by = criterion(protocol)
    return max(present, key=lambda key: np.mean([cell[by] for cell in chosen[key].cells.values()]), default=None)
