"""Minimising many smooth functions at a time with L-BFGS.

A probe job minimises hundreds of small, similar functions that read the same matrix. One alone is bound by memory: each
step reads the whole matrix to multiply it with a single vector. So many walks go on side by side. Each keeps a history
and a line search of its own and never learns of the others, but whenever all have said which point they want to know
next, one evaluation answers for all. A walk that ends leaves the block.

The rules of a walk are those of L-BFGS-B without bounds (Byrd, Lu, Nocedal and Zhu 1995), which is what scikit-learn
uses: a memory of ten pairs, a first step of unit length, a search for the strong Wolfe conditions (More and Thuente
1994), a fresh memory when a search fails. As long as rounding has not grown to matter, a walk visits the same points.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

# The functions that are meant and a point for each -> values, gradients, and how far each point is from done.
Evaluate = Callable[[npt.NDArray[np.intp], Array], tuple[Array, Array, Array]]

MEMORY = 10
SUFFICIENT_DECREASE, CURVATURE, UNCERTAINTY = 1e-3, 0.9, 0.1
LONGEST_STEP = 1e10
TRIALS = 50
BLOCK_BYTES = 1 << 29


@dataclass(frozen=True)
class Rules:
    """When a walk ends: at a residual of `tolerance`, or a relative gain of `flat` if that is given, or out of `steps`.

    A value may exceed what a search asks for by `slack`, relative: so much of it is rounding. Slopes are then trusted.
    """

    tolerance: float
    steps: int
    flat: float | None = None
    slack: float = 0.0


@dataclass(frozen=True)
class End:
    """Where a walk ended. `reason` is empty if it came to its end by the rules, and else says why it could not."""

    point: Array
    residual: float
    steps: int
    reason: str


def walk_together(starts: Array, evaluate: Evaluate, rules: Rules) -> Iterator[End]:
    """The end of the walk from every row of `starts`, block by block, so that ends can be used up as they come."""
    block = at_once(starts.shape[1], starts.itemsize)
    for first in range(0, len(starts), block):
        yield from _Walks(starts[first : first + block], first, evaluate, rules).to_their_ends()


def at_once(size: int, itemsize: int) -> int:
    """How many walks in that many dimensions go side by side: as many as there is room for."""
    return max(1, BLOCK_BYTES // ((2 * MEMORY + 8) * itemsize * size))


class _Walks:
    """Walks in progress, one row of every array each; a walk that ends gives its row up."""

    # What is kept for each walk; the rows of all these belong together.
    ROWS = ("ids", "points", "values", "gradients", "residuals", "taken", "directions", "slopes", "steps")

    def __init__(self, starts: Array, first: int, evaluate: Evaluate, rules: Rules) -> None:
        self.rules, self.evaluate = rules, evaluate
        self.ids = np.arange(first, first + len(starts))
        self.points = starts.copy()
        self.values, self.gradients, self.residuals = evaluate(self.ids, starts)
        self.taken = np.zeros(len(starts), np.intp)
        self.directions = -self.gradients
        self.slopes = -_dots(self.gradients, self.gradients)
        lengths = np.sqrt(-self.slopes)
        self.steps = np.divide(1, lengths, out=np.full(len(starts), LONGEST_STEP), where=lengths > 1 / LONGEST_STEP)
        self.memory = _Memory(starts)
        self.searches: dict[int, _Search] = {}
        self.ends: dict[int, End] = {}

    def to_their_ends(self) -> list[End]:
        self._leave(dict.fromkeys(np.flatnonzero(self.residuals <= self.rules.tolerance), ""))
        while len(self.ids):
            moves = self.steps.astype(self.points.dtype)[:, None] * self.directions
            told = self.evaluate(self.ids, self.points + moves)
            slopes = _dots(told[1], self.directions)
            done, failed = self._judge(told[0], slopes)
            gains = self._advance(done, moves, told, slopes)
            leaving = self._arrived(done, gains) | self._stuck(failed)
            self._turn(self._leave(leaving, done | failed))
        return [self.ends[which] for which in sorted(self.ends)]

    def _judge(self, values: Array, slopes: Array) -> tuple[Array, Array]:
        """Which trials end their search and which searches fail. The others are told their next step."""
        slack = self.rules.slack * np.abs(self.values)
        enough = values <= self.values + slack + SUFFICIENT_DECREASE * self.steps * self.slopes
        done = enough & (np.abs(slopes) <= -CURVATURE * self.slopes)
        failed = np.zeros(len(done), dtype=bool)
        for row in np.flatnonzero(~done):
            search = self.searches.get(self.ids[row])
            if search is None:
                search = _Search(float(self.values[row] + slack[row]), float(self.slopes[row]), float(self.steps[row]))
                self.searches[self.ids[row]] = search
            self.steps[row] = search.tell(float(values[row]), float(slopes[row]))
            done[row], failed[row] = search.settled, search.failed
        for row in np.flatnonzero(done | failed):
            self.searches.pop(self.ids[row], None)
        return done, failed

    def _advance(self, done: Array, moves: Array, told: tuple[Array, Array, Array], slopes: Array) -> Array:
        """Move the walks whose search is done, let them remember the step, and return the relative gains."""
        values, gradients, residuals = told
        self.memory.add(
            done,
            steps=moves,
            changes=gradients - self.gradients,
            curvatures=self.steps * (slopes - self.slopes),
            drops=-self.steps * self.slopes,
        )
        gains = (self.values - values) / np.maximum(1, np.maximum(np.abs(self.values), np.abs(values)))
        if done.all():
            self.points += moves
            self.gradients = gradients
        else:
            self.points[done] += moves[done]
            self.gradients[done] = gradients[done]
        self.values = np.where(done, values, self.values)
        self.residuals = np.where(done, residuals, self.residuals)
        self.taken += done
        return gains

    def _arrived(self, done: Array, gains: Array) -> dict[int, str]:
        arrived = self.residuals <= self.rules.tolerance
        if self.rules.flat is not None:
            arrived |= gains <= self.rules.flat
        tired = done & ~arrived & (self.taken >= self.rules.steps)
        ends = dict.fromkeys(np.flatnonzero(done & arrived).tolist(), "")
        return ends | dict.fromkeys(np.flatnonzero(tired).tolist(), f"not done after {self.rules.steps} steps")

    def _stuck(self, failed: Array) -> dict[int, str]:
        """Walks whose search failed along the gradient itself, so that nothing is left to try; others try that next."""
        stuck = np.flatnonzero(failed & (self.memory.counts == 0))
        self.memory.forget(failed)
        return dict.fromkeys(stuck.tolist(), "no step along the gradient lowers the function")

    def _leave(self, leaving: dict[int, str], moved: Array | None = None) -> Array:
        """Record ends and close the gaps they leave with the last rows. Returns `moved` for the rows that remain."""
        moved = np.ones(len(self.ids), dtype=bool) if moved is None else moved
        for row, reason in leaving.items():
            # A copy, as the row is a view into the arrays of all.
            point, residual = self.points[row].copy(), float(self.residuals[row])
            self.ends[int(self.ids[row])] = End(point, residual, int(self.taken[row]), reason)
        if not leaving:
            return moved
        keep = np.ones(len(self.ids), dtype=bool)
        keep[list(leaving)] = False
        size = int(keep.sum())
        gaps, last = np.flatnonzero(~keep[:size]), size + np.flatnonzero(keep[size:])
        for name in self.ROWS:
            setattr(self, name, _closed(getattr(self, name), gaps, last, size))
        self.memory.close(gaps, last, size)
        return _closed(moved, gaps, last, size)

    def _turn(self, moved: Array) -> None:
        """New directions for the walks that have moved, or whose search has failed and who have to forget."""
        if not moved.any():
            return
        directions = self.memory.descent(self.gradients)
        slopes = _dots(directions, self.gradients)
        uphill = moved & (slopes >= 0)
        if uphill.any():
            self.memory.forget(uphill)
            directions[uphill] = -self.gradients[uphill]
            slopes[uphill] = -_dots(self.gradients[uphill], self.gradients[uphill])
        self.directions = directions if moved.all() else np.where(moved[:, None], directions, self.directions)
        self.slopes = np.where(moved, slopes, self.slopes)
        self.steps = np.where(moved, 1.0, self.steps)


def _dots(a: Array, b: Array) -> Array:
    return np.einsum("pd,pd->p", a, b).astype(np.float64)


def _closed(rows: Array, gaps: Array, last: Array, size: int) -> Array:
    """The rows less those at `gaps`, into which the `last` rows move; a view, so that nothing else is copied."""
    rows[gaps] = rows[last]
    return rows[:size]


class _Memory:
    """Of every walk the last pairs of step and change of gradient, and the inverse Hessian they stand for.

    With the steps S and changes Y of a walk as rows, from old to new, and R the upper triangle of S Y^T, the inverse
    Hessian times a gradient needs two passes over S and Y, and else matrices of ten by ten only. The inverse of R loses
    the row and column of the oldest pair and gains those of the newest, so nothing is factorised. As the products do not
    mind the order of pairs, a new pair takes the slot of the oldest, and a slot that is not in use holds zeros.
    """

    ROWS = ("pairs", "counts", "inverse_r", "products", "curvatures", "scales")

    def __init__(self, like: Array) -> None:
        walks, size = like.shape
        self.pairs = np.zeros((walks, 2 * MEMORY, size), like.dtype)
        self.counts = np.zeros(walks, np.intp)
        self.inverse_r = np.zeros((walks, MEMORY, MEMORY))
        self.products = np.zeros((walks, MEMORY, MEMORY))
        self.curvatures = np.zeros((walks, MEMORY))
        self.scales = np.ones(walks)
        self.epsilon = float(np.finfo(like.dtype).eps)

    def close(self, gaps: Array, last: Array, size: int) -> None:
        for name in self.ROWS:
            setattr(self, name, _closed(getattr(self, name), gaps, last, size))

    def forget(self, walks: Array) -> None:
        for name in self.ROWS:
            getattr(self, name)[walks] = 0
        self.scales[walks] = 1

    def _along(self, vectors: Array) -> tuple[Array, Array]:
        """The products of a vector for each walk with its steps and with its changes."""
        along = np.matmul(self.pairs, vectors[:, :, None]).astype(np.float64)
        return along[:, :MEMORY], along[:, MEMORY:]

    def descent(self, gradients: Array) -> Array:
        """Minus the inverse Hessian times the gradient, for each walk."""
        with_steps, with_changes = self._along(gradients)
        scales = self.scales[:, None, None]
        on_changes = np.matmul(self.inverse_r, with_steps)
        inner = self.curvatures[:, :, None] * on_changes
        inner += scales * (np.matmul(self.products, on_changes) - with_changes)
        on_steps = np.matmul(self.inverse_r.transpose(0, 2, 1), inner)
        weights = np.concatenate([-on_steps, scales * on_changes], axis=1).transpose(0, 2, 1)
        directions = np.matmul(weights.astype(self.pairs.dtype), self.pairs)[:, 0]
        directions -= scales[:, 0].astype(self.pairs.dtype) * gradients
        return directions

    def add(self, walks: Array, *, steps: Array, changes: Array, curvatures: Array, drops: Array) -> None:
        """Remember a pair of each walk named, unless its curvature is what rounding makes of the drop along the step."""
        chosen = np.flatnonzero(walks & (curvatures > self.epsilon * drops))
        slots = self.counts[chosen] % MEMORY
        self.counts[chosen] += 1
        self.pairs[chosen, slots], self.pairs[chosen, slots + MEMORY] = steps[chosen], changes[chosen]
        with_steps, with_changes = (product[chosen] for product in self._along(changes))
        curvature = curvatures[chosen]
        self.curvatures[chosen, slots] = curvature
        self.products[chosen, slots] = self.products[chosen, :, slots] = with_changes[:, :, 0]
        self.scales[chosen] = curvature / self.products[chosen, slots, slots]
        self.inverse_r[chosen, slots] = self.inverse_r[chosen, :, slots] = 0
        self.inverse_r[chosen, :, slots] = -np.matmul(self.inverse_r[chosen], with_steps)[:, :, 0] / curvature[:, None]
        self.inverse_r[chosen, slots, slots] = 1 / curvature


@dataclass(frozen=True)
class _Trial:
    """A step that was tried, with the value and the slope there."""

    step: float
    value: float
    slope: float

    def less_line(self, slope: float) -> "_Trial":
        """The same trial of the function less a line through the origin."""
        return _Trial(self.step, self.value - self.step * slope, self.slope - slope)


class _Search:
    """A line search for the strong Wolfe conditions, told one trial after the other.

    It keeps the best trial and the other end of the interval that holds a minimum, once there is one. As long as no
    trial has decreased enough and stopped falling, it looks for a minimum of the function less the line of sufficient
    decrease whenever the best trial is better in that respect.
    """

    def __init__(self, value: float, slope: float, step: float) -> None:
        self.value, self.slope, self.step = value, slope, step
        self.required = SUFFICIENT_DECREASE * slope
        self.best = self.other = _Trial(0.0, value, slope)
        self.bracketed = self.past_fall = self.settled = self.failed = False
        self.low, self.high = 0.0, 5 * step
        self.width, self.width_before = LONGEST_STEP, 2 * LONGEST_STEP
        self.trials = 0

    def tell(self, value: float, slope: float) -> float:
        """Take in what is at `step`, and return the next step unless the search is `settled` on this one or `failed`."""
        trial = _Trial(self.step, value, slope)
        self.trials += 1
        enough = value <= self.value + self.step * self.required
        self.past_fall = self.past_fall or (enough and slope >= 0)
        longest = self.step >= LONGEST_STEP and enough and slope <= self.required
        wolfe = enough and abs(slope) <= -CURVATURE * self.slope
        self.settled = wolfe or longest or self._exhausted()
        self.failed = not self.settled and self.trials >= TRIALS
        if not self.settled and not self.failed:
            self._narrow(trial, shifted=not self.past_fall and not enough and value <= self.best.value)
        return self.step

    def _exhausted(self) -> bool:
        """The interval has become too narrow to tell its ends apart."""
        narrow = not self.low < self.step < self.high or self.high - self.low <= UNCERTAINTY * self.high
        return self.bracketed and narrow

    def _narrow(self, trial: _Trial, shifted: bool) -> None:
        line = self.required if shifted else 0.0
        best, other, seen = (tried.less_line(line) for tried in (self.best, self.other, trial))
        step, closes = _next_step(best, other, seen, self.bracketed, self.low, self.high)
        if seen.value > best.value:
            self.other = trial
        else:
            self.other = self.best if seen.slope * best.slope < 0 else self.other
            self.best = trial
        self.bracketed = self.bracketed or closes
        if self.bracketed:
            if abs(self.other.step - self.best.step) >= 0.66 * self.width_before:
                step = self.best.step + 0.5 * (self.other.step - self.best.step)
            self.width_before, self.width = self.width, abs(self.other.step - self.best.step)
            self.low, self.high = sorted((self.best.step, self.other.step))
        else:
            self.low, self.high = step + 1.1 * (step - self.best.step), step + 4 * (step - self.best.step)
        self.step = min(max(step, 0.0), LONGEST_STEP)
        if self._exhausted():
            self.step = self.best.step


def _next_step(
    best: _Trial, other: _Trial, trial: _Trial, bracketed: bool, low: float, high: float
) -> tuple[float, bool]:
    """The next step by interpolation between trials, and whether this trial closes a bracket."""
    reach = trial.step - best.step
    if trial.value > best.value:
        cubic = best.step + _cubic(best, trial) * reach
        quadratic = best.step + best.slope / ((best.value - trial.value) / reach + best.slope) / 2 * reach
        near = abs(cubic - best.step) < abs(quadratic - best.step)
        return (cubic if near else cubic + (quadratic - cubic) / 2), True
    if trial.slope * best.slope < 0:
        cubic = trial.step - _cubic(trial, best) * reach
        secant = trial.step - trial.slope / (trial.slope - best.slope) * reach
        return max(secant, cubic, key=lambda step: abs(step - trial.step)), True
    if abs(trial.slope) < abs(best.slope):
        return _cautious(best, other, trial, bracketed, low, high), False
    if bracketed:
        return trial.step + _cubic(trial, other) * (other.step - trial.step), False
    return (high if reach > 0 else low), False


def _cautious(best: _Trial, other: _Trial, trial: _Trial, bracketed: bool, low: float, high: float) -> float:
    """The next step where the slope keeps its sign and flattens: the cubic may have no minimum that way, or one far off."""
    reach = trial.step - best.step
    share = _cubic_beyond(trial, best)
    cubic = (high if reach > 0 else low) if share is None else trial.step - share * reach
    secant = trial.step - trial.slope / (trial.slope - best.slope) * reach
    if not bracketed:
        return min(max(max(secant, cubic, key=lambda step: abs(step - trial.step)), low), high)
    step = min(secant, cubic, key=lambda step: abs(step - trial.step))
    limit = trial.step + 0.66 * (other.step - trial.step)
    return min(limit, step) if reach > 0 else max(limit, step)


def _cubic(a: _Trial, b: _Trial) -> float:
    """Where the cubic through two trials has its minimum, as a share of the way from `a` to `b`."""
    theta, gamma = _cubic_terms(a, b)
    return ((gamma - a.slope) + theta) / (((gamma - a.slope) + gamma) + b.slope)


def _cubic_beyond(a: _Trial, b: _Trial) -> float | None:
    """The same where the minimum has to lie beyond `a`, seen from `b`; None if it does not."""
    theta, gamma = _cubic_terms(a, b)
    share = ((gamma - a.slope) + theta) / ((gamma + (b.slope - a.slope)) + gamma)
    return share if share < 0 and gamma != 0 else None


def _cubic_terms(a: _Trial, b: _Trial) -> tuple[float, float]:
    theta = 3 * (a.value - b.value) / (b.step - a.step) + a.slope + b.slope
    size = max(abs(theta), abs(a.slope), abs(b.slope))
    # Rounding can push the term under the root below zero where the slopes hardly differ.
    gamma = size * max(0.0, (theta / size) ** 2 - (a.slope / size) * (b.slope / size)) ** 0.5
    return theta, gamma if b.step > a.step else -gamma
