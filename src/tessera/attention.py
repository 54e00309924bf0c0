"""Hidden states pooled by attention: a learned query says how much each token counts.

The strongest plain use of hidden states that is known, where a config keeps them token by token. A token's share is the
softmax of its product with the query over the text's tokens. The query is learned on the training part, together with a
logistic regression on the pooled vector that is then dropped: what classifies is fitted anew, as for every other input.

Learning starts at the plain mean (a query of zeros), takes a fixed number of L-BFGS steps and uses no chance.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import log_softmax

from tessera.solvers import SCALINGS, SQUARED_LENGTH, Scaling

Array = npt.NDArray[Any]

# The penalty's C while the query is learned, and the most steps that takes.
C = 1.0
STEPS = 100


@dataclass
class States:
    """The hidden states of every content token, text after text, and the queries that were learned for them."""

    vectors: Array
    counts: Array
    queries: dict[bytes, Array] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.counts)

    def of(self, rows: Array) -> "States":
        """The states of some texts."""
        return States(self.vectors[np.repeat(rows, self.counts)], self.counts[rows])

    def pooled(self, query: Array) -> Array:
        """One vector a text."""
        _, found = _attend(self.vectors, self.counts, query)
        return found.astype(np.float32)


@dataclass(frozen=True)
class Attended:
    """The arm: pooled vectors by the query of the training part."""

    states: States
    codes: Array
    n_classes: int
    classifier: Literal["l2"] = "l2"
    scalings: tuple[Scaling, ...] = SCALINGS
    fitted: bool = True

    def query(self, train: Array) -> Array:
        key = np.packbits(train).tobytes() + self.codes[train].tobytes()
        if key not in self.states.queries:
            self.states.queries[key] = learned(self.states.of(train), self.codes[train], self.n_classes)
        return self.states.queries[key]

    def features(self, train: Array) -> Array:
        return self.states.pooled(self.query(train))


def learned(states: States, codes: Array, n_classes: int) -> Array:
    """The query that suits some texts and their labels, for states as they came."""
    wide = states.vectors.astype(np.float64)
    spread = wide.std(axis=0)
    factor = np.divide(1.0, spread, out=np.zeros_like(spread), where=spread > 0)
    factor *= np.sqrt(SQUARED_LENGTH / max(1, int(np.count_nonzero(spread))))
    scaled = ((wide - wide.mean(axis=0)) * factor).astype(np.float32)
    size, n = scaled.shape[1], len(states.counts)
    targets = np.zeros((n, n_classes))
    targets[np.arange(n), codes] = 1
    penalty = 1 / (C * n)

    def told(point: Array) -> tuple[float, Array]:
        query, weights, intercepts = _parts(point, size, n_classes)
        shares, pooled = _attend(scaled, states.counts, query)
        logs = log_softmax(pooled @ weights.T + intercepts, axis=1)
        value = -float((targets * logs).sum()) / n + penalty / 2 * float((query**2).sum() + (weights**2).sum())
        residuals = (np.exp(logs) - targets) / n
        by_pooled = residuals @ weights
        along = np.einsum("td,td->t", scaled, np.repeat(by_pooled, states.counts, axis=0).astype(np.float32))
        along = along - np.repeat(np.einsum("nd,nd->n", pooled, by_pooled), states.counts)
        by_query = (shares * along) @ scaled + penalty * query
        by_weights = residuals.T @ pooled + penalty * weights
        return value, np.concatenate([by_query, by_weights.ravel(), residuals.sum(axis=0)])

    start = np.zeros(size + n_classes * (size + 1))
    end = minimize(told, start, jac=True, method="L-BFGS-B", options={"maxiter": STEPS})
    return np.asarray(end.x[:size] * factor)


def _parts(point: Array, size: int, n_classes: int) -> tuple[Array, Array, Array]:
    query, rest = point[:size], point[size:]
    return query, rest[: n_classes * size].reshape(n_classes, size), rest[n_classes * size :]


def _attend(vectors: Array, counts: Array, query: Array) -> tuple[Array, Array]:
    """Each token's share of its text, and the weighted mean of each text's vectors."""
    starts = np.cumsum(counts) - counts
    scores = vectors @ query.astype(vectors.dtype)
    scores = np.exp(scores - np.repeat(np.maximum.reduceat(scores, starts), counts)).astype(np.float64)
    shares = scores / np.repeat(np.add.reduceat(scores, starts), counts)
    weighted = vectors * shares.astype(vectors.dtype)[:, None]
    return shares, np.add.reduceat(weighted, starts, axis=0, dtype=np.float64)
