"""What to train on when the target is another language: native, transferred or translated texts, at every training size.

Bars of one group stand for the same target languages, so that they can be compared: all but the origin, the language that
translations start from. Within a target, the scores of several sources are averaged first. The line on a bar reaches from
the worst target language to the best; it is a spread and not an interval. Each arm chooses head and pooling by inner
validation.
"""

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from tessera.figures import style, transfer_parts
from tessera.results import groups_of, rows_of
from tessera.transfer_results import ARMS, LAYERED, Transfers

COLUMNS = 2
WIDEST = 0.22  # of a bar, where groups are 1 apart
PANEL = ["arm", "model", "selection"]
WAYS = {
    "native": (style.BLUE, ""),
    "transferred": (style.ORANGE, "//"),
    "origin": (style.VERMILLION, "\\\\"),
    "translated": (style.GREEN, ".."),
}
COLUMNS_OF_DATA = [
    *PANEL, "share", "way", "macro_f1", "lowest", "highest", "n_targets", "n_lost", "n_train", "floor", "status", "reason",
]  # fmt: skip


def data(tables: Transfers, transfer: str) -> pd.DataFrame:
    """One row a bar: the mean over target languages, their lowest and highest, and how many lost a score."""
    rows = _rows(tables, transfer)
    if rows.empty:
        return pd.DataFrame(columns=COLUMNS_OF_DATA)
    good = rows[rows["status"] == "ok"]
    part = [*PANEL, "share", "way"]
    each = good.groupby([*part, "target"], dropna=False, sort=False)[["macro_f1", "n_train", "floor"]].mean()
    found = each.reset_index().groupby(part, dropna=False, sort=False)
    bars = found.agg(
        macro_f1=("macro_f1", "mean"),
        lowest=("macro_f1", "min"),
        highest=("macro_f1", "max"),
        n_targets=("macro_f1", "size"),
        n_train=("n_train", "mean"),
        floor=("floor", "mean"),
    )
    lost = rows.assign(lost=rows["status"] != "ok", why=rows["reason"].where(rows["status"] != "ok"))
    by_part = lost.groupby(part, dropna=False, sort=False)
    asked = by_part.agg(n_lost=("lost", "sum"), reason=("why", lambda why: min(why.dropna(), default=""))).reset_index()
    table = asked.merge(bars.reset_index(), how="left", on=part)
    table["n_targets"] = table["n_targets"].fillna(0).astype(int)
    table["status"] = table["macro_f1"].notna().map({True: "ok", False: "failed"})
    return table.sort_values([*PANEL, "share", "way"], key=_rank, kind="stable")[COLUMNS_OF_DATA].reset_index(drop=True)


def _rank(column: pd.Series) -> pd.Series:
    """Arms and ways in the order of the legends, everything else by itself."""
    orders = {"arm": list(ARMS), "way": list(WAYS)}
    if column.name == "selection":
        return column.replace({"none": "", "l1": "~"})
    order = orders.get(str(column.name))
    return column if order is None else column.map({name: place for place, name in enumerate(order)})


def _rows(tables: Transfers, transfer: str) -> pd.DataFrame:
    """The cells behind the bars, each with the way of training that it counts in; a cell may count in two."""
    rows, origin = tables.cells(transfer), tables.origin(transfer)
    rows = rows[rows["head"].isna() & rows["arm"].isin([*LAYERED, "tfidf"])]
    if (rows["target"] != origin).any():
        rows = rows[rows["target"] != origin]
    native = rows[rows["training"] == "native"].assign(way="native")
    transferred = rows[rows["training"] == "transferred"].assign(way="transferred")
    translated = rows[rows["training"] == "translated"].assign(way="translated")
    from_origin = transferred[transferred["source"] == origin].assign(way="origin")
    if len(from_origin) == len(transferred):
        transferred = transferred[:0]  # the origin is the only source, and would be drawn twice
    return pd.concat([native, transferred, from_origin, translated])


