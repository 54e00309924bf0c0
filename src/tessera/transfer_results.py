"""What the transfers of a run found: their tables in memory, with the names people gave to what is in them.

A row of `transfers` is one cell: an arm trained on a source and tested on a target. Where `head` is null the arm itself
chose head and pooling by inner validation, and its score is what the arm is worth; the other rows tell what it would
have scored had it been confined to one head.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from tessera import results

Titles = dict[str, dict[str, Any]]

ARMS = results.ARMS | {
    "confidence": "The answering model's confidence",
    "vision": "Vision tower",
    "pixels": "Raw pixels",
}
# What reads one layer, so that a score can be drawn against it.
LAYERED = ("sae", "hidden")

NUMBERS = {
    "transfers": [
        "layer", "width", "share", "n_train", "n_test", "macro_f1", "low", "high", "accuracy", "auroc", "floor",
        "ceiling", "ceiling_low", "ceiling_high", "closed", "closed_low", "closed_high",
    ],
    "dictionaries": [
        "layer", "width", "l0", "explained_variance", "dead_fraction", "agreement", "agreement_chance", "macro_f1",
        "low", "high", "closed",
    ],
    "matches": [
        "layer", "width_a", "width_b", "mean_cosine", "median_cosine", "share_above_07", "share_above_09", "chance",
        "n_features",
    ],
}  # fmt: skip
WORDS = {
    "transfers": [
        "transfer", "kind", "source", "target", "training", "arm", "model", "head", "pooling", "selection",
        "ceiling_of", "status", "reason",
    ],
    "dictionaries": ["transfer", "dataset", "sae", "home", "reader", "status", "reason"],
    "matches": ["model", "sae_a", "sae_b"],
}  # fmt: skip


@dataclass(frozen=True)
class Transfers:
    """The tables of one run's transfers.

    `titles` has the keys "datasets", "models" and "behaviours", each from id to title, and "transfers", from id to
    `kind`, `title` and, for languages, the `origin` of translations. What has no title is called by its id.
    """

    transfers: pd.DataFrame
    dictionaries: pd.DataFrame
    matches: pd.DataFrame
    titles: Titles = field(default_factory=dict)

    def cells(self, transfer: str) -> pd.DataFrame:
        """The cells of one transfer."""
        return self.transfers[self.transfers["transfer"] == transfer].reset_index(drop=True)

    def dataset(self, name: str) -> str:
        return self._title("datasets", name)

    def model(self, name: str) -> str:
        return self._title("models", name)

    def behaviour(self, name: str) -> str:
        """A published behaviour is a dataset, and has its title there."""
        return self._title("behaviours", name) if name in self.titles.get("behaviours", {}) else self.dataset(name)

    def title(self, transfer: str) -> str:
        """What a transfer is called."""
        return str(self.titles.get("transfers", {}).get(transfer, {}).get("title") or transfer)

    def _title(self, section: str, name: str) -> str:
        return str(self.titles.get(section, {}).get(name) or name)

    def ordered(self, section: str, present: list[str]) -> list[str]:
        """The order of the config first, then the order in which the rest come up in the tables."""
        named = self.titles.get(section, {})
        return [name for name in named if name in present] + [name for name in present if name not in named]

    def origin(self, transfer: str) -> str | None:
        """The language that the others are reached from: what the config says, or else English, if it is there."""
        said = self.titles.get("transfers", {}).get(transfer, {}).get("origin")
        return said or ("en" if "en" in set(self.cells(transfer)["source"]) else None)


def load(folder: Path | str, titles: Titles) -> Transfers:
    """The tables of transfer from the .parquet files of that name in `folder`."""
    read = {name: results.read_table(Path(folder) / f"{name}.parquet", WORDS[name], NUMBERS[name]) for name in NUMBERS}
    return Transfers(**read, titles=titles)


def whole(transfers: Transfers) -> pd.DataFrame:
    """What each arm is worth with all its features and all its training examples, head and pooling chosen by validation.

    The cells of a dictionary are about one head each.
    """
    cells = transfers.transfers
    chosen = cells["head"].isna() | (cells["kind"] == "dictionary")
    return cells[chosen & (cells["selection"] == "none") & (cells["share"] == 1)]


def away(transfers: Transfers) -> pd.DataFrame:
    """Of these the cells that are trained elsewhere than where they are tested."""
    cells = whole(transfers)
    return cells[~cells["training"].isin(["native", "in-domain", "own", "words", "own SAE"])]
