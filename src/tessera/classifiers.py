"""Classifiers beside the logistic regression of `tessera.solvers`: trees, and a regression that leaves features out.

scikit-learn fits them. Each function here is what a protocol calls a solver: for every fit a model, or why there is none.
A saved probe needs neither, and does not wait for scikit-learn.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import sparse

from tessera.solvers import Fit, Matrix, Model, NotConverged, moments

if TYPE_CHECKING:
    from sklearn.tree import DecisionTreeClassifier

Array = npt.NDArray[Any]

SEED = 42
STEPS = 1000
# liblinear shrinks the intercept as it does a weight. On a column of this size that costs next to nothing.
INTERCEPT = 1000.0


# --- trees ---------------------------------------------------------------------------------------------------------


class Shape(NamedTuple):
    """What bounds a tree's growth."""

    depth: int
    split: int
    leaf: int

    def __str__(self) -> str:
        return f"depth {self.depth}, split {self.split}, leaf {self.leaf}"


# The published grid, in the order in which scikit-learn's grid search goes through it and takes the first of equals.
SHAPES = [Shape(depth, split, leaf) for depth, leaf, split in product((3, 5, 7, 9), (1, 2, 4), (2, 5, 10))]


@dataclass(frozen=True)
class Tree:
    """A fitted tree. Classes that its part has no example of have no probability."""

    fitted: "DecisionTreeClassifier"
    n_classes: int

    def predict(self, X: Matrix) -> Array:
        return np.asarray(self.fitted.predict(X), np.intp)

    def probabilities(self, X: Matrix) -> Array:
        found = np.zeros((X.shape[0], self.n_classes))
        found[:, self.fitted.classes_] = self.fitted.predict_proba(X)
        return found

    @property
    def weighed(self) -> int:
        """How many features it asks for."""
        asked = self.fitted.tree_.feature
        return len(np.unique(asked[asked >= 0]))


def trees(X: Matrix, codes: Array, n_classes: int, parts: Array, fits: Sequence[Fit]) -> Iterator[Tree]:
    """A tree for each fit, whose value is a `Shape`. Scaling changes nothing for a tree, so there is none."""
    from sklearn.tree import DecisionTreeClassifier  # noqa: PLC0415

    for fit in fits:
        rows = parts[fit.part]
        shape: Shape = fit.value
        tree = DecisionTreeClassifier(
            max_depth=shape.depth, min_samples_split=shape.split, min_samples_leaf=shape.leaf, random_state=SEED
        )
        # The form in which scikit-learn looks through a feature; it would convert anything else at each fit.
        given: Any = sparse.csc_matrix(X[rows], dtype=np.float32) if sparse.issparse(X) else X[rows]
        yield Tree(tree.fit(given, codes[rows]), n_classes)


# --- L1 ------------------------------------------------------------------------------------------------------------


def lasso(
    X: Matrix, codes: Array, n_classes: int, parts: Array, fits: Sequence[Fit], *, tolerance: float = 1e-4
) -> Iterator[Model | NotConverged]:
    """A logistic regression for each fit and class whose penalty is the sum of the weights' sizes.

    The value of a fit is the penalty as a share of the least that leaves no feature in; it is found for each class against
    the rest. Features are scaled to unit variance by the part; sparse ones are not centred, as the intercept sees to it.
    """
    for fit in fits:
        rows = parts[fit.part]
        part: Any = X[rows]
        mean, variance = moments(part, np.ones((1, part.shape[0]), dtype=bool))
        spread = np.sqrt(variance[0])
        factor = np.divide(1.0, spread, out=np.zeros_like(spread), where=spread > 0)
        scaled = (part - mean[0]) * factor if isinstance(part, np.ndarray) else part @ sparse.diags_array(factor)
        yield _lasso(scaled, codes[rows], n_classes, fit.value, tolerance, factor, mean[0], isinstance(X, np.ndarray))


def _lasso(
    X: Any, codes: Array, n_classes: int, share: float, tolerance: float, factor: Array, mean: Array, centred: bool
) -> Model | NotConverged:
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415

    weights, intercepts = [], []
    for label in range(n_classes) if n_classes > 2 else [1]:
        truth = codes == label
        if truth.all() or not truth.any():
            return NotConverged(f"its part has {'no' if not truth.any() else 'only'} examples of class {label}")
        strongest = float(np.abs(np.asarray((truth - truth.mean()) @ X)).max())
        regression = LogisticRegression(
            l1_ratio=1.0,
            C=1 / (share * strongest),
            solver="liblinear",
            tol=tolerance,
            max_iter=STEPS,
            intercept_scaling=INTERCEPT,
            random_state=SEED,
        )
        regression.fit(X, truth)
        if int(regression.n_iter_.max()) >= STEPS:
            return NotConverged(f"not done after {STEPS} rounds")
        own = regression.coef_[0] * factor
        weights.append(own)
        intercepts.append(float(regression.intercept_[0]) - (float(own @ mean) if centred else 0.0))
    return Model(np.array(weights), np.array(intercepts), joint=False)
