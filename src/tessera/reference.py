"""The published numbers of the study that this suite reproduces, in the words of this suite, and how sure they are.

A published score belongs to a *published cell*: model and dataset by their Hub repositories, the part of the dataset
(a split or a language), arm, layer, width, pooling, threshold, classifier. A hidden state has no width and no threshold,
so what the authors list for one layer beside different SAE settings are repeats of one cell: it has their mean, how many
they are, and how far they spread.

The noise of a published cell is a standard deviation, the larger of two:

- sampling: the binomial standard error sqrt(p (1 - p) / n) of its score on the n examples of its test part, with two
  right and two wrong answers added so that a perfect score has one, too. A macro-F1 is no plain proportion; for many
  classes this says too little, which is one reason for the other;
- repeats: the spread of the same cell when it was published more than once, pooled over the cells of one model and
  dataset part, or of the dataset where that model has no repeats. Two runs of one configuration should agree; by how
  much they do not is measured here.

Where the size of the test part is unknown and nothing is repeated, the noise is unknown.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tessera.errors import UserError
from tessera.results import rows_of

SCORES, BEST, DATASETS = "results_tidy.csv", "best_per_dataset.csv", "datasets.csv"
TOWERS = "vision_tower.csv"
COLUMNS = {
    SCORES: [
        "experiment", "model", "dataset", "split_or_lang", "layer", "width", "top_n", "binarized", "feature_type",
        "classifier", "metric", "value", "source_file", "source_commit",
    ],
    BEST: [
        "dataset", "hidden_best_layer", "hidden_best_macro_f1", "sae_best_layer", "sae_width", "sae_top_n",
        "sae_binarized", "sae_best_macro_f1",
    ],
    DATASETS: ["dataset", "part", "kind", "n_test"],
    TOWERS: ["dataset", "value"],
}  # fmt: skip

UNKNOWN = "unknown"
GROUPS = ("early", "middle", "late")
EVERY = "any"
# Standard errors within which 95 % of measurements lie.
REACH = 1.96
WIDTHS = {"16k": 16384, "65k": 65536, "131k": 131072, "1m": 1048576}
POOLINGS = {"0": "sum", "20": "top-20", "50": "top-50", UNKNOWN: UNKNOWN}
ARMS = {"hidden_states": "hidden", "sae_features": "sae"}
CLASSIFIERS = {"logistic_regression": "l2", "decision_tree": "tree"}

PLACE = ["model", "dataset", "part"]
CELL = ["experiment", *PLACE, "arm", "layer", "width", "pooling", "threshold", "classifier"]


@dataclass(frozen=True)
class Reference:
    """The published numbers.

    `cells` has a row a published cell: the columns of `CELL`, `published` (macro-F1), `n_published`, `published_low` and
    `published_high` (of its repeats), `n_test`, `noise`, `known` (whether pooling and threshold are published) and where
    it was read. `best` has two rows a dataset, the best cell of either arm over all models; `kinds` is by dataset, and so is
    `towers`, where the authors draw the line of the vision tower.
    """

    cells: pd.DataFrame
    best: pd.DataFrame
    kinds: dict[str, str]
    towers: dict[str, float]


def load(folder: Path | str) -> Reference:
    """The published numbers from the CSV files in `folder`."""
    read = {name: _read(Path(folder) / name) for name in COLUMNS}
    datasets = read[DATASETS]
    scores = _in_our_words(read[SCORES], Path(folder) / SCORES)
    cells = _with_noise(_cells(scores), scores, _sizes(datasets))
    kinds = dict(zip(datasets["dataset"], datasets["kind"], strict=True))
    towers = dict(zip(read[TOWERS]["dataset"], _numbers(read[TOWERS]["value"], Path(folder) / TOWERS), strict=True))
    return Reference(cells, _best(read[BEST], datasets, Path(folder) / BEST), kinds, towers)


def layer_group(layer: float) -> str:
    """How the authors group the layers of the models they read."""
    if layer < 10:
        return GROUPS[0]
    return GROUPS[2] if layer == 19 or layer > 20 else GROUPS[1]


def layer_groups(layers: Iterable[float], *, published: bool) -> dict[float, str]:
    """Early, middle or late for each layer that is read of a model: as published, or by thirds of those of another model.

    Fewer than three layers of another model have no middle, and so no groups.
    """
    ordered = sorted(set(layers))
    if published:
        return {layer: layer_group(layer) for layer in ordered}
    if len(ordered) < len(GROUPS):
        return {}
    depths = {layer: place / (len(ordered) - 1) for place, layer in enumerate(ordered)}
    return {layer: GROUPS[(depth >= 1 / 3) + (depth > 2 / 3)] for layer, depth in depths.items()}


# --- reading -------------------------------------------------------------------------------------------------------


def _read(path: Path) -> pd.DataFrame:
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except FileNotFoundError:
        mend = "restore resources/reference from the repository"
        raise UserError(str(path), "there is no such file of published numbers", mend) from None
    missing = [column for column in COLUMNS[path.name] if column not in table.columns]
    if missing:
        raise UserError(str(path), f"the columns {', '.join(missing)} are missing", "restore the file")
    return table


def _said(column: pd.Series, words: Mapping[str, Any], path: Path) -> pd.Series:
    """The column in our words; one that we do not know is a fault of the file."""
    strange = sorted(set(column) - set(words))
    if strange:
        wrong = f"'{strange[0]}' in {column.name} is none of {', '.join(words)}"
        raise UserError(str(path), wrong, "correct the row")
    return column.map(words)


def _numbers(column: pd.Series, path: Path) -> pd.Series:
    """The column as numbers; an empty field is none."""
    numbers = pd.to_numeric(column.where(column != ""), errors="coerce")
    strange = column[numbers.isna() & (column != "")]
    if len(strange):
        raise UserError(str(path), f"'{strange.iloc[0]}' in {column.name} is no number", "correct the row")
    return numbers.astype("float64")


def _in_our_words(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    """A row a published score. What a hidden state does not depend on is null."""
    arm = _said(table["feature_type"], ARMS, path)
    sae = arm == "sae"
    binary = _said(table["binarized"], {"0": np.nan, "1": 1.0, UNKNOWN: np.nan}, path)
    pooling = _said(table["top_n"], POOLINGS, path)
    wrong = sorted(set(table["metric"]) - {"macro_f1"})
    if wrong:
        raise UserError(str(path), f"'{wrong[0]}' in metric is not macro_f1", "leave such rows out")
    return pd.DataFrame(
        {
            "experiment": table["experiment"],
            "model": table["model"],
            "dataset": table["dataset"],
            "part": table["split_or_lang"],
            "arm": arm,
            "layer": _numbers(table["layer"], path),
            "width": _said(table["width"], WIDTHS, path).where(sae).astype("float64"),
            "pooling": pooling.where(sae | (pooling == UNKNOWN), "last"),
            "threshold": binary.where(sae).astype("float64"),
            "classifier": _said(table["classifier"], CLASSIFIERS, path),
            "value": _numbers(table["value"], path),
            "source_file": table["source_file"],
            "source_commit": table["source_commit"],
        }
    )


def _cells(scores: pd.DataFrame) -> pd.DataFrame:
    """The published cells, each with its repeats summed up, in the order in which they were published."""
    return (
        scores.groupby(CELL, sort=False, dropna=False)
        .agg(
            published=("value", "mean"),
            n_published=("value", "size"),
            published_low=("value", "min"),
            published_high=("value", "max"),
            source_file=("source_file", "first"),
            source_commit=("source_commit", "first"),
        )
        .reset_index()
        .assign(known=lambda cells: cells["pooling"] != UNKNOWN)
    )


def _best(table: pd.DataFrame, datasets: pd.DataFrame, path: Path) -> pd.DataFrame:
    """The best of each arm, two rows a dataset. Its part is the one that the study read of the dataset, if it is one."""
    parts = datasets.groupby("dataset")["part"].agg(lambda found: found.iloc[0] if found.nunique() == 1 else EVERY)
    same = {"model": EVERY, "dataset": table["dataset"], "part": table["dataset"].map(parts).fillna(EVERY)}
    hidden = {
        "arm": "hidden",
        "layer": _numbers(table["hidden_best_layer"], path),
        "width": np.nan,
        "pooling": "last",
        "threshold": np.nan,
        "published": _numbers(table["hidden_best_macro_f1"], path),
    }
    sae = {
        "arm": "sae",
        "layer": _numbers(table["sae_best_layer"], path),
        "width": _said(table["sae_width"], WIDTHS, path).astype("float64"),
        "pooling": _said(table["sae_top_n"], POOLINGS, path),
        "threshold": _said(table["sae_binarized"], {"0": np.nan, "1": 1.0}, path).astype("float64"),
        "published": _numbers(table["sae_best_macro_f1"], path),
    }
    return pd.concat([pd.DataFrame(same | arm) for arm in (hidden, sae)], ignore_index=True)


# --- noise ---------------------------------------------------------------------------------------------------------


def _sizes(datasets: pd.DataFrame) -> dict[tuple[str, str], float]:
    return {(row.dataset, row.part): float(row.n_test) for row in rows_of(datasets) if row.n_test != ""}


def sampling_error(score: float, n_test: float) -> float:
    """The binomial standard error of a score, as if two more right and two more wrong answers had been given."""
    share = (score * n_test + 2) / (n_test + 4)
    return float(np.sqrt(share * (1 - share) / (n_test + 4)))


def sampling_interval(score: float, n_test: float) -> tuple[float, float]:
    """The 95 % interval of a score on `n_test` examples by that error: Agresti and Coull's, which holds the score itself."""
    middle, reach = (score * n_test + 2) / (n_test + 4), REACH * sampling_error(score, n_test)
    return max(0.0, min(score, middle - reach)), min(1.0, max(score, middle + reach))


