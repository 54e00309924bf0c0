"""Arms: kinds of classifier input, each with its features, its scaling and its classifier.

A protocol must be able to treat all arms alike, and must never let a test example influence features. So an arm is asked
for the features of the whole dataset as fitted to a training part, and says whether they depend on that part at all.
Features that a model computed do not; a vocabulary and its document frequencies do.

What one text contains is a fact about that text alone, so it is counted once; fitting TF-IDF to a training part is then
a choice of columns and a weight for each.
"""

import re
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import Any, Literal, Protocol, TypeGuard, cast

import numpy as np
import numpy.typing as npt
from scipy import sparse

from tessera.attention import Attended, States
from tessera.errors import UserError
from tessera.examples import Table
from tessera.regimes import FULL, Regime, all_of
from tessera.solvers import SCALINGS, Matrix, Scaling

Array = npt.NDArray[Any]

Classifier = Literal["l2", "l1", "tree", "means", "majority"]


class Arm(Protocol):
    """What a protocol needs to know of a classifier input."""

    @property
    def classifier(self) -> Classifier: ...

    @property
    def scalings(self) -> Sequence[Scaling]:
        """The ways to scale its features that a protocol may choose from."""

    @property
    def fitted(self) -> bool:
        """Whether features depend on the training part."""

    def features(self, train: Array) -> Matrix:
        """Features of every example of the dataset, fitted to the examples that `train` marks if the arm is `fitted`."""


@dataclass(frozen=True)
class Given:
    """Features that are there already: pooled SAE features or hidden states."""

    X: Matrix
    classifier: Classifier = "l2"
    scalings: Sequence[Scaling] = SCALINGS
    fitted: bool = False

    def features(self, train: Array) -> Matrix:
        return self.X


def given(X: Matrix, threshold: float | None) -> Given:
    """An arm of features as they are, or of which of them reach a threshold."""
    if threshold is None:
        return Given(X)
    if isinstance(X, np.ndarray):
        return Given(np.where(threshold > X, np.float32(0), np.float32(1)))
    reached = X.copy()
    reached.data = np.where(X.data < threshold, np.float32(0), np.float32(1))
    reached.eliminate_zeros()
    return Given(reached)


@dataclass(frozen=True)
class TfIdf:
    """Terms weighted by 1 + ln(count) and by rarity in the training part, each text scaled to unit length.

    A term must occur in `least` training texts. The weights are those of scikit-learn's `TfidfVectorizer` with sublinear
    counts. Rarity is a scaling already, and one that serves: giving rare terms the variance of common ones costs dearly.
    """

    counts: sparse.csr_matrix
    least: int
    classifier: Classifier = "l2"
    scalings: Sequence[Scaling] = ("all alike",)
    fitted: bool = True

    def fit(self, train: Array) -> tuple[Array, Array]:
        """The columns of the terms that occur often enough in the training part, and how rare each is there."""
        texts_with = np.bincount(self.counts[train].indices, minlength=self.counts.shape[1])
        kept = np.flatnonzero(texts_with >= self.least)
        return kept, np.log((1 + train.sum()) / (1 + texts_with[kept])) + 1

    def features(self, train: Array) -> Matrix:
        kept, rarity = self.fit(train)
        return weighed(self.counts[:, kept], rarity)


def weighed(counts: sparse.csr_matrix, rarity: Array) -> sparse.csr_matrix:
    """Terms by their counts and their rarity, each text scaled to unit length."""
    X = counts.copy()
    X.data = (1 + np.log(X.data)) * rarity[X.indices]
    lengths = np.sqrt(np.asarray(X.multiply(X).sum(axis=1)).ravel())
    X.data /= np.repeat(np.where(lengths > 0, lengths, 1), np.diff(X.indptr))
    return X


@dataclass(frozen=True)
class Nothing:
    """No features at all: what the shares of the labels alone are worth."""

    examples: int
    classifier: Classifier = "majority"
    scalings: Sequence[Scaling] = ("all alike",)
    fitted: bool = False

    def features(self, train: Array) -> Matrix:
        return np.empty((self.examples, 0), np.float32)


