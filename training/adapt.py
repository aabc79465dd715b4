"""Adapt trained weights to the cells of another laboratory: its stain, camera and scale.

    python -m training.adapt --data CELLS --out runs/mine [--weights weights] [--keep data/training_set.npz]

CELLS is a folder with one subfolder of pictures per class, or an .npz with images and labels: at least 25 cells of two
or more classes. Only the last layer changes, a multinomial logistic regression on the network's features. It is
refitted with a penalty on its distance from the old layer; cross-validation chooses the strength of the penalty. The
fit includes the mean features of some old cells per class, so that classes missing in the new cells are not forgotten.
"""

import warnings
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax
from scipy.stats import binomtest
from sklearn.model_selection import StratifiedGroupKFold

import model
from training import data, shell
from training.files import ROOT, new_folder, revision, write_json
from training.provenance import save_half

LEAST, PARTS = 25, 5  # minimum number of cells; folds of the cross-validation
STRENGTHS = (10.0, 3.0, 1.0, 0.3, 0.1, 0.03)  # of the penalty, for features scaled to a mean squared norm of 1
KEPT, KEPT_WEIGHT = 25, 3.0  # old cells per class; weight of their mean, in units of new cells
LENGTH = 2.0  # distance of a class's substitute features from the overall mean, if there are no old cells


class Head(NamedTuple):
    """The last layer at temperature 1: kernel (features, 8), bias (8,)."""

    kernel: np.ndarray
    bias: np.ndarray


def features_of(predictor: model.Model, images: np.ndarray, views: tuple = model.VIEWS) -> np.ndarray:
    """The head's input for images (n, 96, 96, 3) in each view: (n, views, features) float64."""
    network = keras.Model(predictor.network.input, predictor.network.get_layer("head").input)
    images = model.preprocess(images, predictor.steps)
    turned = [np.ascontiguousarray(view(images)) for view in views]
    return np.stack([network.predict(x, batch_size=model.BATCH_SIZE, verbose=0) for x in turned], 1).astype(float)


def to_keep(predictor: model.Model, cells: data.Cells | None, head: Head, features: np.ndarray) -> np.ndarray:
    """Features (8, d) that represent the old classes, one row per class; `features` are the new ones (n, views, d).

    With `cells`: the mean over up to KEPT cells of the class, of those that `head` classifies as labelled (labels can
    be wrong); ValueError if a class has none. Without: the mean of `features`, moved along the head's weights for it.
    """
    if cells is None:
        ways = (head.kernel - head.kernel.mean(1, keepdims=True)).T
        return features.mean((0, 1)) + LENGTH * ways / np.linalg.norm(ways, axis=1, keepdims=True)
    rng = np.random.default_rng(0)
    some = np.concatenate([rng.permutation(np.flatnonzero(cells.labels == k))[:KEPT] for k in range(len(data.CLASSES))])
    found, labels = features_of(predictor, cells.images[some], model.VIEWS[:1])[:, 0], cells.labels[some]
    right = (found @ head.kernel + head.bias).argmax(1) == labels
    if len(np.unique(labels[right])) < len(data.CLASSES):
        raise ValueError("the cells to keep lack a class that these weights know: name others by --keep, or none")
    return np.stack([found[right & (labels == k)].mean(0) for k in range(len(data.CLASSES))])


def fit(features: np.ndarray, labels: np.ndarray, head: Head, kept: np.ndarray, temperature: float) -> list[Head]:
    """One head per value of STRENGTHS: the maximum a posteriori (MAP) fit with a normal prior around `head`.

    features (n, views, d), labels (n,); each cell has weight 1, shared by its views. kept: from `to_keep`.
    """
    n, views, d = features.shape
    X = np.concatenate([features.reshape(n * views, d), kept])
    Y = np.eye(model.NUM_CLASSES)[np.concatenate([np.repeat(labels, views), np.arange(len(kept))])]
    weights = np.concatenate([np.full(n * views, 1 / views), np.full(len(kept), KEPT_WEIGHT)])[:, None]
    before = (X @ head.kernel + head.bias) / temperature
    scale = np.sqrt((X**2).sum(1).mean())
    basis, inner = np.linalg.qr(np.column_stack([X / scale, np.ones(len(X))]).T)  # the optimum lies in the cells' span
    inner = np.ascontiguousarray(inner.T)

    def loss(flat, strength):
        change = flat.reshape(-1, model.NUM_CLASSES)
        logs = log_softmax(before + inner @ change, axis=1)
        slope = inner.T @ (weights * (np.exp(logs) - Y)) + strength * change
        return -(weights * Y * logs).sum() + strength / 2 * (flat**2).sum(), slope.ravel()

    heads, flat = [], np.zeros(inner.shape[1] * model.NUM_CLASSES)
    for strength in STRENGTHS:  # from strong to weak, each starting from the last solution
        flat = minimize(loss, flat, (strength,), "L-BFGS-B", jac=True, options={"maxiter": 300}).x
        change = temperature * (basis @ flat.reshape(-1, model.NUM_CLASSES))
        heads.append(Head(head.kernel + change[:-1] / scale, head.bias + change[-1]))
    return heads


def chances(features: np.ndarray, head: Head, views: int) -> np.ndarray:
    """Probabilities (n, 8) at temperature 1, as from `model.Model`: for unsure cells, the mean over `views` views."""
    every = softmax(features[:, :views] @ head.kernel + head.bias, axis=2)
    return np.where(every[:, :1].max(2) < model.SURE, every.mean(1), every[:, 0])


