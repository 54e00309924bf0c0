"""What the figures of the study share: one look for each model and width in all of them, bars, lines over groups of layers,
published markers, and what stands at the foot.

A model keeps its colour and hatching, and its marker on lines, from figure to figure; a width keeps its line style, and how
markers are filled, by which a point without a line is told. A published score is a white diamond with a black edge.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from tessera.figures import style, transfer_parts
from tessera.figures.transfer_model import COLORS
from tessera.paper_results import Paper
from tessera.reference import GROUPS
from tessera.results import groups_of, rows_of

# Lines alone: a hatching of dots makes a drawing of hundreds of kilobytes. Four to the inch fall on whole pixels, which pack well.
HATCHES = ["", "////", "\\\\\\\\", "xxxx", "----", "||||", "++++", "////----"]
MARKERS = ["o", "s", "^", "D", "v", "P", "X", "<"]
WIDTH_LINES: list[Any] = ["-", "--", ":", "-.", (0, (6, 1)), (0, (1, 3))]
FILLS: list[Any] = ["full", "none", "left", "bottom", "right", "top"]
DIAMOND: Any = {
    "marker": "D",
    "linestyle": "none",
    "color": "black",
    "markerfacecolor": "white",
    "markersize": 3,
    "markeredgewidth": 0.8,
}
CROSS: Any = {"marker": "x", "markersize": 3.5, "clip_on": False}
FOOT = 0.02
PUBLISHED = "published, the same cells"
LEGEND_COLUMNS = 3
LISTED = 4
BRIEF = 45
NO_GROUP = "Fewer than three layers of it are read, so none of them is the middle"


@dataclass(frozen=True)
class Looks:
    """How the models and widths of a run are drawn."""

    models: Sequence[str]
    widths: Sequence[float]

    def color(self, model: str) -> str:
        return COLORS[self.models.index(model) % len(COLORS)]

    def hatch(self, model: str) -> str:
        """One more than there are colours, so that when these come round it is another one; and so are markers."""
        return HATCHES[self.models.index(model) % len(HATCHES)]

    def marker(self, model: str) -> str:
        return MARKERS[self.models.index(model) % len(MARKERS)]

    def line(self, width: float) -> Any:
        return WIDTH_LINES[self.widths.index(width) % len(WIDTH_LINES)]

    def fill(self, width: float) -> Any:
        return FILLS[self.widths.index(width) % len(FILLS)]


def looks(paper: Paper) -> Looks:
    read = [table["width"].dropna() for table in (paper.rows, paper.transfers) if table is not None]
    return Looks(paper.models, sorted(pd.concat(read).unique()))


def name(text: str, columns: int = LEGEND_COLUMNS) -> str:
    """A name cut to its place in the legend, in letters that can be drawn."""
    return style.fitted(transfer_parts.drawable(text), (style.WIDTH / columns - 0.6) * 72, 1)[0]


def brief(text: str) -> str:
    """A name in a note, cut where it would fill the note alone."""
    return text if len(text) <= BRIEF else f"{text[: BRIEF - 3].rstrip()}..."


# --- bars ----------------------------------------------------------------------------------------------------------


def bar(axes: Axes, row: Any, at: float, thick: float, *, color: str, hatch: str, across: bool = False) -> None:
    """One bar with its interval and, where there is one, its published score; a cross in its place if it failed.

    `across` lays it on its side.
    """

    def place(value: float) -> tuple[float, float]:
        return (value, at) if across else (at, value)

    if row.status != "ok":
        axes.plot(*place(FOOT), **CROSS, color=color, zorder=3)
        return
    axis_bar, lines = (axes.barh, axes.hlines) if across else (axes.bar, axes.vlines)
    axis_bar(at, row.macro_f1, thick, color=color, hatch=hatch, edgecolor="white", linewidth=0)
    lines(at, row.low, row.high, color="black", linewidth=0.8, zorder=3)
    if pd.notna(row.published):
        axes.plot(*place(row.published), **DIAMOND, zorder=4)


def grouped_bars(axes: Axes, bars: pd.DataFrame, categories: Sequence[str], models: Sequence[str], look: Looks) -> None:
    """For each category a bar of each model, side by side. A cross at a bar's foot: something failed and is not in it."""
    thick = 0.84 / max(1, len(models))
    for row in rows_of(bars):
        shift = (models.index(row.model) - (len(models) - 1) / 2) * thick
        at = categories.index(row.category) + shift
        bar(axes, row, at, 0.92 * thick, color=look.color(row.model), hatch=look.hatch(row.model))
        if row.status == "ok" and row.n_failed:
            axes.plot(at, 2 * FOOT, "X", color="black", markerfacecolor="white", markersize=5, zorder=3)
    axes.set_xticks(range(len(categories)), categories)
    axes.set_xlim(-0.6, len(categories) - 0.4)
    axes.grid(visible=False, axis="x")
    axes.tick_params(axis="x", length=0)


