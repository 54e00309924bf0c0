"""SAE features beside the plain baselines: macro-F1 of every arm on every dataset, a facet a model.

The strict protocol is a filled marker with its 95 % interval. The paper protocol is hollow and has no interval: it
takes the best configuration off the test part, and an interval around that number would say nothing about the choosing.
The arms that need no model stand in every facet, so that each facet can be read alone.
"""

from dataclasses import dataclass

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MultipleLocator

from tessera.figures import style
from tessera.results import ARMS, TEXT_ARMS, Tables, groups_of, rows_of

COLUMNS = 3
TALL = 8
COLUMNS_OF_DATA = [
    "dataset", "model", "arm", "protocol", "macro_f1", "low", "high", "n_seeds", "n_test", "status", "reason",
]  # fmt: skip


def data(tables: Tables) -> pd.DataFrame:
    rows = tables.arms[(tables.arms["subset"] == "all") & tables.arms["arm"].isin(ARMS)]
    order = rows.assign(
        first=rows["dataset"].map({name: place for place, name in enumerate(tables.datasets)}),
        second=rows["model"].map({name: place for place, name in enumerate([*tables.models, "text"])}),
        third=rows["arm"].map({name: place for place, name in enumerate(ARMS)}),
    )
    return order.sort_values(["first", "second", "third", "protocol"])[COLUMNS_OF_DATA].reset_index(drop=True)


@dataclass(frozen=True)
class _Layout:
    """Where each dataset's arms stand: one line an arm, downwards, and room between datasets."""

    datasets: list[str]
    arms: list[str]

    @property
    def block(self) -> float:
        return len(self.arms) + 1.0

    def at(self, dataset: str, arm: str) -> float:
        return self.datasets.index(dataset) * self.block + self.arms.index(arm)

    def middle(self, dataset: str) -> float:
        return self.datasets.index(dataset) * self.block + (len(self.arms) - 1) / 2

    @property
    def bounds(self) -> tuple[float, float]:
        return len(self.datasets) * self.block - 1.0, -1.0


def draw(tables: Tables) -> Figure:
    with style.applied():
        rows = data(tables)
        models = [name for name in tables.models if (rows["model"] == name).any()] or ["text"]
        columns = min(COLUMNS, len(models))
        lines = [models[first : first + columns] for first in range(0, len(models), columns)]
        layouts = _layouts(tables, rows, lines)
        heights = [layout.block * len(layout.datasets) for layout in layouts]
        figure = style.canvas(1.2 + sum(0.5 + 0.125 * height for height in heights), _notes(tables, rows))
        if not any(heights):
            style.empty(figure.subplots(), "The table of arms is empty: nothing was compared.")
            return figure
        ratios = {"height_ratios": heights}
        facets = figure.subplots(len(lines), columns, sharex=True, sharey="row", squeeze=False, gridspec_kw=ratios)
        limit = style.score_limit(rows["high"].fillna(rows["macro_f1"]))
        for line, layout, line_of_facets in zip(lines, layouts, facets, strict=True):
            for axes, model in zip(line_of_facets, line, strict=False):
                style.title(axes, [_facet_title(tables, rows, model)], columns)
                _facet(axes, rows[rows["model"].isin([model, "text"])], layout, tables, columns)
                axes.set_xlim(0, limit)
            for axes in line_of_facets[len(line) :]:
                axes.set_visible(False)
        style.legend_above(figure, _keys(rows, layouts[0].arms), 3)
        return figure


def _layouts(tables: Tables, rows: pd.DataFrame, lines: list[list[str]]) -> list[_Layout]:
    """For each line of facets the datasets that one of its models reads; what no model reads stands in the first."""
    arms = [arm for arm in ARMS if (rows["arm"] == arm).any()]
    shown = [name for name in tables.datasets if (rows["dataset"] == name).any()]
    of_models = rows[rows["model"] != "text"]
    unread = set(shown) - set(of_models["dataset"])
    read = [set(of_models.loc[of_models["model"].isin(line), "dataset"]) for line in lines]
    read[0] |= unread
    return [_Layout([name for name in shown if name in here], arms) for here in read]


