"""Logistic regression, many fits at a time.

A probe job fits hundreds of small logistic regressions to the same features: every class against the rest, every C of a
grid, every fold. All fits to the same matrix walk together (`tessera.descent`), so that one product serves them all; a
fold is a choice of rows whose share in the objective is not zero.

Two kinds, for two purposes:

- `one_vs_rest` repeats what scikit-learn's `LogisticRegression` with L-BFGS does at its default tolerance, class by
  class: the same objective on the features as they are, the same start, the same steps and stopping rules, in float64.
  At that tolerance the answer depends on the path, so a solver that took another one would give other scores. Where
  features are many more than examples, the same path is walked in the few dimensions that the examples span.
- `multinomial` finds the minimum and knows how close it is. With lambda = 1 / (C n) the objective is lambda-strongly
  convex in the weights, so |gradient|^2 / (2 lambda) bounds how far it is above its minimum; the intercepts, which bend
  it far more than that, are counted with the rest. A fit has converged when the bound is at most `tolerance`, in nats
  an example. As only the minimum counts, the path is free: the unpenalised intercept takes up the means of the features
  (which leaves the model as it is, and the problem far rounder), the leading directions of the features are evened out,
  and the walk is in float32. The bound is then checked in float64, and the walk goes on in float64 where it fails.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import linalg, sparse
from scipy.linalg import lapack

from tessera.descent import End, Evaluate, Rules, at_once, walk_together

Array = npt.NDArray[Any]
Which = npt.NDArray[np.intp]
Matrix: TypeAlias = Array | sparse.csr_matrix

Scaling = Literal["each feature", "all alike"]
# Equal variance serves where rare features tell, and costs where they are noise; which of it holds, validation shows.
SCALINGS: tuple[Scaling, ...] = ("each feature", "all alike")

# The share of non-zeros from which the dense product is the faster one, and the bytes a dense copy may take.
DENSE_FROM = 0.1
DENSE_BYTES = 1 << 28
# The bytes that gradients may take when they are turned back.
BACK_BYTES = 1 << 26

# Entries of a sparse matrix that are looked at together where all of them would take too much room.
ENTRIES = 1 << 20

# Features are turned where they are this many times as many as the examples; below, the fixed cost exceeds the gain.
TURN_FROM = 16

# Rows of scaled features have this squared length about their mean, on average: that of 64 standardised features.
SQUARED_LENGTH = 64.0
# A feature that spreads by less than this share of its size is constant but for the rounding of float32.
LEAST_SPREAD = 1e-6
# How many leading directions are evened out, and by which power of their curvature. A half would be right where a fit
# starts; but the better it gets, the less curvature is left, and a half then does more harm than good.
LEADING_DIRECTIONS = 16
EVENING = 1 / 3


@dataclass(frozen=True)
class Fit:
    """What one model is fitted to: a part, by its row in the parts of the call, and a value of the classifier's grid.

    For the regressions here that is C, the inverse regularisation.
    """

    part: int
    value: Any


@dataclass(frozen=True)
class NotConverged:
    """In place of a model: why a fit did not reach its tolerance."""

    why: str


@dataclass(frozen=True)
class Model:
    """Weights (rows x features) and intercepts. A single row is that of the second of two classes."""

    weights: Array
    intercepts: Array
    joint: bool

    def scores(self, X: Matrix) -> Array:
        return np.asarray(X @ self.weights.T) + self.intercepts

    @property
    def weighed(self) -> int:
        """How many features have a weight."""
        return int(np.count_nonzero(self.weights.any(axis=0)))

    def predict(self, X: Matrix) -> Array:
        """The class of each example, as its position among the sorted labels; of equal ones the first."""
        scores = self.scores(X)
        return (scores[:, 0] > 0).astype(np.intp) if scores.shape[1] == 1 else scores.argmax(axis=1)

    def probabilities(self, X: Matrix) -> Array:
        """Examples x classes. Classes that were fitted apart are made to sum to one, as scikit-learn does."""
        scores = self.scores(X)
        if self.joint and scores.shape[1] > 1:
            raised = np.exp(scores - scores.max(axis=1, keepdims=True))
            return raised / raised.sum(axis=1, keepdims=True)
        # The logistic function by way of tanh, which saturates where exp would overflow.
        apart = 0.5 * (1 + np.tanh(0.5 * scores))
        if scores.shape[1] == 1:
            return np.hstack([1 - apart, apart])
        total = apart.sum(axis=1, keepdims=True)
        return np.divide(apart, total, out=apart, where=total > 0)


# --- products ------------------------------------------------------------------------------------------------------


def fastest_form(X: Matrix) -> Matrix:
    """The matrix dense if it is dense enough, and small enough to be."""
    cells = X.shape[0] * X.shape[1]
    if isinstance(X, np.ndarray) or X.nnz < DENSE_FROM * cells or cells * 8 > DENSE_BYTES:
        return X
    return X.toarray()


def varies(X: Matrix) -> bool:
    """Whether any feature takes more than one value, which is to say that some example is not like the first."""
    if isinstance(X, np.ndarray):
        return bool(np.not_equal(X, X[:1]).any())
    return any((X[:1] != X[[row]]).nnz > 0 for row in range(1, X.shape[0]))


def _present(X: Matrix) -> Which:
    """The features that are not zero throughout. The others would keep a weight of zero, at the price of the rest."""
    if isinstance(X, np.ndarray):
        return np.flatnonzero(X.any(axis=0))
    return np.flatnonzero(np.bincount(X.indices[X.data != 0], minlength=X.shape[1]))


def _spread(weights: Array, present: Which, size: int) -> Array:
    """Weights of the features present, as weights of all."""
    if len(present) == size:
        return weights
    every = np.zeros((len(weights), size))
    every[:, present] = weights
    return every


def _with_ones(X: Matrix) -> Matrix:
    """A last feature that is one throughout, whose weight is the intercept."""
    ones = np.ones((X.shape[0], 1), X.dtype)
    return np.hstack([X, ones]) if isinstance(X, np.ndarray) else sparse.hstack([X, ones], format="csr")


class _Product:
    """Products of a matrix of examples x features with blocks of rows, in one precision.

    A dense matrix is kept both ways round: with few rows, the product along the other way is twice as slow.
    """

    def __init__(self, X: Matrix, dtype: npt.DTypeLike) -> None:
        self.dense = isinstance(X, np.ndarray)
        self.X = X.astype(dtype)
        self.transposed = np.ascontiguousarray(self.X.T) if self.dense else self.X.T

    def forward(self, points: Array) -> Array:
        """Rows over features -> rows over examples."""
        return points @ self.transposed if self.dense else _row_by_row(self.X @ points.T)

    def backward(self, residuals: Array) -> Array:
        """Rows over examples -> rows over features."""
        return residuals @ self.X if self.dense else _row_by_row(self.transposed @ residuals.T)


def _row_by_row(columns: Array) -> Array:
    """The transpose, laid out anew: sums over classes are many times slower along the other way."""
    return np.ascontiguousarray(columns.T)


class _Remembered:
    """A function of the fits at hand with its last answer, since they seldom change from one step to the next."""

    def __init__(self, function: Callable[[Which], tuple[Array, ...]]) -> None:
        self.function, self.which = function, np.empty(0, np.intp)
        self.answer: tuple[Array, ...] = ()

    def __call__(self, which: Which) -> tuple[Array, ...]:
        if not np.array_equal(which, self.which):
            self.which, self.answer = which.copy(), self.function(which)
        return self.answer


def _targets(codes: Array, n_classes: int) -> Array:
    """One row for each row of weights: whether the example is of its class."""
    classes = np.arange(n_classes) if n_classes > 2 else np.array([1])
    return codes == classes[:, None]


class _Turned:
    """Features turned until all but as many as there are examples are zero, and the way back.

    Weights that start at zero are weighted sums of examples for ever, as every gradient is one. So the walk is one in the
    space that the examples span, and its steps can be written in an orthonormal basis of that space: they are made from
    inner products alone, which do not depend on the basis. Of the rules to stop, only the largest gradient does.

    With a factorisation of the inner products of the examples, X X' = L L', the turned features are L, and the basis is
    X' times the inverse of L'. Examples that are sums of others, but for rounding, have no dimension of their own.
    """

    def __init__(self, X: Matrix) -> None:
        exact: Any = X.astype(np.float64)
        inner = exact @ exact.T
        inner = inner.toarray() if sparse.issparse(inner) else inner
        factor, order, rank, _ = lapack.dpstrf(inner, lower=1)
        factor, order = np.tril(factor)[:, :rank], order - 1
        self.features = np.empty_like(factor, order="C")
        self.features[order] = factor
        self.independent, self.factor = exact[order[:rank]].T, factor[:rank]

    @staticmethod
    def pays(X: Matrix) -> bool:
        n, d = X.shape
        return d >= TURN_FROM * n and n * n * 8 <= DENSE_BYTES

    def back(self, rows: Array) -> Array:
        """Rows over turned features, as columns over the features as they came."""
        sums = linalg.solve_triangular(self.factor, rows.T, lower=True, trans="T", check_finite=False)
        return np.asarray(self.independent @ sums)

    def largest(self, rows: Array, tolerance: float) -> Array:
        """The largest entry of each row when turned back, or a bound below it where that shows it above `tolerance`."""
        d = self.independent.shape[0]
        largest = np.sqrt(np.einsum("pd,pd->p", rows, rows) / d)
        near = np.flatnonzero(largest <= tolerance)
        size = max(1, BACK_BYTES // (8 * d))
        for first in range(0, len(near), size):
            some = near[first : first + size]
            entries = self.back(rows[some])
            largest[some] = np.maximum(entries.max(axis=0), -entries.min(axis=0))
        return largest


def _halves(targets: Array) -> Array:
    return np.where(targets, -0.5, 0.5)


def _shares(parts: Array) -> Array:
    """What each example counts in each part: all of a part's examples the same, the others nothing."""
    return parts / parts.sum(axis=1, keepdims=True)


