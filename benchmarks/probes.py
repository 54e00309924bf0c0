"""How fast classifiers are fitted to SAE-like features, beside the published way: scikit-learn on a dense matrix.

Run from the project's folder with its environment: `.venv/bin/python benchmarks/probes.py`. Every measurement runs in a
process of its own, which says how much memory it took at most. `paper` fits what the published way fits, and its scores
show that; `strict` has more splits and chooses otherwise, and is there to show what it costs. Where a way takes too long,
a part of it is timed, and counted as often as it would come: of the published way some of the classes in one fold, with
every C; of `strict` one split.
"""

import argparse
import os
import resource
import statistics
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.model_selection import GridSearchCV, StratifiedKFold, train_test_split
from sklearn.multiclass import OneVsRestClassifier

from tessera import arms, protocols
from tessera.config import Strict

Array = npt.NDArray[Any]

INFORMATIVE = 8
ROUNDS, FAST = 3, 5.0
CS = [0.001, 0.01, 0.1, 1.0]


@dataclass(frozen=True)
class Shape:
    """A made-up dataset, and how much of the slow ways is run."""

    examples: int
    width: int
    entries: int
    classes: int = 2
    dense: bool = True  # whether a dense matrix fits into memory
    timed_classes: int | None = None
    timed_splits: int | None = None

    def __str__(self) -> str:
        return f"{self.examples:,} x {self.width:,}, {self.classes} classes"


