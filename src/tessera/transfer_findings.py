"""What a run's transfers say, in one finding: how much of the gap each input closes away from home.

The gap goes from what knowing nothing scores to what the same kind of input scores at home. A median over cells is said with how
many cells it is over; where no cell has a gap to close, that is said instead of a number.
"""

from typing import Any

import pandas as pd

from tessera.transfer_results import Transfers, away

Finding = dict[str, Any]

INPUTS = {"sae": "SAE features", "hidden": "hidden states", "tfidf": "TF-IDF"}
# Trained where, for a sentence; home itself has no gap to close.
AWAY = {
    "transferred": {"language": "in another language", "task": "on another dataset"},
    "translated": {"language": "from translations"},
    "leave-one-out": {"task": "from all other datasets"},
    "other": {"model": "read by another model than the one that answers"},
    "zero-shot": {"modality": "on images, from names in text alone"},
    "sibling's SAE": {"dictionary": "through the sibling's SAE"},
}

SENTENCE = (
    "How much of the gap between knowing nothing and the same kind of input at home is closed: 0% is nothing learned, 100% is "
    "as good as at home."
)


def transfer(transfers: Transfers) -> Finding:
    """The finding: `title`, `sentence`, a point for each transfer, and `numbers` to check them by."""
    cells = away(transfers)
    numbers, points = [], []
    for name, entry in transfers.titles["transfers"].items():
        for training, words in AWAY.items():
            here = cells[(cells["transfer"] == name) & (cells["training"] == training)]
            if len(here):
                found = [_of_input(here[here["arm"] == arm], arm) for arm in INPUTS if (here["arm"] == arm).any()]
                numbers.append({"transfer": name, "training": training, "inputs": found})
                points.append(_point(transfers.title(name), words.get(entry["kind"], training), found))
    if not numbers:
        untold = "This cannot be told: no cell has a score."
        return {"title": "How far it transfers", "sentence": untold, "points": [], "numbers": {}}
    return {"title": _heading(numbers), "sentence": SENTENCE, "points": points, "numbers": {"transfers": numbers}}


def _of_input(cells: pd.DataFrame, arm: str) -> dict[str, Any]:
    good = cells[cells["status"] == "ok"]
    closed = good["closed"].dropna()
    return {
        "arm": arm,
        "cells": len(cells),
        "scored": len(good),
        "with_a_gap": len(closed),
        "closed": float(closed.median()) if len(closed) else None,
        "above_floor": int((good["low"] > good["floor"]).sum()),
    }


def _point(title: str, where: str, found: list[dict[str, Any]]) -> str:
    told = [entry for entry in found if entry["closed"] is not None]
    if not told:
        return f"{title}, {where}: no cell has a gap to close"
    parts = [f"{INPUTS[entry['arm']]} {_percent(entry['closed'])}" for entry in told]
    cells = max(entry["with_a_gap"] for entry in told)
    over = f" (median of {cells} cells)" if cells > 1 else ""
    return f"{title}, {where}: {', '.join(parts)}{over}"


def _heading(numbers: list[dict[str, Any]]) -> str:
    """How SAE features stand to hidden states where both have a share."""
    better = worse = 0
    for entry in numbers:
        shares = {found["arm"]: found["closed"] for found in entry["inputs"]}
        if shares.get("sae") is not None and shares.get("hidden") is not None:
            better += shares["sae"] > shares["hidden"]
            worse += shares["sae"] < shares["hidden"]
    if better + worse == 0:
        return "How far it transfers"
    return f"Away from home SAE features close more of the gap than hidden states in {better} of {better + worse} comparisons"


def _percent(value: float) -> str:
    return f"{value:.0%}".replace("-", "\N{MINUS SIGN}")