def cross_validate(features, labels, groups, head: Head, kept, temperature, views) -> tuple[int, np.ndarray]:
    """(index in STRENGTHS with the lowest log loss, (n,) whether its out-of-fold predictions are correct).

    views: number of views for unsure cells. groups: (n,) ids; cells of one group, copies of one picture, share a fold.
    """
    found = np.empty((len(STRENGTHS), len(labels), model.NUM_CLASSES))
    parts = StratifiedGroupKFold(PARTS, shuffle=True, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a class may have fewer cells than folds
        parts = list(parts.split(labels, labels, groups))
    for rest, part in parts:
        for place, fitted in enumerate(fit(features[rest], labels[rest], head, kept, temperature)):
            found[place, part] = chances(features[part], fitted, views)
    logs = log_softmax(np.log(found + 1e-30) / temperature, axis=2)
    best = int(logs[:, np.arange(len(labels)), labels].sum(1).argmax())
    return best, found[best].argmax(1) == labels


def adapt(predictor: model.Model, cells: data.Cells, keep: data.Cells | None) -> tuple[Head, np.ndarray, np.ndarray]:
    """(head fitted to `cells`, (n,) whether the old head is correct on each cell, the same for the new: out of fold).

    Raises ValueError for fewer than LEAST cells, fewer than two classes, or an ensemble.
    """
    if predictor.members:
        raise ValueError("these weights are an ensemble: adapt one of its members")
    if len(cells) < LEAST or len(np.unique(cells.labels)) < 2:
        found = f"{len(cells)} cells of {len(np.unique(cells.labels))} classes"
        raise ValueError(f"{found} are too few to fit anything: label at least {LEAST}, of two classes or more")
    old = Head(*(np.asarray(w, float) for w in predictor.network.get_layer("head").get_weights()))
    views, temperature = len(predictor.views), predictor.temperature
    features = features_of(predictor, cells.images)
    kept = to_keep(predictor, keep, old, features)
    groups = np.unique(cells.images.reshape(len(cells), -1), axis=0, return_inverse=True)[1].ravel()
    best, after = cross_validate(features, cells.labels, groups, old, kept, temperature, views)
    before = chances(features, old, views).argmax(1) == cells.labels
    return fit(features, cells.labels, old, kept, temperature)[best], before, after


def write_run(predictor: model.Model, head: Head, cells: data.Cells, out: Path) -> None:
    """Write folder `out` atomically: model.weights.h5 with that head, and manifest.json. Modifies `predictor`."""
    origin = {"adapted_from": predictor.manifest["sha256"], "adapted_to": data.digest(cells), "cells": len(cells)}
    manifest = predictor.manifest | origin | revision()
    predictor.network.get_layer("head").set_weights(list(head))
    with new_folder(out) as folder:
        save_half(predictor.network, folder / "model.weights.h5")
        manifest["sha256"] = model.sha256(folder / "model.weights.h5")
        write_json(folder / "manifest.json", manifest)


def share(right: np.ndarray) -> str:
    """Accuracy with its 95% interval (Wilson 1927), as text."""
    low, high = binomtest(int(right.sum()), len(right)).proportion_ci(method="wilson")
    return f"{right.mean():.1%} (95% interval {low:.1%} to {high:.1%})"


def verdict(before: np.ndarray, after: np.ndarray) -> str:
    """Whether the new head is better, by a sign test on the cells where exactly one of the two heads is correct."""
    gained, lost = int((after & ~before).sum()), int((before & ~after).sum())
    if gained + lost == 0 or binomtest(gained, gained + lost).pvalue > 0.05:
        return f"{gained} cells gained, {lost} lost: too few to tell whether it helps; label more"
    return f"{gained} cells gained, {lost} lost: {'better' if gained > lost else 'worse, keep the old weights'}"


def main() -> None:
    add = (parser := shell.parser("training.adapt", __doc__)).add_argument
    add("--data", type=Path, required=True, metavar="CELLS", help="your labelled cells: a folder per class, or .npz")
    add("--out", type=Path, required=True, metavar="FOLDER", help="folder to write")
    add("--weights", type=Path, default=ROOT / "weights", metavar="FOLDER", help="to start from (default: weights)")
    usual = ROOT / "data" / "training_set.npz"
    add("--keep", metavar="CELLS", default=str(usual) if usual.exists() else "none",
        help="old cells not to forget: npz, folder or none (default: data/training_set.npz if there)")  # fmt: skip
    args = parser.parse_args()
    with shell.plain_errors():
        if args.out.exists():
            raise FileExistsError(f"{args.out} is already there: choose another --out")
        keep = None if args.keep == "none" else data.read(args.keep)
        cells = data.read(args.data, picture=model.read_picture)
        predictor = model.Model(args.weights)
        head, before, after = adapt(predictor, cells, keep)
        write_run(predictor, head, cells, args.out)
    counts = np.bincount(cells.labels, minlength=model.NUM_CLASSES)
    named = ", ".join(f"{n} {name}" for n, name in zip(counts, data.CLASSES, strict=True) if n)
    print(f"{len(cells)} cells: {named}")
    print(f"kept: {'the old head, by its own weights; --keep CELLS keeps more' if keep is None else args.keep}")
    print(f"before  {share(before)}\nafter   {share(after)}, cross-validated\n{verdict(before, after)}")
    print(f"{args.out} is written. Next: python model.py PATHS --weights {args.out}")


if __name__ == "__main__":
    main()
