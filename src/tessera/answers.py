"""What chosen cells answered on their test parts: the predictions behind them, slice by slice, and what those are worth."""

import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tessera import statistics
from tessera.choosing import Cell
from tessera.statistics import Answers, Estimate

Array = npt.NDArray[Any]

IDENTITY = ("predictions", "protocol", "seed", "threshold", "classifier", "penalty")


class Slices:
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
        (ids, truth, predicted), labels = given(cell)
        where = _examples(self.dataset_tables[cell["dataset"]])
        groups = np.array([where[name][0] for name in ids], np.int64)
        inside = np.array([subset in ("all", where[name][1]) for name in ids])
        return Answers(truth[inside], predicted[inside], groups[inside], len(labels))

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


def given(cell: Cell) -> tuple[tuple[list[str], Array, Array], list[str]]:
    """Ids, truth and predictions of a cell, ordered by id, and the labels they are places among."""
    return _answers(*_identity(cell))


@lru_cache(maxsize=64)
def _answers(*identity: Any) -> tuple[tuple[list[str], Array, Array], list[str]]:
    table, labels = _rows(*identity, columns=["example", "label", "predicted"])
    code = {label: place for place, label in enumerate(labels)}
    truth, predicted = (np.array([code[label] for label in table[name].to_pylist()]) for name in ("label", "predicted"))
    return (table["example"].to_pylist(), truth, predicted), labels


def probable(cell: Cell) -> dict[str, tuple[int, float]]:
    """Example -> what the cell answered, as the place of a label, and how probable that was to it."""
    table, labels = _rows(*_identity(cell), columns=["example", "predicted", "scores"])
    rows = zip(*(table[name].to_pylist() for name in ("example", "predicted", "scores")), strict=True)
    return {name: (code := labels.index(predicted), scores[code]) for name, predicted, scores in rows}


def _rows(path: str, *wanted: Any, columns: Sequence[str]) -> tuple[pa.Table, list[str]]:
    """Some columns of a cell's predictions, ordered by example, and the labels of its dataset."""
    file = pq.ParquetFile(path)
    labels = json.loads(file.schema_arrow.metadata[b"labels"])
    same = pc.scalar(True)
    for name, value in zip(IDENTITY[1:], wanted, strict=True):
        same &= pc.field(name).is_null() if value is None else pc.field(name) == value
    return file.read(columns=[*IDENTITY[1:], *columns]).filter(same).sort_by("example"), labels
