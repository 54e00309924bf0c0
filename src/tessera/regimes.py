"""Harder conditions for the training part: fewer examples, wrong labels, unequal classes, and labels that mean nothing.

A regime takes a split and gives the split and the labels that its probes are fitted to. The test part and its labels are
never touched, so scores of all regimes are about the same examples. What is drawn depends on the regime and the seed of
the split alone: all arms are given the same examples and the same wrong labels.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from tessera.splits import UNUSED, Split, checked, deal

Array = npt.NDArray[Any]

FULL = "full"

# No harder, but a task of its own: a subset of a dataset on which training and testing keep to themselves.
ALONE = "alone"

# A split, all labels as codes, groups and a source of chance -> the folds and the labels to train with.
Change = Callable[[Split, Array, Array, np.random.Generator], tuple[Array, Array]]


@dataclass(frozen=True)
class Regime:
    """A condition by its name in the tables."""

    name: str
    change: Change

    def apply(self, split: Split, codes: Array, groups: Array) -> tuple[Split, Array]:
        """The split to train on, with its reason if it cannot be fitted any more, and the labels to train with."""
        if split.problem:
            return split, codes
        chance = np.random.default_rng([split.seed, *self.name.encode()])
        folds, labels = self.change(split, codes, groups, chance)
        changed = checked(replace(split, folds=folds), np.where(split.test, codes, labels))
        return changed, np.where(split.test, codes, labels)


def all_of(settings: Mapping[str, Any]) -> list[Regime]:
    """The regimes that a config asks for, the unchanged one first."""
    found = [Regime(FULL, lambda split, codes, groups, chance: (split.folds, codes))]
    kinds: list[tuple[str, str, Callable[..., tuple[Array, Array]]]] = [
        ("train_shares", "train", fewer),
        ("label_noise", "noise", noisy),
        ("imbalance", "imbalance", unequal),
    ]
    for key, word, change in kinds:
        values: Sequence[float] = settings[key]
        found += [Regime(f"{word}-{value:g}", partial(change, value)) for value in values]
    return found + ([Regime("shuffled", shuffled)] if settings["shuffled"] else [])


def fewer(share: float, split: Split, codes: Array, groups: Array, chance: np.random.Generator) -> tuple[Array, Array]:
    """A share of the training part, in whole groups and with the proportions of its labels."""
    folds, train = split.folds.copy(), split.train
    dropped = deal(codes[train], groups[train], [share, 1 - share], chance) == 1
    folds[np.flatnonzero(train)[dropped]] = UNUSED
    return folds, codes


def noisy(share: float, split: Split, codes: Array, groups: Array, chance: np.random.Generator) -> tuple[Array, Array]:
    """A share of the training labels, each changed to one of the others."""
    labels, n_classes = codes.copy(), int(codes.max()) + 1
    rows = np.flatnonzero(split.train)
    wrong = chance.choice(rows, size=round(share * len(rows)), replace=False)
    labels[wrong] = (codes[wrong] + chance.integers(1, n_classes, len(wrong))) % n_classes
    return split.folds, labels


def unequal(
    ratio: float, split: Split, codes: Array, groups: Array, chance: np.random.Generator
) -> tuple[Array, Array]:
    """A training part whose labels go from frequent to rare in equal steps of ratio, `ratio` between the ends.

    Which label is frequent is drawn. The rarest keeps at least one example for each fold.
    """
    folds, n_classes = split.folds.copy(), int(codes.max()) + 1
    counts = np.bincount(codes[split.train], minlength=n_classes)
    steps = ratio ** -(np.arange(n_classes) / (n_classes - 1))
    wanted = np.empty(n_classes, np.intp)
    wanted[chance.permutation(n_classes)] = np.floor(counts.min() * steps)
    for label in range(n_classes):
        for fold in range(int(folds.max()) + 1):
            rows = np.flatnonzero((folds == fold) & (codes == label))
            keep = max(1, round(wanted[label] * len(rows) / counts[label]))
            folds[chance.permutation(rows)[keep:]] = UNUSED
    return folds, codes


def shuffled(split: Split, codes: Array, groups: Array, chance: np.random.Generator) -> tuple[Array, Array]:
    """Training labels dealt anew among the training examples: what is left to learn is nothing."""
    labels, train = codes.copy(), split.train
    labels[train] = chance.permutation(codes[train])
    return split.folds, labels
