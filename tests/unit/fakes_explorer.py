"""Seeded stand-ins for the explorer's files, in the form that results/explorer/{model}/{dataset}.json has."""

import base64
import io
from typing import Any

import numpy as np
from PIL import Image

WORDS = [
    "please",
    "delete",
    "the",
    "old",
    "files",
    "before",
    "noon",
    "and",
    "send",
    "me",
    "a",
    "list",
    "of",
    "what",
    "was",
    "in",
    "them",
    "thank",
    "you",
    "very",
    "much",
    "indeed",
]


def record(
    dataset: str = "requests",
    model: str = "demo-large",
    *,
    labels: tuple[str, ...] = ("harmful", "harmless"),
    subsets: tuple[str, ...] = ("de", "en"),
    words: list[str] = WORDS,
    features: int = 12,
    examples: int = 4,
    predictions: int = 10,
    image: bool = False,
    side: int = 24,
    window: int = 20,
    seed: int = 0,
) -> dict[str, Any]:
    """A task with so many features and predictions. Feature numbers are no places, and values are mostly nothing."""
    rng = np.random.default_rng(seed)
    shown = {f"row-{at}": picture(at, side) for at in range(40)} if image else {}
    numbers = [int(number) for number in rng.permutation(features * 7)[:features]]
    strengths = np.sort(rng.uniform(0.01, 1, features))[::-1]
    return {
        "format": 1,
        "task": {
            "dataset": dataset, "model": model, "kind": "image" if image else "text", "labels": list(labels),
            "subsets": list(subsets), "n_examples": 1200, "demo": True,
        },
        "probe": {
            "protocol": "strict", "head": f"{model}-l3-512", "sae": f"{model}-l3-512", "layer": 3, "width": 512,
            "pooling": "sum", "threshold": None, "macro_f1": 0.81, "low": 0.78, "high": 0.84, "n_seeds": 5,
            "scored": "Chosen by inner validation on the first split.",
            "other_seeds": ["seed 1: another, last, values kept"],
        },
        "failed": None,
        "top": 10,
        "features": [
            _feature(rng, number, dataset, float(strength), numbers, labels, subsets, words, examples, image, window)
            for number, strength in zip(numbers, strengths, strict=True)
        ],
        "predictions": [_prediction(rng, place, numbers, labels, subsets, words, image) for place in range(predictions)],
        "images": shown,
    }  # fmt: skip


def failed(reason: str, dataset: str = "requests", model: str = "demo-large") -> dict[str, Any]:
    """A task of which nothing came out."""
    return record(dataset, model, features=0, predictions=0) | {"failed": reason, "probe": None}


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")


def _feature(
    rng: Any,
    number: int,
    dataset: str,
    strength: float,
    numbers: list[int],
    labels: tuple[str, ...],
    subsets: tuple[str, ...],
    words: list[str],
    examples: int,
    image: bool,
    window: int,
) -> dict[str, Any]:
    means = rng.normal(0, strength, len(labels))
    weighed = [len(labels) - 1] if len(labels) == 2 else list(range(len(labels)))
    rates = rng.uniform(0, 1, len(labels))
    largest = _rounded(rng.uniform(3, 9))
    return {
        "feature": number,
        "strength": _rounded(strength),
        "weights": [[at, _rounded(means[at]), _rounded(means[at] - 0.1), _rounded(means[at] + 0.1)] for at in weighed],
        "stability": float(rng.choice([0.4, 0.8, 1.0])),
        "same_sign": float(rng.choice([0.8, 1.0])),
        "rates": {
            "label": [_rounded(rate) for rate in rates],
            "subset": [_rounded(rng.uniform(0, 1)) for _ in subsets],
            "dataset": [[dataset, _rounded(rates.mean())], ["plans", 0.001]],
        },
        "largest": largest,
        "neighbours": [
            [numbers[int(place)], _rounded(rng.uniform(0.2, 0.8))] for place in rng.integers(0, len(numbers), 4)
        ]
        + [[999_999, 0.1]],
        "link": None,
        "examples": [
            _example(rng, place, labels, subsets, words, largest * (1 - place / 10), image, window)
            for place in range(examples)
        ],
    }


def _example(
    rng: Any,
    place: int,
    labels: tuple[str, ...],
    subsets: tuple[str, ...],
    words: list[str],
    largest: float,
    image: bool,
    window: int,
) -> dict[str, Any]:
    found = {
        "example": f"row-{int(rng.integers(40))}",
        "label": int(rng.integers(len(labels))),
        "subset": str(rng.choice(subsets)) if subsets else None,
        "value": _rounded(largest * 2),
    }
    n = 16 if image else window
    values = np.where(rng.random(n) < 0.15, rng.uniform(0, largest, n), 0)
    values[int(rng.integers(n))] = largest
    held = {"values": [_rounded(value) for value in values]}
    if image:
        return found | held | {"grid": [4, 4]}
    start = int(rng.integers(3))
    tokens = [(" " if at else "") + words[(start + at) % len(words)] for at in range(n)]
    return found | held | {"tokens": tokens, "start": start, "cut": bool(rng.integers(2))}


def picture(seed: int, side: int = 24) -> str:
    """A small image as a data URI."""
    pixels = np.random.default_rng(seed).integers(0, 255, (side, side), dtype=np.uint8)
    held = io.BytesIO()
    Image.fromarray(pixels).save(held, "PNG")
    return "data:image/png;base64," + base64.b64encode(held.getvalue()).decode("ascii")


def _prediction(
    rng: Any,
    place: int,
    numbers: list[int],
    labels: tuple[str, ...],
    subsets: tuple[str, ...],
    words: list[str],
    image: bool,
) -> dict[str, Any]:
    right = int(rng.integers(len(labels)))
    said = [right if rng.random() < 0.7 else int(rng.integers(len(labels))) for _ in range(3)]
    parts = sorted(((number, rng.normal(0, 0.5)) for number in numbers[:6]), key=lambda part: -abs(part[1]))
    shown = {} if image else {"text": " ".join(rng.permutation(words))}
    return {
        "example": f"row-{place}",
        **shown,
        "label": right,
        "subset": str(rng.choice(subsets)) if subsets else None,
        "verdicts": {
            "sae": [said[0], _rounded(rng.uniform(0.5, 1))],
            "hidden": [said[1], _rounded(rng.uniform(0.5, 1))],
            "tfidf": [said[2], None],
        },
        "against": (said[0] + 1) % len(labels),
        "intercept": _rounded(rng.normal(0, 0.2)),
        "rest": _rounded(rng.normal(0, 0.2)),
        "contributions": [
            [number, _rounded(rng.uniform(0.1, 4)), _rounded(contribution)] for number, contribution in parts
        ],
    }
