"""From answers to cells: what is chosen, what it scores, and how much of the way from knowing nothing to the ceiling that is.

Answers come by configuration: head, pooling, threshold. A configuration is chosen for each fold by its inner validation score,
which the test part does not enter, within one head (for curves over layers) and within a whole arm. Then every cell is scored on
all examples of its target, each answered by the classifier of its own fold.

Three numbers stand beside a score. The *floor* is the macro-F1 of knowing nothing: always the most frequent label of the
source, or answers at random, whichever is better. The *ceiling* is what the same kind of input scores at home; which that is
depends on the kind of transfer. What "transfers" means is then the share of the gap between them that is closed.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tessera import metrics, statistics
from tessera.statistics import Answers
from tessera.transfer.arrangement import Arrangement, Source

Array = npt.NDArray[Any]

CELLS = pa.schema(
    [(name, pa.string()) for name in ("transfer", "kind", "source", "target", "training", "arm", "model", "head")]
    + [("layer", pa.int32()), ("width", pa.int32()), ("pooling", pa.string()), ("threshold", pa.string())]
    + [("selection", pa.string()), ("share", pa.float64()), ("n_train", pa.int32()), ("n_test", pa.int32())]
    + [(name, pa.float64()) for name in ("macro_f1", "low", "high", "accuracy", "auroc", "floor")]
    + [(name, pa.float64()) for name in ("ceiling", "ceiling_low", "ceiling_high")]
    + [("ceiling_of", pa.string())]
    + [(name, pa.float64()) for name in ("closed", "closed_low", "closed_high")]
    + [("folds", pa.int32()), ("status", pa.string()), ("reason", pa.string())]
)


@dataclass(frozen=True)
class Line:
    """Whose answers they are: an arm of a model, within one head or (None) in all of them, as it was trained."""

    arm: str
    model: str | None
    head: str | None
    layer: int | None
    width: int | None
    selection: str
    share: float
    source: str


@dataclass(frozen=True)
class Answered:
    """What a line answers to the examples that it was tested on; -1 where it was not. Or the reason why it cannot."""

    predicted: Array
    scores: Array
    n_train: int
    poolings: str
    thresholds: str
    validation: float
    reason: str = ""


# A line and a target -> the line that is its ceiling and what to call that; None where there is none.
Ceiling = Callable[[Line, str], tuple[Line, str] | None]


def lines(
    inputs: Iterable[tuple[Mapping[str, Any], Sequence[Mapping[str, Any]]]], arrangement: Arrangement
) -> dict[Line, Answered]:
    """What every line answers. An input comes as what it is called (arm, model, head, ...) and the rows of its answers."""
    gathered: dict[Line, dict[int, list[Mapping[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for called, rows in inputs:
        for row in rows:
            how = {name: row[name] for name in ("selection", "share", "source")}
            line = Line(called["arm"], called["model"], called["head"], called["layer"], called["width"], **how)
            entry = {**row, "pooling": called["pooling"], "place": (called["head"] or "", called["pooling"] or "")}
            gathered[line][row["fold"]].append(entry)
            if called["head"] is not None:
                whole = replace(line, head=None, layer=None, width=None)
                gathered[whole][row["fold"]].append(entry)
    return {line: _joined(of_line, arrangement) for line, of_line in gathered.items()}


def _joined(of_line: Mapping[int, list[Mapping[str, Any]]], arrangement: Arrangement) -> Answered:
    """The answers of all folds, each fold's by the configuration that its inner validation picks."""
    n = len(arrangement.codes)
    predicted, scores = np.full(n, -1), np.zeros((n, len(arrangement.names)), np.float32)
    chosen = []
    for fold, configurations in sorted(of_line.items()):
        good = [row for row in configurations if row["reason"] is None]
        if not good:
            reasons = sorted({row["reason"] for row in configurations})
            return Answered(predicted, scores, 0, "", "", 0.0, f"fold {fold}: {', or '.join(reasons[:3])}")
        best = min(
            good, key=lambda row: (-row["validation"], row["place"], row["threshold"] is None, row["threshold"] or 0)
        )
        predicted[best["rows"]] = best["predicted"]
        scores[best["rows"]] = best["scores"]
        chosen.append(best)
    return Answered(
        predicted,
        scores,
        round(float(np.mean([row["n_train"] for row in chosen]))),
        _listed(row["pooling"] for row in chosen),
        _listed(None if row["threshold"] is None else f"{row['threshold']:g}" for row in chosen),
        float(np.mean([row["validation"] for row in chosen])),
    )


