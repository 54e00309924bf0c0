"""Who is trained on what and tested on what: the rows and columns of a matrix, before any feature is read.

A matrix has sources (what is trained on) and targets (what is tested on): languages, datasets, images and their names. All
examples are dealt into folds, whole groups at a time, and every cell is cross-validated over the same folds: what is tested
was trained without its fold, so neither an example nor a copy or translation of it is on both sides. A cell on the diagonal
is thereby the in-domain score of its column, on the very examples that the rest of the column is tested on.

A cell says what its source is worth, and not how large it is: every source trains on the same number of examples, in the
proportions of its own labels. Which ones is decided by a common order of the groups, so that of parallel texts every language
trains on the same meanings, and a smaller share of the training size is part of the larger one.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from tessera.splits import TEST, UNUSED, Split, deal

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Source:
    """What a row of a matrix is trained on: some examples, and which targets it is for, each with the word for such training.

    One with a `problem` trains nothing; its cells say why.
    """

    name: str
    rows: Array
    to: Mapping[str, str]
    problem: str = ""


@dataclass(frozen=True)
class Arrangement:
    """All examples of a matrix, one after the other: their labels and groups, and what sources and targets are of them."""

    labels: Array
    groups: Array
    sources: Sequence[Source]
    targets: Mapping[str, Array]
    folds: int
    inner_folds: int
    shares: Sequence[float] = (1.0,)
    equal: bool = True

    @cached_property
    def names(self) -> list[str]:
        return sorted(set(self.labels.tolist()))

    @cached_property
    def codes(self) -> Array:
        place = {name: code for code, name in enumerate(self.names)}
        return np.array([place[label] for label in self.labels.tolist()], np.intp)

    @cached_property
    def fold(self) -> Array:
        """The fold of each example: labels of every target and source are spread evenly over them."""
        members = np.stack([*(source.rows for source in self.sources), *self.targets.values()], axis=1)
        kind = np.unique(members, axis=0, return_inverse=True)[1].ravel()
        strata = np.unique(kind * len(self.names) + self.codes, return_inverse=True)[1]
        return deal(strata, self.groups, [1 / self.folds] * self.folds, np.random.default_rng(0))

    def labels_of(self, rows: Array) -> list[int]:
        """The codes of the labels that occur in some examples."""
        return np.unique(self.codes[rows]).tolist()

    def problem(self, source: Source) -> str:
        """Why nothing can be trained on a source; empty if it can."""
        if source.problem:
            return source.problem
        if not source.rows.any():
            return "it has no examples"
        counts = np.bincount(self.codes[source.rows], minlength=len(self.names))
        if np.count_nonzero(counts) < 2:
            return f"all its examples are '{self.names[int(counts.argmax())]}'"
        rest = [self.codes[source.rows & (self.fold != fold)] for fold in range(self.folds)]
        least = np.min([np.bincount(codes, minlength=len(self.names)) for codes in rest], axis=0)
        short = [code for code in np.flatnonzero(counts) if least[code] < self.inner_folds]
        if short:
            few, name = int(least[short[0]]), self.names[int(short[0])]
            return f"'{name}' has {few} training examples in one of the folds, and {self.inner_folds} are needed"
        return ""

    def mismatch(self, source: Source, target: str) -> str:
        """Why a classifier trained on a source cannot be tested on a target; empty if it can."""
        if not self.targets[target].any():
            return f"'{target}' has no examples"
        unknown = set(self.labels_of(self.targets[target])) - set(self.labels_of(source.rows))
        if not unknown:
            return ""
        named = ", ".join(f"'{self.names[code]}'" for code in sorted(unknown)[:3])
        more = f" and {len(unknown) - 3} more" if len(unknown) > 3 else ""
        return f"'{target}' has labels that '{source.name}' lacks: {named}{more}"

    @cached_property
    def size(self) -> dict[str, int]:
        """How many examples each source trains on."""
        sizes = {
            source.name: min(int((source.rows & (self.fold != fold)).sum()) for fold in range(self.folds))
            for source in self.sources
            if not self.problem(source)
        }
        return dict.fromkeys(sizes, min(sizes.values())) if self.equal and sizes else sizes

    def splits(self, source: Source) -> Iterator[tuple[float, Split]]:
        """For each share and fold what is trained on and what is tested; the test part is that of all targets of the source."""
        tested = np.any([self.targets[target] for target in source.to], axis=0)
        for share in self.shares:
            for fold in range(self.folds):
                yield share, self._split(source, share, fold, tested)

    def _split(self, source: Source, share: float, fold: int, tested: Array) -> Split:
        chosen = self._sample(source, fold, round(share * self.size[source.name]))
        folds = np.full(len(self.codes), UNUSED)
        folds[tested & (self.fold == fold)] = TEST
        chance = np.random.default_rng([fold, 1])
        folds[chosen] = deal(self.codes[chosen], self.groups[chosen], [1 / self.inner_folds] * self.inner_folds, chance)
        # Seeds count from 1, since the probe keeps the models of the split with seed 0.
        split = Split(fold + 1, folds)
        wanted = self.labels_of(source.rows)
        for number, (fit, _) in enumerate(split.inner()):
            if missing := len(set(wanted) - set(self.labels_of(fit))):
                labels = "a label" if missing == 1 else f"{missing} labels"
                problem = (
                    f"{labels} with too few examples or groups: none in the training part less inner fold {number}"
                )
                return Split(fold + 1, folds, problem)
        return split

    def _sample(self, source: Source, fold: int, size: int) -> Array:
        """The rows to train on: of each label the first ones in the order of the groups that all sources share."""
        rows = np.flatnonzero(source.rows & (self.fold != fold))
        names, group = np.unique(self.groups, return_inverse=True)
        rank = np.random.default_rng([fold, 0]).permutation(len(names))[group]
        rows = rows[np.argsort(rank[rows], kind="stable")]
        counts = np.bincount(self.codes[rows], minlength=len(self.names))
        kept = [rows[self.codes[rows] == code][:quota] for code, quota in enumerate(quotas(counts, size))]
        return np.sort(np.concatenate(kept))


def quotas(counts: Array, size: int) -> list[int]:
    """How many to take of each label so that there are `size`: in proportion, the rest by largest remainder."""
    exact = counts / counts.sum() * size
    taken = np.floor(exact).astype(np.intp)
    rest = np.argsort(taken - exact, kind="stable")
    taken[rest[: size - int(taken.sum())]] += 1
    return np.minimum(taken, counts).tolist()
