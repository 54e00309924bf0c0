"""The first page: the question, the comparison that answers it, and what became of the published findings."""

from typing import Any

from tessera.findings import LOSES, OPEN, WINS, comparisons, signed
from tessera.report import charts, sections
from tessera.report.sections import Row
from tessera.results import ARMS, TEXT_ARMS, Tables, rows_of

VERDICTS = {WINS: "better", LOSES: "worse", OPEN: "cannot be told"}
LOOKS = {WINS: "wins", LOSES: "loses", OPEN: "open"}


def headline(tables: Tables, protocol: str) -> list[Row]:
    """SAE features beside the strongest plain baseline, a row for each dataset and model that has any."""
    found = comparisons(tables, protocol)
    scale = charts.around_zero(entry[end] for entry in found if entry["baseline"] for end in ("low", "high"))
    scores = {(row.dataset, row.model, row.arm): row for row in rows_of(tables.arm_rows(protocol))}
    return [_row(tables, entry, scores, scale) for entry in found]


def _row(tables: Tables, entry: dict[str, Any], scores: dict[Any, Any], scale: charts.Scale) -> Row:
    dataset, model, baseline = entry["dataset"], entry["model"], entry["baseline"]
    row: Row = {
        "id": dataset,
        "dataset": tables.dataset(dataset),
        "model": tables.model(model),
        "sae": sections.score(scores[dataset, model, "sae"]),
        "verdict": VERDICTS[entry["verdict"]],
        "look": LOOKS[entry["verdict"]],
        "reason": entry["reason"] if entry["verdict"] == OPEN else "",
        "baseline": "",
        "against": sections.ABSENT,
        "difference": sections.ABSENT,
        "strip": "",
    }
    if baseline is None:
        return row
    against = scores.get((dataset, "text" if baseline in TEXT_ARMS else model, baseline))
    interval = f"{signed(entry['low'])} to {signed(entry['high'])}"
    return row | {
        "baseline": ARMS.get(baseline, baseline),
        "against": sections.ABSENT if against is None else sections.score(against),
        "difference": {"state": "ok", "value": signed(entry["difference"]), "interval": interval},
        "strip": charts.interval(scale, entry["difference"], entry["low"], entry["high"], zero=True),
    }


def claims_told(claims: list[Row]) -> list[Row]:
    """The published findings with the verdict on the published numbers and on this run's, under either protocol."""
    sides = ("published", "paper", "strict")
    return [
        {"title": claim["title"]} | dict(zip(sides, (cell["verdict"] for cell in claim["verdicts"]), strict=True))
        for claim in claims
    ]