def one_percent(examples: int, width: int, **others: Any) -> Shape:
    return Shape(examples, width, examples * width // 100, **others)


SHAPES = {
    "small": one_percent(1000, 2048, classes=6),
    "16k": one_percent(2000, 16_384),
    "65k": one_percent(2000, 65_536),
    "1M": replace(one_percent(2000, 16_384), width=1_048_576, dense=False),
    "60-classes": one_percent(10_000, 16_384, classes=60, timed_classes=3, timed_splits=1),
}


def made(shape: Shape) -> tuple[sparse.csr_matrix, Array]:
    """Features of uneven frequency, most of them noise, and labels that a few of the frequent ones tell, with noise."""
    rng = np.random.default_rng(0)
    rates = rng.lognormal(0, 1.5, shape.width)
    features = rng.choice(shape.width, 2 * shape.entries, p=rates / rates.sum())
    cells = np.unique(rng.integers(0, shape.examples, len(features)) * shape.width + features)
    cells = np.sort(rng.choice(cells, shape.entries, replace=False))
    rows, columns = np.divmod(cells, shape.width)
    values = rng.gamma(2, 1.5, shape.entries).astype(np.float32)
    X = sparse.csr_matrix((values, (rows, columns)), shape=(shape.examples, shape.width))
    frequent = np.argsort(rates)[-max(256, INFORMATIVE * shape.classes) :]
    scores = np.empty((shape.examples, shape.classes))
    for label in range(shape.classes):
        chosen = X[:, rng.choice(frequent, INFORMATIVE, replace=False)].toarray()
        telling = (chosen * rng.normal(0, 1, INFORMATIVE)).sum(axis=1)
        scores[:, label] = 3 * (telling - telling.mean()) / telling.std() + rng.gumbel(0, 1, shape.examples)
    return X, scores.argmax(axis=1)


# --- ways ----------------------------------------------------------------------------------------------------------


def ours(shape: Shape, X: sparse.csr_matrix, codes: Array, name: str) -> dict[str, Any]:
    settings = Strict().model_dump()
    times = settings["seeds"] / (shape.timed_splits or settings["seeds"]) if name == "strict" else 1
    settings["seeds"] = int(settings["seeds"] / times)
    start = time.perf_counter()
    protocol = protocols.paper() if name == "paper" else protocols.strict(**settings)
    splits = protocol.splits(codes, np.arange(len(codes)))
    results = protocols.Probe(arms.given(X, None), protocol, codes, shape.classes).results(splits)
    seconds = time.perf_counter() - start
    f1, cs = [], []
    for split, result in zip(splits, results, strict=True):
        if isinstance(result, protocols.Failed):
            raise RuntimeError(result.reason)
        f1.append(f1_score(codes[split.test], result.predicted, average="macro"))
        cs.append(result.choice.value)
    told = {"seconds": times * seconds, "macro-F1": float(np.mean(f1)), "c": cs}
    return told if times == 1 else told | {"timed": f"{seconds:.0f} s for {settings['seeds']} split"}


def published(shape: Shape, X: sparse.csr_matrix, codes: Array, dtype: str) -> dict[str, Any]:
    dense = X.toarray().astype(dtype)
    regression: Any = LogisticRegression(solver="lbfgs", max_iter=5000)
    start = time.perf_counter()
    train, test, y_train, y_test = train_test_split(dense, codes, test_size=0.2, random_state=42, stratify=codes)
    if shape.timed_classes:
        fit, _ = next(StratifiedKFold(5).split(train, y_train))
        return one_fold(shape, regression, train[fit], y_train[fit])
    grid: Any = {"C": CS}
    if shape.classes > 2:
        regression, grid = OneVsRestClassifier(regression), {"estimator__C": CS}
    search = GridSearchCV(regression, grid, scoring="accuracy", cv=5)
    search.fit(train, y_train)
    predicted = search.predict(test)
    search.predict_proba(test)
    seconds = time.perf_counter() - start
    f1 = f1_score(y_test, predicted, average="macro")
    return {"seconds": seconds, "macro-F1": float(f1), "c": list(search.best_params_.values())}


def one_fold(shape: Shape, regression: LogisticRegression, X: Array, codes: Array) -> dict[str, Any]:
    """What the whole would take, by some classes of one fold.

    All classes come with every C in five folds, and with one C on 5/4 of the examples. For that C the mean is taken.
    """
    start = time.perf_counter()
    for c in CS:
        for label in range(shape.timed_classes or 0):
            regression.set_params(C=c).fit(X, codes == label)
    seconds = time.perf_counter() - start
    whole = seconds * shape.classes / (shape.timed_classes or 1) * (5 + 5 / 4 / len(CS))
    return {"seconds": whole, "timed": f"{seconds:.0f} s for {shape.timed_classes} classes in 1 of 5 folds"}


def measured(shape: Shape, way: str) -> dict[str, Any]:
    """What a way took, as seen by the process that this runs in. A fit that does not converge is an error."""
    warnings.simplefilter("error", ConvergenceWarning)
    X, codes = made(shape)
    told = ours(shape, X, codes, way) if way in ("paper", "strict") else published(shape, X, codes, way)
    return told | {"peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20}


def apart(shape: Shape, way: str) -> dict[str, Any]:
    """The same in a process of its own; the median of a few where it is fast."""
    rounds: list[dict[str, Any]] = []
    while not rounds or (len(rounds) < ROUNDS and rounds[0]["seconds"] < FAST):
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            rounds.append(pool.submit(measured, shape, way).result())
    return rounds[0] | {"seconds": statistics.median(told["seconds"] for told in rounds)}


# --- the table -----------------------------------------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--dtype", choices=["float32", "float64"], default="float64", help="of the dense matrix")
    parser.add_argument("--threads", type=int, default=1, help="of linear algebra; a probe job of a study has one")
    given = parser.parse_args()
    # For the processes that measure, which start anew.
    os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = str(given.threads)
    print(f"Load at the start: {os.getloadavg()[0]:.1f}.\n")
    print(
        "| shape | way | seconds | ratio to paper | GB at most | macro-F1 | C | timed |\n|---|---|---|---|---|---|---|---|"
    )
    papers = {}
    for name in given.shapes:
        shape = SHAPES[name]
        papers[name] = paper = apart(shape, "paper")
        print(row(shape, "paper", paper, paper), flush=True)
        for way in [*([given.dtype] if shape.dense else []), "strict"]:
            print(row(shape, way, apart(shape, way), paper), flush=True)
    if {"16k", "1M"} <= papers.keys():
        ratio = papers["1M"]["seconds"] / papers["16k"]["seconds"]
        print(f"\nThe same non-zeros in 1M columns and not in 16k: {ratio:.2f} times the seconds (paper).")


def row(shape: Shape, way: str, told: dict[str, Any], paper: dict[str, Any]) -> str:
    named = way if way in ("paper", "strict") else f"published, {way}"
    f1 = f"{told['macro-F1']:.4f}" if "macro-F1" in told else ""
    cs = " ".join(f"{c:g}" for c in told.get("c", []))
    ratio, timed = told["seconds"] / paper["seconds"], told.get("timed", "all")
    return f"| {shape} | {named} | {told['seconds']:.2f} | {ratio:.1f} | {told['peak']:.1f} | {f1} | {cs} | {timed} |"


if __name__ == "__main__":
    main()
