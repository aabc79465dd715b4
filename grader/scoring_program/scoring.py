"""Scoring program: compares the labels predicted with the true ones. Needs only numpy.

    python3 scoring.py INPUT OUTPUT [SUBMISSION]

INPUT/ref/labels.npy (n,) int, INPUT/ref/classes.npy (k,) names and INPUT/res/predictions.npy (n,) int in 0 to k - 1 ->
OUTPUT/scores.json (accuracy, balanced accuracy, macro precision, recall and F1, each 0-1, as in scikit-learn) and
OUTPUT/detailed_results.html (a confusion matrix). Predictions that break the contract are refused with one sentence
and exit status 1. So is a SUBMISSION (the folder where the platform mounts it, since v1.27) that holds a
predictions.npy, which the platform would copy over INPUT/res.
"""

import json
import os
import sys
from html import escape
from pathlib import Path

import numpy as np

CLASS_HEAD = ("class", "cells", "precision", "recall", "F1")
HEAD = """<!doctype html><html lang="en"><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">"""


def confusion(labels: np.ndarray, predictions: np.ndarray, size: int) -> np.ndarray:
    """(size, size) counts: rows are true classes, columns predicted ones."""
    return np.bincount(labels * size + predictions, minlength=size * size).reshape(size, size)


def per_class(matrix: np.ndarray) -> dict[str, np.ndarray]:
    """Precision, recall and F1 of each class, (k,) each, and its support (number of true images); 0 / 0 is 0."""
    hits, support, predicted = np.diag(matrix), matrix.sum(axis=1), matrix.sum(axis=0)
    return {
        "precision": hits / np.maximum(predicted, 1),
        "recall": hits / np.maximum(support, 1),
        "f1": 2 * hits / np.maximum(support + predicted, 1),
        "support": support,
    }


def score(matrix: np.ndarray) -> dict[str, float]:
    """The five scores of the leaderboard, from a confusion matrix.

    Macro means are over the classes among the true or the predicted labels, balanced accuracy over the true ones.
    """
    rows = per_class(matrix)
    seen = (matrix.sum(axis=0) + matrix.sum(axis=1)) > 0
    balanced = {
        "accuracy": float(np.trace(matrix) / matrix.sum()),
        "balanced_accuracy": float(rows["recall"][rows["support"] > 0].mean()),
    }
    return balanced | {f"macro_{name}": float(rows[name][seen].mean()) for name in ("precision", "recall", "f1")}


def check(predictions: np.ndarray, n: int, size: int) -> None:
    """Raise ValueError unless `predictions` is (n,) integers in 0 to size - 1."""
    if not isinstance(predictions, np.ndarray):
        raise ValueError("predictions.npy does not hold one array")
    if predictions.shape == (n, size):
        raise ValueError(f"predict returned shape {predictions.shape}, one-hot or probabilities; it must return ({n},)")
    if predictions.shape != (n,):
        raise ValueError(f"predict returned shape {predictions.shape} for {n} images; it must return ({n},)")
    if not np.issubdtype(predictions.dtype, np.integer):
        raise ValueError(f"predict returned {predictions.dtype} values; it must return integers")
    if n and not (predictions.min() >= 0 and predictions.max() < size):
        found = f"{predictions.min()} to {predictions.max()}"
        raise ValueError(f"predict returned labels {found}; they must be 0 to {size - 1}")


def table(rows, head=()) -> str:
    """An HTML table of rows of text."""
    top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table>{f'<tr>{top}</tr>' if head else ''}{body}</table>"


def class_rows(matrix: np.ndarray, names: list[str]) -> list[tuple[str, ...]]:
    """Rows of text, one for each class: name, support, precision, recall, F1."""
    columns = per_class(matrix)
    rows = zip(names, columns.pop("support"), *columns.values(), strict=True)
    return [(name, str(support), *(f"{share:.4f}" for share in shares)) for name, support, *shares in rows]


def confusion_table(matrix: np.ndarray, names: list[str]) -> str:
    """The confusion matrix as an HTML table: rows true, columns predicted, coloured by the share of the row.

    Right labels are blue, on a linear scale; mistakes are red, on a logarithmic scale from 0.001 to 1.
    """
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    logarithmic = np.clip(1 + np.log10(np.maximum(shares, 1e-9)) / 4, 0.25, 1)
    lines = ["<tr><th></th>" + "".join(f"<th><span>{escape(name)}</span></th>" for name in names) + "</tr>"]
    for row, name in enumerate(names):
        cells = ""
        for column in range(len(names)):
            strength = shares[row, column] if row == column else logarithmic[row, column]
            kind = ("right" if row == column else "wrong") + " strong" * bool(strength > 0.7)
            count = matrix[row, column]
            cells += f'<td class="{kind}" style="--part:{strength:.2f}">{count}</td>' if count else "<td></td>"
        lines.append(f"<tr><th>{escape(name)}</th>{cells}</tr>")
    return (
        f'<div class="wide"><table class="confusion">{"".join(lines)}</table></div><p class="soft">Rows: the true '
        "class; columns: the one predicted. Red: mistakes, the stronger the larger their share, on a logarithmic "
        "scale.</p>"
    )


def style() -> str:
    return Path(__file__).with_name("style.css").read_text(encoding="utf-8")


def page(matrix: np.ndarray, scores: dict[str, float], names: list[str]) -> str:
    """detailed_results.html: scores, the confusion matrix, and the classes; nothing is fetched from elsewhere."""
    rows = [(name.replace("_", " "), f"{value:.4f}") for name, value in scores.items()]
    return (
        f"{HEAD}<title>Detailed results</title><style>{style()}</style><h1>{matrix.sum()} images</h1>{table(rows)}"
        f"<h2>Confusion matrix</h2>{confusion_table(matrix, names)}"
        f"<h2>Classes</h2>{table(class_rows(matrix, names), CLASS_HEAD)}</html>\n"
    )


def main(input_folder: str, output: str, submission: str = "/app/ingested_program") -> int:
    labels, names = (np.load(f"{input_folder}/ref/{name}.npy") for name in ("labels", "classes"))
    path = f"{input_folder}/res/predictions.npy"
    try:
        if os.path.lexists(f"{submission}/predictions.npy"):
            raise ValueError("the submission holds a predictions.npy, which would replace its predictions: remove it")
        if not os.path.isfile(path):
            raise ValueError("there are no predictions: the submission failed before it could return any (see its log)")
        predictions = np.load(path, allow_pickle=False)
        check(predictions, len(labels), len(names))
    except Exception as error:  # numpy raises exceptions of many types on damaged files
        print(f"refused: {error}", file=sys.stderr)
        return 1
    matrix = confusion(labels, predictions.astype(np.int64), len(names))
    scores = score(matrix)
    Path(output, "detailed_results.html").write_text(page(matrix, scores, names.tolist()), encoding="utf-8")
    Path(output, "scores.json").write_text(json.dumps(scores))
    print(f"accuracy {scores['accuracy']:.4f} on {len(labels)} images")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:4]))
