"""What a run found: its tables in memory, with the names people gave to datasets and models.

Figures, findings and the report page read the same tables, and must agree on three things that the tables leave open:
which protocol speaks first, in which order datasets and models stand, and which configuration an arm would have chosen
within some part of its search space. They are answered here, once.

A choice inside a part of the search space (one layer, one width) is made the way the whole choice is made: for each
split, the configuration with the best inner validation score. Its test score never enters, so a curve over layers is as
honest as the arm it explains.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from tessera.errors import UserError
from tessera.plan import ATTENTION
from tessera.regimes import FULL

Titles = dict[str, dict[str, str]]

ARMS = {
    "sae": "SAE features",
    "hidden": "Hidden states",
    "hidden-last": "Hidden state, last token",
    "hidden-attention": "Hidden states, attention",
    "tfidf": "TF-IDF",
    "random": "Random features",
    "length": "Length alone",
    "majority": "Majority class",
}
TEXT_ARMS = ("tfidf", "length", "majority")
PROTOCOLS = ("strict", "paper")
CLASSIFIERS = ("l2", "majority")

NUMBERS = {
    "cells": ["layer", "width", "threshold", "k", "seed", "validation", "accuracy", "macro_f1"],
    "arms": ["macro_f1", "low", "high", "accuracy", "auroc", "auprc", "ece", "brier", "n_seeds", "n_test"],
    "differences": ["difference", "low", "high", "n_seeds"],
    "curves": ["k", "penalty", "n_weighed", "macro_f1", "lowest", "highest", "n_seeds"],
    "comparisons": ["n_datasets", "mean", "median", "wins", "ties", "losses", "rank_biserial", "p", "p_holm"],
    "saes": ["layer", "width", "explained_variance", "l0", "dead_fraction"],
}
WORDS = {
    "cells": [
        "model",
        "dataset",
        "head",
        "arm",
        "pooling",
        "classifier",
        "regime",
        "protocol",
        "subset",
        "status",
        "reason",
    ],
    "arms": ["protocol", "dataset", "model", "arm", "subset", "status", "reason"],
    "differences": ["protocol", "dataset", "model", "arm_a", "arm_b"],
    "curves": ["protocol", "dataset", "model", "arm", "classifier", "regime", "status", "reason"],
    "comparisons": ["protocol", "model", "arm_a", "arm_b", "verdict"],
    "saes": ["sae", "model", "architecture", "dataset"],
}


@dataclass(frozen=True)
class Tables:
    """The tables of one run. `titles` has the keys "datasets" and "models"; an id without a title is its own."""

    cells: pd.DataFrame
    arms: pd.DataFrame
    differences: pd.DataFrame
    curves: pd.DataFrame
    comparisons: pd.DataFrame
    saes: pd.DataFrame
    titles: Titles = field(default_factory=dict)

    @property
    def protocol(self) -> str:
        """The protocol that speaks first: strict, and another one only in a run that has no strict."""
        present = set(self.arms["protocol"]) | set(self.cells["protocol"])
        return next((protocol for protocol in PROTOCOLS if protocol in present), PROTOCOLS[0])

    @property
    def datasets(self) -> list[str]:
        return self._ordered("datasets", {*self.arms["dataset"], *self.cells["dataset"]})

    @property
    def models(self) -> list[str]:
        return self._ordered("models", {*self.arms["model"], *self.cells["model"]} - {"text"})

    def _ordered(self, kind: Literal["datasets", "models"], present: Iterable[str]) -> list[str]:
        return ordered(self.titles.get(kind, {}), present)

    def dataset(self, name: str) -> str:
        return self.titles.get("datasets", {}).get(name, name)

    def model(self, name: str) -> str:
        return self.titles.get("models", {}).get(name, name)

    def arm_rows(self, protocol: str) -> pd.DataFrame:
        """The chosen arms under one protocol, scored on all test examples."""
        return self.arms[(self.arms["protocol"] == protocol) & (self.arms["subset"] == "all")]

    def whole_cells(self) -> pd.DataFrame:
        """The configurations of the first protocol."""
        return competing(self.cells, self.protocol)

    def pooled_cells(self) -> pd.DataFrame:
        """The same less what attention pools: it has heads of its own, so no other pooling can be compared with it there."""
        cells = self.whole_cells()
        return cells[cells["pooling"] != ATTENTION]


def ordered(named: Iterable[str], present: Iterable[str]) -> list[str]:
    """The order of the config first, then whatever the config does not name."""
    named, present = list(named), set(present)
    return [name for name in named if name in present] + sorted(present - set(named))


def competing(cells: pd.DataFrame, protocol: str) -> pd.DataFrame:
    """The configurations of a protocol, scored on all test examples: no points of curves."""
    here = cells[(cells["protocol"] == protocol) & (cells["subset"] == "all")]
    return here[(here["regime"] == FULL) & here["k"].isna() & here["classifier"].isin(CLASSIFIERS)]


def load(folder: Path | str, titles: Titles) -> Tables:
    """The tables of a run from the .parquet files of that name in `folder`."""
    return Tables(
        **{name: read_table(Path(folder) / f"{name}.parquet", WORDS[name], NUMBERS[name]) for name in NUMBERS},
        titles=titles,
    )


def read_table(path: Path, words: list[str], numbers: list[str]) -> pd.DataFrame:
    """A table of a run, which must have these columns of words and of numbers."""
    try:
        table = pd.read_parquet(path)
    except FileNotFoundError:
        raise UserError(str(path), "there is no such table", "run the workflow up to its tables first") from None
    missing = [column for column in [*words, *numbers] if column not in table.columns]
    if missing:
        raise UserError(str(path), f"the columns {', '.join(missing)} are missing", "delete the file and run again")
    # A column that holds nothing but nulls has no type of its own in the file.
    return table.astype(dict.fromkeys(numbers, "float64"))


def chosen_within(cells: pd.DataFrame, part: list[str]) -> pd.DataFrame:
    """One row per group of `part` and seed: the cell with the best inner validation score; the first by name of equals.

    Groups whose cells all failed are left out; `failures` tells them.
    """
    good = cells[(cells["status"] == "ok") & cells["validation"].notna()]
    order = good.sort_values(["validation", "head", "pooling", "threshold"], ascending=[False, True, True, True])
    return order.drop_duplicates([*part, "seed"])


def over_seeds(cells: pd.DataFrame, part: list[str]) -> pd.DataFrame:
    """Macro-F1 per group of `part`: mean, lowest and highest over the splits, and how many splits there are."""
    return (
        cells.groupby(part, dropna=False)["macro_f1"]
        .agg(macro_f1="mean", lowest="min", highest="max", n_seeds="count")
        .reset_index()
    )


def rows_of(table: pd.DataFrame) -> Iterator[Any]:
    """The rows one by one, as named tuples: pandas knows the columns of a table only when it runs."""
    return iter(table.itertuples(index=False))


def groups_of(table: pd.DataFrame, by: str | list[str]) -> Iterator[tuple[Any, pd.DataFrame]]:
    """The table in parts of equal `by`, in the order in which they first come up."""
    return iter(table.groupby(by, sort=False, dropna=False))


def failures(cells: pd.DataFrame, part: list[str]) -> pd.DataFrame:
    """Per group of `part` in which something failed: how many cells failed of how many, and the first reason."""
    marked = cells.assign(failed=cells["status"] != "ok", why=cells["reason"].where(cells["status"] != "ok"))
    found = marked.groupby(part, dropna=False).agg(
        failed=("failed", "sum"), cells=("failed", "size"), reason=("why", lambda why: min(why.dropna(), default=""))
    )
    return found[found["failed"] > 0].reset_index()
