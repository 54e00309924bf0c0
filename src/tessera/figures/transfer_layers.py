"""Scores against layer in one panel: lines for what reads one layer, horizontal lines for what reads none.

The layers that are read stand at equal distances: models of other depths read some that are neighbours and some far apart.

Bars and bands are 95 % intervals. The points set apart on the right are the arms themselves, which choose layer and width
by inner validation: they are what an arm is worth, and the lines say where it comes from.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from tessera.figures import style, transfer_parts
from tessera.results import rows_of
from tessera.transfer_results import ARMS, LAYERED

# The arms without layers: a line of its own look each.
LEVELS: dict[str, Any] = {"tfidf": "--", "confidence": "-.", "vision": (0, (6, 1)), "pixels": (0, (3, 1, 1, 1, 1, 1))}
CHOSEN, STAR = "chosen", "*"
TICKS = 10
LEGEND_COLUMNS = 2

# A line of a panel: arm, model and width; hidden states have the width 0.
Key = tuple[str, str, float]


@dataclass(frozen=True)
class Look:
    """How one line is drawn, and what it is called."""

    color: str
    marker: str
    label: str
    line: str = "-"
    filled: bool = True

    @property
    def face(self) -> str:
        return self.color if self.filled else "white"

    def key(self) -> Line2D:
        room = (style.WIDTH / LEGEND_COLUMNS - 0.7) * 72
        label = style.fitted(transfer_parts.drawable(self.label), room, 1)[0]
        return style.key((self.color, self.marker), label, filled=self.filled, line=self.line)


def points(cells: pd.DataFrame) -> pd.DataFrame:
    """The cells that have a place in a panel: each layer's, each arm's choice, and one for each arm that has no layer."""
    one_layer = cells["arm"].isin(LAYERED) & cells["head"].notna()
    whole = cells["arm"].isin([*LAYERED, *LEVELS]) & cells["head"].isna()
    rows = cells[one_layer | whole]
    return rows.assign(chosen=rows["head"].isna() & rows["arm"].isin(LAYERED)).reset_index(drop=True)


def keys_of(rows: pd.DataFrame) -> list[Key]:
    """The lines in reading order: by model, hidden states first and then the widths from the narrowest on."""
    layered = rows[rows["arm"].isin(LAYERED)]
    lines = layered[~layered["chosen"]]
    found = set(zip(lines["arm"], lines["model"], lines["width"].fillna(0), strict=True))
    # An arm that failed before any layer was tried has no line, and still its place and its colour.
    known = {(arm, model) for arm, model, _ in found}
    found |= {(arm, model, 0.0) for arm, model in zip(layered["arm"], layered["model"], strict=True)} - {
        (arm, model, 0.0) for arm, model in known if arm == "sae"
    }
    models = transfer_parts.in_order(layered["model"])
    return sorted(found, key=lambda key: (models.index(key[1]), key[0], key[2]))


def panel(axes: Axes, here: pd.DataFrame, looks: Mapping[Key, Look]) -> None:
    """One panel; what failed is a cross at the foot of its place."""
    _levels(axes, here)
    layered = here[here["arm"].isin(LAYERED)]
    lines, chosen = layered[~layered["chosen"]], layered[layered["chosen"]]
    layers = sorted(lines["layer"].unique())
    lines = lines.assign(at=lines["layer"].map({layer: place for place, layer in enumerate(layers)}))
    own = set(zip(lines["arm"], lines["model"], lines["width"].fillna(0), strict=True))
    drawn = [key for key in looks if key in own]
    for place, key in enumerate(drawn):
        mine = (lines["arm"] == key[0]) & (lines["model"] == key[1]) & (lines["width"].fillna(0) == key[2])
        # Side by side, so that lines that agree do not hide each other.
        _line(axes, lines[mine], looks[key], _shift(place, len(drawn), 0.6))
    end = max(0, len(layers) - 1)
    apart = end + 1.3
    arms = dict.fromkeys((arm, model) for arm, model, _ in looks)
    arms = {pair: None for pair in arms if ((chosen["arm"] == pair[0]) & (chosen["model"] == pair[1])).any()}
    for place, (arm, model) in enumerate(arms):
        look = _of_choice(looks, arm, model)
        for row in rows_of(chosen[(chosen["arm"] == arm) & (chosen["model"] == model)]):
            _mark(axes, row, look, apart + _shift(place, len(arms), 0.8))
    if arms and layers:
        axes.axvline(end + 0.65, color="#D0D0D0", linewidth=0.8)
    every = -(-len(layers) // TICKS) or 1
    shown = range(0, len(layers), every)
    axes.set_xticks(
        [*shown, *([apart] if arms else [])],
        [*(f"{layers[place]:.0f}" for place in shown), *([CHOSEN] if arms else [])],
    )
    axes.set_xlim((0 if layers else apart) - 0.6, (apart if arms else end) + 0.6)
    axes.grid(visible=False, axis="x")
    axes.set_xlabel("Layer")


def _of_choice(looks: Mapping[Key, Look], arm: str, model: str) -> Look:
    """How an arm's own choice is drawn: as its line, or with a star where it had several to choose from."""
    found = [look for key, look in looks.items() if key[:2] == (arm, model)]
    return found[0] if len(found) == 1 else replace(found[0], marker=STAR)


