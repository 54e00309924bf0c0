"""Metrics against scikit-learn, and by hand where it has none."""

import warnings

import numpy as np
import pytest
from sklearn import metrics as theirs

from tessera import metrics


def answers(seed, n, n_classes, ties=False):
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, n_classes, n)
    logits = rng.standard_normal((n, n_classes)) + 1.2 * np.eye(n_classes)[truth]
    scores = np.exp(logits)
    scores /= scores.sum(axis=1, keepdims=True)
    if ties:
        scores = np.round(scores, 1)
        scores /= scores.sum(axis=1, keepdims=True)
    return truth, scores.argmax(axis=1), scores


@pytest.mark.parametrize("n_classes", [2, 3, 8])
@pytest.mark.parametrize("ties", [False, True])
def test_metrics_are_scikit_learns(n_classes, ties):
    truth, predicted, scores = answers(n_classes, 300, n_classes, ties)
    found = metrics.all_of(truth, predicted, scores)
    each = np.eye(n_classes)[truth]
    assert found["accuracy"] == pytest.approx(theirs.accuracy_score(truth, predicted))
    assert found["macro_f1"] == pytest.approx(theirs.f1_score(truth, predicted, average="macro"))
    assert found["auprc"] == pytest.approx(theirs.average_precision_score(each, scores, average="macro"))
    areas = {"multi_class": "ovr", "average": "macro"} if n_classes > 2 else {}
    assert found["auroc"] == pytest.approx(
        theirs.roc_auc_score(truth, scores if n_classes > 2 else scores[:, 1], **areas)
    )
    recalls = []
    for label in [1] if n_classes == 2 else range(n_classes):
        false, true, _ = theirs.roc_curve(each[:, label], scores[:, label], drop_intermediate=False)
        recalls.append(true[false <= 0.01].max())
    assert found["recall_at_fpr"] == pytest.approx(np.mean(recalls))
    assert found["brier"] == pytest.approx(((scores - each) ** 2).sum(axis=1).mean())
    if n_classes == 2:
        assert found["brier"] == pytest.approx(2 * theirs.brier_score_loss(truth, scores[:, 1]))


def test_macro_f1_is_over_labels_that_occur_as_truth_or_prediction():
    truth, predicted = np.array([0, 0, 1, 1]), np.array([0, 2, 1, 1])
    # Label 3 of four occurs nowhere; label 2 is never right.
    assert metrics.macro_f1(truth, predicted, 4) == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert metrics.macro_f1(truth, predicted, 4) == pytest.approx(theirs.f1_score(truth, predicted, average="macro"))


def test_weighted_confusions_give_the_f1_of_examples_repeated_as_often():
    truth, predicted, _ = answers(5, 60, 3)
    weights = np.random.default_rng(0).integers(0, 3, (2, 60))
    cells = np.eye(9)[truth * 3 + predicted]
    found = metrics.f1_of_confusions(weights @ cells)
    for row in range(2):
        repeated = np.repeat(np.arange(60), weights[row])
        assert found[row] == pytest.approx(theirs.f1_score(truth[repeated], predicted[repeated], average="macro"))


def test_a_replicate_without_examples_has_no_f1_and_warns_nobody():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isnan(metrics.f1_of_confusions(np.zeros((1, 4)))).all()


@pytest.mark.parametrize("truth", [[0, 1, 1, 0], [1, 1, 1, 1]])
def test_ranking_needs_an_example_of_every_label_and_of_its_rest(truth):
    scores = np.full((4, 3 if 0 in truth else 2), 0.5)
    assert metrics.auroc(np.array(truth), scores) is None
    assert metrics.auprc(np.array(truth), scores) is None


def test_equal_scores_rank_as_chance():
    truth = np.array([0, 1, 0, 1, 1])
    assert metrics.auroc(truth, np.full((5, 2), 0.5)) == pytest.approx(0.5)


def test_ece_is_the_gap_between_confidence_and_accuracy_weighted_by_bin():
    scores = np.array([[0.9, 0.1], [0.92, 0.08], [0.55, 0.45], [1.0, 0.0]])
    truth, predicted = np.array([0, 1, 0, 0]), np.zeros(4, dtype=int)
    # Bins of a fifteenth: .9 and .92 share one, with accuracy .5; .55 and 1 are alone, and right.
    expected = (abs(2 * 0.5 - 1.82) + abs(1 - 0.55) + abs(1 - 1.0)) / 4
    assert metrics.ece(truth, predicted, scores) == pytest.approx(expected)


def test_perfect_answers_are_perfect_by_every_metric():
    truth = np.array([0, 1, 2, 1])
    found = metrics.all_of(truth, truth, np.eye(3)[truth])
    assert found == {"accuracy": 1, "macro_f1": 1, "auroc": 1, "auprc": 1, "recall_at_fpr": 1, "ece": 0, "brier": 0}