def _penalties(parts: Array, fits: Sequence[Fit]) -> Array:
    return np.array([1 / (fit.value * parts[fit.part].sum()) for fit in fits])


def _binary_loss(scores: Array, halves: Array, shares: Array) -> tuple[Array, Array]:
    """The negative log-likelihood of each row of scores over its share of the examples, and its derivative by them.

    `halves` are -1/2 where the example is of the row's class and 1/2 elsewhere. By way of tanh nothing can overflow, and
    one transcendental function serves both: log(1 + exp(z)) is max(z, 0) + log 2 - log(1 + |tanh(z / 2)|).
    """
    half = scores * halves
    residuals = np.tanh(half)
    bend = np.abs(residuals)
    bend += 1
    np.log(bend, out=bend)
    np.maximum(half, 0, out=half)
    values = 2 * np.einsum("pn,pn->p", half, shares) - np.einsum("pn,pn->p", bend, shares) + np.log(2)
    residuals += 1
    residuals *= halves
    residuals *= shares
    return values.astype(np.float64), residuals


def _joint_loss(scores: Array, targets: Array, shares: Array) -> tuple[Array, Array]:
    """The same for scores (fits x classes x examples), which it uses up; each example has one right class."""
    if scores.shape[1] == 1:
        values, residuals = _binary_loss(scores[:, 0], 0.5 - targets, shares)
        return values, residuals[:, None]
    highest = scores.max(axis=1, keepdims=True)
    right = np.einsum("fkn,kn->fn", scores, targets)
    scores -= highest
    residuals = np.exp(scores, out=scores)
    total = residuals.sum(axis=1)
    losses = np.log(total) + highest[:, 0] - right
    residuals *= (shares / total)[:, None]
    residuals -= targets * shares[:, None]
    return np.einsum("fn,fn->f", losses, shares).astype(np.float64), residuals


