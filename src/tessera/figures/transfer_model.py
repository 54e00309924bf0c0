"""From model to model: does one model's reading of a question tell whether another model answers it right?

A panel is a behaviour: the answers of one model to the questions of one dataset. Against the layer that is read stands the
macro-F1 of telling right answers from wrong ones, a colour for each reading model. The model that gives the answers reads
them, too, and its confidence in them needs no probe.
"""

import pandas as pd
from matplotlib.figure import Figure

from tessera.figures import style, transfer_layers, transfer_parts
from tessera.figures.transfer_layers import Look
from tessera.results import groups_of, rows_of
from tessera.transfer_results import ARMS, LAYERED, Transfers

COLUMNS = 2
OWN = "own"
WIDTH_MARKERS = ["o", "D", "^", "v", "P", "X"]
# Green is what TF-IDF is drawn in, dashed as hidden states are, so few runs come as far as it.
COLORS = [style.VERMILLION, style.BLUE, style.PURPLE, style.ORANGE, style.SKY, style.BLACK, style.GREEN]
COLUMNS_OF_DATA = [
    "target", "source", "training", "arm", "model", "head", "layer", "width", "chosen", "n_train", "n_test", "macro_f1",
    "low", "high", "auroc", "floor", "ceiling", "ceiling_of", "closed", "closed_low", "closed_high", "status", "reason",
]  # fmt: skip


def data(tables: Transfers, transfer: str) -> pd.DataFrame:
    rows = transfer_layers.points(tables.cells(transfer))[COLUMNS_OF_DATA]
    behaviours = tables.ordered("behaviours", transfer_parts.in_order(rows["target"]))
    models = tables.ordered("models", transfer_parts.in_order(rows["model"]))
    order = rows.assign(
        first=rows["target"].map({name: place for place, name in enumerate(behaviours)}),
        second=rows["model"].map({name: place for place, name in enumerate(models)}),
    )
    return order.sort_values(["first", "second"], kind="stable")[COLUMNS_OF_DATA].reset_index(drop=True)


def draw(tables: Transfers, transfer: str) -> Figure:
    with style.applied():
        rows = data(tables, transfer)
        if rows.empty:
            return transfer_parts.nothing("Nothing was predicted about a model's answers.")
        panels = list(groups_of(rows, "target"))
        columns = min(COLUMNS, len(panels))
        lines = -(-len(panels) // columns)
        looks = _looks(tables, rows)
        legend = transfer_layers.keys(rows, looks)
        height = 0.5 + 2.2 * lines + 0.16 * -(-len(legend) // transfer_layers.LEGEND_COLUMNS)
        names = [*map(tables.behaviour, rows["target"].unique()), *(look.label for look in looks.values())]
        figure = transfer_parts.canvas(height, _notes(tables, rows), names)
        grid = figure.subplots(lines, columns, squeeze=False, sharey=True).flatten()
        for axes, (target, here) in zip(grid, panels, strict=False):
            transfer_layers.panel(axes, here, looks)
            title = [tables.behaviour(target), *(f"answers: {tables.model(name)}" for name in _answering(here))]
            style.title(axes, [transfer_parts.drawable(part) for part in title], columns)
            axes.set_ylim(0, transfer_layers.limit(rows))
        for axes in grid[len(panels) :]:
            axes.set_visible(False)
        for axes in grid[::columns]:
            axes.set_ylabel(style.SCORE_LABEL)
        style.legend_above(figure, legend, transfer_layers.LEGEND_COLUMNS)
        return figure


def _answering(rows: pd.DataFrame) -> list[str]:
    """The model that answers: it need not be among those that read, but its confidence is its own."""
    return transfer_parts.in_order(rows.loc[rows["training"] == OWN, "model"])


def _looks(tables: Transfers, rows: pd.DataFrame) -> dict[transfer_layers.Key, Look]:
    """A colour for each reading model, a marker for each width; hidden states are dashed."""
    keys = transfer_layers.keys_of(rows)
    models = list(dict.fromkeys(model for _, model, _ in keys))
    widths = sorted({width for arm, _, width in keys if arm == "sae"})
    answering = _answering(rows) if rows["target"].nunique() == 1 else []
    room = (style.WIDTH / transfer_layers.LEGEND_COLUMNS - 2.2) * 72
    names = transfer_parts.short_names([tables.model(model) for model in models], room, style.TITLE_SIZE)
    looks = {}
    for arm, model, width in keys:
        name = names[models.index(model)] + (" (answers)" if model in answering else "")
        marker = "s" if arm == "hidden" else WIDTH_MARKERS[widths.index(width) % len(WIDTH_MARKERS)]
        label = f"{name}: {_input(arm, width)}"
        color = COLORS[models.index(model) % len(COLORS)]
        looks[arm, model, width] = Look(color, marker, label, "-" if arm == "sae" else "--", arm == "sae")
    return looks


def _input(arm: str, width: float) -> str:
    """In few words, since the model's name stands before them."""
    if arm == "hidden":
        return "hidden states"
    return f"SAE, width {width:,.0f}" if width else "SAE features"


def _notes(tables: Transfers, rows: pd.DataFrame) -> list[str]:
    lost = []
    for row in rows_of(rows[rows["status"] != "ok"]):
        who = ARMS[row.arm] + (f", {tables.model(row.model)}" if row.arm in LAYERED else "")
        lost.append((f"{who} on {tables.behaviour(row.target)}", transfer_parts.confined(row), row.reason))
    return [*transfer_layers.notes(rows), *transfer_parts.failures(lost)]
