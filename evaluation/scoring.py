"""Scores of labels and probabilities, from scikit-learn where it has them."""

import numpy as np
from sklearn import metrics

from training.data import CLASSES

METRICS = ("accuracy", "balanced_accuracy", "macro_precision", "macro_recall", "roc_auc", "ece")
BINS = 15  # of equal width, for the expected calibration error (Guo et al., ICML 2017)


def confusion(labels: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Counts (8, 8): rows true, columns predicted."""
    return metrics.confusion_matrix(labels, predicted, labels=range(len(CLASSES)))


def calibration_error(right: np.ndarray, confidence: np.ndarray) -> float:
    """Expected calibration error: mean |accuracy - confidence| over bins, weighted by cells. right: (n,) bool."""
    bins = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    return float(np.abs(np.bincount(bins, right - confidence, minlength=BINS)).sum() / len(right))


def roc_auc(labels: np.ndarray, probabilities: np.ndarray) -> list[float | None]:
    """The area under each class's one-vs-rest ROC curve; None for a class that has no cells, or all."""
    return [
        metrics.roc_auc_score(labels == k, column) if 0 < np.sum(labels == k) < len(labels) else None
        for k, column in enumerate(probabilities.T)
    ]


def rounded(value: float | None) -> float | None:
    return None if value is None else round(float(value), 6)


def score(labels: np.ndarray, predicted: np.ndarray, probabilities: np.ndarray | None) -> dict:
    """All scores of one condition, rounded to six digits; per class as lists of eight, None where undefined.

    labels, predicted: (n,) integers 0-7. probabilities: (n, 8), or None, which leaves `roc_auc` and `ece` None.
    Macro means are over classes among labels or predictions, balanced accuracy over those among the labels.
    """
    precision, recall, _, true = metrics.precision_recall_fscore_support(
        labels, predicted, labels=range(len(CLASSES)), zero_division=0
    )
    occurs = np.isin(range(len(CLASSES)), np.concatenate([labels, predicted]))
    auc, ece = [None] * len(CLASSES), None
    if probabilities is not None:
        auc, ece = roc_auc(labels, probabilities), calibration_error(predicted == labels, probabilities.max(axis=1))
    known = [value for value in auc if value is not None]
    return {
        "accuracy": rounded(np.mean(predicted == labels)),
        "balanced_accuracy": rounded(recall[true > 0].mean()),
        "macro_precision": rounded(precision[occurs].mean()),
        "macro_recall": rounded(recall[occurs].mean()),
        "roc_auc": rounded(np.mean(known)) if known else None,
        "ece": rounded(ece),
        "precision": [rounded(v) for v in precision],
        "recall": [rounded(v) if n else None for v, n in zip(recall, true, strict=True)],
        "auc": [rounded(v) for v in auc],
    }
