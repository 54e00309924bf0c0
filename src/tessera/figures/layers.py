"""Where in the model the signal lies: macro-F1 against layer, a panel for each dataset and model.

A point is what the arm would have scored had it been confined to that layer (and, for SAE features, to that width):
pooling and threshold are chosen for each split by inner validation, as for the whole arm. The bar spans the splits from
the lowest score to the highest; it is a spread and not an interval, because the splits share their examples.
"""

from itertools import pairwise

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from tessera.figures import style
from tessera.results import ARMS, TEXT_ARMS, Tables, chosen_within, failures, groups_of, over_seeds, rows_of

COLUMNS = 3
PART = ["dataset", "model", "arm", "layer", "width"]
LINES = {"tfidf": "--", "length": "-.", "majority": ":"}


def data(tables: Tables) -> pd.DataFrame:
    """One row per dataset, model, arm, layer and width; a point that failed has no score, and its reason."""
    cells = tables.whole_cells()
    cells = cells[cells["arm"].isin(["sae", "hidden"])]
    scores = over_seeds(chosen_within(cells, PART), PART)
    # A cell that failed leaves others to choose from; a point is lost when none is left in any split.
    lost = failures(cells, PART)
    lost = lost[lost["failed"] == lost["cells"]].drop(columns=["failed", "cells"])
    table = pd.concat([scores.assign(status="ok", reason=""), lost.assign(status="failed")])
    return table.assign(protocol=tables.protocol).sort_values(PART, na_position="first").reset_index(drop=True)


def draw(tables: Tables) -> Figure:
    with style.applied():
        points = data(tables)
        models = [name for name in tables.models if (points["model"] == name).any()]
        datasets = [name for name in tables.datasets if (points["dataset"] == name).any()]
        if not models:
            figure = style.canvas(0.4)
            style.empty(figure.subplots(), "No hidden states and no SAE were read, so there is no layer to compare.")
            return figure
        series = _series(points)
        # A model need not read every dataset, and has no panel of what it does not.
        read = set(zip(points["dataset"], points["model"], strict=True))
        panels = [(dataset, model) for dataset in datasets for model in models if (dataset, model) in read]
        columns = len(models) if len(models) <= COLUMNS else COLUMNS
        lines = -(-len(panels) // columns)
        figure = style.canvas(1.1 + 1.85 * lines, _notes(tables, points))
        grid = figure.subplots(lines, columns, squeeze=False).flatten()
        for axes, (dataset, model) in zip(grid, panels, strict=False):
            here = points[(points["dataset"] == dataset) & (points["model"] == model)]
            levels = _levels(tables, dataset)
            _panel(axes, here, levels, series)
            best = points.loc[points["dataset"] == dataset, "highest"]
            axes.set_ylim(0, style.score_limit([*best, *levels.values()]))
            style.title(axes, [tables.dataset(dataset), tables.model(model)], columns)
        for axes in grid[len(panels) :]:
            axes.set_visible(False)
        figure.supylabel(style.SCORE_LABEL, fontsize=8)
        style.legend_above(figure, _keys(tables, series), 3)
        return figure


def _series(points: pd.DataFrame) -> dict[tuple[str, float], tuple[str, str]]:
    """Colour and marker of each line: hidden states as everywhere, SAE widths from the narrowest on."""
    looks = {}
    if (points["arm"] == "hidden").any():
        looks["hidden", 0.0] = style.ARM_LOOK["hidden"]
    for place, width in enumerate(sorted(points.loc[points["arm"] == "sae", "width"].unique())):
        looks["sae", width] = style.SERIES[place % len(style.SERIES)]
    return looks


def _levels(tables: Tables, dataset: str) -> dict[str, float]:
    """The scores of the arms that have no layer."""
    rows = tables.arm_rows(tables.protocol)
    rows = rows[(rows["dataset"] == dataset) & rows["arm"].isin(TEXT_ARMS) & (rows["status"] == "ok")]
    return dict(zip(rows["arm"], rows["macro_f1"], strict=True))


def _panel(axes: Axes, here: pd.DataFrame, levels: dict[str, float], series: dict) -> None:
    for arm, level in levels.items():
        axes.axhline(level, color=style.ARM_LOOK[arm][0], linestyle=LINES[arm], linewidth=1.2)
    layers = sorted(here["layer"].unique())
    step = min(after - before for before, after in pairwise(layers)) if len(layers) > 1 else 1.0
    own = set(zip(here["arm"], here["width"].fillna(0), strict=True))
    lines = [line for line in series if line in own]
    for place, (arm, width) in enumerate(lines):
        color, marker = series[arm, width]
        line = here[(here["arm"] == arm) & (here["width"].fillna(0) == width)].sort_values("layer")
        # Side by side, so that lines that agree do not hide each other.
        line = line.assign(at=line["layer"] + (place - (len(lines) - 1) / 2) * 0.08 * step)
        good, lost = line[line["status"] == "ok"], line[line["status"] != "ok"]
        if len(good):
            spread = [good["macro_f1"] - good["lowest"], good["highest"] - good["macro_f1"]]
            axes.errorbar(good["at"], good["macro_f1"], yerr=spread, color=color, marker=marker, capsize=2)
        for at in lost["at"]:
            axes.plot(at, 0.03, "x", color=color, clip_on=False)
    axes.set_xticks(layers[:: -(-len(layers) // 12)])
    axes.set_xlim(layers[0] - 0.4 * step, layers[-1] + 0.4 * step)
    axes.xaxis.set_major_formatter("{x:.0f}")
    axes.set_xlabel("Layer")


def _keys(tables: Tables, series: dict) -> list[Line2D]:
    keys = []
    for (arm, width), look in series.items():
        label = ARMS[arm] if arm == "hidden" else f"{ARMS[arm]}, width {int(width):,}"
        keys.append(style.key(look, label, line="-"))
    present = set(tables.arm_rows(tables.protocol)["arm"])
    keys += [style.key((style.ARM_LOOK[arm][0], ""), ARMS[arm], line=LINES[arm]) for arm in TEXT_ARMS if arm in present]
    return keys


def _notes(tables: Tables, points: pd.DataFrame) -> list[str]:
    notes = []
    if tables.protocol != "strict":
        notes.append("The strict protocol was not run; these are the paper protocol's scores, on one split.")
    lost = points[points["status"] != "ok"]
    for (dataset, model, arm, reason), group in groups_of(lost, ["dataset", "model", "arm", "reason"]):
        layers = ", ".join(f"{layer:.0f}" for layer in sorted(group["layer"].unique()))
        widths = ", ".join(f"{width:,.0f}" for width in sorted(group["width"].dropna().unique()))
        where = f"{tables.dataset(dataset)}, {tables.model(model)}, layer {layers}" + (widths and f", width {widths}")
        notes.append(f"x failed: {ARMS[arm]} on {where}: {reason}")
    levels = tables.arm_rows(tables.protocol)
    gone = levels[levels["arm"].isin(TEXT_ARMS) & (levels["status"] != "ok")]
    return notes + [
        f"No line for {ARMS[row.arm]} on {tables.dataset(row.dataset)}: it failed: {row.reason}"
        for row in rows_of(gone)
    ]
