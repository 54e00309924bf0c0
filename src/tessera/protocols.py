"""Protocols: how examples are split, how C is chosen, and what a result consists of.

Two protocols run over the same arms, and the same code runs them: a protocol is a way to make splits, a grid of C, a
score to choose by, and a solver.

- `paper` repeats the published procedure, quirks included: one stratified split of rows (duplicates may straddle it),
  five folds, accuracy, one classifier a class, features as they are. It is there to be laid beside published numbers.
- `strict` is the one to believe: several seeded splits that keep a group of examples together, inner folds that do too,
  macro-F1, one joint classifier, features scaled by the training part.

All arms of a dataset share their splits. C, how features are scaled and a tree's shape are chosen by inner folds of the
training part. What else has to be chosen (layer, pooling, threshold, the penalty of L1) is chosen later, in `tessera.tables`, among cells: every cell carries the inner score it would
be chosen by.

A cell that cannot be computed is a row with the reason. Only what data can do to a cell is caught; the rest is a bug.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tessera import classifiers, columns, metrics, solvers
from tessera.arms import Arm, Variant, is_arm, variants
from tessera.attention import States
from tessera.classifiers import Tree
from tessera.errors import UserError
from tessera.examples import Table
from tessera.regimes import ALONE, FULL
from tessera.solvers import Fit, Matrix, Model, NotConverged, Scaling
from tessera.splits import UNUSED, Split, paper_splits, strict_splits

Array = npt.NDArray[Any]

PAPER_C = (0.001, 0.01, 0.1, 1.0)

# The seed of the strict split whose models outlive their job.
FIRST = 0

METRICS = ("accuracy", "macro_f1", "auroc", "auprc", "recall_at_fpr", "ece", "brier")

CELLS = pa.schema(
    [(name, pa.string()) for name in ("model", "dataset", "head", "arm")]
    + [("layer", pa.int32()), ("width", pa.int32()), ("pooling", pa.string()), ("threshold", pa.float64())]
    + [("classifier", pa.string()), ("k", pa.int32()), ("regime", pa.string())]
    + [("protocol", pa.string()), ("seed", pa.int32()), ("subset", pa.string())]
    + [("c", pa.float64()), ("penalty", pa.float64()), ("settings", pa.string()), ("validation", pa.float64())]
    + [(name, pa.int32()) for name in ("n_train", "n_test", "n_features", "n_weighed", "n_classes")]
    + [(name, pa.float64()) for name in METRICS]
    + [("status", pa.string()), ("reason", pa.string())]
)
IDENTITY = ("model", "dataset", "head", "arm", "layer", "width", "pooling")

PREDICTIONS = pa.schema(
    [
        ("protocol", pa.string()),
        ("seed", pa.int32()),
        ("threshold", pa.float64()),
        ("classifier", pa.string()),
        ("penalty", pa.float64()),
        ("example", pa.string()),
        ("label", pa.string()),
        ("predicted", pa.string()),
        ("scores", pa.list_(pa.float32())),
    ]
)


# --- protocols -----------------------------------------------------------------------------------------------------

Fitted = Model | Tree

# Features of examples, their codes, the number of labels, parts, fits -> a model for each fit, or why there is none.
Solve = Callable[[Matrix, Array, int, Array, Sequence[Fit]], Iterable[Fitted | NotConverged]]


@dataclass(frozen=True)
class Grid:
    """A solver and the values that inner folds choose from: `what` they are, and the `settings` they go with."""

    solve: Solve
    values: Sequence[Any]
    what: str = ""
    settings: str = ""

    def told(self, value: Any) -> str:
        return f"{self.what} = {value:g}" if isinstance(value, float) else str(value)


@dataclass(frozen=True)
class Protocol:
    """A way from features to results: splits, the inner score that chooses, and logistic regression as it has it.

    That is the grids for the ways in which an arm's features may be scaled.
    """

    name: str
    splits: Callable[[Array, Array], list[Split]]
    score: Callable[[Array, Array, int], float]
    regression: Callable[[Sequence[Scaling]], list[Grid]]

    def grids(self, arm: Arm, penalties: Sequence[float]) -> list[Grid]:
        """What inner folds choose from for an arm; `penalties` are those of L1."""
        if arm.classifier == "majority":
            return [Grid(solvers.majority, [1.0])]
        if arm.classifier == "tree":
            return [Grid(classifiers.trees, classifiers.SHAPES)]
        if arm.classifier == "l1":
            return [Grid(classifiers.lasso, penalties, "penalty")]
        return self.regression(arm.scalings)


def paper() -> Protocol:
    """The published procedure: C by accuracy over five folds, one classifier a class, features as they are."""
    return Protocol(
        "paper",
        paper_splits,
        score=lambda truth, predicted, _: metrics.accuracy(truth, predicted),
        regression=lambda _: [Grid(solvers.one_vs_rest, PAPER_C, "C")],
    )


def strict(*, seeds: int, test_size: float, inner_folds: int, c: Sequence[float]) -> Protocol:
    """The one to believe: C and scaling by macro-F1 over inner folds, one joint classifier, all by the training part."""
    return Protocol(
        "strict",
        partial(strict_splits, seeds=seeds, test_size=test_size, inner_folds=inner_folds),
        score=metrics.macro_f1,
        regression=lambda scalings: [
            Grid(partial(solvers.multinomial, scaling=scaling), sorted(c), "C", scaling) for scaling in scalings
        ],
    )


# --- one arm under one protocol ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Failed:
    """In place of a result: why the data do not allow one."""

    reason: str


@dataclass(frozen=True)
class Choice:
    """The value that the inner folds choose, the grid it is from, and their mean score of it."""

    grid: Grid
    value: Any
    validation: float

    @property
    def columns(self) -> dict[str, Any]:
        """What a cell says of it."""
        named = {"c": self.value} if self.grid.what == "C" else {}
        settings = str(self.value) if isinstance(self.value, tuple) else self.grid.settings
        return named | {"settings": settings or None, "validation": self.validation}


@dataclass(frozen=True)
class Result:
    """What the chosen model says of each test example, and the model itself where it is wanted after."""

    choice: Choice
    n_features: int
    predicted: Array
    scores: Array
    n_weighed: int
    model: Fitted | None = None


class Probe:
    """An arm under a protocol on a dataset. Of the `penalties` of L1 inner folds choose one."""

    def __init__(
        self, arm: Arm, protocol: Protocol, codes: Array, n_classes: int, penalties: Sequence[float] = ()
    ) -> None:
        self.arm, self.protocol, self.codes, self.n_classes = arm, protocol, codes, n_classes
        self.grids = protocol.grids(arm, penalties)

    def results(self, splits: list[Split]) -> list[Result | Failed]:
        """The result of each split. The choice is made on the training part before anything looks at the test part.

        Only `FIRST`'s carries its model: those of wide features take more room than the features.
        """
        choices = self._choices(splits)
        results = {
            at: self._result(splits[at], choice, X, model) for at, choice, X, model in self._chosen(splits, choices)
        }
        return [choice if isinstance(choice, Failed) else results[at] for at, choice in enumerate(choices)]

    def refits(self, splits: list[Split], cells: Sequence[Mapping[str, Any]]) -> list[Fitted | NotConverged]:
        """The models behind cells, one of each split, fitted anew. What their inner folds chose stands in the cells."""
        choices = [self._recalled(cell) for cell in cells]
        models = {at: model for at, _, _, model in self._chosen(splits, choices)}
        return [models[at] for at in range(len(splits))]

    def _recalled(self, cell: Mapping[str, Any]) -> Choice:
        """The choice that a cell tells of."""
        known = (Choice(grid, value, cell["validation"]) for grid in self.grids for value in grid.values)
        return next(choice for choice in known if all(cell[name] == told for name, told in choice.columns.items()))

    def _chosen(
        self, splits: list[Split], choices: Sequence[Choice | Failed]
    ) -> Iterator[tuple[int, Choice, Matrix, Fitted | NotConverged]]:
        """For each split with a choice its place, the features, and the chosen model fitted to its training part."""
        for grid in self.grids:
            chosen = [(at, made) for at, made in enumerate(choices) if isinstance(made, Choice) and made.grid is grid]
            fitted = self._fitted(grid, [splits[at].train for at, _ in chosen], [[made.value] for _, made in chosen])
            for (at, made), (X, (model,)) in zip(chosen, fitted, strict=True):
                yield at, made, X, model

    def _choices(self, splits: list[Split]) -> list[Choice | Failed]:
        """For each split the value with the best mean over its folds; of equal ones the first."""
        failed = {which: reason for which, split in enumerate(splits) if (reason := self._obstacle(split))}
        inner = [(which, *fold) for which, split in enumerate(splits) if which not in failed for fold in split.inner()]
        best: dict[int, Choice] = {}
        for grid in self.grids:
            scores: dict[int, list[list[float]]] = {which: [] for which, _, _ in inner}
            fitted = self._fitted(grid, [fit for _, fit, _ in inner], [grid.values] * len(inner))
            for (which, _, held_out), (X, models) in zip(inner, fitted, strict=True):
                of_fold, unseen = [], X[held_out]
                for value, model in zip(grid.values, models, strict=True):
                    if isinstance(model, NotConverged):
                        failed.setdefault(which, f"{grid.told(value)} on an inner fold: {model.why}")
                    else:
                        predicted = model.predict(unseen)
                        of_fold.append(self.protocol.score(self.codes[held_out], predicted, self.n_classes))
                scores[which].append(of_fold)
            for which in scores.keys() - failed.keys():
                means = np.array(scores[which]).mean(axis=0)
                place = int(means.argmax())
                if which not in best or means[place] > best[which].validation:
                    best[which] = Choice(grid, grid.values[place], float(means[place]))
        return [Failed(failed[which]) if which in failed else best[which] for which in range(len(splits))]

    def _obstacle(self, split: Split) -> str:
        """Why there is nothing to choose in this split; empty if there is."""
        if split.problem or self.arm.classifier == "majority":
            return split.problem
        X = self.arm.features(split.train)
        if not_finite := np.count_nonzero(~np.isfinite(X if isinstance(X, np.ndarray) else X.data)):
            return f"{not_finite} feature values are not finite"
        return "" if solvers.varies(X[split.train]) else "no feature varies in the training part"

    def _fitted(
        self, grid: Grid, parts: list[Array], values: Sequence[Sequence[Any]]
    ) -> Iterator[tuple[Matrix, Sequence[Fitted | NotConverged]]]:
        """For each part the features of all examples, as they are fitted to it, and a model for each of its values.

        Parts that share their features go to the solver together.
        """
        batches = [[part] for part in range(len(parts))] if self.arm.fitted else [list(range(len(parts)))] * bool(parts)
        for batch in batches:
            of_batch = np.array([parts[part] for part in batch])
            X, rows = self.arm.features(of_batch[0]), of_batch.any(axis=0)
            fits = [Fit(place, value) for place, part in enumerate(batch) for value in values[part]]
            models = iter(grid.solve(X[rows], self.codes[rows], self.n_classes, of_batch[:, rows], fits))
            for part in batch:
                yield X, [next(models) for _ in values[part]]

    def _result(self, split: Split, choice: Choice, X: Matrix, model: Fitted | NotConverged) -> Result | Failed:
        if isinstance(model, NotConverged):
            return Failed(f"{choice.grid.told(choice.value)} on the training part: {model.why}")
        test = X[split.test]
        kept = model if split.seed == FIRST else None
        return Result(choice, X.shape[1], model.predict(test), model.probabilities(test), model.weighed, kept)


# --- a probe job ---------------------------------------------------------------------------------------------------

# What a caller does with the result of a variant on strict's first split, which carries the model.
Keep = Callable[[Variant, Split, Result | Failed], None]


def run(
    features: Matrix | Arm | States,
    table: Table,
    *,
    identity: dict[str, Any],
    search: Mapping[str, Any],
    protocols: Sequence[str],
    strict_settings: dict[str, Any],
    keep: Keep = lambda variant, split, result: None,
) -> tuple[pa.Table, pa.Table]:
    """Cells and predictions of one input of a dataset: every variant of it under every protocol.

    `features` are pooled features with a row for each row of the table, or what makes its own. `identity` holds the
    values of the columns `IDENTITY`. `search` says which variants there are: `thresholds`, `classifiers`, `l1_penalties`,
    `sparse_k` and `regimes`, and `curve_poolings`, which of the poolings have the last two. These are curves about an input and no
    configurations of it: they run under `strict` alone, and leave no predictions. With `alone` each subset is also a task of
    its own, as if there were nothing else in the table; those cells have the regime `ALONE`, and leave no predictions either.
    `keep` is given each configuration on strict's first split, whose models are dropped after.
    """
    named = {name: identity[name] for name in IDENTITY}
    labels = sorted(set(table.labels))
    code = {label: place for place, label in enumerate(labels)}
    codes = np.array([code[label] for label in table.labels], np.intp)
    rows = len(table) if is_arm(features) else _rows(cast(Matrix | States, features))
    if rows != len(table):
        wrong = f"{rows} rows of features for {len(table)} examples"
        raise UserError("features", wrong, "run the capture again on this dataset")
    cells: list[dict[str, Any]] = []
    answers: list[tuple[dict[str, Any], Split, Result]] = []
    for name in protocols:
        protocol = paper() if name == "paper" else strict(**strict_settings)
        splits = protocol.splits(codes, table.groups)
        with_curves = name == "strict" and _has_curves(identity["pooling"], search)
        for variant in variants(features, identity["arm"], len(labels), search, curves=with_curves):
            key = _key(variant, protocol, len(labels))
            trained = [variant.regime.apply(split, codes, table.groups) for split in splits]
            results = _results(variant, protocol, trained, len(labels))
            for (split, _), result in zip(trained, results, strict=True):
                of_split = named | key | {"seed": split.seed}
                cells += _cells(of_split, split, result, codes, table.subsets)
                if variant.competes and name == "strict" and split.seed == FIRST:
                    keep(variant, split, result)
                if isinstance(result, Result) and variant.competes:
                    answers.append((of_split, split, replace(result, model=None)))
        if search["alone"]:
            cells += [named | cell for cell in _alone(features, table, codes, protocol, identity["arm"], search)]
    return columns.table(cells, CELLS), _predictions(answers, table, labels)


def _rows(features: Matrix | States) -> int:
    return len(features) if isinstance(features, States) else int(features.shape[0])


def _has_curves(pooling: str | None, search: Mapping[str, Any]) -> bool:
    chosen = search["curve_poolings"]
    return pooling is None or chosen is None or pooling in chosen


def _alone(
    features: Matrix | Arm | States,
    table: Table,
    codes: Array,
    protocol: Protocol,
    arm: str,
    search: Mapping[str, Any],
) -> Iterator[dict[str, Any]]:
    """Cells of each subset by itself: its own splits and its own labels, and nothing learned from the others."""
    for subset in sorted(set(table.subsets)):
        inside = table.subsets == subset
        present, own = np.unique(codes[inside], return_inverse=True)
        own_codes = np.zeros(len(codes), np.intp)
        own_codes[inside] = own
        splits = [_within(split, inside) for split in protocol.splits(own, table.groups[inside])]
        for variant in variants(features, arm, len(present), search, curves=False):
            key = _key(variant, protocol, len(present)) | {"regime": ALONE}
            results = _results(variant, protocol, [(split, own_codes) for split in splits], len(present))
            for split, result in zip(splits, results, strict=True):
                whole, *_ = _cells(key | {"seed": split.seed}, split, result, own_codes, table.subsets)
                yield whole | {"subset": subset}


def _within(split: Split, inside: Array) -> Split:
    """The split of some of the rows as one of all, of which the others are in neither part."""
    folds = np.full(len(inside), UNUSED)
    folds[inside] = split.folds
    return replace(split, folds=folds)


def _key(variant: Variant, protocol: Protocol, n_classes: int) -> dict[str, Any]:
    """What a cell says of its variant."""
    of_variant = {name: getattr(variant, name) for name in ("arm", "classifier", "threshold", "k", "penalty")}
    return of_variant | {"regime": variant.regime.name, "protocol": protocol.name, "n_classes": n_classes}


def _results(
    variant: Variant, protocol: Protocol, trained: list[tuple[Split, Array]], n_classes: int
) -> list[Result | Failed]:
    """The results of all splits: together where they share their labels, else one by one."""
    if variant.regime.name == FULL:
        splits, labels = [split for split, _ in trained], trained[0][1]
        return _probe(variant, protocol, labels, n_classes).results(splits)
    return [_probe(variant, protocol, labels, n_classes).results([split])[0] for split, labels in trained]


def _probe(variant: Variant, protocol: Protocol, labels: Array, n_classes: int) -> Probe:
    penalties = () if variant.penalty is None else (variant.penalty,)
    return Probe(variant.make(labels), protocol, labels, n_classes, penalties)


def _cells(
    key: dict[str, Any], split: Split, result: Result | Failed, codes: Array, subsets: Array
) -> Iterator[dict[str, Any]]:
    """A row for the whole test part, and one for each subset if there are several."""
    test = split.test
    names = sorted(set(subsets))
    for subset in ["all", *(names if len(names) > 1 else [])]:
        inside = np.ones(test.sum(), dtype=bool) if subset == "all" else subsets[test] == subset
        n_train = int(split.train.sum())
        sizes = {"n_train": n_train, "n_test": int(inside.sum()) if n_train else 0}
        row = key | {"subset": subset} | sizes | _scored(result, codes[test], inside)
        yield row


def _scored(result: Result | Failed, truth: Array, inside: Array) -> dict[str, Any]:
    if isinstance(result, Failed):
        return {"status": "failed", "reason": result.reason}
    classifier = result.choice.columns | {"n_features": result.n_features, "n_weighed": result.n_weighed}
    if not inside.any():
        return classifier | {"status": "failed", "reason": "no example of this subset is in the test part"}
    scores = metrics.all_of(truth[inside], result.predicted[inside], result.scores[inside])
    return classifier | scores | {"status": "ok", "reason": ""}


def _predictions(answers: list[tuple[dict[str, Any], Split, Result]], table: Table, labels: list[str]) -> pa.Table:
    rows: list[dict[str, Any]] = []
    for key, split, result in answers:
        tested = np.flatnonzero(split.test)
        rows += [
            key | {"example": table.ids[row], "label": table.labels[row], "predicted": labels[code]}
            for row, code in zip(tested, result.predicted, strict=True)
        ]
    scores = np.concatenate([np.empty((0, len(labels))), *(result.scores for _, _, result in answers)])
    schema = PREDICTIONS.with_metadata({"labels": json.dumps(labels)})
    named = [
        columns.optional([row[field.name] for row in rows], field.type) for field in schema if field.name != "scores"
    ]
    return pa.table([*named, columns.rows(scores.astype(np.float32))], schema=schema)
