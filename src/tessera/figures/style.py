"""How every figure looks, and how it is written.

A figure is read in a paper's column, on a phone, in greyscale and by people who do not tell red from green. So: one
width, colours from Okabe and Ito's palette and never colour alone (each arm has its marker), text at the size of a
caption, the legend above the data and never on it, scores on an axis that starts at zero and says so. Words in a figure
come from a user's config, and are drawn as they are: a dollar sign starts no formula.

The same tables give the same bytes: element ids are salted with a constant and no file carries a date.
"""

import textwrap
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from functools import cache
from math import isnan
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib import font_manager
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from tessera.files import replacing

BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
BLUE, VERMILLION, PURPLE, GREY = "#0072B2", "#D55E00", "#CC79A7", "#666666"
FAINT = "#F2F2F2"
INK = "#333333"

ARM_LOOK = {
    "sae": (VERMILLION, "o"),
    "hidden": (BLUE, "s"),
    "hidden-last": (SKY, "D"),
    "hidden-attention": (ORANGE, "P"),
    "tfidf": (GREEN, "^"),
    "random": (PURPLE, "X"),
    "length": (BLACK, "<"),
    "majority": (GREY, "v"),
}
SERIES = [(VERMILLION, "o"), (ORANGE, "D"), (PURPLE, "^"), (BLACK, "v"), (SKY, "P"), (GREEN, "X")]

WIDTH = 6.9
SCORE_LABEL = "Macro-F1 (axis starts at 0)"
NOTE_WIDTH = 135
NOTES_SHOWN, NOTE_LINES = 6, 4
TITLE_SIZE, ABSENT_SIZE = 8.5, 6.5

RC: Any = {
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.labelsize": 8,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": TITLE_SIZE,
    "axes.titleweight": "bold",
    "figure.dpi": 200,
    "figure.facecolor": "white",
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "grid.color": "#E2E2E2",
    "grid.linewidth": 0.6,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "lines.linewidth": 1.4,
    "lines.markersize": 4.5,
    "pdf.fonttype": 42,
    "savefig.dpi": 200,
    "svg.fonttype": "path",
    "svg.hashsalt": "tessera",
    "text.hinting": "none",  # so that text is equally wide at every resolution, and one layout serves all formats
    "text.parse_math": False,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
}
FORMATS: dict[str, dict[str, Any]] = {
    "svg": {"Date": None},
    "pdf": {"CreationDate": None},
    "png": {"Software": None},
}


def applied() -> AbstractContextManager[None]:
    """Within this the look is in force; matplotlib's own settings stay as they were."""
    return matplotlib.rc_context(RC)


def canvas(height: float, notes: Iterable[str] = ()) -> Figure:
    """An empty figure of the common width, `height` inches tall without its small print.

    The notes stand at its foot: what failed, what is missing. A long list ends with a count of the rest, a long note with dots.
    """
    notes = list(dict.fromkeys(notes))
    shown = notes if len(notes) <= NOTES_SHOWN else [*notes[: NOTES_SHOWN - 1], more(len(notes) - NOTES_SHOWN + 1)]
    lines = [
        line
        for note in shown
        for line in textwrap.wrap(note, NOTE_WIDTH, subsequent_indent="   ", max_lines=NOTE_LINES, placeholder=" ...")
    ]
    figure = Figure(figsize=(WIDTH, height + 0.13 * len(lines)), layout="constrained")
    if lines:
        figure.supxlabel("\n".join(lines), fontsize=7, color=INK, x=0.01, ha="left")
    return figure


def write(figure: Figure, stem: Path) -> None:
    """The figure as stem.svg, stem.pdf and stem.png, the same bytes for the same figure."""
    with applied():
        # The layout is the slow part, and the same for every format: settled in two rounds, then frozen.
        figure.draw_without_rendering()
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
        for kind, metadata in FORMATS.items():
            with replacing(stem.with_name(f"{stem.name}.{kind}")) as partial:
                figure.savefig(partial, format=kind, metadata=metadata)


def legend_above(figure: Figure, handles: Sequence[Artist], columns: int) -> None:
    if handles:
        figure.legend(
            handles=list(handles), loc="outside upper left", ncols=columns, columnspacing=1.4, handletextpad=0.5
        )


def key(look: tuple[str, str], label: str, filled: bool = True, line: Any = "none") -> Line2D:
    """One entry of a legend; `look` is its colour and marker."""
    color, marker = look
    face = color if filled else "white"
    return Line2D([], [], color=color, marker=marker, markerfacecolor=face, linestyle=line, label=label)


def more(count: int) -> str:
    return f"... and {count} more, in the report's list of failures and in the figure's table"


def wrapped(title: str, width: int, lines: int = 3) -> str:
    """A title over several lines, cut where it would outgrow its place."""
    return "\n".join(textwrap.wrap(title, width, max_lines=lines, placeholder=" ...")) or title


def title(axes: Axes, parts: list[str], columns: int) -> None:
    """A panel's title, each part a line or two, cut to the panel: for more the layout would shrink the panel itself."""
    room = (WIDTH / columns - 0.7) * 72
    axes.set_title("\n".join(line for part in parts for line in fitted(part, room)))


def absent(axes: Axes, y: float, color: str, reason: str, columns: int) -> None:
    """In the place of a marker: a cross at the axis, and why there is no score, cut to the panel."""
    words = f"failed: {reason}" if reason else "not run"
    room = ((WIDTH - 1.0) / columns - 0.4) * 72
    text = "".join(fitted(words, room, 1, size=ABSENT_SIZE))
    axes.plot(0, y, "x", color=color, clip_on=False, zorder=3)
    axes.annotate(text, (0, y), (7, 0), textcoords="offset points", fontsize=ABSENT_SIZE, va="center", color=INK)


def fitted(text: str, room: float, most: int = 2, size: float = TITLE_SIZE) -> list[str]:
    """`text` as at most `most` lines of `room` points, broken between words where that is possible."""
    lines: list[str] = []
    rest = " ".join(text.split())
    while rest and len(lines) < most:
        fits = next((n for n in range(len(rest), 0, -1) if _points(rest[:n], size) <= room), 1)
        space = rest.rfind(" ", 0, fits + 1)
        fits = space if fits < len(rest) and space > 0 else fits
        lines.append(rest[:fits])
        rest = rest[fits:].lstrip()
    if rest:
        lines[-1] = lines[-1][:-3].rstrip() + "..."
    return lines


def _points(text: str, size: float) -> float:
    """How wide a line of bold text is; plain text is a little narrower."""
    return sum(_advance(character) for character in text) * size


@cache
def _advance(character: str) -> float:
    """The width of a bold character, in units of the font size."""
    font = font_manager.get_font(font_manager.findfont(f"{RC['font.family']}:bold"))
    font.set_size(1000, 72)
    return float(font.load_char(ord(character)).linearHoriAdvance) / 65536 / 1000


def score_limit(values: Iterable[float]) -> float:
    """Where a score axis ends: the next tenth above the best value, and never beyond what is possible."""
    best = max((value for value in values if not isnan(value)), default=1.0)
    return min(1.0, int(best * 10 + 1) / 10) * 1.02


def empty(axes: Axes, message: str) -> None:
    """A panel that has nothing to draw says why."""
    axes.set_axis_off()
    axes.text(0, 1, textwrap.fill(message, 90), transform=axes.transAxes, ha="left", va="top", color=INK)
