"""Seeded stand-ins for the tables of a run: the shapes of the real ones, and numbers with a known tendency.

In `world()` TF-IDF is the best arm on docstrings and SAE features the best on requests, the paper protocol scores a
little higher than strict, deeper layers are better, and no two cells are alike.
"""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from tessera.comparisons import compared
from tessera.results import NUMBERS, Tables
from tessera.tables import CURVES

DATASETS = {"docstrings": ["all"], "requests": ["all", "en", "es", "de", "fr", "it"]}
MODELS: dict[str, list[int]] = {"demo-small": [1, 3], "demo-large": [1, 3, 5]}
SAES = {f"demo-large-l{layer}-{width}": ("demo-large", layer, width) for layer in (1, 3, 5) for width in (512, 1024)}
TITLES = {
    "datasets": {"docstrings": "Docstrings", "requests": "Requests in five languages"},
    "models": {"demo-small": "Demo, small", "demo-large": "Demo, large"},
}
BASE = {"docstrings": 0.5, "requests": 0.82}
SAE_POOLINGS, HIDDEN_POOLINGS, THRESHOLDS = ("sum", "top-20", "last"), ("last", "mean", "max"), (None, 1.0)
LIFT = {"sum": 0.02, "top-20": 0.03, "last": -0.08, "mean": 0.03, "max": 0.0}


_made: dict[str, Tables] = {}


def world(
    datasets: dict[str, list[str]] = DATASETS,
    models: dict[str, list[int]] = MODELS,
    saes: dict[str, tuple[str, int, int]] = SAES,
    *,
    titles: dict[str, dict[str, str]] = TITLES,
    protocols: tuple[str, ...] = ("paper", "strict"),
    seed: int = 0,
) -> Tables:
    """The tables of a run on these datasets (with their subsets), models (with their layers) and SAEs."""
    key = repr((datasets, models, saes, titles, protocols, seed))
    if key not in _made:
        _made[key] = _make(datasets, models, saes, titles=titles, protocols=protocols, seed=seed)
    return _made[key]


def _make(
    datasets: dict[str, list[str]],
    models: dict[str, list[int]],
    saes: dict[str, tuple[str, int, int]],
    *,
    titles: dict[str, dict[str, str]],
    protocols: tuple[str, ...],
    seed: int,
) -> Tables:
    rng = np.random.default_rng(seed)
    heads: list[dict[str, Any]] = []
    for name, (model, layer, width) in saes.items():
        heads += [
            {"model": model, "head": name, "arm": "sae", "layer": layer, "width": width, "pooling": p, "threshold": t}
            for p in SAE_POOLINGS
            for t in THRESHOLDS
        ]
    for model, layers in models.items():
        heads += [
            {"model": model, "head": f"layer-{layer}", "arm": "hidden", "layer": layer, "pooling": p}
            for layer in layers
            for p in HIDDEN_POOLINGS
        ]
    heads += [{"model": "text", "head": head, "arm": "tfidf"} for head in ("tfidf-word", "tfidf-char")]
    heads += [{"model": "text", "head": "majority", "arm": "majority"}]
    cells = pd.DataFrame(
        [
            _cell(rng, head, dataset=dataset, protocol=protocol, seed=seed, subset=subset)
            for dataset, subsets in datasets.items()
            for head in heads
            for protocol in protocols
            for seed in ([42] if protocol == "paper" else range(5))
            for subset in subsets
        ]
    )
    tables = {
        "cells": cells,
        "arms": (arms := _arms(cells)),
        "differences": (differences := _differences(arms)),
        "curves": _curves(arms),
        "comparisons": _comparisons(differences),
        "saes": sae_table(saes, list(datasets), rng),
    }
    typed = {name: table.astype(dict.fromkeys(NUMBERS[name], "float64")) for name, table in tables.items()}
    return Tables(**typed, titles=titles)


