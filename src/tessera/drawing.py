"""Drawing part of a table: fewer examples, the same proportions.

The draw is stratified by label and subset. Each stratum gets its share of the total by the method of largest
remainders, and every class at least two members, without which it could not be split. Examples that belong together
(the translations of one sentence) are drawn together or not at all, so with groups the total is an upper limit, and so
is each share.

Order comes from hashing each example's content with the seed, and not from a random permutation of the rows: the same
examples are drawn however the table is sorted, and a larger draw mostly contains a smaller one.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.int64]

MEMBERS = 2  # of each class, at least: one to train on and one to test on


def digest(parts: Sequence[bytes], seed: int) -> bytes:
    """A pseudo-random number that belongs to some content and the seed."""
    hashed = hashlib.blake2b(digest_size=16, person=b"draw", salt=(seed % 2**128).to_bytes(16, "little"))
    for part in parts:
        hashed.update(len(part).to_bytes(8, "little") + part)
    return hashed.digest()


def draw(
    labels: Integers, subsets: Integers, units: Integers, contents: Sequence[bytes], *, total: int, seed: int
) -> npt.NDArray[np.bool_]:
    """Which rows are drawn, in whole `units`. Every class must have two members, and `total` be room for two of each.

    More than `total` rows are drawn only where whole units leave no other way to give each class two members.
    """
    by_label: dict[int, list[list[int]]] = {}
    ordered = _members(units, contents, seed)
    for unit in ordered:
        for label in set(labels[unit].tolist()):
            by_label.setdefault(label, []).append(unit)
    drawn = _Drawn(labels, *_quotas(labels, subsets, total, seed))
    # The rarest class first, because it has the fewest units to choose from.
    for label in sorted(by_label, key=lambda label: (len(by_label[label]), label)):
        drawn.take_until_two(label, [unit for unit in by_label[label] if drawn.fits(unit)])
        drawn.take_until_two(label, sorted(by_label[label], key=len))
    for unit in ordered:
        if drawn.rows + len(unit) <= total and drawn.fits(unit):
            drawn.take(unit)
    return drawn.chosen


class _Drawn:
    """What is drawn so far, and how much of each stratum's share is left."""

    def __init__(self, labels: Integers, strata: Integers, quotas: Integers) -> None:
        self.chosen = np.zeros(len(labels), dtype=bool)
        self.rows = 0
        self.members: Counter[int] = Counter()
        self._labels, self._strata, self._left = labels.tolist(), strata.tolist(), quotas.tolist()

    def fits(self, unit: list[int]) -> bool:
        needs = Counter(self._strata[row] for row in unit)
        return not self.chosen[unit[0]] and all(self._left[stratum] >= need for stratum, need in needs.items())

    def take(self, unit: list[int]) -> None:
        self.chosen[unit] = True
        self.rows += len(unit)
        for row in unit:
            self.members[self._labels[row]] += 1
            self._left[self._strata[row]] -= 1

    def take_until_two(self, label: int, units: list[list[int]]) -> None:
        for unit in units:
            if self.members[label] >= MEMBERS:
                return
            if not self.chosen[unit[0]]:
                self.take(unit)


def _members(units: Integers, contents: Sequence[bytes], seed: int) -> list[list[int]]:
    """The rows of each unit, units in the order that the seed gives them."""
    rows = np.argsort(units, kind="stable")
    bounds = np.flatnonzero(np.diff(units[rows], prepend=units[rows[0]] - 1, append=units[rows[-1]] + 1))
    members = [rows[start:end].tolist() for start, end in pairwise(bounds)]
    return sorted(members, key=lambda unit: digest(sorted(contents[row] for row in unit), seed))


def _quotas(labels: Integers, subsets: Integers, total: int, seed: int) -> tuple[Integers, Integers]:
    """The stratum of each row, and the share of each stratum: shares of the classes first, then within each class."""
    n_subsets = int(subsets.max()) + 1
    pairs, strata, sizes = np.unique(labels * n_subsets + subsets, return_inverse=True, return_counts=True)
    classes, class_sizes = np.unique(labels, return_counts=True)
    class_quotas = shares(class_sizes, total, MEMBERS, [f"{label}" for label in classes], seed)
    quotas = np.zeros(len(sizes), dtype=np.int64)
    for label, quota in zip(classes, class_quotas, strict=True):
        inside = np.flatnonzero(pairs // n_subsets == label)
        names = [f"{label} {subset}" for subset in pairs[inside] % n_subsets]
        quotas[inside] = shares(sizes[inside], int(quota), 0, names, seed)
    return strata, quotas


def shares(sizes: Integers, total: int, least: int, names: Sequence[str], seed: int) -> Integers:
    """`total` divided in proportion to `sizes`, in whole numbers, none below `least`.

    Equal remainders are served in the order of a hash of the name: in a fixed order, the same few subsets would win in
    every class.
    """
    raised = np.zeros(len(sizes), dtype=bool)
    while True:
        rest, whole = total - least * int(raised.sum()), int(sizes[~raised].sum())
        below = ~raised & (rest * sizes < least * whole)
        if not below.any():
            break
        raised |= below
    result = np.where(raised, least, rest * sizes // whole)
    remainders = np.where(raised, -1, rest * sizes % whole)
    order = sorted(range(len(sizes)), key=lambda i: (-remainders[i], digest([names[i].encode()], seed)))
    result[order[: total - int(result.sum())]] += 1
    return result
