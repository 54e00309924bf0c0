"""What the figures of the study are drawn from: a run's cells, and beside each the published score of the same cell.

The study's figures average: over settings (a pooling, with a threshold or without), and over the layers of a group. A
*bar* here is such a mean. What it averages are *configurations*, a head with a pooling and a threshold; one that failed
on any split is left out of the mean and counted. A published bar is shown only where every configuration in ours is
published, so that two means always speak of the same cells; which cells are the same is the scoreboard's to say.

All figures show one protocol: the paper's where the run has it, because the published numbers follow it, else the strict
one. On the one split of the paper's protocol the interval of a bar is that of a score on so many test examples: all its
configurations are tested on the same ones, so averaging them does not narrow it. Under the strict protocol it is the
bootstrap over splits.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tessera import reference, results, scoreboard, statistics, transfer_results
from tessera.reference import Reference
from tessera.regimes import FULL
from tessera.results import competing, groups_of, ordered, rows_of
from tessera.scoreboard import COMPARABLE, PROTOCOLS, Run, Sources

Titles = dict[str, dict[str, Any]]

CONFIGURATION = ["dataset", "model", "head", "arm", "layer", "width", "pooling", "threshold"]
# What a published cell is found by: the scoreboard's columns, and ours.
SAME = {"our_dataset": "dataset", "our_model": "model", "our_head": "head"} | {
    name: name for name in ("arm", "pooling", "threshold")
}
SCORE = [
    "macro_f1",
    "low",
    "high",
    "published",
    "n_configurations",
    "n_failed",
    "n_seeds",
    "n_test",
    "status",
    "reason",
]


@dataclass(frozen=True, eq=False)
class Paper:
    """A run beside the study. `images` says of each transfer between modalities which dataset its images are."""

    cells: pd.DataFrame
    transfers: pd.DataFrame | None
    board: pd.DataFrame
    known: Reference
    run: Run
    titles: Titles = field(default_factory=dict)
    images: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def protocol(self) -> str:
        """The protocol of all figures."""
        present = set(self.cells["protocol"])
        return next((protocol for protocol in PROTOCOLS if protocol in present), PROTOCOLS[0])

    @cached_property
    def rows(self) -> pd.DataFrame:
        """The configurations under that protocol, a row a split, each with the group of its layer and its published score."""
        rows = competing(self.cells, self.protocol)
        same = self.board[(self.board["protocol"] == self.protocol) & (self.board["status"] == COMPARABLE)]
        same = same.loc[same["classifier"] == "l2", [*SAME, "published"]].rename(columns=SAME)
        rows = rows.drop(columns="published", errors="ignore")
        same = same.astype({name: rows[name].dtype for name in SAME.values()})
        rows = rows.merge(same, how="left", on=list(SAME.values()))
        return rows.assign(group=self.grouped(rows), published=rows["published"].astype("float64"))

    def grouped(self, rows: pd.DataFrame) -> pd.Series:
        """The group of each row's layer, null where it has none."""
        places = zip(rows["model"], rows["layer"], strict=True)
        return pd.Series([self.groups.get(place) for place in places], rows.index, dtype="object")

    @cached_property
    def groups(self) -> dict[tuple[str, float], str]:
        """Early, middle or late by model and layer, of the layers that SAEs read for probes or transfers."""
        published = set(self.known.cells["model"])
        found: dict[tuple[str, float], str] = {}
        for model, layers in self.layers.items():
            groups = reference.layer_groups(layers, published=self.run.repository("models", model) in published)
            found |= {(model, layer): group for layer, group in groups.items()}
        return found

    @cached_property
    def layers(self) -> dict[str, list[float]]:
        """The layers of each model that SAEs read."""
        read = [table for table in (self.cells, self.transfers) if table is not None]
        pairs = {
            (str(row.model), float(row.layer))
            for table in read
            for row in rows_of(table[(table["arm"] == "sae") & table["layer"].notna()][["model", "layer"]])
        }
        return {model: sorted(layer for of, layer in pairs if of == model) for model in sorted({of for of, _ in pairs})}

    # --- what there is, and what it is called ---

    @cached_property
    def models(self) -> list[str]:
        return ordered(self.titles.get("models", {}), {*self.cells["model"], *self.layers} - {"text"})

    @cached_property
    def datasets(self) -> list[str]:
        """The probed datasets."""
        return ordered(self.titles.get("datasets", {}), self.rows["dataset"])

    @cached_property
    def behaviours(self) -> list[str]:
        """What is predicted of models: probed datasets of that kind, and the targets of transfers between models."""
        kinds = {name: self.known.kinds.get(self.run.repository("datasets", name) or "") for name in self.datasets}
        probed = [name for name, kind in kinds.items() if kind == "behaviour"]
        targets = self.moved("model")["target"]
        return ordered([*self.titles.get("datasets", {}), *self.titles.get("behaviours", {})], {*probed, *targets})

    @cached_property
    def pictures(self) -> list[str]:
        """The datasets of images, probed or of transfers."""
        return ordered(self.titles.get("datasets", {}), {*self.run.images, *self.images.values()})

    @property
    def texts(self) -> list[str]:
        """The probed datasets that are neither behaviours nor images."""
        return [name for name in self.datasets if name not in {*self.behaviours, *self.pictures}]

    def moved(self, kind: str) -> pd.DataFrame:
        """What transfers of a kind score with all their training examples and features."""
        if self.transfers is None:
            return pd.DataFrame(columns=[*transfer_results.WORDS["transfers"], *transfer_results.NUMBERS["transfers"]])
        cells = self.transfers
        return cells[(cells["kind"] == kind) & (cells["share"] == 1) & (cells["selection"] == "none")]

    def dataset(self, name: str) -> str:
        """A dataset or behaviour as people call it."""
        return self._title("datasets", name, self._title("behaviours", name, name))

    def model(self, name: str) -> str:
        return self._title("models", name, name)

    def _title(self, section: str, name: str, otherwise: str) -> str:
        return str(self.titles.get(section, {}).get(name) or otherwise)

    # --- published scores that are no cell ---

    def best(self) -> dict[tuple[str, str], float]:
        """The published best of each arm on the datasets of the run that are the same data, by dataset and arm."""
        return {
            (name, row.arm): float(row.published)
            for row in rows_of(self.known.best)
            for name in self.run.datasets.get(row.dataset, [])
            if self._same_data(name, row.dataset, row.part)
        }

    def _same_data(self, name: str, dataset: str, part: str) -> bool:
        """Whether a dataset of the run is a published part of a dataset, as far as its size tells."""
        place, problem = scoreboard.part_of(self.run, name, part, self.protocol)
        sizes = self.known.cells[(self.known.cells["dataset"] == dataset) & (self.known.cells["part"] == part)]
        ours = self.rows.loc[self.rows["dataset"] == name, "n_test"].mean()
        published = float(sizes["n_test"].max()) if len(sizes) else float("nan")
        return place == (FULL, "all") and not problem and not scoreboard.other_size(ours, published)

    def tower(self, dataset: str) -> float | None:
        """Where the authors draw the line of the vision tower."""
        return self.known.towers.get(self.run.repository("datasets", dataset) or "")