def model_patches(paper: Paper, models: Sequence[str], look: Looks) -> list[Any]:
    return [
        Patch(facecolor=look.color(model), hatch=look.hatch(model), edgecolor="white", label=name(paper.model(model)))
        for model in models
    ]


# --- lines over groups of layers -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Line:
    """One line over groups of layers: the columns that name it, and how it is drawn."""

    match: Mapping[str, Any]
    color: str
    marker: str
    style: Any
    fill: Any = "full"

    def of(self, points: pd.DataFrame) -> pd.DataFrame:
        for column, value in self.match.items():
            same = points[column].isna() if value is None else points[column] == value
            points = points[same]
        return points


def over_groups(axes: Axes, points: pd.DataFrame, lines: Sequence[Line]) -> None:
    """Macro-F1 against early, middle and late, a line each, side by side so that lines that agree do not hide each other.

    A cross at the foot of a place: something failed there. Several scores of one line and group, which transfers have of several heads, stand on it as points above one another.
    """
    present = [line for line in lines if len(line.of(points))]
    room = 0.56 / max(1, len(present) - 1)
    for place, line in enumerate(present):
        here = line.of(points)
        at = here["group"].map(GROUPS.index) + (place - (len(present) - 1) / 2) * min(0.1, room)
        here = here.assign(at=at).sort_values("at")
        good = here[here["status"] == "ok"].drop_duplicates("group")
        axes.plot(good["at"], good["macro_f1"], color=line.color, linestyle=line.style, linewidth=1.2)
        marker = filled(line.marker, line.color, line.fill)
        for row in rows_of(here):
            if row.n_failed:
                axes.plot(row.at, FOOT, **CROSS, color=line.color)
            if row.status != "ok":
                continue
            axes.vlines(row.at, row.low, row.high, color=line.color, linewidth=0.8)
            axes.plot(row.at, row.macro_f1, markersize=5, zorder=3, **marker)
            if pd.notna(row.published):
                axes.plot(row.at, row.published, **DIAMOND, zorder=4)
    axes.set_xticks(range(len(GROUPS)), GROUPS)
    axes.set_xlim(-0.5, len(GROUPS) - 0.5)
    axes.grid(visible=False, axis="x")


def filled(marker: str, color: str, fill: Any) -> dict[str, Any]:
    """A marker that is white where it is not filled, so that no line shows through."""
    face = {"markerfacecolor": "white"} if fill == "none" else {"fillstyle": fill, "markerfacecoloralt": "white"}
    return {"marker": marker, "color": color, **face}


def model_lines(points: pd.DataFrame, look: Looks) -> list[Line]:
    """A line for each model and width there is: colour and marker by model, style by width."""
    pairs = points[["model", "width"]].drop_duplicates()
    ordered = sorted(pairs.itertuples(index=False), key=lambda pair: (look.models.index(pair.model), pair.width))
    return [
        Line(
            {"model": model, "width": width}, look.color(model), look.marker(model), look.line(width), look.fill(width)
        )
        for model, width in ordered
    ]


def line_keys(paper: Paper, points: pd.DataFrame, look: Looks) -> list[Line2D]:
    """The legend of such lines: models by colour, then widths by style."""
    models = [model for model in look.models if (points["model"] == model).any()]
    widths = sorted(points["width"].dropna().unique())
    keys = [style.key((look.color(m), look.marker(m)), name(paper.model(m)), line="-") for m in models]
    return keys + [
        Line2D(
            [], [], linestyle=look.line(width), label=f"SAE width {width:,.0f}",
            **filled("o", style.GREY, look.fill(width)),
        )
        for width in widths
    ]  # fmt: skip


