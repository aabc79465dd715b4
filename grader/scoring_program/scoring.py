"""Scoring program: compares the labels predicted with the true ones.

    python3 scoring.py INPUT OUTPUT [SUBMISSION]

INPUT/ref/labels.npy (n,) int, INPUT/ref/classes.npy (k,) names and INPUT/res/predictions.npy (n,) int in 0 to k - 1 ->
OUTPUT/scores.json (accuracy, balanced accuracy, macro precision, recall and F1, each 0-1) and
OUTPUT/detailed_results.html (a confusion matrix). Predictions that break the contract are refused with one sentence
and exit status 1. So is a SUBMISSION (the folder where the platform mounts it, since v1.27) that holds a
predictions.npy: it is copied over INPUT/res. Needs numpy alone.

The macro means are taken over the classes found among the true or the predicted labels, and a ratio with nothing
below the line is 0, as scikit-learn does it; balanced accuracy is the mean recall of the classes that are there.
"""

import html
import json
import os
import sys

import numpy as np


def confusion(labels: np.ndarray, predictions: np.ndarray, size: int) -> np.ndarray:
    """(size, size) counts: rows are true classes, columns predicted ones."""
    return np.bincount(labels * size + predictions, minlength=size * size).reshape(size, size)


def ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    return np.divide(above, below, out=np.zeros(len(above)), where=below > 0)


def per_class(matrix: np.ndarray) -> dict[str, np.ndarray]:
    """Precision, recall and F1 of each class, (k,) each, and its support (number of true images)."""
    hits, support, predicted = np.diag(matrix), matrix.sum(axis=1), matrix.sum(axis=0)
    return {
        "precision": ratio(hits, predicted),
        "recall": ratio(hits, support),
        "f1": ratio(2 * hits, support + predicted),
        "support": support,
    }


def score(matrix: np.ndarray) -> dict[str, float]:
    """The five scores of the leaderboard, from a confusion matrix."""
    rows = per_class(matrix)
    there, seen = matrix.sum(axis=1) > 0, (matrix.sum(axis=0) + matrix.sum(axis=1)) > 0
    return {
        "accuracy": float(np.trace(matrix) / matrix.sum()),
        "balanced_accuracy": float(rows["recall"][there].mean()),
        "macro_precision": float(rows["precision"][seen].mean()),
        "macro_recall": float(rows["recall"][seen].mean()),
        "macro_f1": float(rows["f1"][seen].mean()),
    }


def check(predictions: np.ndarray, n: int, size: int) -> None:
    """ValueError unless `predictions` is (n,) integers in 0 to size - 1."""
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


def confusion_svg(matrix: np.ndarray, names: list[str]) -> str:
    """The confusion matrix as a picture: rows true, columns predicted, shaded by the share of the row."""
    long = 7 * max(map(len, names))  # pixels of the longest name
    cell, left, top = 58, long + 20, int(0.6 * long) + 40
    width, height = left + cell * len(names) + int(0.8 * long), top + cell * len(names) + 10
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" role="img" '
        'font-family="system-ui, sans-serif" font-size="13"><title>Confusion matrix</title>',
        f'<text x="{left + cell * len(names) / 2}" y="16" text-anchor="middle" font-weight="bold">predicted</text>',
        f'<text x="8" y="{top - 10}" font-weight="bold">true</text>',
    ]
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    for row, name in enumerate(map(html.escape, names)):
        middle = top + cell * (row + 0.5) + 5
        parts.append(f'<text x="{left - 8}" y="{middle}" text-anchor="end">{name}</text>')
        x = left + cell * (row + 0.5)
        parts.append(f'<text x="{x}" y="{top - 10}" transform="rotate(-35 {x} {top - 10})">{name}</text>')
        for column in range(len(names)):
            share, x, y = shares[row, column], left + cell * column, top + cell * row
            blue = "8, 81, 156" if row == column else "165, 15, 21"
            strength = share if row == column else min(1.0, 4 * share)  # a few per cent of mistakes must show
            parts.append(
                f'<rect x="{x}" y="{y}" width="{cell - 2}" height="{cell - 2}" fill="rgb({blue})" '
                f'fill-opacity="{strength:.3f}" stroke="#ccc"/>'
            )
            if matrix[row, column]:
                ink = "#fff" if strength > 0.5 else "#111"
                parts.append(
                    f'<text x="{x + cell / 2 - 1}" y="{y + cell / 2 + 4}" text-anchor="middle" fill="{ink}">'
                    f"{matrix[row, column]}</text>"
                )
    return "\n".join([*parts, "</svg>"])


def page(matrix: np.ndarray, scores: dict[str, float], names: list[str]) -> str:
    """detailed_results.html: scores, the confusion matrix, and the classes; nothing is fetched from elsewhere."""
    rows = per_class(matrix)
    score_rows = "".join(f"<tr><td>{k.replace('_', ' ')}</td><td>{v:.4f}</td></tr>" for k, v in scores.items())
    class_rows = "".join(
        f"<tr><td>{html.escape(name)}</td><td>{rows['support'][i]}</td><td>{rows['precision'][i]:.4f}</td>"
        f"<td>{rows['recall'][i]:.4f}</td><td>{rows['f1'][i]:.4f}</td></tr>"
        for i, name in enumerate(names)
    )
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Detailed results</title>'
        "<style>body{font:15px system-ui,sans-serif;margin:2em auto;max-width:48em;padding:0 1em}"
        "td,th{padding:.2em .8em;text-align:right}td:first-child,th:first-child{text-align:left}"
        "svg{max-width:100%;height:auto}</style>"
        f"<h1>{matrix.sum()} images</h1><table>{score_rows}</table>"
        f"<h2>Confusion matrix</h2>{confusion_svg(matrix, names)}"
        "<h2>Classes</h2><table><tr><th>class</th><th>images</th><th>precision</th><th>recall</th><th>F1</th></tr>"
        f"{class_rows}</table></html>"
    )


def main(input_folder: str, output: str, submission: str = "/app/ingested_program") -> int:
    labels, names = (np.load(os.path.join(input_folder, "ref", name)) for name in ("labels.npy", "classes.npy"))
    names = names.tolist()
    path = os.path.join(input_folder, "res", "predictions.npy")
    try:
        if os.path.lexists(os.path.join(submission, "predictions.npy")):
            raise ValueError("the submission holds a predictions.npy, which would replace its predictions: remove it")
        if not os.path.isfile(path):
            raise ValueError("there are no predictions: the submission failed before it could return any (see its log)")
        predictions = np.load(path, allow_pickle=False)
        check(predictions, len(labels), len(names))
    except Exception as error:  # of damaged bytes numpy's reader raises whatever its parts do
        print(f"refused: {error}", file=sys.stderr)
        return 1
    matrix = confusion(labels, predictions.astype(np.int64), len(names))
    scores = score(matrix)
    with open(os.path.join(output, "detailed_results.html"), "w", encoding="utf-8") as file:
        file.write(page(matrix, scores, names))
    with open(os.path.join(output, "scores.json"), "w") as file:
        json.dump(scores, file)
    print(f"accuracy {scores['accuracy']:.4f} on {len(labels)} images")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:4]))
