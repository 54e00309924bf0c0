"""The tables of the report page, as plain rows of words: what the page's template lays out and nothing else decides.

Scores are rounded here and nowhere else. A score that is not there says why: it failed, with its reason, or it was not
run. Whatever a record of a dataset, a model or an SAE does not hold is left out; a run on other people's models has no
held-out loss, and a record written by a later version may hold more than this page shows.
"""

from collections.abc import Iterable
from typing import Any

import pandas as pd

from tessera.regimes import FULL
from tessera.results import ARMS, CLASSIFIERS, TEXT_ARMS, Tables, groups_of, rows_of

Row = dict[str, Any]

SHOWN = 12
PAIRS = {
    ("sae", "hidden"): "SAE features less hidden states",
    ("sae", "hidden-last"): "SAE features less last token",
    ("sae", "hidden-attention"): "SAE features less attention",
    ("sae", "tfidf"): "SAE features less TF-IDF",
    ("sae", "random"): "SAE features less random ones",
    ("hidden", "tfidf"): "Hidden states less TF-IDF",
    ("quiver", "baselines"): "All inputs less all but SAE features",
}
REGIMES = {
    "train": "{:.0%} of the training part",
    "noise": "{:.0%} of its labels wrong",
    "imbalance": "classes {:g} to 1",
    "shuffled": "labels shuffled",
}
OTHERS = {"-l1": "With an L1 penalty", "-tree": "Decision tree", "-means": "Difference of means"}
ABSENT: Row = {"state": "absent"}


# --- scores --------------------------------------------------------------------------------------------------------


def arms_of(tables: Tables) -> list[str]:
    return [arm for arm in ARMS if (tables.arms["arm"] == arm).any()]


def scores(tables: Tables, protocol: str, subset: str = "all") -> list[Row]:
    """A row for each dataset and model, with a cell for each arm; arms that need no model stand in every row."""
    chosen = tables.arms[(tables.arms["protocol"] == protocol) & (tables.arms["subset"] == subset)]
    found = {(row.dataset, row.model, row.arm): score(row) for row in rows_of(chosen)}
    table = []
    for dataset in tables.datasets:
        models = [model for model in tables.models if any(key[:2] == (dataset, model) for key in found)]
        text = any(key[:2] == (dataset, "text") for key in found)
        for model in models or (["text"] if text else []):
            cells = [
                found.get((dataset, "text" if arm in TEXT_ARMS else model, arm), ABSENT) for arm in arms_of(tables)
            ]
            table.append({"dataset": tables.dataset(dataset), "model": _model(tables, model), "cells": cells})
    return table


def scores_by_subset(tables: Tables, protocol: str) -> list[Row]:
    """The same for each subset of the datasets that have any."""
    subsets = sorted(set(tables.arms["subset"]) - {"all"})
    place = {name: number for number, name in enumerate(map(tables.dataset, tables.datasets))}
    rows = [row | {"subset": subset} for subset in subsets for row in scores(tables, protocol, subset)]
    return sorted(rows, key=lambda row: place[row["dataset"]])


def differences(tables: Tables, protocol: str) -> tuple[list[str], list[Row]]:
    """The paired differences: the headings of the pairs there are, and a row for each dataset and model."""
    measured = tables.differences[tables.differences["protocol"] == protocol]
    found = {(row.dataset, row.model, row.arm_a, row.arm_b): _difference(row) for row in rows_of(measured)}
    pairs = [pair for pair in PAIRS if any(key[2:] == pair for key in found)]
    rows = [
        {
            "dataset": tables.dataset(dataset),
            "model": _model(tables, model),
            "cells": [found.get((dataset, model, *pair), ABSENT) for pair in pairs],
        }
        for dataset in tables.datasets
        for model in tables.models
        if any(key[:2] == (dataset, model) for key in found)
    ]
    return [PAIRS[pair] for pair in pairs], rows


def score(row: Any) -> Row:
    """A chosen arm's score with its interval, or why there is none."""
    if row.status != "ok":
        return {"state": "failed", "reason": row.reason}
    return {"state": "ok", "value": f"{row.macro_f1:.3f}", "interval": _interval(row, "{:.3f}")}


def _difference(row: Any) -> Row:
    if pd.isna(row.difference):
        return ABSENT
    return {"state": "ok", "value": signed(row.difference), "interval": _interval(row, "{:+.3f}")}


def _interval(row: Any, form: str) -> str:
    if pd.isna(row.low) or pd.isna(row.high):
        return ""
    return f"{form.format(row.low)} to {form.format(row.high)}".replace("-", "\N{MINUS SIGN}")


def signed(value: float) -> str:
    return f"{value:+.3f}".replace("-", "\N{MINUS SIGN}")


