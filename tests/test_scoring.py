"""Scores against scikit-learn's own, and by hand where it has none."""

import numpy as np
import pytest
from sklearn import metrics

from evaluation import scoring


@pytest.mark.parametrize("classes", [8, 5])
def test_scores_are_scikit_learns(classes):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, classes, 300)
    probabilities = rng.dirichlet(np.ones(8), 300)
    probabilities[np.arange(300), labels] += 0.3
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    predicted = probabilities.argmax(axis=1)
    scores = scoring.score(labels, predicted, probabilities)
    macro = {"average": "macro", "zero_division": 0}
    expected = {
        "accuracy": metrics.accuracy_score(labels, predicted),
        "macro_precision": metrics.precision_score(labels, predicted, **macro),
        "macro_recall": metrics.recall_score(labels, predicted, **macro),
        "balanced_accuracy": metrics.recall_score(labels, predicted, labels=range(classes), **macro),
    }
    if classes == 8:
        expected["roc_auc"] = metrics.roc_auc_score(labels, probabilities, multi_class="ovr", average="macro")
    else:
        assert scores["auc"][5:] == scores["recall"][5:] == [None] * 3
    assert {name: scores[name] for name in expected} == pytest.approx(expected, abs=1e-6)
    per_class = metrics.precision_score(labels, predicted, average=None, labels=range(8), zero_division=0)
    assert scores["precision"] == pytest.approx(per_class, abs=1e-6)


def test_calibration_error_by_hand():
    # 0.9 sure and right three times of four; 0.5 sure and right once of two: (4 * 0.15 + 2 * 0) / 6
    labels = np.array([0, 0, 0, 1, 2, 3])
    probabilities = np.full((6, 8), 0.1 / 7)
    probabilities[:4, 0] = 0.9
    probabilities[4:] = 0.5 / 7
    probabilities[4:, 2] = 0.5
    assert scoring.score(labels, probabilities.argmax(axis=1), probabilities)["ece"] == pytest.approx(0.1, abs=1e-6)
    sure = np.eye(8)[labels]
    assert scoring.score(labels, labels, sure)["ece"] == 0
    assert scoring.score(labels, (labels + 1) % 8, np.roll(sure, 1, axis=1))["ece"] == 1


def test_labels_alone_have_no_probabilities_to_score():
    scores = scoring.score(np.array([0, 1]), np.array([0, 2]), None)
    assert scores["roc_auc"] is scores["ece"] is None and scores["accuracy"] == 0.5


def test_confusion_counts_rows_true():
    counts = scoring.confusion(np.array([0, 0, 7]), np.array([0, 3, 7]))
    assert counts[0, 0] == counts[0, 3] == counts[7, 7] == 1 and counts.sum() == 3
