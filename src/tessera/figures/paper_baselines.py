"""The study's figure of the best of each kind: macro-F1 on every dataset of the best SAE configuration, the best hidden
state, TF-IDF and the majority class.

The best is over all models, layers and settings. The study picks it on the test part, and so does the paper protocol,
which is optimistic, the more the more there is to pick from. Its hidden states are those of the last token; what other
poolings of them are worth stands beside. Published is the best of either input; of TF-IDF no score is.
"""

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from tessera.figures import paper_parts as parts
from tessera.figures import style, transfer_parts
from tessera.paper_results import Paper, best
from tessera.plan import ATTENTION
from tessera.results import ordered, rows_of

KINDS = {
    "sae": "Best SAE features",
    "hidden-last": "Best hidden state, last token",
    "hidden": "Best hidden state, any pooling",
    "tfidf": "TF-IDF",
    "majority": "Majority class",
}
HATCHES = {"sae": "", "hidden-last": "////", "hidden": "\\\\\\\\", "tfidf": "xxxx", "majority": ""}
PART = ["dataset", "kind"]
# More datasets than this stand in two columns.
TALL = 6


def data(paper: Paper) -> pd.DataFrame:
    """One row a bar."""
    bars = best(_rows(paper), PART, paper.protocol)
    published = paper.best()
    names = {"sae": "sae", "hidden-last": "hidden"}
    keys = zip(bars["dataset"], bars["kind"].map(names), strict=True)
    bars = bars.assign(published=pd.Series([published.get(key) for key in keys], bars.index, dtype="float64"))
    order = {
        "dataset": {name: place for place, name in enumerate(paper.datasets)},
        "kind": {name: place for place, name in enumerate(KINDS)},
    }
    bars = bars.sort_values(PART, key=lambda column: column.map(order[str(column.name)]))
    return bars.assign(protocol=paper.protocol).reset_index(drop=True)


def _rows(paper: Paper) -> pd.DataFrame:
    """The configurations of each kind; of models without SAEs nothing, where any model has some, as both are to be compared."""
    rows = paper.rows[paper.rows["pooling"] != ATTENTION]
    with_sae = set(rows.loc[rows["arm"] == "sae", "model"])
    rows = rows[rows["model"].isin(with_sae | {"text"})] if with_sae else rows
    last = rows[(rows["arm"] == "hidden") & (rows["pooling"] == "last")]
    kinds = [rows.assign(kind=rows["arm"]), last.assign(kind="hidden-last")]
    found = pd.concat(kinds, ignore_index=True)
    return found[found["kind"].isin(KINDS)].reset_index(drop=True)


def draw(paper: Paper) -> Figure:
    with style.applied():
        bars = data(paper)
        datasets = ordered(paper.datasets, bars["dataset"])
        if not datasets:
            return transfer_parts.nothing("No dataset was probed.")
        kinds = [kind for kind in KINDS if (bars["kind"] == kind).any()]
        columns = 2 if len(datasets) > TALL else 1
        tall = -(-len(datasets) // columns)
        names = map(paper.dataset, datasets)
        figure = transfer_parts.canvas(1.1 + tall * (0.12 + 0.105 * len(kinds)), _notes(paper, bars), names)
        grid = figure.subplots(1, columns, squeeze=False)[0]
        for place, axes in enumerate(grid):
            _panel(axes, paper, bars, datasets[place * tall : (place + 1) * tall], kinds)
            axes.set_xlim(0, parts.limit(bars))
            axes.set_ylim(tall - 0.45, -0.55)
        keys: list[Any] = [
            Patch(facecolor=style.ARM_LOOK[kind][0], hatch=HATCHES[kind], edgecolor="white", label=KINDS[kind])
            for kind in kinds
        ]
        style.legend_above(figure, [*keys, *parts.published_key(bars, "published best")], parts.LEGEND_COLUMNS)
        return figure


def _panel(axes: Axes, paper: Paper, bars: pd.DataFrame, datasets: list[str], kinds: list[str]) -> None:
    thick = 0.8 / len(kinds)
    for row in rows_of(bars[bars["dataset"].isin(datasets)]):
        at = datasets.index(row.dataset) + (kinds.index(row.kind) - (len(kinds) - 1) / 2) * thick
        color, hatch = style.ARM_LOOK[row.kind][0], HATCHES[row.kind]
        parts.bar(axes, row, at, 0.92 * thick, color=color, hatch=hatch, across=True)
    labels = [style.wrapped(transfer_parts.drawable(paper.dataset(name)), 18) for name in datasets]
    axes.set_yticks(range(len(datasets)), labels)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel(style.SCORE_LABEL)


def _notes(paper: Paper, bars: pd.DataFrame) -> list[str]:
    notes = [parts.interval_note(paper, bars)]
    if paper.protocol == "paper":
        notes.append("The best is chosen on the test part: it is optimistic, and its interval leaves the choosing out.")
    if bars["published"].notna().any():
        notes.append(
            "Published is the best over the study's models, layers and settings, which may be others than this run's."
        )
    lost = bars[bars["status"] != "ok"]
    notes += [
        f"x failed: {KINDS[row.kind]} on {parts.brief(paper.dataset(row.dataset))}: {row.reason}"
        for row in rows_of(lost)
    ]
    some = bars[(bars["status"] == "ok") & (bars["n_failed"] > 0)]
    if len(some):
        notes.append(
            f"Chosen among what did not fail: {some['n_failed'].sum():,} configurations did; the table has them."
        )
    return notes