def _model(tables: Tables, model: str) -> str:
    return "" if model == "text" else tables.model(model)


# --- over datasets, and under harder conditions --------------------------------------------------------------------


def comparisons(tables: Tables, protocol: str) -> list[Row]:
    """Pairs of arms over all datasets."""
    rows = tables.comparisons[tables.comparisons["protocol"] == protocol]
    return [
        {
            "model": _model(tables, row.model),
            "pair": PAIRS.get((row.arm_a, row.arm_b), f"{row.arm_a} less {row.arm_b}"),
            "datasets": int(row.n_datasets),
            "mean": signed(row.mean),
            "won": f"{row.wins:.0f} / {row.ties:.0f} / {row.losses:.0f}",
            "effect": "" if pd.isna(row.rank_biserial) else signed(row.rank_biserial),
            "p": "" if pd.isna(row.p_holm) else f"{row.p_holm:.3f}",
            "verdict": row.verdict,
        }
        for row in rows_of(rows)
    ]


def other_classifiers(tables: Tables, protocol: str) -> tuple[list[str], list[Row]]:
    """Each arm under every classifier there is: the headings, and a row for each dataset, model and arm with several."""
    chosen = tables.arms[(tables.arms["protocol"] == protocol) & (tables.arms["subset"] == "all")]
    found = {(row.dataset, row.model, row.arm): score(row) for row in rows_of(chosen)}
    endings = [ending for ending in OTHERS if any(key[2].endswith(ending) for key in found)]
    rows = [
        {
            "dataset": tables.dataset(dataset),
            "model": _model(tables, model),
            "arm": ARMS[arm],
            "cells": [found.get((dataset, model, arm + ending), ABSENT) for ending in ("", *endings)],
        }
        for dataset in tables.datasets
        for model in tables.models
        for arm in ARMS
        if any((dataset, model, arm + ending) in found for ending in endings)
    ]
    return ["Logistic regression", *(OTHERS[ending] for ending in endings)], rows


def conditions(tables: Tables) -> tuple[list[str], list[Row]]:
    """Macro-F1 of each arm under each regime: the headings of the regimes, and a row for each dataset, model and arm."""
    rows = tables.curves[tables.curves["k"].isna() & (tables.curves["protocol"] == "strict")]
    rows = rows[rows["classifier"].isin(CLASSIFIERS) & rows["arm"].isin(ARMS)]
    names = list(dict.fromkeys(rows["regime"]))
    names.sort(key=lambda name: (name != FULL, name))
    if len(names) < 2:
        return [], []
    found = {(row.dataset, row.model, row.arm, row.regime): _spread(row) for row in rows_of(rows)}
    table = [
        {
            "dataset": tables.dataset(dataset),
            "model": _model(tables, model),
            "arm": ARMS[arm],
            "cells": [found.get((dataset, model, arm, name), ABSENT) for name in names],
        }
        for dataset in tables.datasets
        for model in [*tables.models, "text"]
        for arm in ARMS
        if sum((dataset, model, arm, name) in found for name in names) > 1
    ]
    return [_regime(name) for name in names], table


def _regime(name: str) -> str:
    kind, _, value = name.partition("-")
    return "as it is" if name == FULL else REGIMES[kind].format(float(value or 0))


def _spread(row: Any) -> Row:
    if row.status != "ok":
        return {"state": "failed", "reason": row.reason}
    return {"state": "ok", "value": f"{row.macro_f1:.3f}", "interval": f"{row.lowest:.3f} to {row.highest:.3f}"}


def checks(records: dict[str, Row], tables: Tables) -> list[Row]:
    """What the checks of the datasets found that is not fine."""
    return [
        {
            "dataset": tables.dataset(name),
            "severity": entry["severity"],
            "check": entry["title"],
            "reason": entry["reason"],
        }
        for name, record in records.items()
        for entry in record["checks"].values()
        if entry["severity"] not in (None, "fine")
    ]


# --- failures ------------------------------------------------------------------------------------------------------


def failed(tables: Tables) -> list[Row]:
    """What failed: a row for each dataset, model, arm and reason, with the heads and how many scores are missing."""
    lost = tables.cells[tables.cells["status"] != "ok"]
    keys = ["dataset", "model", "arm", "reason"]
    totals = tables.cells.groupby(keys[:3]).size().to_dict()
    return [
        {
            "dataset": tables.dataset(key[0]),
            "model": _model(tables, key[1]),
            "arm": ARMS.get(key[2], key[2]),
            "heads": listed(sorted(set(group["head"])), 6),
            "count": f"{len(group):,} of {totals[key[:3]]:,}",
            "reason": key[3],
        }
        for key, group in groups_of(lost, keys)
    ]


