"""Draw the pages' pictures: a sheet of all corruptions, and a strip of one cell with its predicted labels.

    python -m evaluation pictures            writes results/corruptions.png and results/strip.png
    python -m evaluation pictures --sample   after a change to evaluation/corruptions.py; then make new cards

A report card's pictures are drawn by the command card (--plots), the curves of training runs by compare (--curves).
"""

import argparse
import io
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from sklearn.calibration import CalibrationDisplay
from sklearn.metrics import ConfusionMatrixDisplay

from evaluation import cards, corruptions
from evaluation.scoring import BINS
from training import data
from training.files import write_atomically

Groups = dict[str, list[dict]]  # a card's conditions, see cards.groups_of
CLASSES = [name.replace("immature granulocyte", "immature gran.") for name in data.CLASSES]
SHOWN = ("clean", "hue", "motion", "grid_mask", "gaussian_noise", "jpeg", "invert", "composite")  # on the strip
STRENGTH = 4  # severity of the strip's corruptions, 1-5


def plot(card: dict, folder: Path, images: np.ndarray | None = None) -> list[Path]:
    """Draw heatmap.png and confusion.png; if the card holds confidences, also reliability.png and, given the held-out
    images (uint8 (n, 96, 96, 3), in the file's order), mistakes.png. Returns the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    groups = cards.groups_of(card)
    figures = {"heatmap.png": heatmap(groups), "confusion.png": confusion(card, groups)}
    if groups["clean"][0]["confidence"] is not None:
        figures["reliability.png"] = calibration(card, groups)
        if images is not None:
            figures["mistakes.png"] = mistakes(card, images)
    for name, figure in figures.items():
        save(figure, folder / name, dpi=90, bbox_inches="tight")
    return [folder / name for name in figures]


def save(figure: Figure, path: Path, **how) -> None:
    """Save a figure without Matplotlib's version, so that the file has the same bytes each time."""
    write_atomically(path, lambda temporary: figure.savefig(temporary, metadata={"Software": None}, **how))


def heatmap(groups: Groups) -> Figure:
    """Accuracy by corruption (rows) and severity (columns)."""
    entries = groups.get("corrupted", []) + groups["composite"]
    accuracies = {(e["corruption"], e["severity"]): e["accuracy"] for e in entries}
    names = list(dict.fromkeys(name for name, _ in accuracies))
    severities = sorted({severity for _, severity in accuracies})
    values = np.array([[accuracies.get((name, severity), np.nan) for severity in severities] for name in names])
    figure = Figure(figsize=(2.4 + 0.75 * len(severities), 0.6 + 0.24 * len(names)))
    axes = figure.subplots()
    low = np.floor(10 * np.nanmin(values)) / 10
    shown = axes.imshow(values, aspect="auto", cmap="viridis", vmin=low, vmax=1)
    for (row, column), value in np.ndenumerate(values):
        colour = "w" if value < (low + 1) / 2 else "k"
        axes.text(column, row, f"{100 * value:.1f}", ha="center", va="center", size=8, color=colour)
    axes.set_xticks(range(len(severities)), severities)
    axes.set_yticks(range(len(names)), names, size=8)
    axes.set(xlabel="severity", title=f"accuracy, % (clean {100 * groups['clean'][0]['accuracy']:.1f})")
    figure.colorbar(shown, ax=axes, fraction=0.05)
    return figure


def confusion(card: dict, groups: Groups) -> Figure:
    """One confusion matrix per group, in % of the true class: rows true, columns predicted."""
    figure = Figure(figsize=(5 * len(groups), 5.2), layout="constrained")
    for axes, (group, entries) in zip(figure.subplots(1, len(groups)), groups.items(), strict=True):
        counts = cards.pooled_confusion(card, entries)
        share = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        shown = ConfusionMatrixDisplay(share, display_labels=CLASSES)
        shown.plot(ax=axes, cmap="Blues", values_format=".1f", colorbar=False, xticks_rotation=90, text_kw={"size": 8})
        axes.set_title(f"{group}, % of the true class")
    return figure


def calibration(card: dict, groups: Groups) -> Figure:
    """Reliability diagrams: accuracy by confidence, and the share of the cells in each bin."""
    figure = Figure(figsize=(4 * len(groups), 4), layout="constrained")
    for axes, (group, entries) in zip(figure.subplots(1, len(groups), sharey=True), groups.items(), strict=True):
        right = np.concatenate([cards.predictions_of(e) == cards.labels_of(card, e["cells"]) for e in entries])
        sure = np.concatenate([cards.confidence_of(e) for e in entries])
        shares = np.full(len(sure), 1 / len(sure))
        axes.hist(sure, bins=BINS, range=(0, 1), weights=shares, color="0.85", rwidth=0.9, label="share of cells")
        CalibrationDisplay.from_predictions(right, sure, n_bins=BINS, ax=axes, name="accuracy")
        axes.set(title=group, xlabel="confidence", ylabel="", xlim=(0, 1), ylim=(0, 1.02))
    return figure