class Ranking:
    """The features of a training part, the most telling first, for any labels.

    A feature is worth the distance between the mean of a class and that of the rest, in standard deviations, for the class
    where that is largest. All numbers of features that are asked for are cut from one order, kept per training part.
    """

    def __init__(self, X: Matrix, codes: Array, n_classes: int, most: int):
        self.X, self.codes, self.n_classes, self.most = X, codes, n_classes, most
        self.orders: dict[bytes, Array] = {}

    def best(self, train: Array, k: int) -> Array:
        """The k features that are worth most on the training part; of equal ones the first."""
        key = np.packbits(train).tobytes()
        if key not in self.orders:
            worth = self._worth(train)
            self.orders[key] = np.argsort(-worth, kind="stable")[: self.most]
        return self.orders[key][:k]

    def _worth(self, train: Array) -> Array:
        rows: Any = self.X[train]
        codes = self.codes[train]
        counts = np.bincount(codes, minlength=self.n_classes)
        member = sparse.csr_matrix((np.ones(len(codes)), (codes, np.arange(len(codes)))), (self.n_classes, len(codes)))
        sums = np.asarray((member @ rows).todense() if sparse.issparse(rows) else member @ rows.astype(np.float64))
        total = sums.sum(axis=0)
        square = (
            rows.multiply(rows).sum(axis=0) if sparse.issparse(rows) else np.square(rows, dtype=np.float64).sum(axis=0)
        )
        spread = np.sqrt(np.maximum(np.asarray(square).ravel() / len(codes) - (total / len(codes)) ** 2, 0))
        present = (counts > 0) & (counts < len(codes))
        of_class = sums[present] / counts[present, None]
        of_rest = (total - sums[present]) / (len(codes) - counts[present, None])
        distance = np.abs(of_class - of_rest).max(axis=0, initial=0)
        return np.divide(distance, spread, out=np.zeros(len(distance)), where=spread > 0)


@dataclass(frozen=True)
class KSparse:
    """The k features that tell the labels of the training part best."""

    ranking: Ranking
    k: int
    classifier: Classifier = "l2"
    scalings: Sequence[Scaling] = ("each feature",)
    fitted: bool = True

    def features(self, train: Array) -> Matrix:
        chosen: Any = self.ranking.X[:, np.sort(self.ranking.best(train, self.k))]
        return cast(Array, chosen.toarray() if sparse.issparse(chosen) else chosen)


class Components:
    """The principal directions of a training part, kept per training part, for any number of them."""

    def __init__(self, X: Array, most: int):
        self.X, self.most = X.astype(np.float64), most
        self.known: dict[bytes, tuple[Array, Array]] = {}

    def project(self, train: Array, k: int) -> Array:
        key = np.packbits(train).tobytes()
        if key not in self.known:
            mean = self.X[train].mean(axis=0)
            _, _, directions = np.linalg.svd(self.X[train] - mean, full_matrices=False)
            self.known[key] = mean, directions[: self.most]
        mean, directions = self.known[key]
        return ((self.X - mean) @ directions[:k].T).astype(np.float32)


@dataclass(frozen=True)
class Pca:
    """The first k principal components of the training part. They keep their proportions: scaling would undo them."""

    components: Components
    k: int
    classifier: Classifier = "l2"
    scalings: Sequence[Scaling] = ("all alike",)
    fitted: bool = True

    def features(self, train: Array) -> Matrix:
        return self.components.project(train, self.k)


@dataclass(frozen=True)
class Means:
    """How far an example lies along each class's difference of means: one direction for two classes.

    The directions are all that is learned from the features; a regression on so few numbers sets the cuts between them.
    """

    X: Matrix
    codes: Array
    n_classes: int
    classifier: Classifier = "means"
    scalings: Sequence[Scaling] = ("each feature",)
    fitted: bool = True

    def features(self, train: Array) -> Matrix:
        codes = self.codes[train]
        weights = np.zeros((self.n_classes, len(codes)))
        for label in range(self.n_classes):
            inside = codes == label
            weights[label] = inside / max(1, inside.sum()) - ~inside / max(1, (~inside).sum())
        directions = np.asarray(weights @ self.X[train])
        return np.asarray(self.X @ directions[1 if self.n_classes == 2 else 0 :].T, dtype=np.float32)


@dataclass(frozen=True)
class Length:
    """How long a text is, in characters and in words, and nothing of what it says."""

    texts: list[str]
    classifier: Classifier = "l2"
    scalings: Sequence[Scaling] = ("each feature",)
    fitted: bool = False

    def features(self, train: Array) -> Matrix:
        sizes = np.array([(len(text), len(text.split())) for text in self.texts], dtype=np.float32)
        return np.hstack([sizes, np.log1p(sizes)])


# --- variants ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Variant:
    """One way to probe an input: what is made of its features, under which condition, and what tables call it.

    A `penalty` is that of `l1`. Each is a configuration of its own, so that all of them together are its path.
    """

    arm: str
    classifier: Classifier
    threshold: float | None
    k: int | None
    regime: Regime
    make: Callable[[Array], Arm]
    penalty: float | None = None

    @property
    def competes(self) -> bool:
        """Whether it is a configuration that an arm may choose, and not a point of a curve."""
        return self.k is None and self.regime.name == FULL


def _always(arm: Arm) -> Callable[[Array], Arm]:
    """What makes an arm that does not depend on the labels."""
    return lambda codes: arm


def is_arm(features: Matrix | Arm | States) -> TypeGuard[Arm]:
    return not isinstance(features, (np.ndarray, States)) and not sparse.issparse(features)


