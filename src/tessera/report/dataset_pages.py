"""A page for each dataset: what it is, what may have leaked, and what every input scores on it."""

from dataclasses import replace
from typing import Any

import pandas as pd

from tessera.report import charts, sections
from tessera.report.sections import ABSENT, Row
from tessera.results import ARMS, TEXT_ARMS, Tables, rows_of

# Which arms are told label by label; TF-IDF stands for all that read the text alone.
BY_LABEL = ("sae", "hidden", "tfidf")
# The columns of the table `classes`, of words and of numbers.
CLASSES = (["protocol", "dataset", "model", "arm", "label"], ["precision", "recall", "f1", "n_test"])
METRICS = {
    "accuracy": "Accuracy",
    "auroc": "AUROC",
    "auprc": "AUPRC",
    "ece": "Calibration error",
    "brier": "Brier score",
}


def pages(
    records: dict[str, Row], checks: dict[str, Row], tables: Tables, classes: pd.DataFrame | None, protocol: str
) -> list[Row]:
    return [_page(name, records, checks, only(tables, name), classes, protocol) for name in records]


def only(tables: Tables, dataset: str) -> Tables:
    """The same tables, as if the run had this dataset alone. Comparisons over datasets fall away."""

    def held(table: pd.DataFrame) -> pd.DataFrame:
        return table[table["dataset"] == dataset]

    return replace(
        tables,
        cells=held(tables.cells),
        arms=held(tables.arms),
        differences=held(tables.differences),
        curves=held(tables.curves),
        saes=held(tables.saes),
    )


def _page(
    name: str,
    records: dict[str, Row],
    checks: dict[str, Row],
    tables: Tables,
    classes: pd.DataFrame | None,
    protocol: str,
) -> Row:
    (record,) = sections.datasets({name: records[name]}, tables)
    regimes, conditions = sections.conditions(tables)
    classifiers, other_classifiers = sections.other_classifiers(tables, protocol)
    pairs, differences = sections.differences(tables, protocol)
    return record | {
        "name": name,
        "image": records[name].get("modality") == "image",
        "label_bars": _counts(records[name].get("labels", {})),
        "subset_bars": _counts(records[name].get("subsets", {})) if record["subsets"] != "none" else [],
        "checks": _checks(checks.get(name, {})),
        "scores": scores(tables, protocol),
        "arms": [ARMS[arm] for arm in sections.arms_of(tables)],
        "by_subset": sections.scores_by_subset(tables, protocol),
        "pairs": pairs,
        "differences": differences,
        "regimes": regimes,
        "conditions": conditions,
        "classifiers": classifiers,
        "other_classifiers": other_classifiers,
        **_by_label(name, tables, classes, protocol),
        "failed": sections.failed(tables),
    }


def _counts(counts: dict[str, int]) -> list[Row]:
    most = max(counts.values(), default=0)
    return [
        {"name": name, "amount": f"{count:,}", "bar": charts.bar(count / most if most else 0)}
        for name, count in counts.items()
    ]


def _checks(record: Row) -> list[Row]:
    """Every check that could be made, the gravest first."""
    order = {"leak": 0, "look": 1, "fine": 2}
    made = [entry for entry in record.get("checks", {}).values() if entry["severity"] is not None]
    return sorted(made, key=lambda entry: order.get(entry["severity"], 0))


def scores(tables: Tables, protocol: str) -> list[Row]:
    """A row for each arm and model: the score with its interval drawn, the other metrics, and what was chosen."""
    chosen = tables.arm_rows(protocol)
    scale = charts.Scale(0, 1)
    found = {(row.arm, row.model): row for row in rows_of(chosen)}
    rows = []
    for arm in sections.arms_of(tables):
        for model in ["text"] if arm in TEXT_ARMS else tables.models:
            if row := found.get((arm, model)):
                good = row.status == "ok"
                rows.append(
                    {
                        "arm": ARMS[arm],
                        "model": "none" if model == "text" else tables.model(model),
                        "score": sections.score(row),
                        "strip": charts.interval(scale, row.macro_f1, row.low, row.high) if good else "",
                        "metrics": [_metric(getattr(row, name)) for name in METRICS],
                    }
                )
    return rows


def _metric(value: float) -> str:
    return "" if pd.isna(value) else f"{value:.3f}"


def _by_label(name: str, tables: Tables, classes: pd.DataFrame | None, protocol: str) -> Row:
    """F1 of each label for the main arms: the headings, and a row for each label."""
    if classes is None:
        return {"label_arms": [], "label_rows": []}
    here = classes[(classes["dataset"] == name) & (classes["protocol"] == protocol) & classes["arm"].isin(BY_LABEL)]
    columns = [
        (arm, model)
        for model in [*tables.models, "text"]
        for arm in BY_LABEL
        if ((here["arm"] == arm) & (here["model"] == model)).any()
    ]
    found = {(row.label, row.arm, row.model): row for row in rows_of(here)}
    labels = dict.fromkeys(row.label for row in rows_of(here))
    return {
        "label_arms": [ARMS[arm] + ("" if model == "text" else f", {tables.model(model)}") for arm, model in columns],
        "label_rows": [
            {
                "label": label,
                "tested": next((f"{row.n_test:,.0f}" for key, row in found.items() if key[0] == label), ""),
                "cells": [_f1(found.get((label, *column))) for column in columns],
            }
            for label in labels
        ],
    }


def _f1(row: Any) -> Row:
    if row is None or pd.isna(row.f1):
        return ABSENT
    return {"state": "ok", "value": f"{row.f1:.3f}", "interval": f"{row.precision:.2f} / {row.recall:.2f}"}