# --- the published way: each class against the rest, features as they are ------------------------------------------


def one_vs_rest(
    X: Matrix,
    codes: Array,
    n_classes: int,
    parts: Array,
    fits: Sequence[Fit],
    *,
    tolerance: float = 1e-4,
    steps: int = 5000,
) -> Iterator[Model | NotConverged]:
    """A model for each fit. A part is a boolean row over the examples; `codes` are positions among the sorted labels."""
    present = _present(X)
    features = fastest_form(X[:, present])
    turned = _Turned(features) if _Turned.pays(features) else None
    product = _Product(_with_ones(features if turned is None else turned.features), np.float64)
    halves, shares = _halves(_targets(codes, n_classes)), _shares(parts)
    rows = len(halves)
    part_of = np.repeat([fit.part for fit in fits], rows)
    row_of = np.tile(np.arange(rows), len(fits))
    penalties = np.repeat(_penalties(parts, fits), rows)
    at_hand = _Remembered(lambda which: (halves[row_of[which]], shares[part_of[which]], penalties[which, None]))

    def evaluate(which: Which, points: Array) -> tuple[Array, Array, Array]:
        half, share, penalty = at_hand(which)
        values, residuals = _binary_loss(product.forward(points), half, share)
        penalised = points * penalty
        penalised[:, -1] = 0
        values += 0.5 * np.einsum("pd,pd->p", points, penalised)
        gradients = product.backward(residuals)
        gradients += penalised
        if turned is None:
            return values, gradients, np.maximum(gradients.max(axis=1), -gradients.min(axis=1))
        return values, gradients, np.maximum(np.abs(gradients[:, -1]), turned.largest(gradients[:, :-1], tolerance))

    # The relative gain at which scikit-learn's solver stops, too.
    rules = Rules(tolerance, steps, flat=64 * float(np.finfo(np.float64).eps))
    size = product.X.shape[1]
    start = np.broadcast_to(np.zeros(size), (len(penalties), size))
    ends = walk_together(start, evaluate, rules)
    for _ in fits:
        of_fit = list(islice(ends, rows))
        points = np.stack([end.point for end in of_fit])
        weights = points[:, :-1] if turned is None else turned.back(points[:, :-1]).T
        model = Model(_spread(weights, present, X.shape[1]), points[:, -1], joint=False)
        stopped = next((end for end in of_fit if end.reason), None)
        yield model if stopped is None else _not_converged(stopped, "the largest gradient is at least", tolerance)


