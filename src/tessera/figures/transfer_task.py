"""From task to task: macro-F1 of probes trained on one dataset and tested on another of the same labels, a panel an arm.

Under a score stands the share of the gap that it closes between knowing nothing and a probe trained on the target itself.
The last line is trained on all datasets but the target. Each arm chooses head and pooling by inner validation on what it
is trained on; on the diagonal the score is cross-validated.
"""

import pandas as pd
from matplotlib.figure import Figure

from tessera.figures import style, transfer_matrix, transfer_parts
from tessera.figures.transfer_matrix import Axis, Matrix
from tessera.results import groups_of, rows_of
from tessera.transfer_results import ARMS, LAYERED, Transfers

COLUMNS = 3
OTHERS = "all others"
TOGETHER = "leave-one-out"
COLUMNS_OF_DATA = [
    "arm", "model", "source", "target", "training", "pooling", "n_train", "n_test", "macro_f1", "low", "high", "floor",
    "ceiling", "ceiling_of", "closed", "closed_low", "closed_high", "status", "reason",
]  # fmt: skip


def data(tables: Transfers, transfer: str) -> pd.DataFrame:
    """One row a cell; where the source is all other datasets together, it is called so."""
    rows = tables.cells(transfer)
    rows = rows[rows["head"].isna() & rows["arm"].isin([*LAYERED, "tfidf"])]
    rows = rows.assign(
        source=rows["source"].mask(rows["training"] == TOGETHER, OTHERS),
        first=rows["arm"].map({name: place for place, name in enumerate(ARMS)}),
    )
    return rows.sort_values("first", kind="stable")[COLUMNS_OF_DATA].reset_index(drop=True)


def draw(tables: Transfers, transfer: str) -> Figure:
    with style.applied():
        rows = data(tables, transfer)
        if rows.empty:
            return transfer_parts.nothing("Nothing was trained on one dataset and tested on another.")
        datasets = tables.ordered("datasets", transfer_parts.in_order(rows["source"], rows["target"]))
        datasets = [name for name in datasets if name != OTHERS]
        sources = datasets + ([OTHERS] if (rows["source"] == OTHERS).any() else [])
        columns = transfer_matrix.columns_for(len(datasets), COLUMNS)
        panels = [_matrix(tables, rows, arm, model, cells) for (arm, model), cells in groups_of(rows, ["arm", "model"])]
        return transfer_matrix.draw(
            [panels[at : at + columns] for at in range(0, len(panels), columns)],
            Axis(sources, [tables.dataset(name) for name in sources], "Trained on"),
            Axis(datasets, [tables.dataset(name) for name in datasets], "Tested on"),
            _failures(tables, rows),
            "trained and tested on one dataset, cross-validated",
        )


def _matrix(tables: Transfers, rows: pd.DataFrame, arm: str, model: str, cells: pd.DataFrame) -> Matrix:
    title = [ARMS[arm]]
    if arm in LAYERED and transfer_parts.several_models(rows):
        title.append(tables.model(model))
    home = cells["training"] == "in-domain"
    # What is trained on the target is itself the ceiling, so it closes the whole gap by definition.
    return Matrix(title, cells.assign(home=home, closed=cells["closed"].mask(home)))


def _failures(tables: Transfers, rows: pd.DataFrame) -> list[str]:
    models = transfer_parts.several_models(rows)
    lost = []
    for row in rows_of(rows[rows["status"] != "ok"]):
        who = ARMS[row.arm] + (f", {tables.model(row.model)}" if models and row.arm in LAYERED else "")
        where = f"{tables.dataset(row.source)} \N{RIGHTWARDS ARROW} {tables.dataset(row.target)}"
        lost.append((who, where, row.reason))
    return transfer_parts.failures(lost)