def _cell(rng: Any, head: dict[str, Any], *, dataset: str, protocol: str, seed: int, subset: str) -> dict[str, Any]:
    base = BASE.get(dataset, 0.4 + (sum(map(ord, dataset)) % 40) / 100)
    arm = head["arm"]
    score = base + LIFT.get(head.get("pooling", ""), 0.0) + 0.01 * head.get("layer", 0)
    if arm == "tfidf":
        score = base + (0.1 if dataset == "docstrings" else -0.05)
    if arm == "majority":
        score = base / 4
    if arm == "sae":
        score += (0.02 if dataset == "requests" else -0.02) - 0.015 * (head["threshold"] is not None)
    score += (0.03 if protocol == "paper" and arm != "majority" else 0.0) + rng.normal(0, 0.012)
    score = float(np.clip(score, 0, 1))
    return {
        "layer": None, "width": None, "pooling": None, "threshold": None, **head,
        "dataset": dataset, "classifier": "majority" if arm == "majority" else "l2", "k": None, "regime": "full",
        "protocol": protocol,
        "seed": seed, "subset": subset, "c": 1.0, "validation": score + rng.normal(0, 0.01), "n_train": 800,
        "n_test": 200, "n_features": 128, "n_classes": 8 if dataset == "docstrings" else 2, "accuracy": score,
        "macro_f1": score, "auroc": score, "auprc": score, "ece": 0.05, "brier": 0.2, "status": "ok", "reason": "",
    }  # fmt: skip


def _arms(cells: pd.DataFrame) -> pd.DataFrame:
    """Chosen by validation under strict and by the test score under paper, as the real table is."""
    last = cells[(cells["arm"] == "hidden") & (cells["pooling"] == "last")].assign(arm="hidden-last")
    rows = []
    keys = ["protocol", "dataset", "model", "arm", "subset"]
    for values, group in pd.concat([cells, last]).groupby(keys):
        by = "macro_f1" if values[0] == "paper" else "validation"
        best = group.sort_values(by, ascending=False).drop_duplicates("seed")
        score = best["macro_f1"].mean()
        chosen = {str(row.seed): {"head": row.head, "pooling": row.pooling} for row in best.itertuples()}
        rows.append(
            dict(zip(keys, values, strict=True))
            | dict.fromkeys(("macro_f1", "accuracy", "auroc", "auprc"), score)
            | {"low": score - 0.03, "high": score + 0.025, "ece": 0.05, "brier": 0.2, "n_seeds": len(best)}
            | {"n_test": 200.0, "chosen": json.dumps(chosen), "optimistic": values[0] == "paper"}
            | {"status": "ok", "reason": ""}
        )
    return pd.DataFrame(rows)


def _differences(chosen: pd.DataFrame) -> pd.DataFrame:
    arms = chosen[chosen["subset"] == "all"].set_index(["protocol", "dataset", "model", "arm"])["macro_f1"]
    columns = ["protocol", "dataset", "model", "arm_a", "arm_b", "difference", "low", "high", "n_seeds"]
    rows = []
    for (protocol, dataset, model, arm), score in arms.items():
        for first, second in (("sae", "hidden"), ("sae", "hidden-last"), ("sae", "tfidf"), ("hidden", "tfidf")):
            other = arms.get((protocol, dataset, "text" if second == "tfidf" else model, second))
            if arm == first and other is not None:
                gap = score - other
                rows.append((protocol, dataset, model, first, second, gap, gap - 0.02, gap + 0.02, 5))
    return pd.DataFrame(rows, columns=columns)


# What is left of an arm's score with fewer features and with less or worse training data.
KEPT_WITH_K = {1: 0.5, 16: 0.8, 128: 0.95}
KEPT_BY_PENALTY = {0.8: (3.2, 0.6), 0.5: (20.4, 0.8), 0.1: (90.0, 0.9)}
KEPT_IN_REGIME = {"train-0.1": 0.7, "noise-0.2": 0.9, "imbalance-10": 0.85, "shuffled": 0.2}