def _not_converged(end: End, what: str, tolerance: float) -> NotConverged:
    return NotConverged(f"{end.reason}; {what} {end.residual:.1e}, wanted {tolerance:.0e}")


# --- the minimum, on scaled features -------------------------------------------------------------------------------


def multinomial(
    X: Matrix,
    codes: Array,
    n_classes: int,
    parts: Array,
    fits: Sequence[Fit],
    *,
    scaling: Scaling,
    tolerance: float = 1e-6,
    steps: int = 1000,
) -> Iterator[Model | NotConverged]:
    """A model for each fit, its objective within `tolerance` of the minimum.

    Features are scaled by what the examples of the part alone show, so that C means the same for every kind of feature;
    the weights returned are for the features as they came.
    """
    present = _present(X)
    features = _Features(fastest_form(X[:, present]), parts, scaling)
    leading = features.leading()
    size = len(_targets(codes, n_classes)) * (len(present) + 1)
    block = at_once(size, np.dtype(np.float64).itemsize)
    for first in range(0, len(fits), block):
        problem = _Multinomial(features, leading, codes, n_classes, parts, fits[first : first + block])
        for which, end in enumerate(problem.ends(size, tolerance, steps)):
            weights, intercepts = problem.raw(which, end.point)
            model = Model(_spread(weights, present, X.shape[1]), intercepts, joint=True)
            what = "the bound on the distance to the minimum is"
            yield _not_converged(end, what, tolerance) if end.reason else model


def majority(X: Matrix, codes: Array, n_classes: int, parts: Array, fits: Sequence[Fit]) -> list[Model]:
    """A model for each fit that knows the shares of the classes, each of which has examples, and looks at no feature."""
    counts = [np.bincount(codes[parts[fit.part]], minlength=n_classes) for fit in fits]
    return [Model(np.zeros((n_classes, X.shape[1])), np.log(count / count.sum()), joint=True) for count in counts]


