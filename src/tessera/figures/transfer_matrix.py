"""Matrices of scores: a line for each source, a column for each target, one colour scale for all.

A cell holds its score, and as far as there is room the share of the gap that it closes and its interval. How large the
cells are follows from how many there are: five languages leave room for everything, twenty for the score alone.
"""

from dataclasses import dataclass
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import MultipleLocator

from tessera.figures import style, transfer_parts
from tessera.results import rows_of

COLORS = "Blues"
MARK = style.VERMILLION
LABEL_POINTS, NARROW_LABEL_POINTS = 90, 30
SCORE_SIZE, SMALL_SIZE, LEAST_SIZE = 7.5, 5.0, 4.5
NARROWEST, FLATTEST, TALLEST = 0.135, 0.15, 0.42  # inches of a cell
SMALL_ROOM = 7.2 * 0.64  # how wide an interval is, in units of its font size
FRAME, BAR, ROOM_FOR_TITLE = 0.015, 0.09, 0.55


@dataclass(frozen=True)
class Matrix:
    """One panel. `cells` has a row a cell: source, target, macro_f1, low, high, floor, status, and `home` for in-domain cells.

    A column `closed`, if there is one, is written into the cells too.
    """

    title: list[str]
    cells: pd.DataFrame


@dataclass(frozen=True)
class Axis:
    """The lines or columns that all panels share: ids, what they are called, and what they are."""

    ids: list[str]
    names: list[str]
    label: str

    def shown(self, room: float) -> list[str]:
        return transfer_parts.short_names(self.names, room, SCORE_SIZE)

    @property
    def longest(self) -> float:
        """About how many points wide the longest name is."""
        return min(LABEL_POINTS, max((len(name) for name in self.names), default=1) * 0.6 * SCORE_SIZE)