# --- where everything comes from -----------------------------------------------------------------------------------


def datasets(records: dict[str, Row], tables: Tables) -> list[Row]:
    return [_dataset(tables.dataset(name), record) for name, record in records.items()]


def _dataset(title: str, record: Row) -> Row:
    subsets = record.get("subsets", {})
    conflicts = record.get("conflicting_duplicates", {}).get("count", 0)
    lengths = record.get("characters")
    return {
        "title": title,
        "examples": _count(record.get("n_examples")),
        "groups": _count(record.get("n_groups")),
        "labels": counted(record.get("labels", {})),
        "subsets": counted(subsets) if set(subsets) - {"all"} else "none",
        "left_out": _left_out(record),
        "duplicates": _count(record.get("duplicates")) + (f", {conflicts:,} with another label" if conflicts else ""),
        "length": f"{lengths['median']:g} ({lengths['min']:,} to {lengths['max']:,})" if lengths else "",
        "source": source(record.get("source", {}), record.get("revision")),
        "sha256": record.get("sha256", ""),
    }


def _left_out(record: Row) -> str:
    parts = [f"{found['count']:,} {reason}" for reason, found in record.get("exclusions", {}).items()]
    drawn = record.get("drawn")
    if drawn:
        parts.append(f"{drawn['of'] - record['n_examples']:,} not drawn (max_examples {drawn['max_examples']:,})")
    return ", ".join(parts) or "nothing"


def models(records: dict[str, Row], tables: Tables) -> list[Row]:
    return [
        {
            "title": tables.model(name),
            "shape": _shape(record),
            "source": source(record.get("source", {}), record.get("revision")),
            "sha256": record.get("sha256", ""),
            "measured": _language_model(record.get("demo", {})),
        }
        for name, record in records.items()
    ]


def _shape(record: Row) -> str:
    parts = [record.get("model_type", "")]
    parts += [f"{record[key]:,} {words}" for key, words in SHAPES.items() if isinstance(record.get(key), int)]
    return ", ".join(part for part in parts if part)


SHAPES = {"layers": "layers", "hidden_size": "wide", "vocabulary": "tokens in the vocabulary"}


def _language_model(demo: Row) -> str:
    loss, floor = demo.get("heldout_loss"), demo.get("unigram_entropy")
    if loss is None:
        return ""
    against = "" if floor is None else f", against {floor:.2f} for guessing by frequency alone"
    return f"held-out loss {loss:.2f} nats a token{against}"


def saes(records: dict[str, Row], tables: Tables) -> list[Row]:
    own = tables.saes.drop_duplicates("sae").set_index("sae")
    return [
        {
            "name": name,
            "model": tables.model(str(own["model"].get(name, ""))),
            "layer": _whole(record.get("layer", own["layer"].get(name))),
            "width": _whole(record.get("d_sae", own["width"].get(name))),
            "architecture": record.get("architecture", ""),
            "source": source(record.get("source", {}), record.get("revision")),
            "sha256": record.get("sha256", ""),
            "measured": _sae(record.get("demo", {})),
        }
        for name, record in records.items()
    ]


def _sae(demo: Row) -> str:
    words = {"explained_variance": "explained variance {:.2f}", "l0": "L0 {:.1f}", "dead_fraction": "dead {:.1%}"}
    return ", ".join(form.format(demo[key]) for key, form in words.items() if demo.get(key) is not None)


def source(given: Row, revision: str | None = None) -> str:
    """Where something comes from, in one line; a Hub commit and a release are named in full."""
    if "demo" in given:
        return f"made here (demo: {given['demo']})"
    if "borrowed" in given:
        return f"{given['borrowed']}, read here on this model"
    if "control" in given:
        return f"random features, as many as {given['control']} has"
    pinned = given.get("revision") or revision
    parts = ("revision", "splits", "configs", "subset")
    named = [str(value) for key, value in given.items() if key not in parts and value is not None]
    return " ".join(named) + (f" at {pinned}" if pinned else "")


def uses_demo(records: Iterable[Row]) -> bool:
    return any("demo" in record.get("source", {}) for record in records)


# --- words ---------------------------------------------------------------------------------------------------------


def listed(items: list[str], most: int = SHOWN) -> str:
    rest = len(items) - most
    return ", ".join(items[:most]) + (f" and {rest} more" if rest > 0 else "")


def counted(counts: dict[str, int]) -> str:
    return listed([f"{name} ({count:,})" for name, count in counts.items()])


def _count(value: int | None) -> str:
    return "unknown" if value is None else f"{value:,}"


def _whole(value: Any) -> str:
    return "" if value is None or pd.isna(value) else f"{int(value):,}"
