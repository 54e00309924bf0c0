"""The study's figures of images: macro-F1 of SAE features against the group of layers, a line for each setting, a panel for
each width of a model's SAEs.

A setting is a pooling with a threshold or without. Horizontal lines are what an image is worth without an SAE: the vision
tower, as a transfer of this run has measured it and where the authors draw it (a number in their code, whose origin
they do not tell); and the best hidden state of the last token. A dataset that only a transfer reads has one line
a width, whose pooling inner validation picks.
"""

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from tessera.figures import paper_parts as parts
from tessera.figures import poolings, style, transfer_parts
from tessera.figures.transfer_model import COLORS
from tessera.paper_results import SCORE, Paper, best, means
from tessera.results import groups_of, rows_of

COLUMNS = 2
PANEL = ["model", "width"]
PART = [*PANEL, "pooling", "threshold", "group"]
CHOSEN = "chosen"
SETTING, TOWER, AUTHORS = "setting", "vision tower", "vision tower, the authors'"
LAST, HIDDEN = "hidden state, last token", "hidden states"
LEVELS: dict[str, tuple[str, Any, str]] = {
    TOWER: (style.BLACK, (0, (6, 1)), "Vision tower"),
    AUTHORS: (style.BLACK, ":", "Vision tower, the authors' line"),
    LAST: (style.GREY, "-.", "Best hidden state, last token"),
    HIDDEN: (style.GREY, "-.", "Hidden states, by validation"),
}


def data(paper: Paper, dataset: str) -> pd.DataFrame:
    """One row a point of a line, then one for each horizontal line; `what` says which."""
    rows = _rows(paper, dataset)
    settings = means(rows[rows["group"].notna()], PART, paper.protocol).assign(protocol=paper.protocol)
    if settings.empty:
        moved = _moved(paper, dataset)
        settings = moved[moved["group"].notna()].assign(protocol="strict")
    tables = [settings.assign(what=SETTING), _levels(paper, dataset)]
    columns = ["dataset", "what", *PART, "protocol", *SCORE]
    found = pd.concat([table for table in tables if len(table)] or tables[:1], ignore_index=True)
    return found.assign(dataset=dataset).reindex(columns=columns)


def _rows(paper: Paper, dataset: str) -> pd.DataFrame:
    return paper.rows[(paper.rows["arm"] == "sae") & (paper.rows["dataset"] == dataset)]


def _cells(paper: Paper, dataset: str) -> pd.DataFrame:
    """What transfers score on these images when they are trained on images."""
    cells = paper.moved("modality")
    return cells[(cells["transfer"].map(paper.images.get) == dataset) & (cells["training"] == "in-domain")]


def _moved(paper: Paper, dataset: str) -> pd.DataFrame:
    cells = _cells(paper, dataset)
    heads = cells[(cells["arm"] == "sae") & cells["head"].notna()]
    nothing = float("nan")
    heads = heads.assign(dataset=dataset, pooling=CHOSEN, threshold=nothing, published=nothing)
    heads = heads.assign(n_configurations=1, n_failed=(heads["status"] != "ok").astype(int))
    return heads.assign(group=paper.grouped(heads))


def _levels(paper: Paper, dataset: str) -> pd.DataFrame:
    """The horizontal lines, each of a model or, if of none, of all panels."""
    cells = _cells(paper, dataset)
    towers = cells[(cells["arm"] == "vision") & cells["head"].isna()].drop_duplicates("model")
    rows = paper.rows[(paper.rows["dataset"] == dataset) & (paper.rows["arm"] == "hidden")]
    last = best(rows[rows["pooling"] == "last"], ["model"], paper.protocol).assign(protocol=paper.protocol)
    tables = [towers.assign(what=TOWER, protocol="strict"), last.assign(what=LAST)]
    if last.empty:
        chosen = cells[(cells["arm"] == "hidden") & cells["head"].isna()].drop_duplicates("model")
        tables.append(chosen.assign(what=HIDDEN, protocol="strict"))
    drawn = paper.tower(dataset)
    if drawn is not None:
        tables.append(pd.DataFrame([{"what": AUTHORS, "published": drawn, "status": "ok", "reason": ""}]))
    columns = ["what", "model", "protocol", *SCORE]
    there = [table.reindex(columns=columns) for table in tables if len(table)]
    return pd.concat([table.dropna(axis=1, how="all") for table in there]) if there else pd.DataFrame(columns=columns)


