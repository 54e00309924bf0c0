"""What a probe weighs, how strongly, and whether other splits agree.

The configuration is fitted again on the training part of every split. A feature's strength in a split is the largest size
of its weights over the labels times the standard deviation of what is weighed there: how far the score of some label moves
when the feature moves as far as it usually does. Weights alone would put rare and small features first.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit

from tessera.solvers import Matrix, Model, moments
from tessera.splits import Split
from tessera.statistics import LEVEL

Array = npt.NDArray[Any]

# A feature is stable in a split if it is among this many strongest there.
TOP = 20
# Labels shown of a feature: so many, and none whose weight is a smaller share of the largest.
LABELS, LEAST_SHARE = 5, 0.25


@dataclass(frozen=True)
class Weighed:
    """The weights of a configuration, splits x rows x features, and the strengths, splits x features."""

    weights: Array
    strengths: Array
    # By how much overlapping training parts make splits agree too well: test examples for each training example.
    overlap: float
    top: int

    @property
    def strength(self) -> Array:
        return np.asarray(self.strengths.mean(axis=0))

    def strongest(self, most: int) -> Array:
        """The features that weigh anything, the strongest first; of equal ones the first."""
        order = np.argsort(-self.strength, kind="stable")[:most]
        return order[self.strength[order] > 0]

    def stability(self) -> Array:
        """The share of splits in which each feature is among the `top` strongest."""
        among = np.zeros(self.strengths.shape, bool)
        for split, strengths in enumerate(self.strengths):
            order = np.argsort(-strengths, kind="stable")[: self.top]
            among[split, order[strengths[order] > 0]] = True
        return np.asarray(among.mean(axis=0))

    def labels(self, feature: int) -> list[tuple[int, float, float | None, float | None]]:
        """Label, mean weight and its interval, for the labels that a feature matters to; the largest first."""
        weights = self.weights[:, :, feature]
        if weights.shape[1] == 1:
            return [(1, *self._interval(weights[:, 0]))]
        sizes = np.abs(weights.mean(axis=0))
        order = np.argsort(-sizes, kind="stable")[:LABELS]
        kept = order[sizes[order] >= LEAST_SHARE * sizes.max()]
        return [(int(label), *self._interval(weights[:, label])) for label in kept]

    def same_sign(self, feature: int) -> float:
        """The share of splits in which the main weight has the sign of its mean."""
        label, mean, _, _ = self.labels(feature)[0]
        row = label if self.weights.shape[1] > 1 else 0
        return float((np.sign(self.weights[:, row, feature]) == np.sign(mean)).mean())

    def _interval(self, weights: Array) -> tuple[float, float | None, float | None]:
        """Student's t over splits, whose variance is raised because their training parts overlap (Nadeau and Bengio 2003)."""
        n, mean = len(weights), float(weights.mean())
        if n < 2:
            return mean, None, None
        error = np.sqrt(weights.var(ddof=1) * (1 / n + self.overlap))
        reach = float(stdtrit(n - 1, (1 + LEVEL) / 2) * error)
        return mean, mean - reach, mean + reach


def weighed(X: Matrix, splits: Sequence[Split], models: Sequence[Model], listed: int) -> Weighed:
    """The weights of the models that were fitted to the splits' training parts, of which `listed` features are shown."""
    parts = np.array([split.train for split in splits])
    _, variances = moments(X, parts)
    weights = np.stack([model.weights for model in models])
    strengths = np.abs(weights).max(axis=1) * np.sqrt(variances)
    overlap = float(np.mean([split.test.sum() / split.train.sum() for split in splits]))
    return Weighed(weights, strengths, overlap, min(TOP, listed))
