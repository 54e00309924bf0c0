"""Splits: which examples train, which test, and the inner folds that choose.

A split depends on labels, groups and seed alone, so that all arms of a dataset share it. A label that a classifier could
not be fitted to, or not be scored on, makes a split with a problem: the reason that its cells then show.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

PAPER_SEED, PAPER_TEST_SIZE, PAPER_FOLDS = 42, 0.2, 5
TEST, UNUSED = -1, -2


@dataclass(frozen=True)
class Split:
    """The inner fold of each training example, `TEST` for those of the test part, `UNUSED` for those of neither.

    Or why there is no such split.
    """

    seed: int
    folds: Array
    problem: str = ""

    @property
    def train(self) -> Array:
        return self.folds >= 0

    @property
    def test(self) -> Array:
        return self.folds == TEST

    def inner(self) -> Iterator[tuple[Array, Array]]:
        """For each inner fold, the examples to fit and those to score."""
        for fold in range(int(self.folds.max()) + 1):
            yield self.train & (self.folds != fold), self.folds == fold


def checked(split: Split, codes: Array) -> Split:
    """The split, or the first reason why a classifier could not be fitted and scored on it."""
    n_classes = int(codes.max()) + 1
    if n_classes < 2:
        return replace(split, problem="there is only one label")
    parts = [("the training part", split.train), ("the test part", split.test)]
    parts += [(f"the training part less inner fold {fold}", fit) for fold, (fit, _) in enumerate(split.inner())]
    for name, part in parts:
        missing = n_classes - np.count_nonzero(np.bincount(codes[part], minlength=n_classes))
        if missing:
            labels = "a label" if missing == 1 else f"{missing} labels"
            return replace(split, problem=f"{labels} with too few examples or groups: none in {name}")
    return split


def paper_splits(codes: Array, groups: Array) -> list[Split]:
    """The split and folds of scikit-learn's `train_test_split` and `StratifiedKFold`, draw by draw; groups do not count."""
    counts = np.bincount(codes)
    nowhere = Split(PAPER_SEED, np.full(len(codes), TEST))
    if counts.min() < 2 or np.ceil(PAPER_TEST_SIZE * len(codes)) < len(counts):
        return [replace(nowhere, problem="a label has a single example, or the test part fewer examples than labels")]
    train = _stratified_train(codes, PAPER_TEST_SIZE, np.random.RandomState(PAPER_SEED))
    smallest = int(np.bincount(codes[train], minlength=len(counts)).min())
    if smallest < PAPER_FOLDS:
        problem = f"a label has {smallest} training examples, too few for {PAPER_FOLDS} folds"
        return [replace(nowhere, problem=problem)]
    folds = nowhere.folds.copy()
    folds[train] = _stratified_folds(codes[train], PAPER_FOLDS)
    return [checked(Split(PAPER_SEED, folds), codes)]


def _stratified_train(codes: Array, test_size: float, random: np.random.RandomState) -> Array:
    """The rows of the training part in the order in which scikit-learn returns them, on which its folds depend."""
    counts = np.bincount(codes)
    n_test = int(np.ceil(test_size * len(codes)))
    n_train = len(codes) - n_test
    per_label = _proportional(counts, n_train, random)
    # Its ties are drawn, so the draws have to be made, though all that is not training is test.
    _proportional(counts - per_label, n_test, random)
    rows = np.split(np.argsort(codes, kind="stable"), np.cumsum(counts)[:-1])
    orders = [random.permutation(count) for count in counts]
    chosen = [row[order[:size]] for row, order, size in zip(rows, orders, per_label, strict=True)]
    return random.permutation(np.concatenate(chosen))


def _proportional(counts: Array, draws: int, random: np.random.RandomState) -> Array:
    """How many to take of each label: in proportion, rounded down, the rest by largest remainder, ties by lot."""
    exact = counts / counts.sum() * draws
    taken = np.floor(exact).astype(np.intp)
    remainders = exact - taken
    for remainder in np.unique(remainders)[::-1]:
        short = draws - int(taken.sum())
        if short <= 0:
            break
        tied = np.flatnonzero(remainders == remainder)
        taken[random.choice(tied, size=min(len(tied), short), replace=False)] += 1
    return taken


def _stratified_folds(codes: Array, n_folds: int) -> Array:
    """The fold of each row: labels in the order of their first row, dealt round; a label's rows in blocks."""
    _, first, ranks = np.unique(codes, return_index=True, return_inverse=True)
    ranks = np.argsort(np.argsort(first))[ranks]
    dealt = np.sort(ranks)
    folds = np.empty(len(codes), np.intp)
    for label in range(len(first)):
        sizes = [np.count_nonzero(dealt[fold::n_folds] == label) for fold in range(n_folds)]
        folds[ranks == label] = np.repeat(np.arange(n_folds), sizes)
    return folds


def strict_splits(codes: Array, groups: Array, *, seeds: int, test_size: float, inner_folds: int) -> list[Split]:
    """One split per seed. Groups stay whole, and labels keep their proportions as well as groups allow."""
    splits = []
    for seed in range(seeds):
        random = np.random.default_rng(seed)
        train = deal(codes, groups, [1 - test_size, test_size], random) == 0
        folds = np.full(len(codes), TEST)
        folds[train] = deal(codes[train], groups[train], [1 / inner_folds] * inner_folds, random)
        splits.append(checked(Split(seed, folds), codes))
    return splits


def deal(codes: Array, groups: Array, shares: Sequence[float], random: np.random.Generator) -> Array:
    """The part of each example, when groups are dealt whole to parts of the given shares.

    Groups come from large to small, equal ones by lot. Each goes to the part where it leaves the least deviation from
    every part's share of what has been dealt of each label, labels weighing the same however rare they are.
    """
    names, group_of = np.unique(groups, return_inverse=True)
    n_classes = int(codes.max(initial=0)) + 1
    pairs, amounts = np.unique(group_of * n_classes + codes, return_counts=True)
    contents: list[list[tuple[int, int]]] = [[] for _ in names]
    for pair, amount in zip(pairs.tolist(), amounts.tolist(), strict=True):
        contents[pair // n_classes].append((pair % n_classes, amount))
    order = random.permutation(len(names))
    order = order[np.argsort(-np.bincount(group_of, minlength=len(names))[order], kind="stable")]
    weights = 1 / np.maximum(np.bincount(codes, minlength=n_classes), 1)
    dealt = [[0.0] * len(shares) for _ in range(n_classes)]
    so_far = [0] * n_classes
    part_of = np.empty(len(names), np.intp)
    for group in order.tolist():
        costs = [0.0] * len(shares)
        for label, amount in contents[group]:
            so_far[label] += amount
            for part, share in enumerate(shares):
                surplus = dealt[label][part] - share * so_far[label]
                costs[part] += amount * (2 * surplus + amount) * weights[label] / share
        part_of[group] = chosen = costs.index(min(costs))
        for label, amount in contents[group]:
            dealt[label][chosen] += amount
    return part_of[group_of]
