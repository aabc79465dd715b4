"""The pictures of a report card: accuracy by corruption, what is taken for what, calibration, the surest mistakes."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from evaluation import corruptions, evaluate


def plot(card: dict, folder: Path, images: np.ndarray | None = None) -> list[Path]:
    """heatmap.png, confusion.png, and where the card holds confidences reliability.png; with the held-out images
    (uint8 (n, 96, 96, 3), in the file's order) also mistakes.png. Returns the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    groups = {group: entries for group, entries in evaluate.groups_of(card).items() if entries}
    figures = {"heatmap.png": heatmap(groups), "confusion.png": confusion(card, groups)}
    if groups["clean"][0]["confidence"] is not None:
        figures["reliability.png"] = calibration(card, groups)
        if images is not None:
            figures["mistakes.png"] = mistakes(card, images)
    for name, figure in figures.items():
        figure.savefig(folder / name, dpi=90, bbox_inches="tight", metadata={"Software": None})
    return [folder / name for name in figures]


def heatmap(groups: dict[str, list[dict]]) -> Figure:
    """Accuracy by corruption (rows) and severity (columns)."""
    grid: dict[str, dict[int, float]] = {}
    for entry in groups.get("corrupted", []) + groups["composite"]:
        grid.setdefault(entry["corruption"], {})[entry["severity"]] = entry["accuracy"]
    severities = sorted({severity for row in grid.values() for severity in row})
    values = np.array([[row.get(severity, np.nan) for severity in severities] for row in grid.values()])
    figure = Figure(figsize=(2.4 + 0.75 * len(severities), 0.6 + 0.24 * len(grid)))
    axes = figure.subplots()
    low = np.floor(10 * np.nanmin(values)) / 10
    shown = axes.imshow(values, aspect="auto", cmap="viridis", vmin=low, vmax=1)
    for (row, column), value in np.ndenumerate(values):
        dark = value < (low + 1) / 2
        axes.text(column, row, f"{100 * value:.1f}", ha="center", va="center", size=8, color="w" if dark else "k")
    axes.set_xticks(range(len(severities)), severities)
    axes.set_yticks(range(len(grid)), list(grid), size=8)
    axes.set(xlabel="severity", title=f"accuracy, % (clean {100 * groups['clean'][0]['accuracy']:.1f})")
    figure.colorbar(shown, ax=axes, fraction=0.05)
    return figure


def confusion(card: dict, groups: dict[str, list[dict]]) -> Figure:
    """Of each true class (rows), the share of each label (columns); a matrix for each group."""
    figure = Figure(figsize=(5 * len(groups), 5.2), layout="constrained")
    for axes, (group, entries) in zip(figure.subplots(1, len(groups)), groups.items(), strict=True):
        counts = evaluate.pooled_confusion(card, entries)
        share = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        axes.imshow(share, cmap="Blues", vmin=0, vmax=100)
        for (row, column), value in np.ndenumerate(share):
            if value >= 0.05:
                colour = "w" if value > 50 else "k"
                axes.text(column, row, f"{value:.1f}", ha="center", va="center", size=8, color=colour)
        axes.set_xticks(range(evaluate.NUM_CLASSES), evaluate.SHORT, rotation=45, ha="right")
        axes.set_yticks(range(evaluate.NUM_CLASSES), evaluate.SHORT)
        axes.set(xlabel="predicted", ylabel="true", title=f"{group}, % of the true class")
    return figure


def calibration(card: dict, groups: dict[str, list[dict]]) -> Figure:
    """Accuracy by confidence (a reliability diagram), and the share of the cells in each bin."""
    figure = Figure(figsize=(4 * len(groups), 4), layout="constrained")
    for axes, (group, entries) in zip(figure.subplots(1, len(groups), sharey=True), groups.items(), strict=True):
        right = np.concatenate([evaluate.predictions_of(e) == evaluate.labels_of(card, e["cells"]) for e in entries])
        cells, confidence, accuracy = evaluate.reliability(
            right, np.concatenate([evaluate.confidence_of(e) for e in entries])
        )
        axes.bar(
            (np.arange(evaluate.BINS) + 0.5) / evaluate.BINS,
            cells / cells.sum(),
            0.9 / evaluate.BINS,
            color="0.85",
            label="share of cells",
        )
        axes.plot([0, 1], [0, 1], color="0.5", linestyle=":")
        axes.plot(confidence, accuracy, marker="o", color="C0", label="accuracy")
        axes.set(title=group, xlabel="confidence", xlim=(0, 1), ylim=(0, 1.02))
    axes.legend(loc="upper left")
    return figure


def mistakes(card: dict, images: np.ndarray) -> Figure:
    """The 24 most confident mistakes, each cell once."""
    found, seen = [], set()
    for entry in card["conditions"]:
        said, true, sure = (
            evaluate.predictions_of(entry),
            evaluate.labels_of(card, entry["cells"]),
            evaluate.confidence_of(entry),
        )
        for k in np.flatnonzero(said != true):
            found.append((sure[k], card["cells"]["order"][k], true[k], said[k], entry))
    found.sort(key=lambda mistake: -mistake[0])
    found = [m for m in found if not (m[1] in seen or seen.add(m[1]))][:24]
    figure = Figure(figsize=(13, 6))
    places = figure.subplots(3, 8, gridspec_kw={"wspace": 0.4, "hspace": 0.45}).ravel()
    for axes in places:
        axes.axis("off")
    for axes, (sure, index, true, said, entry) in zip(places, found, strict=False):
        name, severity = entry["corruption"], entry["severity"]
        axes.imshow(images[index] if name == "clean" else corruptions.corrupt(images[index], name, severity))
        axes.set_title(
            f"{evaluate.SHORT[true]}\nsaid {evaluate.SHORT[said]} {100 * sure:.1f}%\n{name} {severity or ''}", size=7
        )
    return figure