def _shift(place: int, count: int, room: float) -> float:
    return (place - (count - 1) / 2) * min(room / 6, room / count)


def _line(axes: Axes, rows: pd.DataFrame, look: Look, shift: float) -> None:
    """One line; SAEs that share layer and width stand on it as points above one another."""
    rows = rows.sort_values(["layer", "head"])
    good = rows[rows["status"] == "ok"]
    first = good.drop_duplicates("layer")
    axes.plot(first["at"] + shift, first["macro_f1"], color=look.color, linestyle=look.line)
    for row in rows_of(rows):
        _mark(axes, row, look, row.at + shift)


def _mark(axes: Axes, row: Any, look: Look, at: float) -> None:
    if row.status != "ok":
        axes.plot(at, 0.03, "x", color=look.color, clip_on=False)
        return
    axes.vlines(at, row.low, row.high, color=look.color, linewidth=1)
    size = 8 if look.marker == STAR else None
    axes.plot(at, row.macro_f1, look.marker, color=look.color, markerfacecolor=look.face, markersize=size, zorder=3)


def _levels(axes: Axes, here: pd.DataFrame) -> None:
    for row in rows_of(here[here["arm"].isin(LEVELS) & (here["status"] == "ok")]):
        color = transfer_parts.ARM_LOOK[row.arm][0]
        axes.axhspan(row.low, row.high, color=color, alpha=0.1, linewidth=0, zorder=0)
        axes.axhline(row.macro_f1, color=color, linestyle=LEVELS[row.arm], linewidth=1.2)
    if here["floor"].notna().any():
        axes.axhline(here["floor"].max(), color=style.GREY, linestyle=":", linewidth=1.2)


def keys(rows: pd.DataFrame, looks: Mapping[Key, Look]) -> list[Line2D]:
    """The legend: every line, every level, and what the point set apart is."""
    found = [look.key() for look in looks.values()]
    present = [arm for arm in LEVELS if ((rows["arm"] == arm) & (rows["status"] == "ok")).any()]
    found += [style.key((transfer_parts.ARM_LOOK[arm][0], ""), ARMS[arm], line=LEVELS[arm]) for arm in present]
    if rows["floor"].notna().any():
        found.append(style.key((style.GREY, ""), "Knowing nothing", line=":"))
    return found


def notes(rows: pd.DataFrame) -> list[str]:
    if not rows["chosen"].any():
        return []
    several = (rows[~rows["chosen"]].groupby(["arm", "model"])["width"].nunique() > 1).any()
    star = "; a star is SAE features of any width" if several else ""
    return [f"'{CHOSEN}': inner validation picks layer and width{star}. Bars and bands are 95 % intervals."]


def limit(rows: pd.DataFrame) -> float:
    return style.score_limit([*rows["high"], *rows["macro_f1"]])
