"""Which configuration an arm takes, for each split.

An arm has a search space: heads, poolings, thresholds. What it is worth is what it scores when it has to choose, and the
two protocols choose differently:

- Under `strict`, an arm chooses for each seed the cell with the best inner validation score. Only then are that cell's
  test predictions opened. With C chosen inside every cell, all of an arm's search is inside the training part.
- Under `paper`, an arm takes the cell with the best test score, as the published numbers do. The row says `optimistic`.

Of equal cells the first by head, then pooling, then threshold is taken, values before thresholds after all others.
A cell that failed is not chosen; an arm that loses seeds to failed cells says so.

What competes are probes on the whole training part with all features. Points of curves (fewer features, less or worse
training data) are there to be drawn.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tessera.plan import ATTENTION
from tessera.probes import predictions_path
from tessera.protocols import CELLS
from tessera.regimes import FULL

Cell = dict[str, Any]
# Protocol, dataset, model and arm.
Key = tuple[str, str, str, str]

BASELINES = ("hidden", "tfidf", "length")
POOLED = ("baselines", "quiver")
WITHOUT_MODEL = ("tfidf", "length", "majority")
PLAIN = ("l2", "majority")
COMPETING = ("l2", "l1", "tree", "means", "majority")
REASONS_SHOWN = 3


def read(cell_files: Sequence[Path]) -> tuple[pa.Table, list[Cell]]:
    """Every cell of some files, as a table and as rows; a row knows where its predictions lie."""
    tables = [pq.ParquetFile(path).read().replace_schema_metadata(None) for path in cell_files]
    cells = pa.concat_tables([CELLS.empty_table(), *tables])
    files = [predictions_path(path) for path, table in zip(cell_files, tables, strict=True) for _ in range(len(table))]
    return cells, [cell | {"predictions": str(path)} for cell, path in zip(cells.to_pylist(), files, strict=True)]


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


def competes(cell: Cell) -> bool:
    return cell["regime"] == FULL and cell["k"] is None and cell["classifier"] in COMPETING


def by_arm(rows: list[Cell]) -> dict[Key, list[Cell]]:
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
    by = by or criterion(cells[0]["protocol"])
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


def criterion(protocol: str) -> str:
    """The column that cells are chosen by."""
    return "macro_f1" if protocol == "paper" else "validation"


def _place(cell: Cell) -> tuple[Any, ...]:
    """Where a cell stands among equals: no pooling and no threshold come last, and the strongest penalty first."""
    pooling, threshold = cell["pooling"], cell["threshold"]
    return cell["head"], pooling is None, pooling or "", threshold is None, threshold or 0.0, -(cell["penalty"] or 0.0)


def owner(arm: str, model: str) -> str:
    """The model under which an arm of a model's comparisons is found."""
    return "text" if arm in WITHOUT_MODEL else model


def pooled(of_arms: dict[Key, list[Cell]], chosen: dict[Key, Chosen]) -> dict[Key, Chosen]:
    """For each model with SAE features and a baseline beside them: what validation picks without them and with them."""
    found = {}
    for protocol, dataset, model, arm in of_arms:
        keys = [(protocol, dataset, owner(name, model), name) for name in BASELINES]
        plain = [cell for key in keys for cell in of_arms.get(key, [])]
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
