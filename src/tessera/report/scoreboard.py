"""The published numbers on the report page, beside the run's own, as plain rows of words.

A run on other data than the study's has nothing to lay beside the published scores; the page then says why, in as many
rows as there are experiments. All cells are in the table; the page shows those that differ by more than noise, and counts.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from tessera import results
from tessera.claims import FEWEST
from tessera.claims import TABLE as CLAIMS
from tessera.findings import signed
from tessera.report.sections import listed
from tessera.results import groups_of, rows_of
from tessera.scoreboard import COMPARABLE, HIGHER, LOWER, MATCHES
from tessera.scoreboard import TABLE as SCOREBOARD

Row = dict[str, Any]

SHOWN = 40
REASONS = 2
EXPERIMENTS = {
    "text_classification": "Text classification",
    "multilingual_within_language": "Languages, each by itself",
    "behaviour_prediction": "Behaviour prediction",
    "vision_transfer": "Images",
    "early_pipeline_nov2024": "An early version of the study's code",
}
ARMS = {"sae": "SAE features", "hidden": "Hidden state, last token"}
SIDES = (("published", "paper"), ("ours", "paper"), ("ours", "strict"))


@dataclass(frozen=True)
class Board:
    """The tables `scoreboard` and `claims` of one run."""

    scoreboard: pd.DataFrame
    claims: pd.DataFrame


def load(folder: Path | str) -> Board:
    """The two tables from the .parquet files of that name in `folder`."""
    read = {
        name: results.read_table(Path(folder) / f"{name}.parquet", schema.names, [])
        for name, schema in (("scoreboard", SCOREBOARD), ("claims", CLAIMS))
    }
    return Board(**read)


def section(board: Board) -> Row:
    """All that the section on the published scores shows."""
    told = {"board": overview(board), "outside": outside(board), "n_outside": n_outside(board)}
    return told | {"claims": claims(board)}


def overview(board: Board) -> list[Row]:
    """For each experiment and protocol how many published cells there are, how many compare, and how they do."""
    rows = []
    for (protocol, experiment), cells in groups_of(board.scoreboard, ["protocol", "experiment"]):
        same = cells[cells["status"] == COMPARABLE]
        counts = same["verdict"].value_counts()
        rows.append(
            {
                "experiment": EXPERIMENTS.get(experiment, experiment),
                "protocol": protocol,
                "cells": f"{len(cells):,}",
                "comparable": f"{len(same):,}",
                **{name: f"{counts.get(name, 0):,}" if len(same) else "" for name in (MATCHES, HIGHER, LOWER)},
                "difference": signed(same["difference"].median()) if len(same) else "",
                "why_not": _reasons(cells[cells["status"] != COMPARABLE]),
            }
        )
    return rows


def _reasons(cells: pd.DataFrame) -> str:
    """Why cells are not comparable, the most frequent reasons first."""
    counts = sorted(cells["reason"].value_counts().items(), key=lambda found: (-found[1], str(found[0])))
    return listed([f"{reason} ({number:,})" for reason, number in counts], REASONS)


def outside(board: Board) -> list[Row]:
    """The comparable cells that differ by more than noise, the largest difference first."""
    same = board.scoreboard[board.scoreboard["verdict"].isin([HIGHER, LOWER])]
    order = same["difference"].abs().sort_values(ascending=False, kind="stable").index
    return [
        {
            "dataset": row.dataset if row.part in ("train", "test", "valid") else f"{row.dataset}, {row.part}",
            "model": row.model,
            "input": _input(row),
            "protocol": row.protocol,
            "published": f"{row.published:.3f}",
            "ours": f"{row.ours:.3f}",
            "difference": signed(row.difference),
            "noise": f"{row.noise:.3f}",
        }
        for row in rows_of(same.loc[order].head(SHOWN))
    ]


def n_outside(board: Board) -> int:
    return int(board.scoreboard["verdict"].isin([HIGHER, LOWER]).sum())


def _input(row: Any) -> str:
    parts = [ARMS[row.arm], f"layer {row.layer:g}"]
    if row.arm == "sae":
        parts += [f"{row.width:,g}", row.pooling, "raw" if pd.isna(row.threshold) else f"binary at {row.threshold:g}"]
    return ", ".join([*parts, *(["decision tree"] if row.classifier == "tree" else [])])


def claims(board: Board) -> list[Row]:
    """Each finding with its parts: what is tested, and the verdict on the published numbers and on the run's."""
    rows = []
    for name, found in groups_of(board.claims, "claim"):
        parts = [_verdicts(of_part) | {"part": part} for part, of_part in groups_of(found, "part") if part]
        whole = found[found["part"] == ""]
        rows.append({"name": name, "title": whole["title"].iloc[0], "parts": parts} | _verdicts(whole))
    return rows


def _verdicts(found: pd.DataFrame) -> Row:
    """What a test is and, in the order of `SIDES`, what it says."""
    told = {(row.side, row.protocol): row for row in rows_of(found)}
    return {"test": found["test"].iloc[0], "verdicts": [_verdict(told[place]) for place in SIDES]}


def _verdict(row: Any) -> Row:
    numbers = ""
    if not pd.isna(row.value):
        interval = "" if pd.isna(row.low) else f" ({signed(row.low)} to {signed(row.high)})"
        p = "" if pd.isna(row.p) or row.n_datasets < FEWEST else f", p = {row.p:.3f}"
        datasets = "1 dataset" if row.n_datasets == 1 else f"{row.n_datasets:g} datasets"
        numbers = f"{signed(row.value)}{interval} on {datasets}{p}"
    return {"verdict": row.verdict, "numbers": numbers, "reason": row.reason or ""}
