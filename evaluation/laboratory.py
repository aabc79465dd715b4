"""Score weights on the cells of another laboratory, of all classes or some.

    python -m evaluation.laboratory data/jtsc.npz --json results/laboratory.json

The cells are for scoring only: nothing is trained or chosen on them.
"""

from pathlib import Path

import numpy as np

import model
from training import data, shell
from training.files import ROOT, commit, write_json


def score(predictor: model.Model, cells: data.Cells) -> dict:
    """Number of cells, accuracy, and of each class that occurs: cells, recall, and how often each label was given."""
    labels = predictor.predict(cells.images)
    classes = {}
    for label in np.unique(cells.labels):
        given = labels[cells.labels == label]
        counts = np.bincount(given, minlength=len(data.CLASSES))
        named = {data.CLASSES[k]: int(counts[k]) for k in np.argsort(-counts, kind="stable") if counts[k]}
        recall = round(float(np.mean(given == label)), 4)
        classes[data.CLASSES[label]] = {"cells": len(given), "recall": recall, "named": named}
    return {"cells": len(cells), "accuracy": round(float(np.mean(labels == cells.labels)), 4), "classes": classes}


def main() -> None:
    parser = shell.parser("evaluation.laboratory", __doc__)
    parser.add_argument("cells", type=Path, help="npz with images and labels, or a folder per class")
    parser.add_argument("--weights", type=Path, default=ROOT / "weights", help="default: weights")
    parser.add_argument("--json", type=shell.new_file, help="file to write")
    args = parser.parse_args()
    with shell.plain_errors():
        cells, predictor = data.read(args.cells), model.Model(args.weights)
    found = {"name": args.cells.stem, **score(predictor, cells)}
    found["provenance"] = {
        "commit": commit(), "cells": data.digest(cells), "weights_sha256": predictor.manifest.get("sha256"),
    }  # fmt: skip
    if args.json:
        write_json(args.json, found)
    print(f"{found['name']}: {found['accuracy']:.2%} of {found['cells']} cells")
    for name, row in found["classes"].items():
        print(f"  {name:22}{row['cells']:5}  recall {row['recall']:.2f}  {row['named']}")


if __name__ == "__main__":
    main()
