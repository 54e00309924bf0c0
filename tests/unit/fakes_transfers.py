"""Seeded stand-ins for the tables of transfer: one transfer of each kind, and numbers with a known tendency.

What is tested at home scores highest, SAE features a little above hidden states, later layers above earlier ones, and a
smaller share of the training size scores less. No two cells are alike.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from tessera.transfer_results import NUMBERS, WORDS, Transfers

LANGUAGES = ["en", "de", "es", "fr", "it"]
TASKS = ["hate", "insults", "spam", "threats"]
READERS = ["demo-small", "demo-large", "demo-tuned"]
FLOOR, CEILING = 0.5, 0.92
TITLES: dict[str, dict[str, Any]] = {
    "datasets": {"hate": "Hateful posts", "insults": "Insults", "spam": "Unwanted mail", "threats": "Threats"},
    "models": {"demo-small": "Demo, small", "demo-large": "Demo, large", "demo-tuned": "Demo, tuned"},
    "behaviours": {"quiz-large": "Quiz, answered by the large model", "quiz-tuned": "Quiz, tuned model"},
    "transfers": {
        "languages": {"kind": "language", "title": "Requests", "origin": "en"},
        "tasks": {"kind": "task", "title": "Bad words"},
        "answers": {"kind": "model", "title": "Quiz"},
        "digits": {"kind": "modality", "title": "Digits"},
        "siblings": {"kind": "dictionary", "title": "Base and tuned"},
    },
}


class Maker:
    """Cells with a seed of their own."""

    def __init__(self, transfer: str, kind: str):
        self.rng = np.random.default_rng(sum(map(ord, transfer)))
        self.same = {"transfer": transfer, "kind": kind}

    def cell(self, score: float, **values: Any) -> dict[str, Any]:
        score = float(np.clip(score + self.rng.normal(0, 0.01), 0, 1))
        closed = (score - FLOOR) / (CEILING - FLOOR)
        given = {
            "layer": None, "width": None, "head": None, "pooling": "sum", "threshold": None, "selection": "none",
            "share": 1.0, "n_train": 160, "n_test": 240, "macro_f1": score, "low": score - 0.03, "high": score + 0.025,
            "accuracy": score, "auroc": score, "floor": FLOOR, "ceiling": CEILING, "ceiling_low": 0.9,
            "ceiling_high": 0.94, "ceiling_of": "the target itself", "closed": closed, "closed_low": closed - 0.05,
            "closed_high": closed + 0.05, "folds": 5, "status": "ok", "reason": "",
        }  # fmt: skip
        return given | self.same | values


def heads(model: str, layers: Sequence[int], widths: Sequence[int]) -> list[dict[str, Any]]:
    """What is read of a model: each layer as hidden states and by an SAE of each width, and the arms that choose among them."""
    found: list[dict[str, Any]] = [{"arm": arm, "model": model} for arm in ["hidden", *(["sae"] if widths else [])]]
    for layer in layers:
        found.append({"arm": "hidden", "model": model, "head": f"layer-{layer}", "layer": layer})
        found += [
            {"arm": "sae", "model": model, "head": f"{model}-l{layer}-{width}", "layer": layer, "width": width}
            for width in widths
        ]
    return found


def lift(head: dict[str, Any]) -> float:
    return (0.02 if head["arm"] == "sae" else -0.04 if head["arm"] == "tfidf" else 0.0) + 0.01 * (
        head.get("layer") or 4
    )


def languages(
    names: Sequence[str] = LANGUAGES,
    layers: Sequence[int] = (1, 3, 5),
    widths: Sequence[int] = (512,),
    *,
    shares: Sequence[float] = (1.0, 0.25),
    selections: Sequence[str] = ("none", "top-64", "l1"),
    translated: bool = True,
    text: bool = True,
    transfer: str = "languages",
) -> pd.DataFrame:
    make, rows = Maker(transfer, "language"), []
    read = heads("demo-large", layers, widths) + ([{"arm": "tfidf", "model": None}] if text else [])
    pairs = [(source, target, "native" if source == target else "transferred") for source in names for target in names]
    if translated:
        pairs += [(target, target, "translated") for target in names[1:]]
    base = {"native": 0.88, "transferred": 0.7, "translated": 0.8}
    for source, target, training in pairs:
        for head in read:
            for share in shares:
                for selection in selections if head["arm"] == "sae" else ("none",):
                    score = base[training] + lift(head) - 0.1 * (1 - share) - 0.03 * (selection == "top-64")
                    how = {"training": training, "share": share, "selection": selection, "n_train": 160 * share}
                    rows.append(make.cell(score, source=source, target=target, **head, **how))
    return pd.DataFrame(rows)


def tasks(
    names: Sequence[str] = TASKS, widths: Sequence[int] = (512,), *, text: bool = True, transfer: str = "tasks"
) -> pd.DataFrame:
    make, rows = Maker(transfer, "task"), []
    read = heads("demo-large", (1, 3), widths) + ([{"arm": "tfidf", "model": None}] if text else [])
    pairs = [
        (source, target, "in-domain" if source == target else "transferred") for source in names for target in names
    ]
    pairs += [("all others", target, "leave-one-out") for target in names] if len(names) > 1 else []
    base = {"in-domain": 0.87, "transferred": 0.62, "leave-one-out": 0.71}
    for source, target, training in pairs:
        how = {"source": source, "target": target, "training": training}
        rows += [make.cell(base[training] + lift(head), **how, **head) for head in read]
    return pd.DataFrame(rows)


def answers(
    behaviours: dict[str, str] | None = None,
    readers: Sequence[str] = READERS,
    widths: Sequence[int] = (512, 1024),
    *,
    transfer: str = "answers",
) -> pd.DataFrame:
    """Behaviour -> the model that answers."""
    behaviours = behaviours or {"quiz-large": "demo-large", "quiz-tuned": "demo-tuned"}
    make, rows = Maker(transfer, "model"), []
    for target, answering in behaviours.items():
        for place, reader in enumerate(readers):
            layers, own = ((1, 3) if reader == "demo-small" else (1, 3, 5)), reader == answering
            for head in heads(reader, layers, widths):
                score = 0.6 + 0.03 * place + 0.05 * own + lift(head)
                how = {"training": "own" if own else "other"}
                rows.append(make.cell(score, source=reader, target=target, **head, **how))
        flat = {"source": "text", "target": target, "training": "other", "model": None}
        rows.append(make.cell(0.57, arm="tfidf", **flat))
        rows.append(
            make.cell(0.66, arm="confidence", **flat | {"source": answering, "training": "own", "model": answering})
        )
    return pd.DataFrame(rows)


def digits(widths: Sequence[int] = (512, 1024), *, names: bool = True, transfer: str = "digits") -> pd.DataFrame:
    make, rows = Maker(transfer, "modality"), []
    for source, training, base in [("images", "in-domain", 0.8), ("names", "zero-shot", 0.3)][: 1 + names]:
        here = {"source": source, "target": "images", "training": training, "floor": 0.1}
        rows += [make.cell(base + lift(head), **head, **here) for head in heads("demo-vision", (1, 3, 5), widths)]
        if source == "images":
            rows.append(make.cell(0.93, arm="vision", model="demo-vision", **here))
            rows.append(make.cell(0.93, arm="vision", model="demo-vision", head="vision", **here))
            rows.append(make.cell(0.75, arm="pixels", model=None, **here))
    return pd.DataFrame(rows)


def dictionaries(
    datasets: Sequence[str] = ("hate",), layers: Sequence[int] = (1, 3, 5), *, transfer: str = "siblings"
) -> pd.DataFrame:
    rng, rows = np.random.default_rng(3), []
    for dataset in datasets:
        for home, other in (("demo-large", "demo-tuned"), ("demo-tuned", "demo-large")):
            for layer in layers if home == "demo-large" else layers[:1]:
                for reader in (home, other):
                    at_home = reader == home
                    score = rng.uniform(0.8, 0.85) - 0.05 * (not at_home)
                    rows.append({
                        "transfer": transfer, "dataset": dataset, "layer": layer, "width": 512,
                        "sae": f"{home}-l{layer}-512", "home": home, "reader": reader, "l0": rng.uniform(12, 20),
                        "explained_variance": 0.8 - 0.2 * (not at_home), "dead_fraction": rng.uniform(0.05, 0.2),
                        "agreement": 1.0 if at_home else rng.uniform(0.4, 0.6), "agreement_chance": 0.03,
                        "macro_f1": score, "low": score - 0.03, "high": score + 0.03,
                        "closed": None if at_home else 0.8, "status": "ok", "reason": "",
                    })  # fmt: skip
    return pd.DataFrame(rows)


def matches() -> pd.DataFrame:
    row = {
        "model": "demo-large", "layer": 3, "sae_a": "a", "width_a": 512, "sae_b": "b", "width_b": 1024,
        "mean_cosine": 0.6, "median_cosine": 0.6, "share_above_07": 0.4, "share_above_09": 0.1, "chance": 0.2,
        "n_features": 512,
    }  # fmt: skip
    return pd.DataFrame([row])


def typed(table: pd.DataFrame, name: str) -> pd.DataFrame:
    if table.empty:
        table = pd.DataFrame(columns=[*WORDS[name], *NUMBERS[name]])
    return table.astype(dict.fromkeys(NUMBERS[name], "float64")).reset_index(drop=True)


def world(
    *cells: pd.DataFrame, dictionary: pd.DataFrame | None = None, titles: dict[str, dict[str, Any]] = TITLES
) -> Transfers:
    """The tables of these cells; of every kind's where none are given."""
    given = cells or (languages(), tasks(), answers(), digits())
    return Transfers(
        typed(pd.concat(given), "transfers"),
        typed(dictionaries() if dictionary is None else dictionary, "dictionaries"),
        typed(matches(), "matches"),
        titles,
    )


def empty() -> Transfers:
    return Transfers(*(typed(pd.DataFrame(), name) for name in NUMBERS), TITLES)


def with_failed(tables: Transfers, reason: str, hit: Callable[[pd.DataFrame], pd.Series]) -> Transfers:
    """The same world, but the cells that `hit` marks failed."""
    cells = tables.transfers.copy()
    lost = hit(cells)
    cells.loc[lost, ["status", "reason"]] = ["failed", reason]
    scores = [name for name in NUMBERS["transfers"] if name not in ("layer", "width", "share")]
    cells.loc[lost, scores] = np.nan
    return replace(tables, transfers=cells)
