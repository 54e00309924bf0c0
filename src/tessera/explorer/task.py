"""One task as the explorer sees it: a dataset, a model that reads it, and the configuration that its SAE features got.

What is laid out is the best SAE probe by the tables' own rule: the configuration that inner validation chooses on the
first strict split, whose probe is also the one that is saved. It is fitted again on the training part of every split for
which its cell came out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from tessera import arms, choosing, protocols
from tessera.answers import Slices
from tessera.choosing import Cell, Chosen
from tessera.examples import Table
from tessera.explorer import activity
from tessera.protocols import FIRST, Probe
from tessera.solvers import Matrix, Model
from tessera.splits import Split

Array = npt.NDArray[Any]

SCORED = (
    "Head, pooling and threshold are what inner validation chooses on the first of the strict splits; the score is the mean"
    " over the splits, each with what it chooses itself."
)


@dataclass(frozen=True)
class Labelled:
    """A dataset, and its labels and parts as places in order. A dataset of one part has none to speak of."""

    table: Table

    @cached_property
    def labels(self) -> list[str]:
        return sorted(set(self.table.labels))

    @cached_property
    def codes(self) -> Array:
        return np.searchsorted(np.array(self.labels, dtype=object), self.table.labels)

    @cached_property
    def subsets(self) -> list[str]:
        names = sorted(set(self.table.subsets))
        return names if len(names) > 1 else []

    def where(self, row: int) -> dict[str, Any]:
        """What is said of an example wherever it is shown."""
        return {
            "example": self.table.ids[row],
            "label": int(self.codes[row]),
            "subset": str(self.table.subsets[row]) if self.subsets else None,
        }


class Choices:
    """What the arms of a task choose, by the cells of the probes on it."""

    def __init__(self, cell_files: Sequence[Path], table: Path, dataset: str, model: str) -> None:
        self.dataset, self.model = dataset, model
        rows = choosing.read(cell_files)[1]
        self.strict = any(cell["protocol"] == "strict" for cell in rows)
        competing = [cell for cell in rows if choosing.competes(cell)]
        self.by_arm = choosing.by_arm(competing)
        self.slices = Slices(competing, {dataset: str(table)})

    def of(self, arm: str) -> Chosen:
        cells = self.by_arm.get(("strict", self.dataset, choosing.owner(arm, self.model), arm))
        return choosing.choose(cells) if cells else Chosen({}, {})

    @cached_property
    def sae(self) -> Chosen:
        return self.of("sae")

    def failure(self) -> str | None:
        """Why there is no configuration to lay out."""
        if not self.strict:
            return "The strict protocol did not run, and under the published one a configuration is chosen on the test part."
        if not self.sae.cells and not self.sae.failures:
            return "No SAE of this model was probed with a logistic regression."
        if FIRST not in self.sae.cells:
            return f"No probe of an SAE came out on the first split ({self.sae.reason()})."
        return None

    @property
    def first(self) -> Cell:
        """The cell that the SAE arm chooses on the first split."""
        return self.sae.cells[FIRST]

    def alike(self) -> dict[int, Cell]:
        """Split -> the cell of the first one's configuration, where it came out."""
        same = ("head", "pooling", "threshold")
        cells = self.by_arm["strict", self.dataset, self.model, "sae"]
        return {
            cell["seed"]: cell
            for cell in cells
            if cell["status"] == "ok" and all(cell[name] == self.first[name] for name in same)
        }

    def told(self) -> dict[str, Any]:
        """The configuration, what the SAE arm scores, and what other splits choose."""
        estimate = self.slices.score([self.slices.of(cell)["all"] for cell in self.sae.cells.values()])
        names = ("head", "layer", "width", "pooling", "threshold")
        others = [self.sae.cells[seed] for seed in sorted(self.sae.cells) if seed != FIRST]
        return {
            **{name: self.first[name] for name in names},
            "protocol": "strict",
            "macro_f1": estimate.value,
            "low": estimate.low,
            "high": estimate.high,
            "scored": SCORED,
            "other_seeds": [_configuration(cell) for cell in others],
        }


def _configuration(cell: Cell) -> str:
    threshold = "values as they are" if cell["threshold"] is None else f"threshold {cell['threshold']:g}"
    return f"{cell['head']}, {cell['pooling']}, {threshold}"


@dataclass(frozen=True)
class Fitted:
    """The configuration on the dataset: pooled features, what of them is weighed, and a model for each split."""

    pooled: sparse.csr_matrix
    weighed: Matrix
    splits: list[Split]
    models: list[Model]


def fit(choices: Choices, labelled: Labelled, capture: Path, strict: Mapping[str, Any]) -> Fitted:
    """Fit the configuration of the first split again, on each split for which it came out."""
    cell, cells = choices.first, choices.alike()
    pooled = activity.pooled(capture, cell["head"], cell["pooling"])
    arm, protocol = arms.given(pooled, cell["threshold"]), protocols.strict(**strict)
    splits = [split for split in protocol.splits(labelled.codes, labelled.table.groups) if split.seed in cells]
    probe = Probe(arm, protocol, labelled.codes, len(labelled.labels))
    models = probe.refits(splits, [cells[split.seed] for split in splits])
    kept = [(split, model) for split, model in zip(splits, models, strict=True) if isinstance(model, Model)]
    return Fitted(pooled, arm.X, [split for split, _ in kept], [model for _, model in kept])