def published_key(points: pd.DataFrame, label: str = PUBLISHED) -> list[Line2D]:
    there = len(points) and points["published"].notna().any()
    return [Line2D([], [], **DIAMOND, label=label)] if there else []


# --- panels and words ----------------------------------------------------------------------------------------------


def panels(number: int, columns: int, height: float, notes: Iterable[str], names: Iterable[str]) -> tuple[Figure, Any]:
    """A figure of equal panels with one axis of scores, and its axes; what is left of the last line is not shown."""
    lines = -(-number // columns)
    figure = transfer_parts.canvas(0.9 + height * lines, notes, names)
    grid = figure.subplots(lines, columns, squeeze=False, sharey=True).flatten()
    for axes in grid[number:]:
        axes.set_visible(False)
    for axes in grid[:number:columns]:
        axes.set_ylabel(style.SCORE_LABEL)
    return figure, grid[:number]


def title(axes: Axes, parts: Iterable[str], columns: int) -> None:
    style.title(axes, [transfer_parts.drawable(part) for part in parts], columns)


def limit(points: pd.DataFrame, *more: float) -> float:
    return style.score_limit([*points["high"], *points["macro_f1"], *points["published"], *more])


def interval_note(paper: Paper, points: pd.DataFrame) -> str:
    """Which protocol, and what the lines on bars and points are."""
    good = points[points["status"] == "ok"]
    if paper.protocol == "paper":
        sizes = sorted({round(size) for size in good["n_test"].dropna()})
        on = f"{sizes[0]:,}" if len(sizes) == 1 else f"{sizes[0]:,} to {sizes[-1]:,}" if sizes else "the"
        return f"Paper protocol, one split. Lines are 95 % sampling intervals of a score on {on} test examples."
    splits = sorted({round(number) for number in good["n_seeds"].dropna()})
    on = " or ".join(f"{number}" for number in splits) or "its"
    return f"Strict protocol: the paper's was not run. Lines are 95 % intervals over {on} splits, which share examples."


def groups_note(paper: Paper, models: Iterable[str]) -> str:
    """Which layers are early, middle and late in each model."""
    told = []
    for model in models:
        of_model = {layer: group for (named, layer), group in paper.groups.items() if named == model}
        layers = [", ".join(f"{layer:.0f}" for layer in of_model if of_model[layer] == group) for group in GROUPS]
        told.append(f"{' / '.join(found or 'none' for found in layers)} of {brief(paper.model(model))}")
    shown = "; ".join(told[:LISTED]) + (f"; {len(told) - LISTED} models more" if len(told) > LISTED else "")
    return f"Layers early / middle / late: {shown}."


def failures(paper: Paper, rows: pd.DataFrame) -> list[str]:
    """What failed, a note for each reason: which models and layers, and how many configurations."""
    lost = rows[rows["status"] != "ok"]
    notes = []
    for reason, found in groups_of(lost, "reason"):
        who = [
            f"{brief(paper.model(model))}, layer {', '.join(f'{layer:.0f}' for layer in sorted(here['layer'].unique()))}"
            for model, here in groups_of(found, "model")
        ]
        number = len(found[["dataset", "head", "pooling", "threshold"]].drop_duplicates())
        shown = "; ".join(who[:3]) + (f"; and {len(who) - 3} models more" if len(who) > 3 else "")
        notes.append(f"x failed, and in no mean: {number} of {_all(rows):,} configurations ({shown}): {reason}")
    return notes


def _all(rows: pd.DataFrame) -> int:
    return len(rows[["dataset", "head", "pooling", "threshold"]].drop_duplicates())


def ungrouped(paper: Paper, rows: pd.DataFrame) -> list[str]:
    """The models whose layers are in no group, which the figure lacks."""
    lost = rows[rows["group"].isna()]
    return [f"Not shown: {brief(paper.model(model))}. {NO_GROUP}." for model in dict.fromkeys(lost["model"])]


def setting(pooling: str, threshold: float | None) -> str:
    """A pooling, with what is made of its values."""
    return f"{pooling}, {cut(threshold)}"


def cut(threshold: float | None) -> str:
    return "raw" if threshold is None or pd.isna(threshold) else f"binary at {threshold:g}"