def moments(X: Matrix, parts: Array) -> tuple[Array, Array]:
    """Mean and variance of each feature over each part, in float64; the variance of a constant feature is zero."""
    shares = _shares(parts)
    centre = np.asarray(X.mean(axis=0, dtype=np.float64)).ravel()
    if isinstance(X, np.ndarray):
        from_centre = X - centre
        mean = shares @ from_centre
        square = shares @ np.square(from_centre)
    else:
        entries = sparse.csr_matrix((X.data.astype(np.float64), X.indices, X.indptr), shape=X.shape)
        mean = np.asarray(shares @ entries) - centre
        # A stored entry less what it would be worth as a zero; then all as zeros. A few at a time: this is where memory is short.
        for first in range(0, X.nnz, ENTRIES):
            some = slice(first, first + ENTRIES)
            entries.data[some] *= entries.data[some] - 2 * centre[X.indices[some]]
        square = np.asarray(shares @ entries) + centre**2
    variance = square - mean**2
    mean += centre
    # Rounding leaves a variance to what is constant, in proportion to what it was computed from.
    return mean, np.where(variance > LEAST_SPREAD**2 * (square + mean**2), variance, 0.0)


def scales(variance: Array, scaling: Scaling) -> Array:
    """The factor of each feature in each part; it is zero, which leaves the feature out, where the feature is constant.

    `each feature` gives every feature the same variance; `all alike` keeps the proportions that the features came with.
    Either way rows then have the same mean squared length about their mean, so that one grid of C suits all.
    """
    varies = variance > 0
    spread = np.sqrt(np.where(varies, variance, 1.0))
    if scaling == "each feature":
        lengths = varies.sum(axis=1, keepdims=True)
    else:
        lengths, spread = variance.sum(axis=1, keepdims=True), np.ones_like(variance)
    return varies * np.sqrt(SQUARED_LENGTH / np.where(lengths > 0, lengths, 1.0)) / spread


