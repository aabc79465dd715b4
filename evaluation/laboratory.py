"""Score weights on the cells of another laboratory, which may lack some classes.

    python -m evaluation laboratory data/jtsc.npz

The cells are only for scoring: they are not used for training or for choosing weights.
"""

import argparse
from pathlib import Path

import model
from evaluation import cards, markdown
from evaluation.markdown import percent
from evaluation.scoring import confusion
from training import data, shell
from training.files import write_json


def score(predictor: model.Model, cells: data.Cells) -> dict:
    """Return cells, accuracy (0-1) and, per class that occurs, cells, recall (0-1) and counts of the given labels."""
    counts, classes = confusion(cells.labels, predictor.predict(cells.images)), {}
    for name, given, right in zip(data.CLASSES, counts, counts.diagonal(), strict=True):
        if given.any():
            named = {data.CLASSES[k]: int(given[k]) for k in (-given).argsort(kind="stable") if given[k]}
            classes[name] = {"cells": int(given.sum()), "recall": round(float(right / given.sum()), 4), "named": named}
    return {"cells": len(cells), "accuracy": round(float(counts.trace() / len(cells)), 4), "classes": classes}


def sentence(found: dict) -> str:
    """State the accuracy and the most frequent confusion."""
    rows, worst = found["classes"], ""
    if mistakes := [(n, name, k) for name, row in rows.items() for k, n in row["named"].items() if k != name]:
        count, name, other = max(mistakes)
        worst = f"; most often {name} is taken for {other} ({count} of {rows[name]['cells']})"
    return (
        f"All cells are of one hospital. Of {found['cells']} cells of another laboratory ({found['name'].upper()}: "
        f"other stain, camera and scale) these weights name {percent(found['accuracy'])}% rightly{worst}."
    )


def table(found: dict) -> str:
    """Table of the classes, each with its recall and the labels given most often."""
    rows = []
    for name, row in found["classes"].items():
        given = ", ".join(f"{other} {count}" for other, count in list(row["named"].items())[:3])
        rows.append([name, str(row["cells"]), percent(row["recall"]), given])
    return markdown.table(["class", "cells", "recall %", "labels given most often"], rows)


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("cells", type=Path, help="npz with images and labels, or a folder per class")
    parser.add_argument("--weights", type=Path, default=Path("weights"), help="folder (default: %(default)s)")
    parser.add_argument("--json", type=shell.new_file, metavar="OUT", help="write the figures there")


def run(args: argparse.Namespace) -> None:
    cells, predictor = data.read(args.cells), model.Model(args.weights)
    found = {"name": args.cells.stem, **score(predictor, cells)}
    found["provenance"] = {
        "commit": cards.commit(), "cells": data.digest(cells), "weights_sha256": predictor.manifest.get("sha256"),
    }  # fmt: skip
    if args.json:
        write_json(args.json, found)
    markdown.show(f"{table(found)}\n\n{found['cells']} cells, {percent(found['accuracy'])}% named rightly.")
