"""The study's pooling figures: macro-F1 of the linear probe by pooling and by binarising, for one dataset and SAE width.

Columns are early, middle and late layers; in a panel a bar stands for a model. The bars of the upper half are by pooling,
and average values kept and made binary; those of the lower half are by threshold, and average the study's poolings.
The authors' bars average all rows of their table of scores, in which a hidden state stands beside each SAE
setting; so each half is drawn twice, for SAE features alone, and averaged with hidden states as the authors do.
"""

from dataclasses import dataclass
from functools import lru_cache

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tessera.figures import paper_parts as parts
from tessera.figures import poolings, style, transfer_parts
from tessera.paper_results import SCORE, Paper, averaged, means, with_hidden
from tessera.reference import GROUPS

ALONE, TOGETHER = "SAE features alone", "SAE features and hidden states averaged"
POOLING, THRESHOLD = "pooling", "threshold"
SHORT = {ALONE: "SAE alone", TOGETHER: "SAE and hidden"}
PART = ["group", "model", "category"]
# More categories than this need smaller letters.
WIDE = 4


@dataclass(frozen=True)
class _Line:
    """One line of panels: what it averages, by what its bars are told apart, and the bars."""

    version: str
    by: str
    bars: pd.DataFrame
    categories: list[str]


def data(paper: Paper, dataset: str, width: float) -> pd.DataFrame:
    """One row a bar."""
    lines = [line.bars.assign(version=line.version, by=line.by) for line in _lines(paper, dataset, width)]
    bars = pd.concat(lines, ignore_index=True)
    bars = bars.assign(dataset=dataset, width=width, protocol=paper.protocol)
    return bars[["dataset", "width", "protocol", "by", "version", *PART, *SCORE]]


def _rows(paper: Paper, dataset: str, width: float) -> pd.DataFrame:
    rows = paper.rows[paper.rows["dataset"] == dataset]
    return rows[(rows["arm"] == "sae") & (rows["width"] == width)]


@lru_cache(maxsize=1)
def _lines(paper: Paper, dataset: str, width: float) -> list[_Line]:
    """The lines of panels, from the first on; kept, since the numbers of a figure are written after it is drawn."""
    here = paper.rows[paper.rows["dataset"] == dataset]
    sae = _rows(paper, dataset, width)
    sae = sae[sae["group"].notna()]
    lines = []
    for by in (POOLING, THRESHOLD):
        taken = sae if by == POOLING else averaged(sae)
        order = _categories(taken, by)
        for version in (ALONE, TOGETHER):
            rows = taken if version == ALONE else with_hidden(taken, here)
            rows = rows.assign(category=_names(rows, by))
            bars = _sorted(paper, means(rows, PART, paper.protocol), order)
            lines.append(_Line(version, by, bars, order))
    return lines


def _names(rows: pd.DataFrame, by: str) -> pd.Series:
    return rows["pooling"].astype("str") if by == POOLING else rows["threshold"].map(parts.cut, na_action=None)


def _categories(rows: pd.DataFrame, by: str) -> list[str]:
    if by == POOLING:
        return sorted(rows["pooling"].unique(), key=poolings.rank)
    cuts = sorted(rows["threshold"].unique(), key=lambda cut: -1.0 if pd.isna(cut) else cut)
    return [parts.cut(cut) for cut in cuts]


def _sorted(paper: Paper, bars: pd.DataFrame, order: list[str]) -> pd.DataFrame:
    places = {"group": GROUPS, "model": paper.models, "category": order}
    keys = {name: bars[name].map({value: place for place, value in enumerate(of)}) for name, of in places.items()}
    return bars.loc[pd.DataFrame(keys).sort_values(list(keys)).index].reset_index(drop=True)


def draw(paper: Paper, dataset: str, width: float) -> Figure:
    with style.applied():
        rows, lines = _rows(paper, dataset, width), _lines(paper, dataset, width)
        notes = [*parts.failures(paper, rows), *parts.ungrouped(paper, rows)]
        bars = pd.concat([line.bars for line in lines])
        if bars.empty:
            why = f"No layer of {paper.dataset(dataset)} read by an SAE of width {width:,.0f} is early, middle or late."
            return transfer_parts.nothing(" ".join([why, *notes]))
        models = [model for model in paper.models if (bars["model"] == model).any()]
        look = parts.looks(paper)
        figure = transfer_parts.canvas(7.2, [*_notes(paper, bars, lines), *notes], map(paper.model, models))
        grid = figure.subplots(len(lines), len(GROUPS), squeeze=False, sharey=True)
        for panels, line in zip(grid, lines, strict=True):
            for axes, group in zip(panels, GROUPS, strict=True):
                _panel(axes, line.bars[line.bars["group"] == group], line, models, look)
            panels[0].set_ylabel(f"{SHORT[line.version]}\nMacro-F1, from 0")
        for axes, group in zip(grid[0], GROUPS, strict=True):
            parts.title(axes, [f"{group.capitalize()} layers"], len(GROUPS))
        grid[0][0].set_ylim(0, parts.limit(bars))
        keys = [*parts.model_patches(paper, models, look), *parts.published_key(bars)]
        style.legend_above(figure, keys, parts.LEGEND_COLUMNS)
        return figure


def _panel(axes: Axes, here: pd.DataFrame, line: _Line, models: list[str], look: parts.Looks) -> None:
    parts.grouped_bars(axes, here, line.categories, models, look)
    axes.tick_params(axis="x", labelsize=7 if len(line.categories) <= WIDE else 5.5)
    if here.empty:
        axes.text(0.5, 0.5, "not read", transform=axes.transAxes, ha="center", color=style.INK)


def _notes(paper: Paper, bars: pd.DataFrame, lines: list[_Line]) -> list[str]:
    found = [
        f"'{SHORT[ALONE]}' averages SAE features alone; '{SHORT[TOGETHER]}' averages them with the hidden state of the"
        " last token, one beside each setting, as the authors' bars do. Bars by pooling average raw and binary values; bars of"
        " raw and binary values average sums and top-N.",
        f"{parts.interval_note(paper, bars)} Score axes start at 0; the authors' start at 0.5."
        f" {parts.groups_note(paper, dict.fromkeys(bars['model']))}",
    ]
    if all(line.bars.empty for line in lines if line.version == TOGETHER):
        found.append("No hidden state of the last token was read at these layers, so there is nothing to average with.")
    return found