def _curves(chosen: pd.DataFrame) -> pd.DataFrame:
    """Under strict, for each arm that has curves; principal components end in the hidden states' point."""
    rows = []
    strict = chosen[(chosen["protocol"] == "strict") & (chosen["subset"] == "all")]
    for _, row in strict[strict["arm"].isin(["sae", "hidden", "tfidf"])].iterrows():
        few = {"sae": "sae", "hidden": "pca"}.get(row["arm"])
        points = [(few, "full", k, kept) for k, kept in KEPT_WITH_K.items() if few]
        points += [(row["arm"], regime, None, kept) for regime, kept in (*KEPT_IN_REGIME.items(), ("full", 1.0))]
        if row["arm"] == "sae":
            rows += [_path_point(row, penalty, *found) for penalty, found in KEPT_BY_PENALTY.items()]
        for arm, regime, k, kept in points:
            score = kept * row["macro_f1"]
            key = {"protocol": "strict", "dataset": row["dataset"], "model": row["model"], "arm": arm}
            rows.append(
                key
                | {"classifier": "l2", "regime": regime, "k": k, "macro_f1": score, "lowest": score - 0.02}
                | {"highest": score + 0.02, "n_seeds": 5, "status": "ok", "reason": ""}
            )
    return pd.DataFrame(rows, columns=CURVES.names)


def _path_point(row: pd.Series, penalty: float, weighed: float, kept: float) -> dict[str, Any]:
    score = kept * row["macro_f1"]
    return {
        **{name: row[name] for name in ("protocol", "dataset", "model", "arm")},
        "classifier": "l1",
        "regime": "full",
        "k": None,
        "penalty": penalty,
        "n_weighed": weighed,
        "macro_f1": score,
        "lowest": score - 0.02,
        "highest": score + 0.02,
        "n_seeds": 5,
        "status": "ok",
        "reason": "",
    }


def _comparisons(differences: pd.DataFrame) -> pd.DataFrame:
    return compared(differences.to_dict("records")).to_pandas()


def sae_table(saes: dict[str, tuple[str, int, int]], datasets: list[str], rng: Any) -> pd.DataFrame:
    """The SAE's own record first (no dataset), then what each dataset's captures counted."""
    columns = ["sae", "model", "layer", "width", "architecture", "dataset", "explained_variance", "l0", "dead_fraction"]
    rows = []
    for name, (model, layer, width) in saes.items():
        for dataset in [None, *datasets]:
            variance = rng.uniform(0.7, 0.9) if dataset is None else None
            health = (variance, rng.uniform(10, 40), rng.uniform(0, 0.3))
            rows.append((name, model, layer, width, "batchtopk", dataset, *health))
    return pd.DataFrame(rows, columns=columns)


def classes(tables: Tables) -> pd.DataFrame:
    """Two labels for every chosen arm, one better and one worse than its score."""
    chosen = tables.arms[tables.arms["subset"] == "all"]
    rows = [
        {
            **{name: getattr(row, name) for name in ("protocol", "dataset", "model", "arm")},
            "label": label, "precision": row.macro_f1 + lift, "recall": row.macro_f1 - lift,
            "f1": row.macro_f1 + lift / 2, "n_test": 100.0, "n_seeds": row.n_seeds,
        }
        for row in chosen.itertuples()
        for label, lift in (("plain", 0.1), ("hard", -0.1))
    ]  # fmt: skip
    return pd.DataFrame(rows)


def large_world() -> Tables:
    """Twenty datasets and three models, of which two have SAEs."""
    datasets = {f"task-{number:02d}": ["all"] for number in range(20)}
    models = {"gemma-2-2b": [5, 12, 19], "gemma-2-9b": [9, 20, 31], "gemma-2-9b-it": [9, 20, 31]}
    saes = {
        f"{model}-l{layer}-{width}": (model, layer, width)
        for model in ("gemma-2-2b", "gemma-2-9b-it")
        for layer in models[model]
        for width in (16384, 65536)
    }
    titles = {
        "datasets": {name: f"A task with a longish name, {name}" for name in datasets},
        "models": {"gemma-2-2b": "Gemma 2 2B", "gemma-2-9b": "Gemma 2 9B", "gemma-2-9b-it": "Gemma 2 9B, instruct"},
    }
    return world(datasets, models, saes, titles=titles)


