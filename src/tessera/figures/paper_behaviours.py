"""The study's figures of behaviour prediction: mean macro-F1 of SAE features against the group of layers, by reading model
and width, a panel for each behaviour.

A behaviour that is probed like any dataset is drawn as the study draws it: a point averages sums and top-N, with values
kept and made binary. One that is only the target of a transfer between models has one score a head there, whose
pooling inner validation picks and whose interval is cross-validated; its panel says so.
"""

import pandas as pd
from matplotlib.figure import Figure

from tessera.figures import paper_parts as parts
from tessera.figures import style, transfer_parts
from tessera.paper_results import Paper, averaged, means
from tessera.results import groups_of, ordered

COLUMNS = 3
PART = ["dataset", "model", "width", "group"]
PROBES, TRANSFER = "probes", "transfer"


def data(paper: Paper) -> pd.DataFrame:
    """One row a point; `origin` says whether probes or a transfer measured it."""
    rows, moved = _probed(paper), _moved(paper)
    probed = means(rows[rows["group"].notna()], PART, paper.protocol).assign(origin=PROBES, protocol=paper.protocol)
    points = moved[moved["group"].notna()].assign(
        origin=TRANSFER, protocol="strict", published=float("nan"), n_configurations=1, n_seeds=1,
        n_failed=lambda rows: (rows["status"] != "ok").astype(int),
    )[probed.columns]  # fmt: skip
    found = pd.concat([table for table in (probed, points) if len(table)] or [probed], ignore_index=True)
    order = {name: place for place, name in enumerate(paper.behaviours)}
    return found.sort_values("dataset", key=lambda names: names.map(order), kind="stable").reset_index(drop=True)


def _probed(paper: Paper) -> pd.DataFrame:
    rows = paper.rows[(paper.rows["arm"] == "sae") & paper.rows["dataset"].isin(paper.behaviours)]
    return averaged(rows)


def _moved(paper: Paper) -> pd.DataFrame:
    """The heads of transfers between models, each confined to one layer, on behaviours that are not probed."""
    cells = paper.moved("model")
    heads = cells[(cells["arm"] == "sae") & cells["head"].notna()]
    heads = heads[~heads["target"].isin(paper.rows["dataset"])]
    return heads.assign(dataset=heads["target"], group=paper.grouped(heads))


def draw(paper: Paper) -> Figure:
    with style.applied():
        points, rows, moved = data(paper), _probed(paper), _moved(paper)
        notes = [
            *parts.failures(paper, rows),
            *parts.failures(paper, moved),
            *parts.ungrouped(paper, pd.concat([rows[["model", "group"]], moved[["model", "group"]]])),
        ]
        if points.empty:
            why = "No SAE of this run reads early, middle and late layers to predict what a model answers."
            return transfer_parts.nothing(" ".join([why, *notes]))
        look = parts.looks(paper)
        panels = list(groups_of(points, ["dataset", "origin"]))
        columns = min(COLUMNS, len(panels))
        names = [*map(paper.dataset, points["dataset"].unique()), *map(paper.model, points["model"].unique())]
        figure, grid = parts.panels(len(panels), columns, 1.85, [*_notes(paper, points), *notes], names)
        lines = parts.model_lines(points, look)
        for axes, ((dataset, origin), here) in zip(grid, panels, strict=True):
            parts.over_groups(axes, here, lines)
            parts.title(axes, [paper.dataset(dataset), *(["transfer"] if origin == TRANSFER else [])], columns)
        grid[0].set_ylim(0, parts.limit(points))
        keys = [*parts.line_keys(paper, points, look), *parts.published_key(points)]
        style.legend_above(figure, keys, parts.LEGEND_COLUMNS)
        return figure


def _notes(paper: Paper, points: pd.DataFrame) -> list[str]:
    notes = []
    probed = points[points["origin"] == PROBES]
    if len(probed):
        notes.append(parts.interval_note(paper, probed))
    if len(probed) < len(points):
        notes.append(
            "'transfer': cross-validated by a transfer between models, with its 95 % interval; one score a head,"
            " its pooling picked by inner validation."
        )
    return [*notes, parts.groups_note(paper, ordered(paper.models, points["model"]))]