def mistakes(card: dict, images: np.ndarray) -> Figure:
    """The 24 most confident mistakes, each cell once."""
    surest: dict[int, tuple] = {}
    for entry in card["conditions"]:
        said, true = cards.predictions_of(entry), cards.labels_of(card, entry["cells"])
        for k in np.flatnonzero(said != true):
            index, sure = card["cells"]["order"][k], cards.confidence_of(entry)[k]
            if index not in surest or sure > surest[index][0]:
                surest[index] = sure, true[k], said[k], entry["corruption"], entry["severity"]
    figure = Figure(figsize=(13, 6))
    places = figure.subplots(3, 8, gridspec_kw={"wspace": 0.4, "hspace": 0.45}).ravel()
    for axes in places:
        axes.axis("off")
    found = sorted(surest.items(), key=lambda item: -item[1][0])
    for axes, (index, (sure, true, said, name, severity)) in zip(places, found, strict=False):
        axes.imshow(images[index] if name == "clean" else corruptions.corrupt(images[index], name, severity))
        axes.set_title(f"{CLASSES[true]}\nsaid {CLASSES[said]} {100 * sure:.1f}%\n{name} {severity or ''}", size=7)
    return figure


def curves(runs: dict[str, dict]) -> Figure:
    """Loss and accuracy by epoch; training is dashed (as in LionIA, Figure 1). runs: name -> run.json."""
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    for axes, metric in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        for k, (name, run) in enumerate(runs.items()):
            for part, style in (("train", "--"), ("validation", "-")):
                epochs, values = zip(*((e["epoch"] + 1, e[part][metric]) for e in run["history"]), strict=True)
                axes.plot(epochs, values, style, color=f"C{k}", label=f"{name}, {part}")
        axes.set(xlabel="epoch", ylabel=metric)
    axes.legend(fontsize=8)
    return figure


def sheet(images: np.ndarray) -> Figure:
    """All corruptions, one per row and each with another cell, at every severity. images: uint8 (n, 96, 96, 3)."""
    names = [*corruptions.CORRUPTIONS, "composite"]
    figure = Figure(figsize=(14, 10), layout="constrained")
    for axes, part in zip(figure.subplots(1, 3), np.array_split(range(len(names)), 3), strict=True):
        rows = []
        for k in part:
            cell = images[k % len(images)]
            rows.append(np.hstack([cell, *(corruptions.corrupt(cell, names[k], s) for s in corruptions.SEVERITIES)]))
        axes.imshow(np.vstack(rows))
        axes.set_yticks(96 * np.arange(len(part)) + 48, [names[k] for k in part], size=8)
        axes.set_xticks(96 * np.arange(6) + 48, ["clean", *corruptions.SEVERITIES], size=8)
        axes.tick_params(length=0, top=False, labeltop=True, labelbottom=False)
        axes.spines[:].set_visible(False)
    return figure


def strip(image: np.ndarray, predictor) -> Figure:
    """One cell under the SHOWN corruptions, with the name above and the predicted label and its probability below."""
    pictures = [image, *(corruptions.corrupt(image, name, STRENGTH) for name in SHOWN[1:])]
    figure = Figure(figsize=(8.5, 1.45), layout="constrained")
    places = figure.subplots(1, len(SHOWN))
    found = predictor.predict_proba(np.stack(pictures))
    for axes, name, picture, row in zip(places, SHOWN, pictures, found, strict=True):
        axes.imshow(picture)
        axes.set_title(name.replace("_", " "), size=7)
        axes.set_xlabel(f"{CLASSES[row.argmax()]} {row.max():.0%}", size=7)
        axes.set(xticks=[], yticks=[])
    return figure


def options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--sample", action="store_true", help="also write results/corruptions_sample.npz again")
    add("--heldout", type=Path, default=Path("data/heldout.npz"), help="NPZ of cells (default: %(default)s)")
    add("--out", type=Path, default=Path("results"), help="folder for the pictures (default: %(default)s)")


def run(args: argparse.Namespace) -> None:
    from PIL import Image  # comes with Matplotlib

    from model import Model

    cells = data.read(args.heldout, part="val")
    args.out.mkdir(parents=True, exist_ok=True)
    save(strip(cells.images[0], Model()), args.out / "strip.png", dpi=100)
    drawn = io.BytesIO()
    sheet(cells.images[data.stratified_order(cells.labels)]).savefig(drawn, dpi=80)
    small = Image.open(drawn).convert("RGB").quantize(256)  # a third of the size
    write_atomically(args.out / "corruptions.png", lambda temporary: small.save(temporary, optimize=True))
    if args.sample:
        values, digest = corruptions.drawn()
        write_atomically(corruptions.SAMPLE, lambda path: np.savez_compressed(path, values=values, sha256=digest))
    print(f"{args.out}: strip.png, of a cell of class {data.CLASSES[cells.labels[0]]}, and corruptions.png")