class _Features:
    """The features scaled once for all parts, and what sets each part's own scaling apart.

    Dense features are centred too. A sparse matrix is not, since it would fill up; its means are taken off the products.
    """

    def __init__(self, X: Matrix, parts: Array, scaling: Scaling) -> None:
        everyone = np.ones((1, X.shape[0]), dtype=bool)
        means, variances = moments(X, np.concatenate([everyone, parts]))
        factors = scales(variances, scaling)
        self.mean, self.factor = means[1:], factors[1:]
        common = factors[0]
        if isinstance(X, np.ndarray):
            origin = means[0]
            self.scaled: Matrix = (X - origin) * common
        else:
            origin = np.zeros_like(common)
            self.scaled = sparse.csr_matrix((X.data * common[X.indices], X.indices, X.indptr), shape=X.shape)
        self.relative = np.divide(self.factor, common, out=np.zeros_like(self.factor), where=common > 0)
        self.offset = (self.mean - origin) * common
        self.centre = (means[0] - origin) * common

    def leading(self) -> tuple[Array, Array, float]:
        """Leading directions of the features, as rows; their variances; and about what variance is left beside them.

        From a few rounds of subspace iteration, over all parts at once: directions that are off, or that have seen other
        examples, make a fit take more steps, and end nowhere else.
        """
        product, centre = _Product(self.scaled, np.float32), self.centre.astype(np.float32)
        n, d = self.scaled.shape

        def onto_examples(rows: Array) -> Array:
            return product.forward(rows) - (rows @ centre)[:, None]

        kept = min(LEADING_DIRECTIONS, d // 2)
        found = np.random.default_rng(0).standard_normal((min(kept + 8, d), d), np.float32)
        for _ in range(3):
            on_examples = onto_examples(found)
            found = product.backward(on_examples) - on_examples.sum(axis=1)[:, None] * centre
            found = np.ascontiguousarray(np.linalg.qr(found.T)[0].T)
        on_examples = onto_examples(found).astype(np.float64)
        variances, turn = np.linalg.eigh(on_examples @ on_examples.T / n)
        variances = np.maximum(variances[::-1], 0)
        directions = turn.T[::-1].astype(np.float32) @ found
        return directions[:kept], variances[:kept], float(variances[-1]) if d else 0.0


class _Multinomial:
    """The penalised likelihood of every part and C, in coordinates in which the leading directions are evened out.

    A point is the weights of a fit, row after row, then its intercepts. Its part along each leading direction is shrunk
    to what the curvature in that direction asks for under this C; the result weighs the features as the part scales them.
    """

    def __init__(
        self,
        features: _Features,
        leading: tuple[Array, Array, float],
        codes: Array,
        n_classes: int,
        parts: Array,
        fits: Sequence[Fit],
    ) -> None:
        self.features, self.shares, self.targets = features, _shares(parts), _targets(codes, n_classes)
        self.rows = len(self.targets)
        self.part = np.array([fit.part for fit in fits])
        self.penalties = _penalties(parts, fits)
        self.directions, variances, rest = leading
        of_class = self.targets.mean(axis=1)
        # That of the likelihood at the start: the mean over classes of p (1 - p).
        curvature = float((of_class * (1 - of_class)).mean())
        penalties = self.penalties[:, None]
        self.shrink = ((curvature * rest + penalties) / (curvature * variances + penalties)) ** EVENING - 1

    def _evened(self, weights: Array, directions: Array, shrink: Array) -> Array:
        along = weights @ directions.T
        along *= shrink[:, None]
        return weights + along @ directions

    def ends(self, size: int, tolerance: float, steps: int) -> Iterator[End]:
        """Where every fit ends: in float32 first, a little beyond what is wanted; then by the exact bound."""
        start = np.broadcast_to(np.zeros(size, np.float32), (len(self.part), size))
        rules = Rules(0.8 * tolerance, steps, slack=16 * float(np.finfo(np.float32).eps))
        coarse = np.stack([end.point for end in walk_together(start, self.evaluation(np.float32), rules)])
        return walk_together(coarse.astype(np.float64), self.evaluation(np.float64), Rules(tolerance, steps))

    def evaluation(self, dtype: npt.DTypeLike) -> Evaluate:
        product = _Product(self.features.scaled, dtype)
        directions, targets = self.directions.astype(dtype), self.targets.astype(dtype)

        def of_fits(which: Which) -> tuple[Array, ...]:
            part, features = self.part[which], self.features
            mine = (
                self.shrink[which],
                self.penalties[which],
                self.shares[part],
                features.relative[part],
                features.offset[part],
            )
            return tuple(array.astype(dtype) for array in mine)

        at_hand = _Remembered(of_fits)

        def evaluate(which: Which, points: Array) -> tuple[Array, Array, Array]:
            shrink, penalty, shares, relative, offset = at_hand(which)
            size = len(which)
            weights = points[:, : -self.rows].reshape(size, self.rows, -1)
            weights = self._evened(weights, directions, shrink)
            scaled = weights * relative[:, None]
            intercepts = points[:, -self.rows :] - np.einsum("fkd,fd->fk", scaled, offset)
            scores = product.forward(scaled.reshape(size * self.rows, -1)).reshape(size, self.rows, -1)
            scores += intercepts[:, :, None]
            values, residuals = _joint_loss(scores, targets, shares)
            free = residuals.sum(axis=2)
            slopes = product.backward(residuals.reshape(size * self.rows, -1)).reshape(weights.shape)
            slopes -= free[:, :, None] * offset[:, None]
            slopes *= relative[:, None]
            slopes += penalty[:, None, None] * weights
            values += 0.5 * penalty * np.einsum("fkd,fkd->f", weights, weights)
            above = np.einsum("fkd,fkd->f", slopes, slopes) + np.einsum("fk,fk->f", free, free)
            evened = self._evened(slopes, directions, shrink)
            return values, np.hstack([evened.reshape(size, -1), free]), above.astype(np.float64) / (2 * penalty)

        return evaluate

    def raw(self, which: int, point: Array) -> tuple[Array, Array]:
        """The fit's weights and intercepts for the features as they came."""
        part, directions = self.part[which], self.directions.astype(np.float64)
        weights = point[: -self.rows].reshape(1, self.rows, -1)
        weights = self._evened(weights, directions, self.shrink[[which]])[0] * self.features.factor[part]
        return weights, point[-self.rows :] - weights @ self.features.mean[part]
