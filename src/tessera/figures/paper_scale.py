"""The study's figure of scale: mean macro-F1 of SAE features against the group of layers, by model and width.

A point averages the study's settings, sums and top-N with values kept and made binary, over the layers of the group. There
is a panel for each text dataset; behaviours and images have figures of their own.
"""

import pandas as pd
from matplotlib.figure import Figure

from tessera.figures import paper_parts as parts
from tessera.figures import style, transfer_parts
from tessera.paper_results import Paper, averaged, means
from tessera.results import groups_of, ordered

COLUMNS = 3
PART = ["dataset", "model", "width", "group"]


def data(paper: Paper) -> pd.DataFrame:
    """One row a point."""
    rows = _rows(paper)
    return means(rows[rows["group"].notna()], PART, paper.protocol).assign(protocol=paper.protocol)


def _rows(paper: Paper) -> pd.DataFrame:
    rows = paper.rows[(paper.rows["arm"] == "sae") & paper.rows["dataset"].isin(paper.texts)]
    return averaged(rows)


def draw(paper: Paper) -> Figure:
    with style.applied():
        points, rows = data(paper), _rows(paper)
        notes = [*parts.failures(paper, rows), *parts.ungrouped(paper, rows)]
        if points.empty:
            why = "No SAE of this run reads early, middle and late layers for a text dataset."
            return transfer_parts.nothing(" ".join([why, *notes]))
        look = parts.looks(paper)
        datasets = [(name, here) for name, here in groups_of(points, "dataset")]
        datasets.sort(key=lambda pair: paper.datasets.index(pair[0]))
        models = ordered(paper.models, points["model"])
        told = [parts.interval_note(paper, points), parts.groups_note(paper, models), *notes]
        names = [*map(paper.dataset, points["dataset"].unique()), *map(paper.model, points["model"].unique())]
        figure, grid = parts.panels(len(datasets), min(COLUMNS, len(datasets)), 1.75, told, names)
        lines = parts.model_lines(points, look)
        for axes, (name, here) in zip(grid, datasets, strict=True):
            parts.over_groups(axes, here, lines)
            parts.title(axes, [paper.dataset(name)], min(COLUMNS, len(datasets)))
        grid[0].set_ylim(0, parts.limit(points))
        keys = [*parts.line_keys(paper, points, look), *parts.published_key(points)]
        style.legend_above(figure, keys, parts.LEGEND_COLUMNS)
        return figure
