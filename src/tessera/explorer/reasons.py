"""Why a probe says what it says: the verdict's lead over the runner-up, as a sum over the features of an example.

A score is linear in what is weighed, so the lead is the difference of two intercepts and, for each active feature, its
value times the difference of two weights. What is shown are the largest parts; the others are one number.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from tessera.solvers import Model

Array = npt.NDArray[Any]

SHOWN = 12
SEED = 0


def sample(rows: Array, right: Array, most: int) -> Array:
    """Up to `most` of the rows, half of them wrong where there are as many, drawn by a seed of our own; in order."""
    chance = np.random.default_rng(SEED)
    good, bad = chance.permutation(rows[right]), chance.permutation(rows[~right])
    wrong = min(len(bad), max(most // 2, most - len(good)))
    return np.sort(np.concatenate([bad[:wrong], good[: most - wrong]]))


@dataclass(frozen=True)
class Lead:
    """The verdict's lead over the runner-up: `intercept` and the contributions of all active features make it up."""

    verdict: int
    probability: float
    against: int
    intercept: float
    features: Array
    contributions: Array

    def told(self, values: Sequence[float]) -> dict[str, Any]:
        """The largest parts, each with the feature's value as `values` has it, and the sum of the others."""
        order = np.argsort(-np.abs(self.contributions), kind="stable")[:SHOWN]
        shown = [(int(self.features[at]), values[at], float(self.contributions[at])) for at in order]
        return {
            "against": self.against,
            "intercept": self.intercept,
            "contributions": shown,
            "rest": float(self.contributions.sum() - self.contributions[order].sum()),
        }


def lead(model: Model, weighed: sparse.csr_matrix) -> Lead:
    """The lead in one example, whose weighed features are the only row of the matrix."""
    probabilities = model.probabilities(weighed)[0]
    verdict = int(model.predict(weighed)[0])
    others = np.delete(np.arange(len(probabilities)), verdict)
    scores = model.scores(weighed)[0]
    if len(scores) == 1:
        against, sign = 1 - verdict, 1 if verdict == 1 else -1
        weights, intercept = sign * model.weights[0], sign * model.intercepts[0]
    else:
        against = int(others[scores[others].argmax()])
        weights = model.weights[verdict] - model.weights[against]
        intercept = model.intercepts[verdict] - model.intercepts[against]
    features, values = weighed.indices, weighed.data.astype(np.float64)
    return Lead(verdict, float(probabilities[verdict]), against, float(intercept), features, values * weights[features])