def _listed(values: Iterable[str | None]) -> str:
    """What was chosen, the most frequent first."""
    found = [value or "" for value in values]
    return ", ".join(name for name, _ in sorted(Counter(found).items(), key=lambda item: (-item[1], item[0])) if name)


def scored(answered: Mapping[Line, Answered], arrangement: Arrangement, ceiling: Ceiling) -> Iterator[dict[str, Any]]:
    """The row of every cell: every line on every target that its source is for."""
    source_of = {source.name: source for source in arrangement.sources}
    for line, found in answered.items():
        source = source_of[line.source]
        for target, training in source.to.items():
            cell = _called(line, target, training, arrangement)
            problem = arrangement.problem(source) or arrangement.mismatch(source, target) or found.reason
            if problem:
                yield cell | {"status": "failed", "reason": problem}
            else:
                top = ceiling(line, target)
                of_top = answered.get(top[0]) if top else None
                usable = of_top is not None and not of_top.reason
                cell |= _measured(found, arrangement, target) | {"floor": floor(arrangement, source, target)}
                if top and of_top is not None and usable:
                    cell |= _held_against(found, of_top, arrangement, target, cell["floor"]) | {"ceiling_of": top[1]}
                yield cell | {"status": "ok"}


def untrained(
    source: Source, called: Iterable[Mapping[str, Any]], reason: str, arrangement: Arrangement
) -> Iterator[dict[str, Any]]:
    """The failed cells of a source that nothing could be trained on, one for each target and arm."""
    arms = dict.fromkeys((entry["arm"], entry["model"]) for entry in called)
    for arm, model in arms:
        for target, training in source.to.items():
            line = Line(arm, model, None, None, None, "none", 1.0, source.name)
            yield _called(line, target, training, arrangement) | {"status": "failed", "reason": reason}


def _called(line: Line, target: str, training: str, arrangement: Arrangement) -> dict[str, Any]:
    named = {name: getattr(line, name) for name in ("arm", "model", "head", "layer", "width", "selection", "share")}
    return {"source": line.source, "target": target, "training": training, **named, "folds": arrangement.folds}


def _measured(found: Answered, arrangement: Arrangement, target: str) -> dict[str, Any]:
    rows = arrangement.targets[target]
    truth, predicted = arrangement.codes[rows], found.predicted[rows]
    estimate = statistics.score([_answers(found, arrangement, target)])
    present = np.unique(truth)
    ranked = None
    if len(present) > 1:
        ranked = metrics.auroc(np.searchsorted(present, truth), found.scores[rows][:, present])
    return {
        "pooling": found.poolings or None,
        "threshold": found.thresholds or None,
        "n_train": found.n_train,
        "n_test": int(rows.sum()),
        "macro_f1": estimate.value,
        "low": estimate.low,
        "high": estimate.high,
        "accuracy": metrics.accuracy(truth, predicted),
        "auroc": ranked,
    }


def _answers(found: Answered, arrangement: Arrangement, target: str) -> Answers:
    rows = arrangement.targets[target]
    return Answers(arrangement.codes[rows], found.predicted[rows], arrangement.groups[rows], len(arrangement.names))


def _held_against(
    found: Answered, top: Answered, arrangement: Arrangement, target: str, lowest: float
) -> dict[str, Any]:
    reached, ceiling = (_answers(one, arrangement, target) for one in (found, top))
    estimate = statistics.score([ceiling])
    cell = {"ceiling": estimate.value, "ceiling_low": estimate.low, "ceiling_high": estimate.high}
    if found is top:
        return cell
    closed = statistics.share_closed(reached, ceiling, lowest)
    return cell | ({"closed": closed.value, "closed_low": closed.low, "closed_high": closed.high} if closed else {})


def floor(arrangement: Arrangement, source: Source, target: str) -> float:
    """The macro-F1 on a target of knowing nothing but which label is most frequent in the source, or of answering at random."""
    counts = np.bincount(arrangement.codes[source.rows], minlength=len(arrangement.names))
    truth = arrangement.codes[arrangement.targets[target]]
    always = metrics.macro_f1(truth, np.full(len(truth), int(counts.argmax())), len(counts))
    return max(always, 1 / np.count_nonzero(counts))
