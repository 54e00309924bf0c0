"""Arms: kinds of classifier input, each with its features, its scaling and its classifier.

A protocol must be able to treat all arms alike, and must never let a test example influence features. So an arm is asked
for the features of the whole dataset as fitted to a training part, and says whether they depend on that part at all.
Features that a model computed do not; a vocabulary and its document frequencies do.

What one text contains is a fact about that text alone, so it is counted once; fitting TF-IDF to a training part is then
a choice of columns and a weight for each.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
from scipy import sparse

from tessera.errors import UserError
from tessera.examples import Table
from tessera.solvers import Matrix, Scaling

Array = npt.NDArray[Any]

Classifier = Literal["l2", "majority"]


class Arm(Protocol):
    """What a protocol needs to know of a classifier input."""

    @property
    def classifier(self) -> Classifier: ...

    @property
    def scaling(self) -> Scaling: ...

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
    scaling: Scaling = "each feature"
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
    scaling: Scaling = "all alike"
    fitted: bool = True

    def features(self, train: Array) -> Matrix:
        texts_with = np.bincount(self.counts[train].indices, minlength=self.counts.shape[1])
        kept = np.flatnonzero(texts_with >= self.least)
        rarity = np.log((1 + train.sum()) / (1 + texts_with[kept])) + 1
        X = self.counts[:, kept]
        X.data = (1 + np.log(X.data)) * rarity[X.indices]
        lengths = np.sqrt(np.asarray(X.multiply(X).sum(axis=1)).ravel())
        X.data /= np.repeat(np.where(lengths > 0, lengths, 1), np.diff(X.indptr))
        return X


@dataclass(frozen=True)
class Nothing:
    """No features at all: what the shares of the labels alone are worth."""

    examples: int
    classifier: Classifier = "majority"
    scaling: Scaling = "all alike"
    fitted: bool = False

    def features(self, train: Array) -> Matrix:
        return np.empty((self.examples, 0), np.float32)


def on_text(name: str, table: Table) -> Arm:
    """The text arm of that name. To it, an image is a text without words."""
    if name not in TEXT_ARMS:
        raise UserError("probes.text", f"'{name}' is not a text arm", f"use {', '.join(sorted(TEXT_ARMS))}")
    return TEXT_ARMS[name](table.texts or [""] * len(table))


TEXT_ARMS: dict[str, Callable[[list[str]], Arm]] = {
    "tfidf-word": lambda texts: TfIdf(count(texts, words), least=1),
    "tfidf-char": lambda texts: TfIdf(count(texts, characters), least=2),
    "majority": lambda texts: Nothing(len(texts)),
}

WORD = re.compile(r"\b\w\w+\b")
SHORTEST, LONGEST = 2, 5


def words(text: str) -> Iterable[tuple[str, ...]]:
    """The terms of each word of a text: words of two letters or more are their own."""
    return ((word,) for word in WORD.findall(text.lower()))


def characters(text: str) -> Iterable[tuple[str, ...]]:
    """The terms of each word of a text: the runs of two to five characters in it, with a space on either side."""
    return map(_runs, text.lower().split())


def _runs(word: str) -> tuple[str, ...]:
    padded = f" {word} "
    sizes = range(SHORTEST, min(LONGEST, len(padded)) + 1)
    return tuple(padded[start : start + size] for size in sizes for start in range(len(padded) - size + 1))


def count(texts: list[str], terms: Callable[[str], Iterable[tuple[str, ...]]]) -> sparse.csr_matrix:
    """How often each term occurs in each text. Columns come in the order in which terms first do."""
    columns: dict[str, int] = {}
    indices: list[int] = []
    ends = [0]
    for text in texts:
        for of_word in terms(text):
            indices += [columns.setdefault(term, len(columns)) for term in of_word]
        ends.append(len(indices))
    ones = np.ones(len(indices))
    counts = sparse.csr_matrix((ones, np.array(indices, np.int32), np.array(ends)), shape=(len(texts), len(columns)))
    counts.sum_duplicates()
    return counts
