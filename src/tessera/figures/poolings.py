"""What pooling and threshold do: macro-F1 of each variant, over all heads of a dataset.

A variant is a pooling, with the pooled values kept or made binary at a threshold. Each small point is one head (a
layer's hidden states, or one SAE), the mean of its splits; the bold marker is the mean over heads. SAE features and
hidden states have panels of their own and are never averaged together. A head counts in the means only where it has a
score for every variant, so that two means always speak of the same heads; a variant that failed for all heads is put
aside first.
"""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from tessera.figures import style
from tessera.results import ARMS, Tables, failures, groups_of, over_seeds, rows_of

HEAD = ["dataset", "arm", "model", "head"]
VARIANT = ["pooling", "threshold"]
RAW, BINARY = (style.BLUE, "o"), (style.ORANGE, "D")


def data(tables: Tables) -> pd.DataFrame:
    """One row per head and variant; `counts` tells whether the head takes part in the mean."""
    cells = tables.pooled_cells()
    cells = cells[cells["arm"].isin(["sae", "hidden"])]
    part = [*HEAD, *VARIANT]
    scores = over_seeds(cells[cells["status"] == "ok"], part)
    lost = failures(cells, part)
    # A head that failed on some splits would be a mean over other splits than its neighbours'.
    table = cells[part].drop_duplicates().merge(scores, how="left").merge(lost, how="left")
    table["status"] = np.where(table["failed"].notna(), "failed", "ok")
    table.loc[table["status"] == "failed", ["macro_f1", "lowest", "highest"]] = np.nan
    table["reason"] = table["reason"].fillna("")
    table["counts"] = _counted(table)
    table["protocol"] = tables.protocol
    return table.drop(columns=["failed", "cells"]).sort_values(part).reset_index(drop=True)


def _counted(table: pd.DataFrame) -> pd.Series:
    variant = table.groupby(["dataset", "arm", *VARIANT], dropna=False)["status"]
    alive = variant.transform(lambda status: (status == "ok").any())
    sound = (table["status"] == "ok") | ~alive
    return table.assign(sound=sound).groupby(HEAD)["sound"].transform("all") & (table["status"] == "ok")


def draw(tables: Tables) -> Figure:
    with style.applied():
        points = data(tables)
        arms = [arm for arm in ("sae", "hidden") if (points["arm"] == arm).any()]
        datasets = [name for name in tables.datasets if (points["dataset"] == name).any()]
        if not arms:
            figure = style.canvas(0.4)
            style.empty(figure.subplots(), "No hidden states and no SAE were read, so there is no pooling to compare.")
            return figure
        variants = {arm: _variants(points[points["arm"] == arm]) for arm in arms}
        tallest = max(len(rows) for rows in variants.values())
        figure = style.canvas(1.1 + len(datasets) * (0.72 + 0.21 * tallest), _notes(tables, points))
        grid = figure.subplots(len(datasets), len(arms), squeeze=False, sharex="row")
        for line, dataset in zip(grid, datasets, strict=True):
            for axes, arm in zip(line, arms, strict=True):
                here = points[(points["dataset"] == dataset) & (points["arm"] == arm)]
                _panel(axes, here, variants[arm])
                style.title(axes, [tables.dataset(dataset), ARMS[arm]], len(arms))
            line[0].set_xlim(0, style.score_limit(points.loc[points["dataset"] == dataset, "macro_f1"]))
        style.legend_above(figure, _keys(points), 2)
        return figure


def _variants(points: pd.DataFrame) -> list[tuple[str, float | None]]:
    """The variants in reading order: as the poolings' names say, kept values before binary ones."""
    pairs = {(pooling, None if pd.isna(cut) else float(cut)) for pooling, cut in points[VARIANT].to_numpy()}
    return sorted(pairs, key=lambda pair: (rank(pair[0]), pair[0], pair[1] or 0.0))


def rank(pooling: str) -> tuple[int, int]:
    """Where a pooling stands among others: sum first, top-N by N, the last token last."""
    order = ["sum", "mean", "max", "top", "last"]
    kind, _, count = pooling.partition("-")
    return order.index(kind), int(count or 0)


def _of(points: pd.DataFrame, variant: tuple[str, float | None]) -> pd.DataFrame:
    pooling, cut = variant
    same = points["threshold"].isna() if cut is None else points["threshold"] == cut
    return points[(points["pooling"] == pooling) & same]


def _panel(axes: Axes, here: pd.DataFrame, variants: list[tuple[str, float | None]]) -> None:
    for y, variant in enumerate(variants):
        rows = _of(here, variant)
        color, marker = RAW if variant[1] is None else BINARY
        good = rows[rows["status"] == "ok"]
        below = [y + 0.3] * len(good)  # the mean would hide them
        axes.plot(good["macro_f1"], below, "o", color=color, alpha=0.6, markersize=2.6, markeredgewidth=0)
        counted = good.loc[good["counts"], "macro_f1"]
        if len(counted):
            axes.plot(counted.mean(), y, marker, color=color, markeredgecolor="black", markersize=6, zorder=3)
        elif good.empty:
            style.absent(axes, y, color, min(rows["reason"], default=""), 2)
    names = [pooling if cut is None else f"{pooling} \N{GREATER-THAN OR EQUAL TO} {cut:g}" for pooling, cut in variants]
    axes.set_yticks(range(len(variants)), names)
    axes.set_ylim(len(variants) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel(style.SCORE_LABEL)


def _keys(points: pd.DataFrame) -> list[Line2D]:
    cuts = sorted(points["threshold"].dropna().unique())
    keys = [style.key(RAW, "mean over heads, values kept")]
    if cuts:
        keys.append(style.key(BINARY, f"mean over heads, binary at {' or '.join(f'{cut:g}' for cut in cuts)}"))
    keys.append(style.key((style.GREY, "."), "small points below: one head each"))
    return keys


def _notes(tables: Tables, points: pd.DataFrame) -> list[str]:
    notes = []
    if tables.protocol != "strict":
        notes.append("The strict protocol was not run; these are the paper protocol's scores, on one split.")
    left_out = points[(points["status"] == "ok") & ~points["counts"]].drop_duplicates(HEAD)
    notes += [
        f"Not in the means of {tables.dataset(row.dataset)}: {row.head}, which failed for some variants."
        for row in rows_of(left_out)
    ]
    for (dataset, arm), rows in groups_of(points, ["dataset", "arm"]):
        for reason, lost in groups_of(rows[rows["status"] != "ok"], "reason"):
            share = f"{len(lost)} of {len(rows)} combinations of head, pooling and threshold"
            notes.append(f"x failed: {ARMS[arm]} on {tables.dataset(dataset)}, {share}: {reason}")
    return notes
