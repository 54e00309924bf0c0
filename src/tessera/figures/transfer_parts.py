"""What the figures of transfer share: looks, names that can be drawn, and what stands at the foot about failed cells."""

from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

import pandas as pd
from matplotlib import font_manager
from matplotlib.figure import Figure

from tessera.figures import style
from tessera.quoting import on_a_page
from tessera.transfer_results import ARMS, LAYERED

ARM_LOOK = style.ARM_LOOK | {
    "confidence": (style.BLACK, "*"),
    "vision": (style.PURPLE, "P"),
    "pixels": (style.ORANGE, "p"),
}
UNDRAWABLE = "\N{WHITE SQUARE}"
NAMES_SHOWN = 3


def canvas(height: float, notes: Iterable[str] = (), names: Iterable[str] = ()) -> Figure:
    """The common canvas, whose notes hold only what the font can draw. `names` are the words that stand above them."""
    notes = list(notes)
    drawn = [drawable(note) for note in notes]
    if any(drawable(text) != text for text in [*names, *notes]):
        drawn.insert(0, f"{UNDRAWABLE} is a letter that the figure's font lacks; the figure's table has the names.")
    return style.canvas(height, drawn)


def nothing(message: str) -> Figure:
    """A figure that has nothing to show says why."""
    figure = style.canvas(0.4)
    style.empty(figure.subplots(), message)
    return figure


def drawable(text: Any) -> str:
    """The text with a white square for each letter that the font lacks, or that would turn the others around.

    Names come from other people's data.
    """
    return "".join(letter if _has(letter) else UNDRAWABLE for letter in str(text))


@cache
def _has(letter: str) -> bool:
    font = font_manager.get_font(font_manager.findfont(style.RC["font.family"]))
    return letter in "\n\t" or (on_a_page(letter) == letter and bool(font.get_char_index(ord(letter))))


def in_order(*columns: Iterable[Any]) -> list[str]:
    """Every name once, in the order in which it first comes up."""
    return list(dict.fromkeys(str(name) for column in columns for name in column if pd.notna(name)))


def several_models(rows: pd.DataFrame) -> bool:
    """Whether a reader must be told which model a row is about."""
    return rows.loc[rows["arm"].isin(LAYERED), "model"].nunique() > 1


def input_name(arm: str, width: float = float("nan"), layer: float = float("nan")) -> str:
    """An arm, and the part of its search space that it is confined to."""
    parts = [ARMS.get(arm, arm)]
    parts += [] if pd.isna(layer) else [f"layer {layer:.0f}"]
    parts += [] if pd.isna(width) else [f"width {width:,.0f}"]
    return ", ".join(parts)


def short_names(names: Sequence[str], room: float, size: float) -> list[str]:
    """Names cut to `room` points; where the beginnings alone would be alike, they are cut in the middle."""
    whole = [drawable(name) for name in names]
    cut = [_cut(name, room, size) for name in whole]
    return [
        text if cut.count(text) == 1 else _cut_inside(name, room, size) for name, text in zip(whole, cut, strict=True)
    ]


def _cut(name: str, room: float, size: float) -> str:
    return "".join(style.fitted(name, room, 1, size=size))


def _cut_inside(name: str, room: float, size: float) -> str:
    for kept in range(len(name), 2, -1):
        text = name if kept == len(name) else f"{name[: kept - kept // 2].rstrip()}...{name[-(kept // 2) :].lstrip()}"
        if _cut(text, room, size) == text:
            return text
    return _cut(name, room, size)


def failures(lost: Iterable[tuple[str, str, str]]) -> list[str]:
    """A note for each reason, from what failed, where, and why; what failed in the same places shares a note."""
    places: dict[tuple[str, str], dict[str, None]] = {}
    for who, where, reason in lost:
        places.setdefault((who, reason), {})[where] = None
    together: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for (who, reason), where_all in places.items():
        together.setdefault((reason, tuple(where_all)), []).append(who)
    return [
        f"x failed: {_few(who)} ({_few(where)}): {reason or 'no reason was recorded'}"
        for (reason, where), who in together.items()
    ]


def _few(names: Sequence[str]) -> str:
    shown = names if len(names) <= NAMES_SHOWN else [*names[: NAMES_SHOWN - 1], f"{len(names) - NAMES_SHOWN + 1} more"]
    return "; ".join(shown)


def confined(row: Any) -> str:
    """The place of a cell in a figure over layers."""
    if pd.isna(row.layer):
        return "the arm itself"
    return f"layer {row.layer:.0f}" + ("" if pd.isna(row.width) else f", width {row.width:,.0f}")
