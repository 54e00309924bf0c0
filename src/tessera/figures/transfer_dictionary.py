"""From dictionary to dictionary: an SAE on the model that it was trained on, and the same SAE on that model's sibling.

Before the scores stands what they rest on: does the SAE still reconstruct the sibling's activations, with as many active
features a token, and do the same features fire where both models read the same text? A dash marks the agreement that
would be seen by chance.
"""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from tessera.figures import style, transfer_parts
from tessera.results import rows_of
from tessera.transfer_results import Transfers

PANELS = {
    "l0": "L0",
    "explained_variance": "Explained\nvariance",
    "dead_fraction": "Dead\nfraction",
    "agreement": "Agreement\nwith home",
    "macro_f1": "Macro-F1",
}
SCORES = ("explained_variance", "dead_fraction", "agreement", "macro_f1")
CHANCE = "agreement_chance"
HOME = (style.VERMILLION, "o")
SIBLINGS = [(style.BLUE, "D"), (style.BLUE, "^"), (style.BLUE, "s"), (style.BLUE, "v")]
NAME_POINTS = 125
APART = 0.16  # how far the markers of one SAE stand from its middle
COLUMNS_OF_DATA = [
    "dataset", "sae", "layer", "width", "home", "reader", "l0", "explained_variance", "dead_fraction", "agreement",
    "agreement_chance", "macro_f1", "low", "high", "closed", "status", "reason",
]  # fmt: skip


def data(tables: Transfers, transfer: str) -> pd.DataFrame:
    rows = tables.dictionaries[tables.dictionaries["transfer"] == transfer]
    datasets = tables.ordered("datasets", transfer_parts.in_order(rows["dataset"]))
    order = rows.assign(
        first=rows["dataset"].map({name: place for place, name in enumerate(datasets)}),
        second=rows["home"] != rows["reader"],
    )
    by = ["first", "home", "layer", "width", "sae", "second", "reader"]
    return order.sort_values(by, kind="stable")[COLUMNS_OF_DATA].reset_index(drop=True)


def draw(tables: Transfers, transfer: str) -> Figure:
    with style.applied():
        rows = data(tables, transfer)
        if rows.empty:
            return transfer_parts.nothing("No SAE was read by a sibling of its model.")
        places = _places(rows)
        figure = transfer_parts.canvas(1.3 + 0.27 * len(places), _notes(tables, rows), _names(tables, rows))
        looks = _looks(rows)
        grid = figure.subplots(1, len(PANELS), sharey=True)
        for axes, (column, label) in zip(grid, PANELS.items(), strict=True):
            _panel(axes, rows, places, column, looks)
            axes.set_xlabel(f"{label}\n(starts at {axes.get_xlim()[0]:.2g})")
        names = [tables.dataset(dataset) if sae is None else sae for dataset, sae in places]
        grid[0].set_yticks(range(len(names)), transfer_parts.short_names(names, NAME_POINTS, style.TITLE_SIZE))
        for (_, sae), tick in zip(places, grid[0].get_yticklabels(), strict=True):
            tick.set_fontweight("bold" if sae is None else "normal")
        grid[0].set_ylim(len(places) - 0.4, -0.6)
        style.legend_above(figure, _keys(tables, rows, looks), 2)
        return figure


def _names(tables: Transfers, rows: pd.DataFrame) -> list[str]:
    return [*map(tables.dataset, rows["dataset"].unique()), *map(tables.model, rows["reader"].unique())]


def _places(rows: pd.DataFrame) -> dict[tuple[str, str | None], int]:
    """A line for each SAE, and where there are several datasets one with the name of each before its SAEs."""
    several = rows["dataset"].nunique() > 1
    found: dict[tuple[str, str | None], int] = {}
    for row in rows_of(rows.drop_duplicates(["dataset", "sae"])):
        if several and (row.dataset, None) not in found:
            found[row.dataset, None] = len(found)
        found[row.dataset, row.sae] = len(found)
    return found


def _looks(rows: pd.DataFrame) -> dict[str, tuple[str, str]]:
    """A marker for each model that reads another's SAEs."""
    readers = transfer_parts.in_order(rows.loc[rows["home"] != rows["reader"], "reader"])
    return {reader: SIBLINGS[place % len(SIBLINGS)] for place, reader in enumerate(readers)}


def _panel(
    axes: Axes,
    rows: pd.DataFrame,
    places: dict[tuple[str, str | None], int],
    column: str,
    looks: dict[str, tuple[str, str]],
) -> None:
    for row in rows_of(rows):
        at_home = row.home == row.reader
        y = places[row.dataset, row.sae] + (-APART if at_home else APART)
        color, marker = HOME if at_home else looks[row.reader]
        value = getattr(row, column)
        if pd.isna(value):
            _absent(axes, y, color, row.status)
            continue
        if column == "macro_f1":
            axes.hlines(y, row.low, row.high, color=color, linewidth=1.2)
        if column == "agreement" and pd.notna(row.agreement_chance) and not at_home:
            axes.plot(row.agreement_chance, y, "|", color=style.INK, markersize=6)
        axes.plot(value, y, marker, color=color, markerfacecolor=color if at_home else "white", zorder=3)
    _limits(axes, rows, column)
    axes.tick_params(axis="y", length=0)


def _absent(axes: Axes, y: float, color: str, status: str) -> None:
    """What failed is a cross at the axis; what was not measured is a dash."""
    place = axes.get_yaxis_transform()
    if status != "ok":
        axes.plot(0.08, y, "x", color=color, transform=place)
    else:
        axes.text(0.04, y, "\N{EN DASH}", transform=place, va="center", fontsize=7, color=color)


def _limits(axes: Axes, rows: pd.DataFrame, column: str) -> None:
    values = rows[column].dropna()
    low = min(0.0, values.min()) if len(values) else 0.0
    if column in SCORES:
        axes.set_xlim(low - 0.05 * (1 - low) * (low < 0), 1.04)
        axes.xaxis.set_major_locator(MaxNLocator(3))
        axes.xaxis.set_major_formatter("{x:g}")
    else:
        axes.set_xlim(0, (values.max() * 1.1 or 1) if len(values) else 1)


def _keys(tables: Transfers, rows: pd.DataFrame, looks: dict[str, tuple[str, str]]) -> list[Line2D]:
    keys = []
    room = (style.WIDTH / 2 - 0.7) * 72
    if (rows["home"] == rows["reader"]).any():
        keys.append(style.key(HOME, "read by the model it was trained on (home)"))
    labels = transfer_parts.short_names([f"read by {tables.model(reader)}" for reader in looks], room, style.TITLE_SIZE)
    keys += [style.key(look, label, filled=False) for look, label in zip(looks.values(), labels, strict=True)]
    if rows.loc[rows["home"] != rows["reader"], CHANCE].notna().any():
        keys.append(style.key((style.INK, "|"), "agreement by chance"))
    return keys


def _notes(tables: Transfers, rows: pd.DataFrame) -> list[str]:
    notes = ["Macro-F1 has 95 % intervals."] if rows["low"].notna().any() else []
    if (rows["explained_variance"] < 0).any():
        notes.append("Explained variance below zero: the SAE reconstructs worse than the mean activation would.")
    if (rows["status"] == "ok").any() and rows.loc[rows["status"] == "ok", list(PANELS)].isna().any(axis=None):
        notes.append("\N{EN DASH} was not measured.")
    lost = [
        (f"{row.sae} read by {tables.model(row.reader)}", tables.dataset(row.dataset), row.reason)
        for row in rows_of(rows[rows["status"] != "ok"])
    ]
    return [*notes, *transfer_parts.failures(lost)]