def with_failed(tables: Tables, reason: str, **match: Any) -> Tables:
    """The same world, but whatever matches the given column values failed, in cells, arms and curves."""

    def fail(table: pd.DataFrame) -> pd.DataFrame:
        table = table.copy()
        columns = [column for column in match if column in table]
        hit = pd.Series(len(columns) > 0 and set(match) <= set(table.columns), index=table.index)
        for column in columns:
            hit &= table[column] == match[column]
        table.loc[hit, "status"], table.loc[hit, "reason"] = "failed", reason
        scores = ("macro_f1", "low", "high", "lowest", "highest", "accuracy", "validation", "auroc", "auprc")
        table.loc[hit, [name for name in scores if name in table]] = np.nan
        return table

    arms = fail(tables.arms)
    gone = arms[arms["status"] == "failed"][["protocol", "dataset", "model", "arm"]].itertuples(index=False)
    lost = {tuple(row) for row in gone}
    differences = tables.differences[
        [
            not ({(r.protocol, r.dataset, m, a) for a in (r.arm_a, r.arm_b) for m in (r.model, "text")} & lost)
            for r in tables.differences.itertuples()
        ]
    ]
    failed = {"cells": fail(tables.cells), "arms": arms, "differences": differences, "curves": fail(tables.curves)}
    return replace(tables, **failed, comparisons=_comparisons(differences))


PROBES = {
    "sae_poolings": list(SAE_POOLINGS),
    "thresholds": list(THRESHOLDS),
    "hidden_poolings": list(HIDDEN_POOLINGS),
    "text": ["tfidf-word", "tfidf-char", "majority"],
    "protocols": ["paper", "strict"],
    "strict": {"seeds": 5, "test_size": 0.2, "inner_folds": 3, "c": [0.01, 0.1, 1.0, 10.0]},
}


def dataset_record(labels: dict[str, int], subsets: dict[str, int], source: dict[str, Any]) -> dict[str, Any]:
    return {
        "source": source,
        "revision": None,
        "sha256": "ab" * 32,
        "modality": "text",
        "n_rows": sum(labels.values()) + 3,
        "exclusions": {"missing text": {"count": 3, "examples": ["1", "2", "3"]}},
        "drawn": None,
        "n_examples": sum(labels.values()),
        "n_groups": sum(labels.values()) - 4,
        "labels": labels,
        "subsets": subsets,
        "duplicates": 4,
        "conflicting_duplicates": {"count": 2, "examples": ["7", "9"]},
        "characters": {"min": 31, "median": 120.5, "max": 400},
    }


def records() -> dict[str, dict[str, dict[str, Any]]]:
    """What the records of the default world hold, as far as the report shows it."""
    libraries = ("matplotlib", "networkx", "numpy", "pandas", "scipy", "sklearn", "torch", "transformers")
    languages = dict.fromkeys(("de", "en", "es", "fr", "it"), 240)
    shape = {"model_type": "gemma2", "layers": 6, "hidden_size": 128, "vocabulary": 2000, "sha256": "cd" * 32}
    losses = {"heldout_loss": 3.41, "unigram_entropy": 5.87}
    health = {"explained_variance": 0.812, "l0": 17.3, "dead_fraction": 0.043}
    return {
        "datasets": {
            "docstrings": dataset_record(dict.fromkeys(libraries, 260), {"all": 2080}, {"demo": "docstrings"}),
            "requests": dataset_record({"harmful": 600, "harmless": 600}, languages, {"demo": "requests"}),
        },
        "models": {name: {**shape, "source": {"demo": "large"}, "demo": losses} for name in MODELS},
        "saes": {
            name: {
                "source": {"demo": "batchtopk"}, "sha256": "ef" * 32, "architecture": "jumprelu", "d_in": 128,
                "d_sae": width, "layer": layer, "demo": health,
            }
            for name, (_, layer, width) in SAES.items()
        },
        "checks": {
            "docstrings": {"severity": "look", "checks": {
                "keyword": {"title": "A single word", "severity": "look", "reason": "The word 'array' goes far.", "numbers": {}},
                "length": {"title": "Length", "severity": "fine", "reason": "It says little.", "numbers": {}},
            }},
            "requests": {"severity": "fine", "checks": {}},
        },
    }  # fmt: skip
