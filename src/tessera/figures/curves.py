"""How few numbers do: macro-F1 against how many features or components a probe uses.

SAE features are cut to those that tell the labels of the training part best, hidden states to as many principal
components. The last point of a line, set apart, is the arm with all it has. Along the dashed path an L1 penalty decides
which features a probe leaves out, and the number is the mean of what is left in. The bar spans the splits from lowest to
highest; everything but the number is chosen by inner validation, as for the whole arm.
"""

import math
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from tessera.figures import style
from tessera.regimes import FULL
from tessera.results import ARMS, Tables, rows_of

# The arm of a curve, and the arm that it ends in.
LINES = {"sae": "sae", "random": "random", "pca": "hidden"}
# Its colour is that of the SAE features it is a path of.
PATH = "sae-l1"
NAMES = {
    "sae": "k SAE features",
    PATH: "SAE features left in by L1",
    "random": "k random features",
    "pca": "k principal components of hidden states",
}
COLUMNS = 3
ALL = "all"


def data(tables: Tables) -> pd.DataFrame:
    """One row per dataset, model, line and number of features; a null number means all of them."""
    curves = tables.curves
    curves = curves[(curves["protocol"] == "strict") & (curves["regime"] == FULL)]
    path = curves[(curves["classifier"] == "l1") & (curves["arm"] == "sae")]
    curves = curves[curves["classifier"] == "l2"]
    columns = ["dataset", "model", "line", "k", "macro_f1", "lowest", "highest", "n_seeds", "status", "reason"]
    parts = []
    for line, end in LINES.items():
        own = curves[(curves["arm"] == line) & curves["k"].notna()]
        if not own.empty:
            ends = curves[(curves["arm"] == end) & curves["k"].isna()]
            ends = ends.merge(own[["dataset", "model"]].drop_duplicates())
            parts.append(pd.concat([own, ends]).assign(line=line)[columns])
    if not path.empty:
        # A penalty that leaves nothing in has no place among numbers of features.
        path = path[path["n_weighed"] != 0]
        parts.append(path.assign(line=PATH, k=path["n_weighed"])[columns])
    if not parts:
        return pd.DataFrame(columns=columns)
    found = pd.concat(parts)
    order = found.assign(
        first=found["dataset"].map({name: place for place, name in enumerate(tables.datasets)}),
        second=found["model"].map({name: place for place, name in enumerate(tables.models)}),
        third=found["line"].map({name: place for place, name in enumerate(NAMES)}),
    )
    return order.sort_values(["first", "second", "third", "k"], na_position="last")[columns].reset_index(drop=True)


def draw(tables: Tables) -> Figure:
    with style.applied():
        rows = data(tables)
        panels = list(rows[["dataset", "model"]].drop_duplicates().itertuples(index=False, name=None))
        if not panels:
            figure = style.canvas(0.5)
            style.empty(
                figure.subplots(), "The config asks for no curve (probes.sparse_k), or nothing could be computed."
            )
            return figure
        columns = min(COLUMNS, len(panels))
        lines = -(-len(panels) // columns)
        figure = style.canvas(0.7 + 1.9 * lines, _notes(tables, rows))
        grid = figure.subplots(lines, columns, sharey=True, squeeze=False).flatten()
        ticks = _ticks(rows)
        for axes, (dataset, model) in zip(grid, panels, strict=False):
            here = rows[(rows["dataset"] == dataset) & (rows["model"] == model) & (rows["status"] == "ok")]
            _panel(axes, here, ticks)
            style.title(axes, [tables.dataset(dataset), tables.model(model)], columns)
            axes.set_ylim(0, style.score_limit(rows["highest"]))
        for axes in grid[len(panels) :]:
            axes.set_visible(False)
        for axes in grid[::columns]:
            axes.set_ylabel(style.SCORE_LABEL)
        style.legend_above(figure, _keys(rows), 2)
        return figure


def _ticks(rows: pd.DataFrame) -> list[float]:
    """The numbers that a config asks for, and powers of four as far as a path goes beyond them."""
    asked = sorted(rows.loc[(rows["line"] != PATH) & rows["k"].notna(), "k"].unique())
    largest = max(rows["k"].max(), 1) if rows["k"].notna().any() else 1
    powers = [4.0**power for power in range(1 + math.ceil(math.log(largest, 4)))]
    return asked + [power for power in powers if not asked or power > 2 * asked[-1]]


def _panel(axes: Axes, rows: pd.DataFrame, ticks: list[float]) -> None:
    """Each doubling is as far as another, and what an arm makes of all it has stands apart."""
    numbers = [*ticks, *rows["k"].dropna()]
    first, last = math.log2(min(numbers)), math.log2(max(numbers))
    unit = max(last - first, 1) / 8
    apart = last + 2 * unit
    for shift, line in enumerate(NAMES):
        own = rows[rows["line"] == line].sort_values("k", na_position="last")
        color, marker = _look(line)
        at = [(apart if pd.isna(row.k) else math.log2(row.k)) + unit * (shift - 1) / 6 for row in rows_of(own)]
        axes.vlines(at, own["lowest"], own["highest"], color=color, linewidth=1.2)
        cut = own["k"].notna().to_numpy()
        drawn: dict[str, Any] = {"color": color, "linestyle": "--" if line == PATH else "-"}
        axes.plot([x for x, inside in zip(at, cut, strict=True) if inside], own.loc[cut, "macro_f1"], **drawn)
        inside = "white" if line == PATH else color
        axes.plot(at, own["macro_f1"], marker, color=color, markerfacecolor=inside, linestyle="none")
    axes.axvline(apart - unit, color=style.FAINT, linewidth=1)
    axes.set_xticks([*map(math.log2, ticks), apart], [*(f"{k:g}" for k in ticks), ALL])
    axes.set_xlim(first - unit, apart + unit)
    axes.set_xlabel("Features or components (k)")


def _look(line: str) -> tuple[str, str]:
    return style.ARM_LOOK["sae" if line == PATH else LINES[line]]


def _keys(rows: pd.DataFrame) -> list[Line2D]:
    return [
        style.key(_look(line), NAMES[line], filled=line != PATH, line="--" if line == PATH else "-")
        for line in NAMES
        if (rows["line"] == line).any()
    ]


def _notes(tables: Tables, rows: pd.DataFrame) -> list[str]:
    lost = rows[rows["status"] != "ok"]
    return [
        f"Failed: {NAMES[row.line] if pd.notna(row.k) or row.line == PATH else ARMS[LINES[row.line]]}"
        f"{f', k = {row.k:g}' if pd.notna(row.k) else ''} on {tables.dataset(row.dataset)}, {tables.model(row.model)}: {row.reason}"
        for row in rows_of(lost)
    ]