def _facet_title(tables: Tables, rows: pd.DataFrame, model: str) -> str:
    if model == "text":
        return "No model"
    bare = (rows["arm"] == "sae").any() and not ((rows["arm"] == "sae") & (rows["model"] == model)).any()
    return tables.model(model) + (" (no SAE)" if bare else "")


def _facet(axes: Axes, rows: pd.DataFrame, layout: _Layout, tables: Tables, columns: int) -> None:
    own = [arm for arm in layout.arms if (rows["arm"] == arm).any()]
    for place, dataset in enumerate(layout.datasets):
        if place % 2:
            edge, middle = layout.block / 2, layout.middle(dataset)
            axes.axhspan(middle - edge, middle + edge, color=style.FAINT, linewidth=0, zorder=0)
        here = rows[rows["dataset"] == dataset]
        if (rows["model"] != "text").any() and not (here["model"] != "text").any():
            # What needs no model stands where a model reads the dataset.
            axes.text(
                0.02, layout.middle(dataset), "not read", transform=axes.get_yaxis_transform(), va="center", fontsize=7
            )
            continue
        for arm in own:
            of_arm = here[here["arm"] == arm]
            # Images have no words that an input without a model could read.
            if len(of_arm) or arm not in TEXT_ARMS:
                _mark(axes, of_arm, arm, layout.at(dataset, arm), columns)
    labels = [style.wrapped(tables.dataset(name), 18) for name in layout.datasets]
    axes.set_yticks([layout.middle(name) for name in layout.datasets], labels)
    axes.set_ylim(*layout.bounds)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel(style.SCORE_LABEL)
    axes.xaxis.set_major_locator(MultipleLocator(0.25))
    axes.xaxis.set_major_formatter("{x:g}")
    tall = len(layout.datasets) > TALL
    axes.tick_params(axis="x", labelbottom=True, top=tall, labeltop=tall)


def _mark(axes: Axes, rows: pd.DataFrame, arm: str, y: float, columns: int) -> None:
    """One arm on one dataset: its markers, or in their place the reason why there are none."""
    color, marker = style.ARM_LOOK[arm]
    good = rows[rows["status"] == "ok"]
    for row in rows_of(good):
        strict = row.protocol == "strict"
        if strict:
            axes.hlines(y, row.low, row.high, color=color, linewidth=1.4)
        face = color if strict else "white"
        axes.plot(row.macro_f1, y, marker, color=color, markerfacecolor=face, zorder=3 if strict else 2.5)
    if good.empty:
        style.absent(axes, y, color, min(rows["reason"], default=""), columns)


def _keys(rows: pd.DataFrame, arms: list[str]) -> list[Line2D]:
    protocols = set(rows["protocol"])
    strict = "strict" in protocols
    keys = [style.key(style.ARM_LOOK[arm], ARMS[arm], filled=strict) for arm in arms]
    if strict:
        keys.append(style.key((style.BLACK, "o"), "filled: strict protocol, 95 % interval", line="-"))
    if "paper" in protocols:
        keys.append(style.key((style.BLACK, "o"), "hollow: paper protocol (optimistic)", filled=False))
    return keys


def _notes(tables: Tables, rows: pd.DataFrame) -> list[str]:
    notes = []
    if "strict" not in set(rows["protocol"]):
        notes.append("Only the paper protocol was run: every number here was chosen on the test part.")
    if not set(tables.models):
        notes.append("No model was run: only the arms that read the text itself are here.")
    lost = rows[rows["status"] != "ok"]
    for (dataset, model, arm, reason), group in groups_of(lost, ["dataset", "model", "arm", "reason"]):
        where = tables.dataset(dataset) + ("" if arm in TEXT_ARMS else f", {tables.model(model)}")
        notes.append(f"Failed ({', '.join(sorted(group['protocol']))}): {ARMS.get(arm, arm)} on {where}: {reason}")
    return notes