def draw(paper: Paper, dataset: str) -> Figure:
    with style.applied():
        found, rows = data(paper, dataset), _rows(paper, dataset)
        points, levels = found[found["what"] == SETTING], found[found["what"] != SETTING]
        read = rows if len(rows) else _moved(paper, dataset)
        notes = [*parts.failures(paper, read), *parts.ungrouped(paper, read)]
        if points.empty:
            why = f"No SAE of this run reads early, middle and late layers of what a model makes of {paper.dataset(dataset)}."
            return transfer_parts.nothing(" ".join([why, *notes]))
        panels = list(groups_of(points, PANEL))
        columns = min(COLUMNS, len(panels))
        lines = _lines(points)
        notes = [*_notes(paper, points, levels), *notes]
        figure, grid = parts.panels(len(panels), columns, 2.4, notes, map(paper.model, points["model"].unique()))
        for axes, ((model, width), here) in zip(grid, panels, strict=True):
            drawn = levels[levels["model"].isna() | (levels["model"] == model)]
            _draw_levels(axes, drawn)
            parts.over_groups(axes, here, lines)
            parts.title(axes, [paper.model(model), f"SAE width {width:,.0f}"], columns)
        grid[0].set_ylim(0, parts.limit(points, *levels["macro_f1"], *levels["high"], *levels["published"]))
        style.legend_above(figure, _keys(lines, levels, points), parts.LEGEND_COLUMNS)
        return figure


def _lines(points: pd.DataFrame) -> list[parts.Line]:
    """A colour for each pooling; what is made binary is dashed and open."""
    kept = sorted(set(points["pooling"]), key=lambda name: (-1, 0) if name == CHOSEN else poolings.rank(name))
    cuts = sorted(points["threshold"].unique(), key=lambda cut: -1.0 if pd.isna(cut) else cut)
    return [
        parts.Line(
            {"pooling": pooling, "threshold": None if pd.isna(cut) else cut},
            COLORS[place % len(COLORS)],
            parts.MARKERS[place % len(parts.MARKERS)],
            "-" if pd.isna(cut) else "--",
            "full" if pd.isna(cut) else "none",
        )
        for place, pooling in enumerate(kept)
        for cut in cuts
    ]


def _draw_levels(axes: Axes, levels: pd.DataFrame) -> None:
    for row in rows_of(levels[levels["status"] == "ok"]):
        color, line, _ = LEVELS[row.what]
        if row.what == AUTHORS:
            axes.axhline(row.published, color=color, linestyle=line, linewidth=1.2)
            continue
        axes.axhspan(row.low, row.high, color=color, alpha=0.08, linewidth=0, zorder=0)
        axes.axhline(row.macro_f1, color=color, linestyle=line, linewidth=1.2)


def _keys(lines: list[parts.Line], levels: pd.DataFrame, points: pd.DataFrame) -> list[Line2D]:
    keys = []
    for line in lines:
        pooling, cut = line.match["pooling"], line.match["threshold"]
        label = "SAE features, by validation" if pooling == CHOSEN else parts.setting(pooling, cut)
        keys.append(style.key((line.color, line.marker), label, filled=line.fill == "full", line=line.style))
    present = [what for what in LEVELS if ((levels["what"] == what) & (levels["status"] == "ok")).any()]
    keys += [style.key((LEVELS[what][0], ""), LEVELS[what][2], line=LEVELS[what][1]) for what in present]
    return keys + parts.published_key(points)


def _notes(paper: Paper, points: pd.DataFrame, levels: pd.DataFrame) -> list[str]:
    if (points["pooling"] == CHOSEN).any():
        notes = ["Cross-validated by a transfer between modalities; lines on points and bands are 95 % intervals."]
    else:
        notes = [parts.interval_note(paper, points)]
        if (levels["what"] == TOWER).any():
            notes.append("The vision tower is cross-validated by a transfer, with its own 95 % interval as a band.")
    lost = levels[levels["status"] != "ok"]
    notes += [f"No line for the {row.what}: it failed: {row.reason}" for row in rows_of(lost)]
    return [*notes, parts.groups_note(paper, dict.fromkeys(points["model"]))]
