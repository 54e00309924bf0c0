"""The tables of transfer in the report, as plain rows of words: all at a glance, and a page for each kind.

An overview has a row for each transfer, way of training and input; every cell stands below it. What is averaged is said to be:
a median over cells, with the lowest and the highest.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from tessera.report.sections import ABSENT
from tessera.results import groups_of, rows_of
from tessera.transfer_results import ARMS, Transfers, whole

Row = dict[str, Any]

# How what is trained on stands to what is tested on, in words; in this order.
TRAINING = {
    "native": "the language itself",
    "translated": "translations into it",
    "transferred": "elsewhere",
    "in-domain": "the same dataset",
    "leave-one-out": "all other datasets",
    "own": "the answering model's own reading",
    "other": "another model's reading",
    "words": "the words of the question",
    "zero-shot": "names in text alone",
    "own SAE": "the reader's own SAE",
    "sibling's SAE": "its sibling's SAE",
}


# What is elsewhere depends on what is transferred between.
ELSEWHERE = {"language": "another language", "task": "another dataset"}

# The kinds of transfer: what their page is called, and what it asks.
KINDS = {
    "language": (
        "From language to language",
        "Does a probe that learned a task in one language know it in another, and how much of the way do translations go?",
    ),
    "task": (
        "From task to task",
        "Does a probe that learned from one dataset hold on another with the same labels, or has it learned the dataset?",
    ),
    "model": (
        "From model to model",
        "Can one model's reading of a question tell whether a model, itself or another, answers it right?",
    ),
    "modality": (
        "From text to images",
        "Does a probe that knows the classes by their names in text alone recognise them in images?",
    ),
    "dictionary": (
        "From dictionary to dictionary",
        "Does an SAE still fit the sibling of the model it was trained on, and do probes on its features hold?",
    ),
}


def pages(transfers: Transfers, behaviours_asked: dict[str, Row], figures: Sequence[Row]) -> list[Row]:
    """A page for each kind of transfer that the run has."""
    named = transfers.titles.get("transfers", {})
    found = []
    for kind, (title, question) in KINDS.items():
        ids = [name for name, entry in named.items() if entry["kind"] == kind]
        if not ids:
            continue
        held = only(transfers, ids)
        found.append(
            {
                "kind": kind,
                "title": title,
                "question": question,
                "transfers": ", ".join(transfers.title(name) for name in ids),
                "overview": overview(held),
                "figures": [figure for figure in figures if figure["transfer"] in ids],
                "dictionaries": dictionaries(held) if kind == "dictionary" else [],
                "matches": matches(held) if kind == "dictionary" else [],
                "behaviours": behaviours(behaviours_asked, held) if kind == "model" else [],
                "every_cell": every_cell(held),
                "failed": failed(held),
            }
        )
    return found


def only(transfers: Transfers, ids: Sequence[str]) -> Transfers:
    """The same tables, as if the run had these transfers alone."""
    named = {name: entry for name, entry in transfers.titles["transfers"].items() if name in ids}
    return replace(
        transfers,
        transfers=transfers.transfers[transfers.transfers["transfer"].isin(ids)],
        dictionaries=transfers.dictionaries[transfers.dictionaries["transfer"].isin(ids)],
        titles=transfers.titles | {"transfers": named},
    )


def overview(transfers: Transfers) -> list[Row]:
    rows = []
    cells = whole(transfers)
    for transfer in transfers.titles.get("transfers", {}):
        here = cells[cells["transfer"] == transfer]
        for training in [word for word in TRAINING if (here["training"] == word).any()]:
            for arm in [name for name in ARMS if (here["arm"] == name).any()]:
                of_arm = here[(here["training"] == training) & (here["arm"] == arm)]
                if len(of_arm):
                    words = trained_on(training, of_arm["kind"].iloc[0])
                    rows.append(_summed(transfers.title(transfer), words, ARMS[arm], of_arm))
    return rows


def trained_on(training: str, kind: str) -> str:
    """A way of training in words."""
    return ELSEWHERE[kind] if training == "transferred" and kind in ELSEWHERE else TRAINING.get(training, training)


def _summed(title: str, training: str, arm: str, cells: pd.DataFrame) -> Row:
    good = cells[cells["status"] == "ok"]
    failed = len(cells) - len(good)
    return {
        "transfer": title,
        "training": training,
        "arm": arm,
        "cells": f"{len(good)}" + (f", {failed} failed" if failed else ""),
        "score": _median(good["macro_f1"], "{:.3f}"),
        "floor": _median(good["floor"], "{:.3f}", spread=False),
        "ceiling": _median(good["ceiling"], "{:.3f}", spread=False),
        "closed": _median(good["closed"], "{:.0%}"),
        "above": f"{int((good['low'] > good['floor']).sum())} of {len(good)}" if len(good) else "",
    }


def _median(values: pd.Series, form: str, *, spread: bool = True) -> Row:
    """The median of what is there, and from where to where it goes."""
    there = values.dropna()
    if there.empty:
        return ABSENT
    low, high = (_written(form, value) for value in (there.min(), there.max()))
    return {
        "state": "ok",
        "value": _written(form, there.median()),
        "interval": f"{low} to {high}" if spread and len(there) > 1 and low != high else "",
    }


def _written(form: str, value: float) -> str:
    return form.format(value + 0.0).replace("-", "\N{MINUS SIGN}")


def every_cell(transfers: Transfers) -> list[Row]:
    """All cells of the overview, one by one."""
    return [
        {
            "transfer": transfers.title(row.transfer),
            "source": _name(transfers, row.kind, row.source),
            "target": _name(transfers, row.kind, row.target),
            "training": trained_on(row.training, row.kind),
            "arm": ARMS.get(row.arm, row.arm) + (f", {row.head}" if row.kind == "dictionary" else ""),
            "n": "" if pd.isna(row.n_train) else f"{row.n_train:,.0f} / {row.n_test:,.0f}",
            "score": _score(row),
            "floor": _number(row.floor),
            "ceiling": _number(row.ceiling),
            "closed": _closed(row),
        }
        for row in rows_of(whole(transfers))
    ]


def _name(transfers: Transfers, kind: str, name: str) -> str:
    """A source or target as people call it: a model, a behaviour, a dataset, or what it is already."""
    if kind == "language":
        return name
    if name in transfers.titles.get("models", {}):
        return transfers.model(name)
    return transfers.behaviour(name)


def _score(row: Any) -> Row:
    if row.status != "ok":
        return {"state": "failed", "reason": row.reason}
    interval = "" if pd.isna(row.low) else f"{row.low:.3f} to {row.high:.3f}"
    return {"state": "ok", "value": f"{row.macro_f1:.3f}", "interval": interval}


def _number(value: float) -> str:
    return "" if pd.isna(value) else f"{value:.3f}"


def _closed(row: Any) -> Row:
    if pd.isna(row.closed):
        return ABSENT
    interval = f"{_written('{:.0%}', row.closed_low)} to {_written('{:.0%}', row.closed_high)}"
    return {"state": "ok", "value": _written("{:.0%}", row.closed), "interval": interval}


def dictionaries(transfers: Transfers) -> list[Row]:
    return [
        {
            "sae": row.sae,
            "home": transfers.model(row.home),
            "reader": transfers.model(row.reader),
            "l0": f"{row.l0:.1f}",
            "explained": ""
            if pd.isna(row.explained_variance)
            else f"{row.explained_variance:.3f}".replace("-", "\N{MINUS SIGN}"),
            "dead": f"{row.dead_fraction:.1%}",
            "agreement": ""
            if pd.isna(row.agreement)
            else f"{row.agreement:.2f} ({row.agreement_chance:.2f} by chance)",
            "score": _score(row),
            "reason": row.reason or "",
        }
        for row in rows_of(transfers.dictionaries)
    ]


def matches(transfers: Transfers) -> list[Row]:
    return [
        {
            "a": row.sae_a,
            "b": row.sae_b,
            "layer": f"{row.layer:.0f}",
            "features": f"{row.n_features:,.0f}",
            "mean": f"{row.mean_cosine:.2f} ({row.chance:.2f} by chance)",
            "close": f"{row.share_above_07:.0%}",
            "same": f"{row.share_above_09:.0%}",
        }
        for row in rows_of(transfers.matches)
    ]


def behaviours(records: dict[str, Row], transfers: Transfers) -> list[Row]:
    """How often each model was right."""
    return [
        {
            "behaviour": transfers.behaviour(name),
            "model": transfers.model(record["identity"]["entry"]["model"]),
            "dataset": transfers.dataset(record["identity"]["entry"]["dataset"]),
            "scored": f"{record['n_scored']:,} of {record['n']:,}",
            "right": "" if record["accuracy"] is None else f"{record['accuracy']:.1%}",
            "chance": "" if record["chance"] is None else f"{record['chance']:.1%}",
            "left_out": ", ".join(f"{found['count']:,} {reason}" for reason, found in record["left_out"].items()),
        }
        for name, record in records.items()
    ]


def failed(transfers: Transfers) -> list[Row]:
    """What failed in transfers, in the form of the report's list of failures."""
    lost = transfers.transfers[transfers.transfers["status"] != "ok"]
    return [
        {
            "dataset": transfers.title(key[0]),
            "model": f"{key[1]} to {key[2]}",
            "arm": ARMS.get(key[3], key[3]),
            "heads": "",
            "count": f"{len(group):,}",
            "reason": key[4],
        }
        for key, group in groups_of(lost, ["transfer", "source", "target", "arm", "reason"])
    ]