def load(
    folder: Path | str,
    titles: Titles,
    *,
    sources: Sources,
    images: Sequence[str],
    image_transfers: Mapping[str, str],
    published: Path | str,
) -> Paper:
    """A run's tables in `folder`, beside the published numbers in another; the rest says what the config's ids are."""
    words, numbers = results.WORDS["cells"], [*results.NUMBERS["cells"], "n_test", "n_classes"]
    cells = results.read_table(Path(folder) / "cells.parquet", words, numbers)
    board = results.read_table(Path(folder) / "scoreboard.parquet", scoreboard.TABLE.names, [])
    moved = transfer_results.load(folder, titles).transfers if titles.get("transfers") else None
    run = Run(cells, moved, sources, images)
    return Paper(cells, moved, board, reference.load(published), run, titles, image_transfers)


# --- means ---------------------------------------------------------------------------------------------------------


def means(rows: pd.DataFrame, part: list[str], protocol: str) -> pd.DataFrame:
    """A row for each group of `part`: its mean macro-F1 with the interval, the published mean, and what failed."""
    sound = rows.groupby(CONFIGURATION, dropna=False)["status"].transform(lambda status: (status == "ok").all())
    return _summed(rows.assign(kept=sound.astype(bool)), part, protocol)


def best(rows: pd.DataFrame, part: list[str], protocol: str) -> pd.DataFrame:
    """A row for each group of `part`: what its best configuration scores, chosen as the protocol chooses.

    That is by the test score itself under the paper's, and for each split by inner validation under the strict one.
    """
    by = "macro_f1" if protocol == "paper" else "validation"
    ties = ["model", "head", "pooling", "threshold"]
    order = rows[rows["status"] == "ok"].sort_values([by, *ties], ascending=[False, *(True for _ in ties)])
    chosen = order.drop_duplicates([*part, "seed"]).index
    return _summed(rows.assign(kept=rows.index.isin(chosen)), part, protocol)