@dataclass(frozen=True)
class _Room:
    """What there is of it: panels beside each other, and inches of a cell."""

    columns: int
    width: float
    height: float

    @property
    def size(self) -> float:
        """Of a score's letters: three of them in a cell."""
        return max(LEAST_SIZE, min(SCORE_SIZE, self.width * 72 / 2.3, self.height * 72 * 0.62))

    def small_lines(self) -> int:
        """How many lines of small print fit under a score."""
        if self.width * 72 < SMALL_ROOM * SMALL_SIZE:
            return 0
        return int((self.height * 72 - self.size * 1.25) // (SMALL_SIZE * 1.15))


def columns_for(targets: int, most: int) -> int:
    """How many panels stand beside each other, so that their cells stay wide enough to be read."""
    fitting = [columns for columns in range(1, most + 1) if _cell_width(targets, columns, 0.6) >= NARROWEST]
    return max(fitting, default=1)


def _cell_width(targets: int, columns: int, label: float) -> float:
    return ((style.WIDTH - label - 0.2) / columns - 0.12) / targets


def draw(lines: list[list[Matrix]], sources: Axis, targets: Axis, notes: list[str], marked: str) -> Figure:
    """Lines of panels under one colour scale; `marked` says what the cells with a frame are."""
    columns = max(map(len, lines))
    width = _cell_width(len(targets.ids), columns, sources.longest / 72 + 0.2)
    room = _Room(columns, width, max(FLATTEST, min(width, TALLEST)))
    panel = room.height * len(sources.ids)
    upright = targets.longest > width * 72
    foot = 0.25 + ((targets.longest if upright else 10) / 72)
    height = 0.85 + len(lines) * (panel + ROOM_FOR_TITLE + foot)
    cells = pd.concat([matrix.cells for line in lines for matrix in line])
    names = [*sources.names, *targets.names, *(part for line in lines for matrix in line for part in matrix.title)]
    figure = transfer_parts.canvas(height, [*_floor(cells), *_small_print(cells, room), *notes], names)
    scale = _scale(cells)
    colors = matplotlib.colormaps[COLORS]
    grid = figure.add_gridspec(1 + len(lines), columns, height_ratios=[BAR, *[panel] * len(lines)])
    _bar(figure.add_subplot(grid[0, :]), figure, scale, colors)
    for place, line in enumerate(lines):
        for column, matrix in enumerate(line):
            axes = figure.add_subplot(grid[1 + place, column])
            _panel(axes, matrix, sources, targets, room, scale, colors)
            axes.set_xticks(
                [at + 0.5 for at in range(len(targets.ids))],
                targets.shown(LABEL_POINTS if upright else width * 72),
                rotation=90 if upright else 0,
            )
            axes.set_yticks(
                [at + 0.5 for at in range(len(sources.ids))],
                sources.shown(LABEL_POINTS) if column == 0 else [""] * len(sources.ids),
            )
            axes.set_xlabel(targets.label)
            if column == 0:
                axes.set_ylabel(sources.label)
            style.title(axes, [transfer_parts.drawable(part) for part in matrix.title], columns)
    style.legend_above(figure, _keys(cells, marked), 3)
    return figure


def _scale(cells: pd.DataFrame) -> Normalize:
    """From the tenth below the lowest score to the tenth above the best, so that the colours tell cells apart."""
    scores = cells["macro_f1"].dropna()
    low, high = (scores.min(), scores.max()) if len(scores) else (0.0, 1.0)
    first = min(int(low * 10) / 10, 0.9)
    return Normalize(first, max(min(1.0, (int(high * 10) + 1) / 10), first + 0.1))


def _bar(axes: Axes, figure: Figure, scale: Normalize, colors: Colormap) -> None:
    bar = figure.colorbar(ScalarMappable(scale, colors), cax=axes, orientation="horizontal")
    bar.outline.set_visible(False)
    low, high = axes.get_xlim()
    axes.xaxis.set_ticks_position("top")
    axes.tick_params(length=2, pad=1)
    axes.xaxis.set_major_locator(MultipleLocator(0.1 if high - low > 0.35 else 0.05))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.grid(visible=False)
    axes.set_label("scale")
    axes.set_xlabel(f"Macro-F1 (colours start at {low:g})", loc="left", labelpad=1)


def _panel(
    axes: Axes, matrix: Matrix, sources: Axis, targets: Axis, room: _Room, scale: Normalize, colors: Colormap
) -> None:
    axes.set_facecolor(style.FAINT)
    for row in rows_of(matrix.cells):
        x, y = targets.ids.index(row.target), sources.ids.index(row.source)
        if row.status != "ok":
            axes.plot(x + 0.5, y + 0.5, "x", color=style.INK, markersize=min(5, room.width * 30))
        else:
            color = colors(scale(row.macro_f1))
            axes.add_patch(Rectangle((x, y), 1, 1, facecolor=color, edgecolor="white", linewidth=0.6))
            _write(axes, row, x, y, room, "white" if _dark(color) else "black")
        if row.home:
            wide, tall = FRAME / room.width, FRAME / room.height
            inside = (x + wide, y + tall), 1 - 2 * wide, 1 - 2 * tall
            axes.add_patch(Rectangle(*inside, fill=False, edgecolor=MARK, linewidth=1.1))
    axes.set_xlim(0, len(targets.ids))
    axes.set_ylim(len(sources.ids), 0)
    axes.grid(visible=False)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def _dark(color: tuple[float, float, float, float]) -> bool:
    red, green, blue, _ = color
    return 0.299 * red + 0.587 * green + 0.114 * blue < 0.55


def _write(axes: Axes, row: Any, x: int, y: int, room: _Room, ink: str) -> None:
    """The score, and under it as much small print as fits."""
    small = _small(row)[: room.small_lines()]
    tall = room.height * 72
    block = room.size + len(small) * SMALL_SIZE * 1.15
    top = (tall - block) / 2 / tall
    at = y + top + room.size / 2 / tall
    # Thousands of texts inside their cells would cost the layout long, and can move nothing.
    look: dict[str, Any] = {"ha": "center", "va": "center", "color": ink, "in_layout": False}
    axes.text(x + 0.5, at, short(row.macro_f1), fontsize=room.size, **look)
    for place, line in enumerate(small):
        down = y + top + (room.size + (place + 0.65) * SMALL_SIZE * 1.15) / tall
        axes.text(x + 0.5, down, line, fontsize=SMALL_SIZE, **look)


def _small(row: Any) -> list[str]:
    closed = [] if pd.isna(getattr(row, "closed", None)) else [f"{100 * row.closed:.0f} %"]
    interval = [] if pd.isna(row.low) else [f"{short(row.low)}\N{EN DASH}{short(row.high)}"]
    return closed + interval


def _floor(cells: pd.DataFrame) -> list[str]:
    """What the scores have to be held against."""
    floors = cells["floor"].dropna()
    if floors.empty:
        return []
    low, high = f"{floors.min():.2f}", f"{floors.max():.2f}"
    return [f"Knowing nothing scores {low if low == high else f'{low} to {high}'}."]


def _small_print(cells: pd.DataFrame, room: _Room) -> list[str]:
    """What stands under the scores, and what the cells have no room for."""
    names = {"closed": "the share of the gap that is closed", "low": "the 95 % interval"}
    present = [name for column, name in names.items() if column in cells and cells[column].notna().any()]
    written, gone = present[: room.small_lines()], present[room.small_lines() :]
    notes = [f"Under a score: {' and '.join(written)}."] if written else []
    return notes + ([f"For {' and '.join(gone)} see the figure's table: the cells are too small."] if gone else [])


def short(score: float) -> str:
    """A score in three letters."""
    text = f"{score:.2f}"
    return "1.0" if text == "1.00" else text.replace("0.", ".", 1)


def _keys(cells: pd.DataFrame, marked: str) -> list[Line2D]:
    keys = []
    if cells["home"].any():
        frame = Line2D([], [], color=MARK, marker="s", markersize=7, markerfacecolor="none", linestyle="none")
        frame.set_label(marked)
        keys.append(frame)
    if (cells["status"] != "ok").any():
        keys.append(style.key((style.INK, "x"), "failed"))
    return keys
