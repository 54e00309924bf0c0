"""From text to images: what the language tower of a vision-language model makes of images, layer by layer.

One panel is trained and tested on images, and is the most that can be hoped for; the other is trained on nothing but the
names of the classes in text, and tested on the same images. Beside them stand what the language tower is given (the vision
tower's own features) and the raw pixels.
"""

import pandas as pd
from matplotlib.figure import Figure

from tessera.figures import style, transfer_layers, transfer_parts
from tessera.figures.transfer_layers import Look
from tessera.results import groups_of, rows_of
from tessera.transfer_results import ARMS, Transfers

COLUMNS = 2
TRAININGS = ["in-domain", "transferred", "zero-shot"]
NAMES = {"in-domain": "cross-validated", "transferred": "transferred", "zero-shot": "zero-shot"}
COLUMNS_OF_DATA = [
    "model", "source", "target", "training", "arm", "head", "layer", "width", "chosen", "n_train", "n_test", "macro_f1",
    "low", "high", "floor", "ceiling", "ceiling_of", "closed", "closed_low", "closed_high", "status", "reason",
]  # fmt: skip


def data(tables: Transfers, transfer: str) -> pd.DataFrame:
    rows = transfer_layers.points(tables.cells(transfer))
    order = rows.assign(
        first=rows["target"] == "names",
        second=rows["training"].map({name: place for place, name in enumerate(TRAININGS)}),
    )
    return order.sort_values(["first", "second"], kind="stable")[COLUMNS_OF_DATA].reset_index(drop=True)


def draw(tables: Transfers, transfer: str) -> Figure:
    with style.applied():
        rows = data(tables, transfer)
        if rows.empty:
            return transfer_parts.nothing("No vision-language model read an image.")
        panels = list(groups_of(rows, ["source", "target", "training"]))
        columns = min(COLUMNS, len(panels))
        lines = -(-len(panels) // columns)
        looks = _looks(tables, rows)
        legend = transfer_layers.keys(rows, looks)
        height = 0.5 + 2.2 * lines + 0.16 * -(-len(legend) // transfer_layers.LEGEND_COLUMNS)
        figure = transfer_parts.canvas(height, _notes(rows), [look.label for look in looks.values()])
        grid = figure.subplots(lines, columns, squeeze=False, sharey=True).flatten()
        for axes, ((source, target, training), here) in zip(grid, panels, strict=False):
            transfer_layers.panel(axes, here, looks)
            title = [f"{source} \N{RIGHTWARDS ARROW} {target}", NAMES.get(training, training)]
            style.title(axes, [transfer_parts.drawable(part) for part in title], columns)
            axes.set_ylim(0, transfer_layers.limit(rows))
        for axes in grid[len(panels) :]:
            axes.set_visible(False)
        for axes in grid[::columns]:
            axes.set_ylabel(style.SCORE_LABEL)
        style.legend_above(figure, legend, transfer_layers.LEGEND_COLUMNS)
        return figure


def _looks(tables: Transfers, rows: pd.DataFrame) -> dict[transfer_layers.Key, Look]:
    """Hidden states as everywhere, SAE widths from the narrowest on; a model is named where there are several."""
    several = transfer_parts.several_models(rows)
    looks, sae = {}, 0
    for arm, model, width in transfer_layers.keys_of(rows):
        label = transfer_parts.input_name(arm, width or float("nan"))
        label = f"{label}, {tables.model(model)}" if several else label
        if arm == "hidden":
            color, marker = style.ARM_LOOK["hidden"]
        else:
            color, marker = style.SERIES[sae % len(style.SERIES)]
            sae += 1
        looks[arm, model, width] = Look(color, marker, label)
    return looks


def _notes(rows: pd.DataFrame) -> list[str]:
    lost = []
    for row in rows_of(rows[rows["status"] != "ok"]):
        who = f"{ARMS[row.arm]}, {row.source} \N{RIGHTWARDS ARROW} {row.target}"
        lost.append((who, transfer_parts.confined(row), row.reason))
    return [*transfer_layers.notes(rows), *transfer_parts.failures(lost)]