def _with_noise(cells: pd.DataFrame, scores: pd.DataFrame, sizes: Mapping[tuple[str, str], float]) -> pd.DataFrame:
    """The cells with the size of their test part and their noise."""
    within, across = _repeats(scores, PLACE), _repeats(scores, ["dataset"])
    n_tests, noises = [], []
    for row in rows_of(cells):
        n_test = sizes.get((row.dataset, row.part), sizes.get((row.dataset, EVERY), np.nan))
        spread = within.get((row.model, row.dataset, row.part), across.get((row.dataset,), np.nan))
        known = [error for error in (sampling_error(row.published, n_test), spread) if np.isfinite(error)]
        n_tests.append(n_test)
        noises.append(max(known, default=np.nan))
    return cells.assign(n_test=n_tests, noise=noises)


def _repeats(scores: pd.DataFrame, place: list[str]) -> dict[tuple[str, ...], float]:
    """By place, the pooled standard deviation of scores that were published more than once for one cell."""
    known = scores[scores["pooling"] != UNKNOWN]
    spread = known.groupby(CELL, dropna=False)["value"].agg(["var", "size"]).reset_index()
    spread = spread[spread["size"] > 1]
    spread = spread.assign(freedom=spread["size"] - 1, squares=spread["var"] * (spread["size"] - 1))
    pooled = spread.groupby(place)[["squares", "freedom"]].sum()
    return {
        name if isinstance(name, tuple) else (name,): float(np.sqrt(squares / freedom))
        for name, squares, freedom in zip(pooled.index, pooled["squares"], pooled["freedom"], strict=True)
    }
