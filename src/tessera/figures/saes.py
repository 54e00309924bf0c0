"""The health of each SAE, beside which its scores should be read: L0, explained variance, dead fraction.

L0 is the mean number of active features a token; a dead feature is one that no token of the data switched on. The
filled marker is the SAE's own record, the hollow ones are what the captures of each dataset counted: a short dataset
leaves more features dead without the SAE being any worse. What nobody measured is written as not recorded.
"""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from tessera.figures import style
from tessera.results import Tables, rows_of

PANELS = {
    "l0": "L0 (active features a token)",
    "explained_variance": "Explained variance",
    "dead_fraction": "Dead fraction",
}
MARKERS = ["s", "D", "^", "v", "P", "X", "<", ">"]
RECORD = (style.VERMILLION, "o")
NAME_POINTS = 130  # how wide an SAE's name may be


def data(tables: Tables) -> pd.DataFrame:
    columns = ["sae", "model", "layer", "width", "architecture", "dataset", *PANELS]
    table = tables.saes[columns]
    return table.sort_values(["model", "layer", "width", "sae", "dataset"], na_position="first").reset_index(drop=True)


def draw(tables: Tables) -> Figure:
    with style.applied():
        rows = data(tables)
        names = list(rows["sae"].drop_duplicates())
        if not names:
            figure = style.canvas(0.4)
            style.empty(figure.subplots(), "The config names no SAE.")
            return figure
        own = rows.drop_duplicates("sae")
        several = own["model"].nunique() > 1
        figure = style.canvas(1.3 + (0.32 if several else 0.24) * len(names), _notes(rows))
        datasets = [name for name in tables.datasets if (rows["dataset"] == name).any()]
        looks = _looks(datasets)
        grid = figure.subplots(1, len(PANELS), sharey=True)
        for axes, (column, label) in zip(grid, PANELS.items(), strict=True):
            _panel(axes, rows, names, column, looks)
            axes.set_xlabel(f"{label}\n(axis starts at {axes.get_xlim()[0]:.2g})")
        labels = [
            "\n".join(
                style.fitted(part, NAME_POINTS, 1)[0] for part in (row.sae, tables.model(row.model))[: 1 + several]
            )
            for row in rows_of(own)
        ]
        grid[0].set_yticks(range(len(names)), labels)
        grid[0].set_ylim(len(names) - 0.4, -0.6)
        style.legend_above(figure, _keys(tables, rows, looks), 2)
        return figure


def _looks(datasets: list[str]) -> dict[str, tuple[str, str]]:
    """A marker for each dataset; where there are more than a reader can tell apart, one for all."""
    if len(datasets) > len(MARKERS):
        return dict.fromkeys(datasets, (style.BLUE, "s"))
    return {name: (style.BLUE, MARKERS[place]) for place, name in enumerate(datasets)}


def _panel(axes: Axes, rows: pd.DataFrame, names: list[str], column: str, looks: dict) -> None:
    for y, name in enumerate(names):
        mine = rows[(rows["sae"] == name) & rows[column].notna()]
        for row in rows_of(mine):
            value = getattr(row, column)
            if pd.isna(row.dataset):
                axes.plot(value, y, RECORD[1], color=RECORD[0], zorder=3)
            else:
                color, marker = looks[row.dataset]
                axes.plot(value, y, marker, color=color, markerfacecolor="none", alpha=0.8)
        if mine.empty:
            place = axes.get_yaxis_transform()
            axes.text(0.03, y, "not recorded", transform=place, va="center", fontsize=7, color=style.INK)
    values = rows[column].dropna()
    axes.set_xlim(min(0, values.min()) if len(values) else 0, (values.max() * 1.08 or 1) if len(values) else 1)
    axes.tick_params(axis="y", length=0)


def _keys(tables: Tables, rows: pd.DataFrame, looks: dict[str, tuple[str, str]]) -> list[Line2D]:
    keys = []
    if rows["dataset"].isna().any() and rows.loc[rows["dataset"].isna(), list(PANELS)].notna().any(axis=None):
        keys.append(style.key(RECORD, "the SAE's own record"))
    if len(set(looks.values())) < len(looks):
        return [*keys, style.key((style.BLUE, "s"), f"on each of the {len(looks)} datasets", filled=False)]
    room = (style.WIDTH / 2 - 0.7) * 72
    names = {name: style.fitted(f"on {tables.dataset(name)}", room, 1)[0] for name in looks}
    return keys + [style.key(look, names[name], filled=False) for name, look in looks.items()]


def _notes(rows: pd.DataFrame) -> list[str]:
    if (rows["explained_variance"] < 0).any():
        return ["Explained variance below zero: the SAE reconstructs worse than the mean activation would."]
    return []