def _summed(rows: pd.DataFrame, part: list[str], protocol: str) -> pd.DataFrame:
    """A row for each group of `part`, about those of its rows that are kept."""
    found = [dict(zip(part, key, strict=True)) | _score(here, protocol) for key, here in groups_of(rows, part)]
    return pd.DataFrame(found, columns=[*part, *SCORE])


def _score(here: pd.DataFrame, protocol: str) -> dict[str, Any]:
    good, lost = here[here["kept"]], here[here["status"] != "ok"]
    told = {"n_configurations": _count(here), "n_failed": _count(lost), "reason": min(lost["reason"], default="")}
    if good.empty:
        return told | {"status": "failed"}
    by_seed = good.groupby("seed")["macro_f1"].mean().to_numpy()
    low, high = interval(by_seed, good["n_test"].mean(), protocol)
    return told | {
        "macro_f1": float(by_seed.mean()),
        "low": low,
        "high": high,
        "published": good["published"].mean() if good["published"].notna().all() else np.nan,
        "n_seeds": len(by_seed),
        "n_test": good["n_test"].mean(),
        "status": "ok",
    }


def _count(rows: pd.DataFrame) -> int:
    return len(rows[CONFIGURATION].drop_duplicates())


def interval(by_seed: Any, n_test: float, protocol: str) -> tuple[float, float]:
    """The 95 % interval of a mean of splits: over splits, or on a single one that of a score on its test examples."""
    if protocol == "paper" or len(by_seed) < 2:
        return reference.sampling_interval(float(np.mean(by_seed)), n_test)
    return over(by_seed)


def over(values: Any) -> tuple[float, float]:
    """The 95 % bootstrap interval of a mean over at least two units: splits, heads or datasets."""
    given = np.asarray(values, np.float64)
    weights = np.concatenate(list(statistics.draws(len(given), statistics.REPLICATES)))
    found = statistics.interval(float(given.mean()), weights @ given / len(given), len(given))
    if found.low is None or found.high is None:
        raise ValueError("a single unit has no interval")
    return found.low, found.high


def with_hidden(sae: pd.DataFrame, hidden: pd.DataFrame) -> pd.DataFrame:
    """The rows of SAE features, each with a row of the hidden state of its layer's last token beside it.

    That is what the authors' table of scores holds, which their bars average whole: a hidden state depends on no setting,
    and stands there once for each. Rows whose layer has no such hidden state are left out, and where one of the two failed
    both did: a bar of the other alone would be no mean of both.
    """
    last = hidden[(hidden["arm"] == "hidden") & (hidden["pooling"] == "last")]
    place = ["dataset", "model", "layer", "seed"]
    told = ["macro_f1", "validation", "n_test", "status", "reason", "published"]
    pairs = sae.merge(last[[*place, *told]].drop_duplicates(place), on=place, suffixes=("", "_beside"))
    lost = (pairs["status"] != "ok") | (pairs["status_beside"] != "ok")
    reason = pairs["reason"].where(pairs["status"] != "ok", pairs["reason_beside"])
    pairs = pairs.assign(status=np.where(lost, "failed", "ok"), reason=reason.where(lost, ""))
    of_hidden = {name: pairs[f"{name}_beside"] for name in ("macro_f1", "validation", "n_test", "published")}
    return pd.concat([pairs, pairs.assign(arm="hidden", **of_hidden)], ignore_index=True)[list(sae.columns)]


def averaged(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows that means are taken over: the study's poolings, sums and top-N, or all where the run has none of these."""
    pooling = rows["pooling"].astype("str")
    kept = rows[(pooling == "sum") | pooling.str.startswith("top-")]
    return kept if len(kept) else rows
