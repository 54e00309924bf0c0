"""From language to language: macro-F1 of probes trained on one language and tested on another, a panel a layer.

Each panel is confined to one layer, and for SAE features to one width; pooling and penalty are chosen by inner
validation on the language of training. Every cell of a panel has as many training examples. On the diagonal training and
test are of one language, and the score is cross-validated.
"""

import pandas as pd
from matplotlib.figure import Figure

from tessera.figures import style, transfer_matrix, transfer_parts
from tessera.figures.transfer_matrix import Axis, Matrix
from tessera.results import groups_of, rows_of
from tessera.transfer_results import LAYERED, Transfers

COLUMNS = 3
COLUMNS_OF_DATA = [
    "model", "arm", "layer", "width", "head", "source", "target", "training", "n_train", "n_test", "macro_f1", "low",
    "high", "floor", "closed", "status", "reason",
]  # fmt: skip
PANEL = ["arm", "model", "width", "layer", "head"]


def data(tables: Transfers, transfer: str) -> pd.DataFrame:
    rows = tables.cells(transfer)
    rows = rows[(rows["selection"] == "none") & (rows["share"] == 1) & rows["training"].isin(["native", "transferred"])]
    layered = rows[rows["arm"].isin(LAYERED) & rows["head"].notna()]
    whole = rows[rows["head"].isna()]
    layered = pd.concat([layered, _untrained(layered, whole)])
    layered = layered.assign(first=layered["arm"].map({name: place for place, name in enumerate(LAYERED)}))
    order = ["first", "model", "width", "layer", "head"]
    text = whole[whole["arm"] == "tfidf"]
    return pd.concat([layered.sort_values(order, kind="stable"), text])[COLUMNS_OF_DATA].reset_index(drop=True)


def _untrained(layered: pd.DataFrame, whole: pd.DataFrame) -> pd.DataFrame:
    """Where nothing could be trained on a source, each arm has failed cells and no head has: they belong in every panel."""
    lost = whole[(whole["status"] != "ok") & whole["arm"].isin(LAYERED)]
    panels = layered[PANEL].drop_duplicates()
    spread = lost.drop(columns=["width", "layer", "head"]).merge(panels, how="left", on=["arm", "model"])
    known = pd.MultiIndex.from_frame(layered[[*PANEL, "source", "target"]])
    return spread[~pd.MultiIndex.from_frame(spread[[*PANEL, "source", "target"]]).isin(known)][layered.columns]


def draw(tables: Transfers, transfer: str) -> Figure:
    with style.applied():
        rows = data(tables, transfer)
        if rows.empty:
            return transfer_parts.nothing("Nothing was trained on one language and tested on another.")
        languages = transfer_parts.in_order(rows["source"], rows["target"])
        columns = transfer_matrix.columns_for(len(languages), COLUMNS)
        return transfer_matrix.draw(
            _lines(tables, rows, columns),
            Axis(languages, languages, "Trained on"),
            Axis(languages, languages, "Tested on"),
            _failures(tables, rows),
            "trained and tested on one language, cross-validated",
        )


def _lines(tables: Transfers, rows: pd.DataFrame, columns: int) -> list[list[Matrix]]:
    """A line of panels for each arm, model and width, as long as its layers; what reads no layer fills the last one."""
    series = [
        [_matrix(tables, rows, key, cells) for key, cells in groups_of(of_series, PANEL)]
        for _, of_series in groups_of(rows[rows["arm"] != "tfidf"], ["arm", "model", "width"])
    ]
    lines = [line[at : at + columns] for line in series for at in range(0, len(line), columns)]
    if all(len(line) == 1 for line in series):
        flat = [matrix for line in series for matrix in line]
        lines = [flat[at : at + columns] for at in range(0, len(flat), columns)]
    for key, cells in groups_of(rows[rows["arm"] == "tfidf"], PANEL):
        panel = _matrix(tables, rows, key, cells)
        if lines and len(lines[-1]) < columns:
            lines[-1].append(panel)
        else:
            lines.append([panel])
    return lines


def _matrix(tables: Transfers, rows: pd.DataFrame, key: tuple, cells: pd.DataFrame) -> Matrix:
    arm, model, width, layer, head = key
    title = [transfer_parts.input_name(arm, width, layer)]
    # Two SAEs of one layer and width differ by their names alone.
    of_kind = rows[(rows["arm"] == arm) & (rows["model"] == model) & (rows["layer"] == layer)]
    if arm == "sae" and of_kind.loc[of_kind["width"] == width, "head"].nunique() > 1:
        title.append(head)
    if arm in LAYERED and transfer_parts.several_models(rows):
        title.append(tables.model(model))
    return Matrix(title, cells.drop(columns="closed").assign(home=cells["source"] == cells["target"]))


def _failures(tables: Transfers, rows: pd.DataFrame) -> list[str]:
    models = transfer_parts.several_models(rows)
    lost = []
    for row in rows_of(rows[rows["status"] != "ok"]):
        who = transfer_parts.input_name(row.arm, row.width, row.layer)
        who += f", {tables.model(row.model)}" if models and row.arm in LAYERED else ""
        lost.append((who, f"{row.source} \N{RIGHTWARDS ARROW} {row.target}", row.reason))
    return transfer_parts.failures(lost)