def variants(
    features: Matrix | Arm | States, arm: str, n_classes: int, search: Mapping[str, Any], *, curves: bool
) -> Iterator[Variant]:
    """Every variant of an input that `search` asks for; the points of curves and the path of L1 only with `curves`.

    Thresholds are for given features alone. Curves and paths are about the features as they are, not made binary.
    """
    full, *others = all_of(search["regimes"])
    if isinstance(features, States) or is_arm(features):
        make, classifier = _made(features, n_classes)
        for regime in [full, *(others if curves and classifier != "majority" else [])]:
            yield Variant(arm, classifier, None, None, regime, make)
        return
    X = cast(Matrix, features)
    for threshold in search["thresholds"]:
        for_threshold = given(X, threshold)
        for classifier in search["classifiers"]:
            if classifier == "means":
                yield Variant(arm, "means", threshold, None, full, partial(Means, for_threshold.X, n_classes=n_classes))
            elif classifier != "l1":
                yield Variant(
                    arm, classifier, threshold, None, full, _always(replace(for_threshold, classifier=classifier))
                )
    if not curves:
        return
    for penalty in search["l1_penalties"] if "l1" in search["classifiers"] else []:
        yield Variant(arm, "l1", None, None, full, _always(Given(X, "l1")), penalty)
    yield from _sparse(X, arm, n_classes, search["sparse_k"], full)
    for regime in others:
        yield Variant(arm, "l2", None, None, regime, _always(Given(X)))


def _made(features: Arm | States, n_classes: int) -> tuple[Callable[[Array], Arm], Classifier]:
    """What makes the arm of an input that is more than a matrix, given the labels to learn from; and its classifier."""
    if isinstance(features, States):
        return partial(Attended, features, n_classes=n_classes), "l2"
    return _always(features), features.classifier


def _sparse(X: Matrix, arm: str, n_classes: int, ks: Sequence[int], full: Regime) -> Iterator[Variant]:
    """Few numbers an example: the best k features of an SAE, or the first k principal components of hidden states."""
    if not ks:
        return
    if isinstance(X, np.ndarray):
        components = Components(X, max(ks))
        for k in ks:
            if k <= X.shape[1]:
                yield Variant("pca", "l2", None, k, full, _always(Pca(components, k)))
        return
    known: list[Ranking] = []

    def best(k: int, codes: Array) -> KSparse:
        if not known:
            known.append(Ranking(X, codes, n_classes, max(ks)))
        return KSparse(known[0], k)

    for k in ks:
        if k <= X.shape[1]:
            yield Variant(arm, "l2", None, k, full, partial(best, k))


# --- text ----------------------------------------------------------------------------------------------------------


def on_text(name: str, table: Table) -> Arm:
    """The text arm of that name. To it, an image is a text without words."""
    if name not in TEXT_ARMS:
        raise UserError("probes.text", f"'{name}' is not a text arm", f"use {', '.join(sorted(TEXT_ARMS))}")
    return TEXT_ARMS[name](table.texts or [""] * len(table))


TEXT_ARMS: dict[str, Callable[[list[str]], Arm]] = {
    "tfidf-word": lambda texts: TfIdf(count(texts, words), least=1),
    "tfidf-char": lambda texts: TfIdf(count(texts, characters), least=2),
    "length": Length,
    "majority": lambda texts: Nothing(len(texts)),
}

WORD = re.compile(r"\b\w\w+\b")
SHORTEST, LONGEST = 2, 5
PART = 4096


def words(text: str) -> Iterable[tuple[str, ...]]:
    """The terms of each word of a text: words of two letters or more are their own."""
    return ((word,) for word in WORD.findall(text.lower()))


def characters(text: str) -> Iterable[tuple[str, ...]]:
    """The terms of each word of a text: the runs of two to five characters in it, with a space on either side.

    A word of thousands of characters comes in parts, because all its runs together take a hundred times its room.
    """
    words = text.lower().split()
    return map(_runs, words) if max(map(len, words), default=0) <= PART else chain.from_iterable(map(_parts, words))


def _runs(word: str) -> tuple[str, ...]:
    padded = f" {word} "
    sizes = range(SHORTEST, min(LONGEST, len(padded)) + 1)
    return tuple(padded[start : start + size] for size in sizes for start in range(len(padded) - size + 1))


def _parts(word: str) -> Iterator[tuple[str, ...]]:
    """The runs of a word in the same order, some of them at a time."""
    padded = f" {word} "
    for size in range(SHORTEST, min(LONGEST, len(padded)) + 1):
        for first in range(0, len(padded) - size + 1, PART):
            starts = range(first, min(first + PART, len(padded) - size + 1))
            yield tuple(padded[start : start + size] for start in starts)


def count(texts: list[str], terms: Callable[[str], Iterable[tuple[str, ...]]]) -> sparse.csr_matrix:
    """How often each term occurs in each text. Columns come in the order in which terms first do."""
    columns: dict[str, int] = {}
    indices = array("i")
    ends = [0]
    for text in texts:
        for of_word in terms(text):
            indices.extend([columns.setdefault(term, len(columns)) for term in of_word])
        ends.append(len(indices))
    ones, places = np.ones(len(indices)), np.array(indices, np.int32)
    counts = sparse.csr_matrix((ones, places, np.array(ends)), shape=(len(texts), len(columns)))
    counts.sum_duplicates()
    return counts