def draw(tables: Transfers, transfer: str) -> Figure:
    with style.applied():
        bars = data(tables, transfer)
        if bars.empty:
            return transfer_parts.nothing("Nothing was trained on one language and tested on another.")
        panels = list(groups_of(bars, PANEL))
        columns = min(COLUMNS, len(panels))
        lines = -(-len(panels) // columns)
        figure = transfer_parts.canvas(
            0.9 + 1.8 * lines, _notes(tables, transfer, bars), [tables.origin(transfer) or ""]
        )
        grid = figure.subplots(lines, columns, sharey=True, squeeze=False).flatten()
        several = transfer_parts.several_models(bars)
        shares = sorted(bars["share"].unique())
        ways = [way for way in WAYS if (bars["way"] == way).any()]
        for axes, ((arm, model, selection), here) in zip(grid, panels, strict=False):
            _panel(axes, here, shares, ways)
            title = [ARMS[arm] + ("" if arm != "sae" else f", {_selected(selection)}")]
            title += [transfer_parts.drawable(tables.model(model))] if several and arm in LAYERED else []
            style.title(axes, title, columns)
            axes.set_ylim(0, style.score_limit(bars["highest"]))
        for axes in grid[len(panels) :]:
            axes.set_visible(False)
        for axes in grid[::columns]:
            axes.set_ylabel(style.SCORE_LABEL)
        for axes in grid[max(0, len(panels) - columns) : len(panels)]:
            axes.set_xlabel("Share of the training examples")
        style.legend_above(figure, _keys(bars, ways, tables.origin(transfer)), 2)
        return figure


def _selected(selection: str) -> str:
    return {"none": "all of them", "l1": "those L1 leaves in"}.get(selection, f"the {selection.replace('-', ' ')}")


def _panel(axes: Axes, here: pd.DataFrame, shares: list[float], ways: list[str]) -> None:
    width = min(WIDEST, 0.8 / len(ways))
    for row in rows_of(here):
        color, hatch = WAYS[row.way]
        at = shares.index(row.share) + (ways.index(row.way) - (len(ways) - 1) / 2) * width
        if row.status != "ok":
            axes.plot(at, 0.03, "x", color=color, clip_on=False)
            continue
        face = color if not row.n_lost else "white"
        axes.bar(at, row.macro_f1, 0.92 * width, facecolor=face, edgecolor=color, linewidth=0.8)
        axes.bar(
            at,
            row.macro_f1,
            0.92 * width,
            fill=False,
            hatch=hatch,
            edgecolor="white" if face == color else color,
            linewidth=0,
        )
        axes.vlines(at, row.lowest, row.highest, color=style.INK, linewidth=1)
    if here["floor"].notna().any():
        axes.axhline(here["floor"].mean(), color=style.GREY, linestyle=":", linewidth=1.2, zorder=3)
    axes.set_xticks(range(len(shares)), [f"{100 * share:g} %" for share in shares])
    axes.set_xlim(-0.55, len(shares) - 0.45)
    axes.tick_params(axis="x", length=0)
    axes.grid(visible=False, axis="x")


def _keys(bars: pd.DataFrame, ways: list[str], origin: str | None) -> list[Any]:
    names = {
        "native": "trained on the target language",
        "transferred": "trained on each other language (mean)",
        "origin": f"trained on {origin} alone",
        "translated": "trained on translations into the target language",
    }
    keys: list[Any] = [
        Patch(facecolor=WAYS[way][0], hatch=WAYS[way][1], edgecolor="white", label=transfer_parts.drawable(names[way]))
        for way in ways
    ]
    keys.append(style.key((style.INK, ""), "from the worst target to the best", line="-"))
    if ((bars["n_lost"] > 0) & (bars["status"] == "ok")).any():
        keys.append(Patch(facecolor="white", edgecolor=style.INK, label="white: without what failed"))
    if bars["floor"].notna().any():
        keys.append(style.key((style.GREY, ""), "knowing nothing", line=":"))
    return keys


def _notes(tables: Transfers, transfer: str, bars: pd.DataFrame) -> list[str]:
    targets = transfer_parts.in_order(_rows(tables, transfer)["target"])
    notes = [f"Target languages: {', '.join(targets)}."] if len(targets) <= 8 else [f"{len(targets)} target languages."]
    several = transfer_parts.several_models(bars)
    lost = []
    for row in rows_of(bars[bars["n_lost"] > 0]):
        who = ARMS[row.arm] + ("" if row.arm != "sae" else f", {_selected(row.selection)}")
        who += f", {tables.model(row.model)}" if several and row.arm in LAYERED else ""
        lost.append((who, f"{row.way}, {100 * row.share:g} %", row.reason))
    return [*notes, *transfer_parts.failures(lost)]
