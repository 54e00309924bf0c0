"""What one input answers: for each source, share of the training size and selection of features, every test example once.

Classifiers are those of the strict protocol: C, the scaling of features and the penalty of L1 are chosen by inner folds of
the training part. Nothing here compares anything; a file of answers holds what all cells of the input are made from, and a
job that was killed goes on from those that are there.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tessera import arms
from tessera.arms import Arm, Given, KSparse, Ranking
from tessera.protocols import Failed, Probe, Protocol, Result
from tessera.solvers import Matrix
from tessera.splits import Split
from tessera.transfer.arrangement import Arrangement, Source

Array = npt.NDArray[Any]

# All features; those whose class means differ most; those that an L1 penalty leaves in.
ALL, TOP, L1 = "none", "top-", "l1"

ANSWERS = pa.schema(
    [(name, pa.string()) for name in ("source", "selection", "settings", "reason")]
    + [(name, pa.float64()) for name in ("share", "threshold", "c", "validation")]
    + [(name, pa.int32()) for name in ("fold", "n_train", "n_weighed")]
    + [
        (name, pa.list_(kind))
        for name, kind in (("rows", pa.int32()), ("predicted", pa.int32()), ("scores", pa.float32()))
    ]
)


def answers(
    features: Matrix | Arm,
    arrangement: Arrangement,
    sources: Sequence[Source],
    protocol: Protocol,
    *,
    thresholds: Sequence[float | None],
    selections: Sequence[str],
    penalties: Sequence[float],
) -> pa.Table:
    """The answers of one input, trained on those of the sources that can be."""
    rows: list[dict[str, Any]] = []
    usable = [source for source in sources if not arrangement.problem(source)]
    for threshold in thresholds:
        for selection in selections:
            for local, of_labels in _by_labels(usable, arrangement).items():
                codes = _local(arrangement.codes, local)
                make = _Selected(features, threshold, selection, codes, len(local))
                probe = Probe(make.arm, protocol, codes, len(local), penalties)
                tried = [(source, share, split) for source in of_labels for share, split in arrangement.splits(source)]
                results = probe.results([split for _, _, split in tried])
                for (source, share, split), result in zip(tried, results, strict=True):
                    key = {"source": source.name, "share": share, "selection": selection, "threshold": threshold}
                    rows.append(key | _answered(split, result, local, len(arrangement.names)))
    return pa.Table.from_pylist(rows, ANSWERS)


def _by_labels(sources: Sequence[Source], arrangement: Arrangement) -> Mapping[tuple[int, ...], list[Source]]:
    """The sources by the labels that they have: a classifier knows the labels of its own source and no others."""
    found: dict[tuple[int, ...], list[Source]] = defaultdict(list)
    for source in sources:
        found[tuple(arrangement.labels_of(source.rows))].append(source)
    return found


def _local(codes: Array, labels: tuple[int, ...]) -> Array:
    """Codes as places among these labels; what has another label is in no training part, and its place means nothing."""
    place = np.zeros(int(codes.max()) + 1, np.intp)
    place[list(labels)] = np.arange(len(labels))
    return place[codes]


class _Selected:
    """The features that a selection leaves of an input, as an arm."""

    def __init__(
        self, features: Matrix | Arm, threshold: float | None, selection: str, codes: Array, n_classes: int
    ) -> None:
        if arms.is_arm(features):
            self.arm: Arm = features
            return
        given = arms.given(features, threshold)
        if selection.startswith(TOP):
            k = min(int(selection.removeprefix(TOP)), given.X.shape[1])
            self.arm = KSparse(Ranking(given.X, codes, n_classes, k), k)
        else:
            self.arm = replace(given, classifier="l1") if selection == L1 else Given(given.X)


def _answered(split: Split, result: Result | Failed, local: Sequence[int], n_labels: int) -> dict[str, Any]:
    found: dict[str, Any] = {"fold": split.seed - 1, "n_train": int(split.train.sum()), "reason": None}
    if isinstance(result, Failed):
        return found | {"reason": result.reason, "rows": [], "predicted": [], "scores": []}
    scores = np.zeros((len(result.predicted), n_labels), np.float32)
    scores[:, list(local)] = result.scores
    return (
        found
        | result.choice.columns
        | {
            "n_weighed": result.n_weighed,
            "rows": np.flatnonzero(split.test).tolist(),
            "predicted": np.asarray(local)[result.predicted].tolist(),
            "scores": scores.ravel().tolist(),
        }
    )


def by_cell(table: pa.Table) -> Iterator[dict[str, Any]]:
    """The rows of a table of answers, with their lists as arrays."""
    for row in table.to_pylist():
        lists = {name: np.array(row[name], kind) for name, kind in (("rows", np.intp), ("predicted", np.intp))}
        n = len(row["rows"])
        scores = np.array(row["scores"], np.float32).reshape(n, len(row["scores"]) // n if n else 0)
        yield row | lists | {"scores": scores}
