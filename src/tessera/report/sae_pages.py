"""A page for each SAE: where it comes from, whether it is healthy, and what probes on its features score."""

from typing import Any

import pandas as pd

from tessera.report import charts, sections
from tessera.report.sections import Row
from tessera.results import Tables, chosen_within, over_seeds, rows_of

HEALTH = ("explained_variance", "l0", "dead_fraction")


def pages(records: dict[str, Row], tables: Tables) -> list[Row]:
    cells = tables.whole_cells()
    best = over_seeds(chosen_within(cells[cells["head"].isin(records)], ["head", "dataset"]), ["head", "dataset"])
    widest = float(tables.saes["l0"].max()) if len(tables.saes) else 0.0
    return [
        record
        | {"health": _health(record["name"], tables, widest), "scores": _scores(record["name"], best, cells, tables)}
        for record in sections.saes(records, tables)
    ]


def _health(name: str, tables: Tables, widest: float) -> list[Row]:
    """The SAE's own record first, then what was counted on each dataset."""
    return [
        {
            "on": "its own record" if pd.isna(row.dataset) else tables.dataset(row.dataset),
            "explained": _share(row.explained_variance),
            "explained_bar": charts.bar(_or_zero(row.explained_variance)),
            "l0": "" if pd.isna(row.l0) else f"{row.l0:.1f}",
            "l0_bar": charts.bar(_or_zero(row.l0) / widest if widest else 0),
            "dead": "" if pd.isna(row.dead_fraction) else f"{row.dead_fraction:.1%}",
            "dead_bar": charts.bar(_or_zero(row.dead_fraction)),
        }
        for row in rows_of(tables.saes[tables.saes["sae"] == name])
    ]


def _share(value: float) -> str:
    return "" if pd.isna(value) else f"{value:.3f}".replace("-", "\N{MINUS SIGN}")


def _or_zero(value: float) -> float:
    return 0.0 if pd.isna(value) else float(value)


def _scores(name: str, best: pd.DataFrame, cells: pd.DataFrame, tables: Tables) -> list[Row]:
    """Macro-F1 of a probe that may read this SAE alone, pooling and threshold by inner validation, and why there is none."""
    scale = charts.Scale(0, 1)
    of_sae = cells[cells["head"] == name]
    found: dict[Any, Any] = {row.dataset: row for row in rows_of(best[best["head"] == name])}
    rows = []
    for dataset in [each for each in tables.datasets if (of_sae["dataset"] == each).any()]:
        row = found.get(dataset)
        if row is None:
            reasons = of_sae.loc[(of_sae["dataset"] == dataset) & (of_sae["status"] != "ok"), "reason"]
            rows.append({"dataset": dataset, "title": tables.dataset(dataset), "strip": "",
                         "score": {"state": "failed", "reason": min(reasons, default="not run")}})  # fmt: skip
        else:
            rows.append(
                {
                    "dataset": dataset,
                    "title": tables.dataset(dataset),
                    "strip": charts.interval(scale, row.macro_f1, row.lowest, row.highest),
                    "score": {
                        "state": "ok",
                        "value": f"{row.macro_f1:.3f}",
                        "interval": f"{row.lowest:.3f} to {row.highest:.3f}" if row.n_seeds > 1 else "",
                    },
                }
            )
    return rows
