"""The study's figures of what a setting does to a head: binarising, and taking top-N in place of the plain sum.

Both sides of a difference have the same head, dataset, split and test examples; one thing differs. A point is a head, a
line a dataset. The mean over heads has the 95 % bootstrap interval over them: how heads differ, not how other
examples would, which all heads of a line share. The last line is the mean over datasets, with the interval over those
from six datasets on, below which it would say too much.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from tessera.comparisons import FEWEST
from tessera.figures import paper_parts as parts
from tessera.figures import poolings, style, transfer_parts
from tessera.paper_results import Paper, over
from tessera.results import groups_of, ordered, rows_of

EVERY = "all datasets"
HEAD, MEAN, OVERALL = "head", "mean over heads", "mean over datasets"
PAIR = ["dataset", "model", "head", "seed"]
COLUMNS = 4
LABEL_POINTS, TICK_SIZE = 118, 7.5
# Where the points of a line stand below its mean: this run's heads, and the published ones.
HEADS, PUBLISHED = 0.2, 0.38


@dataclass(frozen=True)
class Change:
    """What is done to a head: what a panel stands for, and the words of the axis."""

    label: str
    nothing: str


CHANGES = {
    "binarisation": Change(
        "Macro-F1, binary less raw", "No pooling of an SAE's features was kept as it is and made binary, too."
    ),
    "top-n": Change("Macro-F1, less that of the plain sum", "No SAE's features were both summed and pooled by top-N."),
}


def data(paper: Paper, change: str) -> pd.DataFrame:
    """One row for each head, dataset and panel, then the means; `what` says which."""
    heads = _heads(paper, change)
    found = [heads.assign(what=HEAD)] if len(heads) else [_empty()]
    for panel, of_panel in groups_of(heads[heads["status"] == "ok"], "panel"):
        means = [_mean(here["difference"], panel, dataset, MEAN) for dataset, here in groups_of(of_panel, "dataset")]
        found.append(pd.DataFrame(means))
        if len(means) > 1:
            over_all = pd.Series([mean["difference"] for mean in means])
            found.append(pd.DataFrame([_mean(over_all, panel, EVERY, OVERALL)]))
    return pd.concat(found, ignore_index=True).reindex(columns=_empty().columns).assign(protocol=paper.protocol)


def _empty() -> pd.DataFrame:
    columns = [
        "panel",
        "dataset",
        "what",
        "model",
        "head",
        "difference",
        "low",
        "high",
        "published",
        "n",
        "status",
        "reason",
    ]
    return pd.DataFrame(columns=columns)


def _mean(differences: pd.Series, panel: str, dataset: str, what: str) -> dict[str, Any]:
    enough = len(differences) >= (FEWEST if what == OVERALL else 2)
    low, high = over(differences) if enough else (float("nan"), float("nan"))
    told = {"panel": panel, "dataset": dataset, "what": what, "n": len(differences), "status": "ok", "reason": ""}
    return told | {"difference": float(differences.mean()), "low": low, "high": high}


def _heads(paper: Paper, change: str) -> pd.DataFrame:
    """The difference of each head, averaged over splits; of a head that failed on one side, why."""
    sae = paper.rows[paper.rows["arm"] == "sae"]
    raw, binary = sae[sae["threshold"].isna()], sae[sae["threshold"].notna()]
    if change == "binarisation":
        named = binary.assign(panel=[_cut(p, t) for p, t in zip(binary["pooling"], binary["threshold"], strict=True)])
        both = named.merge(raw, on=[*PAIR, "pooling"], suffixes=("", "_plain"))
    else:
        top = raw[raw["pooling"].astype("str").str.startswith("top-")]
        plain = raw[raw["pooling"] == "sum"]
        both = top.assign(panel=top["pooling"]).merge(plain, on=PAIR, suffixes=("", "_plain"))
    both = both.assign(
        difference=both["macro_f1"] - both["macro_f1_plain"],
        published=both["published"] - both["published_plain"],
        lost=(both["status"] != "ok") | (both["status_plain"] != "ok"),
        reason=both["reason"].where(both["status"] != "ok", both["reason_plain"]),
    )
    found = both.groupby(["panel", "dataset", "model", "head"], sort=False).agg(
        difference=("difference", "mean"),
        published=("published", "mean"),
        lost=("lost", "any"),
        reason=("reason", "max"),
        n=("seed", "size"),
    )
    found["status"] = ["failed" if lost else "ok" for lost in found["lost"]]
    found.loc[found["lost"], ["difference", "published"]] = float("nan")
    return found.drop(columns="lost").reset_index()


def _cut(pooling: str, threshold: float) -> str:
    return f"{pooling} \N{GREATER-THAN OR EQUAL TO} {threshold:g}"


def draw(paper: Paper, change: str) -> Figure:
    with style.applied():
        rows = data(paper, change)
        panels = sorted(rows["panel"].unique(), key=lambda panel: poolings.rank(panel.split()[0]))
        if not panels:
            return transfer_parts.nothing(CHANGES[change].nothing)
        datasets = ordered(paper.datasets, rows.loc[rows["what"] == HEAD, "dataset"])
        lines = [*datasets, *([EVERY] if len(datasets) > 1 else [])]
        columns = min(COLUMNS, len(panels))
        deep = -(-len(panels) // columns)
        height = 1.1 + deep * (0.7 + 0.27 * len(lines))
        figure = transfer_parts.canvas(height, _notes(paper, rows), map(paper.dataset, datasets))
        grid = figure.subplots(deep, columns, squeeze=False, sharex=True, sharey=True).flatten()
        for axes, panel in zip(grid, panels, strict=False):
            _panel(axes, rows[rows["panel"] == panel], lines)
            parts.title(axes, [panel], columns)
        for axes in grid[len(panels) :]:
            axes.set_visible(False)
        labels = transfer_parts.short_names([_named(paper, line) for line in lines], LABEL_POINTS, TICK_SIZE)
        grid[0].set_yticks(range(len(lines)), labels)
        grid[0].set_ylim(len(lines) - 0.4, -0.6)
        reach = rows[["difference", "low", "high", "published"]].abs().max().max()
        reach = 1.1 * max(0.05, 0.0 if pd.isna(reach) else reach)
        grid[0].set_xlim(-reach, reach)
        for axes in grid[len(panels) - columns : len(panels)]:
            axes.set_xlabel(style.wrapped(CHANGES[change].label, 24 if columns > 2 else 60))
            axes.tick_params(axis="x", labelbottom=True)
        grid[0].xaxis.set_major_locator(MaxNLocator(4))
        style.legend_above(figure, _keys(rows), 2)
        return figure


def _named(paper: Paper, line: str) -> str:
    return "All datasets" if line == EVERY else paper.dataset(line)


def _panel(axes: Axes, rows: pd.DataFrame, lines: Sequence[str]) -> None:
    axes.axvline(0, color=style.INK, linewidth=0.8)
    if lines[-1] == EVERY:
        axes.axhspan(len(lines) - 1.5, len(lines) - 0.4, color=style.FAINT, linewidth=0, zorder=0)
    for row in rows_of(rows):
        y = lines.index(row.dataset)
        if row.status != "ok":
            axes.plot(0, y + HEADS, "x", color=style.VERMILLION, markersize=3.5)
        elif row.what == HEAD:
            axes.plot(row.difference, y + HEADS, "o", color=style.SKY, markersize=3, markeredgewidth=0)
            if pd.notna(row.published):
                axes.plot(row.published, y + PUBLISHED, **parts.DIAMOND)
        else:
            axes.hlines(y - 0.12, row.low, row.high, color=style.VERMILLION, linewidth=1.3)
            look = "o" if row.what == MEAN else "s"
            axes.plot(row.difference, y - 0.12, look, color=style.VERMILLION, markersize=4.5, zorder=3)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)


def _keys(rows: pd.DataFrame) -> list[Line2D]:
    keys = [
        style.key((style.SKY, "o"), "one head"),
        style.key((style.VERMILLION, "o"), "mean over heads, 95 % interval over them", line="-"),
    ]
    if (rows["what"] == OVERALL).any():
        keys.append(style.key((style.VERMILLION, "s"), "mean over datasets, 95 % interval over them", line="-"))
    return keys + parts.published_key(rows)


def _notes(paper: Paper, rows: pd.DataFrame) -> list[str]:
    protocol = "Paper protocol, one split." if paper.protocol == "paper" else "Strict protocol, splits averaged."
    notes = [f"{protocol} Heads of a dataset share its test examples, so an interval over them says how heads differ."]
    overall = rows[rows["what"] == OVERALL]
    if len(overall) and overall["low"].isna().any():
        notes.append(f"No interval over fewer than {FEWEST} datasets.")
    lost = rows[rows["status"] != "ok"]
    for reason, here in groups_of(lost, "reason"):
        who = [
            f"{parts.brief(head)} on {parts.brief(paper.dataset(dataset))}"
            for dataset, head in here[["dataset", "head"]].drop_duplicates().values
        ]
        shown = "; ".join(who[:3]) + (f"; and {len(who) - 3} more" if len(who) > 3 else "")
        notes.append(f"x failed, and in no mean: {shown}: {reason}")
    return notes
