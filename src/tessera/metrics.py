"""What a classifier's answers are worth, as pure functions of truth, prediction and probabilities.

Labels are positions among the sorted labels of the dataset, and probabilities have one column for each of them. A metric
of a slice of the test examples speaks of that slice alone:

- `macro_f1` averages over the labels that occur in the slice, as truth or as prediction (scikit-learn's convention).
- `auroc` and `auprc` compare every label with the rest, and average over all labels. If one of them has no example in
  the slice there is nothing to rank, and the metric is None: an average over the others would be about another task.
- `recall_at_fpr` is how many examples of a label are caught when one in a hundred others may be taken for it.
- `ece` and `brier` judge the probabilities themselves.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

ECE_BINS = 15

# The share of other examples that may be taken for a label where recall is asked at a fixed false-positive rate.
FALSE_POSITIVE_RATE = 0.01


def accuracy(truth: Array, predicted: Array) -> float:
    return float(np.mean(truth == predicted))


def macro_f1(truth: Array, predicted: Array, n_classes: int) -> float:
    return float(f1_of_confusions(confusion(truth, predicted, n_classes)))


def confusion(truth: Array, predicted: Array, n_classes: int) -> Array:
    """Counts of (truth, prediction) pairs, flat and row by row."""
    return np.bincount(truth * n_classes + predicted, minlength=n_classes**2)


def f1_of_confusions(confusions: Array) -> Array:
    """Macro-F1 of each confusion in the last axis, which may hold weights: over the labels that have any."""
    n_classes = round(confusions.shape[-1] ** 0.5)
    square = confusions.reshape(*confusions.shape[:-1], n_classes, n_classes)
    right = np.diagonal(square, axis1=-2, axis2=-1)
    seen = square.sum(axis=-1) + square.sum(axis=-2)
    occurs = seen > 0
    f1 = np.divide(2 * right, seen, out=np.zeros(seen.shape), where=occurs)
    labels = occurs.sum(axis=-1)
    return np.divide(f1.sum(axis=-1), labels, out=np.full(labels.shape, np.nan), where=labels > 0)


def _ranked(truth: Array, scores: Array) -> tuple[Array, Array, Array] | None:
    """For each label, from the highest score down: hits so far, answers so far, and where a run of equal scores ends.

    None if a label has no example, or has all of them.
    """
    hits = truth[:, None] == np.arange(scores.shape[1])
    counts = hits.sum(axis=0)
    if (counts == 0).any() or (counts == len(truth)).any():
        return None
    order = np.argsort(-scores, axis=0, kind="stable")
    sorted_scores = np.take_along_axis(scores, order, axis=0)
    hits_so_far = np.cumsum(np.take_along_axis(hits, order, axis=0), axis=0)
    ends = np.ones(scores.shape, dtype=bool)
    ends[:-1] = sorted_scores[1:] != sorted_scores[:-1]
    return hits_so_far, np.arange(1, len(truth) + 1), ends


def auroc(truth: Array, scores: Array) -> float | None:
    """Area under the ROC curve, each label against the rest, averaged; equal scores count half."""
    ranked = _ranked(truth, scores)
    if ranked is None:
        return None
    hits, answers, ends = ranked
    areas = []
    for label in range(scores.shape[1]):
        end = ends[:, label]
        true = np.concatenate([[0], hits[end, label]])
        false = np.concatenate([[0], answers[end] - hits[end, label]])
        areas.append(float(np.trapezoid(true, false) / (true[-1] * false[-1])))
    return float(np.mean(areas))


def auprc(truth: Array, scores: Array) -> float | None:
    """Average precision, each label against the rest, averaged; of two labels, too, both count."""
    ranked = _ranked(truth, scores)
    if ranked is None:
        return None
    hits, answers, ends = ranked
    averages = []
    for label in range(scores.shape[1]):
        end = ends[:, label]
        true = hits[end, label]
        averages.append(float((np.diff(true, prepend=0) * true / answers[end]).sum() / true[-1]))
    return float(np.mean(averages))


def recall_at_fpr(truth: Array, scores: Array, rate: float = FALSE_POSITIVE_RATE) -> float | None:
    """The largest share of a label's examples above a cut that at most `rate` of the others pass, averaged over labels.

    Of two labels only the second counts: the first being caught is the second being passed.
    """
    ranked = _ranked(truth, scores)
    if ranked is None:
        return None
    hits, answers, ends = ranked
    recalls = []
    for label in range(1 if scores.shape[1] == 2 else 0, scores.shape[1]):
        end = ends[:, label]
        true = hits[end, label]
        false = answers[end] - true
        allowed = false <= rate * (len(truth) - true[-1])
        recalls.append(float(true[allowed].max(initial=0) / true[-1]))
    return float(np.mean(recalls))


def ece(truth: Array, predicted: Array, scores: Array) -> float:
    """Expected calibration error: confidence against accuracy in equally wide bins of the predicted label's probability."""
    confidence = scores[np.arange(len(truth)), predicted]
    # A bin holds its upper edge, so that a confidence of 1 needs no bin of its own.
    bins = np.clip(np.ceil(confidence * ECE_BINS).astype(np.intp) - 1, 0, ECE_BINS - 1)
    gaps = np.bincount(bins, weights=(truth == predicted) - confidence, minlength=ECE_BINS)
    return float(np.abs(gaps).sum() / len(truth))


def brier(truth: Array, scores: Array) -> float:
    """Mean squared distance of the probabilities from the truth, summed over the labels: from 0 to 2."""
    return float(np.square(scores - (truth[:, None] == np.arange(scores.shape[1]))).sum(axis=1).mean())


def all_of(truth: Array, predicted: Array, scores: Array) -> dict[str, float | None]:
    """Every metric of one slice by its column name."""
    return {
        "accuracy": accuracy(truth, predicted),
        "macro_f1": macro_f1(truth, predicted, scores.shape[1]),
        "auroc": auroc(truth, scores),
        "auprc": auprc(truth, scores),
        "recall_at_fpr": recall_at_fpr(truth, scores),
        "ece": ece(truth, predicted, scores),
        "brier": brier(truth, scores),
    }
