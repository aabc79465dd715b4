"""The report card: what a model scores on clean cells and on every corruption, as one JSON file and its pictures.

    python -m evaluation.evaluate submission.zip --heldout data/heldout.npz --json card.json --plots card/
    python -m evaluation.evaluate runs/ours --json card.json --images 200        # about 5 minutes instead of 10
    python -m evaluation.evaluate runs/ours --json quick.json --quick            # under a minute
    python -m evaluation.evaluate runs/ours --json ours.json --composite         # clean and the composite, all cells
    python -m evaluation.evaluate card.json --baseline other.json                # no model: compare two cards

The first argument is a submission zip, a folder with a model.py, a training run (model.weights.h5 and manifest.json,
read by this project's model.py), or a finished card. The clean cells and the composite at five strengths are scored on
every held-out cell; each of the 46 corruptions at five severities on the same 400 (`--images`), drawn once, in
proportion to the classes. A killed run goes on where it stopped: finished conditions wait in CARD.json.partial.

The card's `conditions` hold each prediction: `predicted` is one digit per cell, `confidence` the largest probability
in units of 1/65535 (base64 of little-endian uint16), both in the order `cells.order`, whose first N cells a condition
of N cells uses. Scores are shares of 1. It carries hashes and versions and no date, so that two runs on the same
weights, cells and libraries write the same file. With results/calibration.json (evaluation.calibrate) the summary also
holds the hidden score to expect, `predicted_hidden`; a finished card is printed with the calibration at hand, and
written with it where --json names a file.
"""

import argparse
import base64
import contextlib
import hashlib
import importlib.util
import io
import json
import os
import platform
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from scipy.stats import rankdata
from sklearn import metrics

from evaluation import calibrate, corruptions
from training import data, shell
from training.files import ROOT, commit, write_text

SCHEMA = 1
NUM_CLASSES = len(data.CLASSES)
SHORT = ("basophil", "eosinophil", "erythroblast", "ig", "lymphocyte", "monocyte", "neutrophil", "platelet")
METRICS = ("accuracy", "balanced_accuracy", "macro_precision", "macro_recall", "roc_auc", "ece")
BINS = 15  # of equal width, for the expected calibration error (Guo et al., ICML 2017)
IMAGES = 400  # cells per corruption and severity
QUICK_CELLS, QUICK_IMAGES, QUICK_SEVERITIES = 200, 100, (3,)


# --- the model --------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps a foreign model's bars, prints and warnings off the terminal."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def open_model(target: Path) -> Iterator[tuple[object, dict]]:
    """The `Model()` of a submission zip, of a folder with a model.py, or of a training run, and its hashes.

    A run may be of any network of training.networks, where a submission is of model.py's own.
    A zip is unpacked into a temporary folder, which lives as long as the context. The model is imported and constructed
    with its own folder as the working directory, as the grader does. Raises ValueError where there is no model or its
    import or construction fails.
    """
    target = target.resolve()
    with tempfile.TemporaryDirectory() as temporary:
        folder = unpacked(target, Path(temporary))
        source, hashes = identify(folder, target)
        before = set(sys.modules)
        sys.path.insert(0, str(source.parent))
        try:
            yield construct(source, folder, target), hashes
        finally:
            sys.path.remove(str(source.parent))
            sys.modules.pop("graded_model", None)
            for name in set(sys.modules) - before if folder != ROOT else ():  # the next one's may have these names
                if (getattr(sys.modules[name], "__file__", None) or "").startswith(f"{folder}{os.sep}"):
                    del sys.modules[name]


def unpacked(target: Path, temporary: Path) -> Path:
    """The folder `target`, or `temporary` with the contents of the zip `target`."""
    if not target.exists():
        raise ValueError(f"{target} is missing")
    if target.is_dir():
        return target
    if not zipfile.is_zipfile(target):
        raise ValueError(f"{target} is no zip file, no folder and no card (.json)")
    try:
        with zipfile.ZipFile(target) as archive:
            archive.extractall(temporary)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
        raise ValueError(f"{target} cannot be unpacked: {error}") from error
    return temporary


def identify(folder: Path, target: Path) -> tuple[Path, dict]:
    """The model.py that goes with a folder of a submission or of a run, and the hashes of code and weights."""
    if (folder / "model.py").is_file():
        source, weights = folder / "model.py", folder / "weights" / "model.weights.h5"
    elif (folder / "model.weights.h5").is_file():
        source, weights = ROOT / "model.py", folder / "model.weights.h5"
    else:
        raise ValueError(f"{target} holds neither a model.py nor a model.weights.h5 at its top")
    files = [weights]
    if not weights.is_file():  # a foreign submission may name its weights otherwise
        files = sorted(path for path in folder.rglob("*") if path.suffix in (".h5", ".keras"))
    return source, {
        "model_py_sha256": hashlib.sha256(source.read_bytes()).hexdigest(),
        "weights_sha256": hashlib.sha256(b"".join(p.read_bytes() for p in files)).hexdigest(),
        "inference": inference(weights.parent),
    }


def construct(source: Path, folder: Path, target: Path) -> object:
    """The Model of a model.py as the module graded_model, with its folder as the working directory meanwhile."""
    here = Path.cwd()
    spec = importlib.util.spec_from_file_location("graded_model", source)
    module = importlib.util.module_from_spec(spec)
    sys.modules["graded_model"] = module
    try:
        os.chdir(folder)
        with quiet():
            spec.loader.exec_module(module)
            return module.Model() if source.parent == folder else module.Model(folder)
    except Exception as error:
        raise ValueError(f"the model in {target} cannot be loaded: {error}") from error
    finally:
        os.chdir(here)


def inference(folder: Path) -> dict:
    """What manifest.json beside the weights changes in their predictions; {} where there is none."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        changing = ("members", "enhance", "pixels", "views", "temperature")
        return {key: manifest[key] for key in changing if manifest.get(key)}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def ask(method: Callable, images: np.ndarray) -> np.ndarray:
    """What a method of a model gives for images. Raises ValueError where it fails."""
    try:
        with quiet():
            return np.asarray(method(images))
    except Exception as error:
        raise ValueError(f"the model failed to predict: {type(error).__name__}: {error}") from error


def predict(model: object, images: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Labels (n,) int64 and, where the model has `predict_proba`, probabilities (n, 8) float64, else None.

    images: uint8 (n, 96, 96, 3). Raises ValueError where the model returns anything else.
    """
    if hasattr(model, "predict_proba"):
        probabilities = ask(model.predict_proba, images).astype(np.float64)
        if probabilities.shape != (len(images), NUM_CLASSES) or not np.isfinite(probabilities).all():
            raise ValueError(f"predict_proba gave {probabilities.shape}, not finite ({len(images)}, {NUM_CLASSES})")
        return probabilities.argmax(axis=1), probabilities
    labels = ask(model.predict, images)
    whole = labels.shape == (len(images),) and labels.dtype.kind in "iu"
    if not whole or (labels < 0).any() or (labels >= NUM_CLASSES).any():
        raise ValueError(f"predict gave {labels.dtype} {labels.shape}, not integers 0-7 of shape ({len(images)},)")
    return labels.astype(np.int64), None


def check_agreement(model: object, images: np.ndarray) -> None:
    """Raises ValueError where `predict`, which is graded, differs from `predict_proba`, which is measured."""
    if hasattr(model, "predict_proba"):
        if not np.array_equal(ask(model.predict, images), predict(model, images)[0]):
            raise ValueError("predict and the largest of predict_proba differ: the card would not be of what is graded")


# --- the scores -------------------------------------------------------------------------------------------------------


def confusion(labels: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Counts (8, 8): rows true, columns predicted."""
    return metrics.confusion_matrix(labels, predicted, labels=range(NUM_CLASSES))


def reliability(right: np.ndarray, confidence: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Per confidence bin: cells, mean confidence, accuracy, each (15,), NaN where empty. right: (n,) bool."""
    bins = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    cells = np.bincount(bins, minlength=BINS)
    with np.errstate(invalid="ignore"):
        return (
            cells,
            np.bincount(bins, confidence, minlength=BINS) / cells,
            np.bincount(bins, right, minlength=BINS) / cells,
        )


def calibration_error(right: np.ndarray, confidence: np.ndarray) -> float:
    """The mean |accuracy - confidence| of the bins of `reliability`, weighted by their cells."""
    cells, said, accuracy = reliability(right, confidence)
    return float(np.nansum(cells * np.abs(accuracy - said)) / len(right))


def roc_auc(labels: np.ndarray, probabilities: np.ndarray) -> list[float | None]:
    """For each class the chance that one of its cells has a higher probability of it than another cell, ties half.

    That is the area under the one-vs-rest ROC curve (Mann and Whitney 1947); None where a class has no cells, or all.
    """
    positive = labels[:, None] == np.arange(NUM_CLASSES)
    n1 = positive.sum(axis=0)
    pairs = n1 * (len(labels) - n1)
    above = (rankdata(probabilities, axis=0) * positive).sum(axis=0) - n1 * (n1 + 1) / 2
    return [float(value / n) if n else None for value, n in zip(above, pairs, strict=True)]


def score(labels: np.ndarray, predicted: np.ndarray, probabilities: np.ndarray | None) -> dict:
    """All scores of one condition, rounded to six digits; per class as lists of eight, None where undefined.

    labels, predicted: (n,) integers 0-7. probabilities: (n, 8), or None, which leaves `roc_auc` and `ece` None.
    Macro means are over the classes that occur, balanced accuracy over those that occur among the labels, as
    scikit-learn has it.
    """
    precision, recall, _, true = metrics.precision_recall_fscore_support(
        labels, predicted, labels=range(NUM_CLASSES), zero_division=0
    )
    occurs = np.bincount(np.concatenate([labels, predicted]), minlength=NUM_CLASSES) > 0
    auc, ece = [None] * NUM_CLASSES, None
    if probabilities is not None:
        auc = roc_auc(labels, probabilities)
        ece = calibration_error(predicted == labels, probabilities.max(axis=1))
    known = [value for value in auc if value is not None]

    def rounded(value):
        return None if value is None else round(float(value), 6)

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


# --- the run ----------------------------------------------------------------------------------------------------------


def conditions_of(total: int, images: int, quick: bool, composite: bool = False) -> list[tuple[str, str, int, int]]:
    """What a card measures: (corruption, family, severity, cells), clean first. `images`: cells of one corruption.

    composite: clean and the composite alone.
    """
    severities = QUICK_SEVERITIES if quick else corruptions.SEVERITIES
    whole = min(total, QUICK_CELLS) if quick else total
    plan = [("clean", "clean", 0, whole)]
    plan += [("composite", "composite", severity, whole) for severity in severities]
    if composite:
        return plan
    for family, members in corruptions.FAMILIES.items():
        plan += [(name, family, severity, min(total, images)) for name in members for severity in severities]
    return plan


def measure(model: object, cells: data.Cells, condition: tuple[str, str, int, int]) -> dict:
    """One entry of the card's `conditions`. cells: in the card's order, of which the condition takes the first."""
    name, family, severity, count = condition
    images, labels = cells.images[:count], cells.labels[:count]
    if name != "clean":
        images = corruptions.corrupt_batch(images, name, severity)
    predicted, probabilities = predict(model, images)
    packed = None
    if probabilities is not None:
        largest = np.rint(65535 * np.clip(probabilities.max(axis=1), 0, 1)).astype("<u2")
        packed = base64.b64encode(largest.tobytes()).decode()
    return {
        "corruption": name,
        "family": family,
        "severity": severity,
        "cells": count,
        **score(labels, predicted, probabilities),
        "predicted": "".join(map(str, predicted)),
        "confidence": packed,
    }


class Partial:
    """The finished conditions of an unfinished run: JSON lines, the first says what they belong to."""

    def __init__(self, path: Path, key: dict):
        """Takes up the conditions at `path` where they belong to `key`; whatever else is there is started over."""
        self.path, self.done = path, {}
        if path.exists():
            try:
                first, *lines = path.read_text(encoding="utf-8").splitlines() or [""]
                if json.loads(first) == key:
                    for line in lines:
                        entry = json.loads(line)
                        self.done[entry["corruption"], entry["severity"], entry["cells"]] = entry
            except json.JSONDecodeError:
                pass  # the line that was being written when the run was killed
        write_text(path, "".join(json.dumps(line) + "\n" for line in (key, *self.done.values())))

    def add(self, entry: dict) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")


def provenance(hashes: dict, cells: data.Cells) -> dict:
    """What the card's numbers rest on: hashes of model, weights, cells and corruptions, versions, the commit."""
    libraries = ("numpy", "cv2", "keras", "tensorflow", "torch", "jax")
    versions = {name: sys.modules[name].__version__ for name in libraries if name in sys.modules}
    return {
        "commit": commit(),
        **hashes,
        "heldout_sha256": data.digest(cells),
        "corruptions_sha256": corruptions.fingerprint(),
        "versions": {"python": platform.python_version(), **versions},
    }


def evaluate(
    model: object, hashes: dict, cells: data.Cells, images: int, quick: bool, partial: Path, composite: bool = False
) -> dict:
    """The whole card as a dict, written nowhere but for its finished conditions, to `partial`."""
    check_agreement(model, cells.images[:64])
    origin = provenance(hashes, cells)
    finished = Partial(partial, {"schema": SCHEMA, **{k: v for k, v in origin.items() if k != "commit"}})
    order = data.stratified_order(cells.labels)
    ordered = cells.take(order)
    plan = conditions_of(len(cells), images, quick, composite)
    entries = []
    columns = (TextColumn("{task.description:24}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("cells", total=sum(condition[3] for condition in plan))
        for condition in plan:
            name, _, severity, count = condition
            progress.update(task, description=f"{name} {severity or ''}")
            entry = finished.done.get((name, severity, count))
            if entry is None:
                entry = measure(model, ordered, condition)
                finished.add(entry)
            entries.append(entry)
            progress.advance(task, count)
    card = {
        "schema": SCHEMA,
        "provenance": origin,
        "cells": {
            "count": len(cells),
            "classes": list(data.CLASSES),
            "labels": "".join(map(str, cells.labels)),
            "order": order.tolist(),
        },
        "conditions": entries,
    }
    card["summary"] = summarise(card)
    return card


# --- reading a card ---------------------------------------------------------------------------------------------------


def labels_of(card: dict, count: int) -> np.ndarray:
    """True labels (count,) in the card's order."""
    return np.array(list(card["cells"]["labels"]), int)[card["cells"]["order"][:count]]


def predictions_of(entry: dict) -> np.ndarray:
    """Predicted labels (cells,) of one condition, in the card's order."""
    return np.array(list(entry["predicted"]), int)


def confidence_of(entry: dict) -> np.ndarray | None:
    """Largest probabilities (cells,) of one condition, or None."""
    packed = entry["confidence"]
    return None if packed is None else np.frombuffer(base64.b64decode(packed), "<u2") / 65535


def groups_of(card: dict) -> dict[str, list[dict]]:
    """The card's conditions as clean, corrupted (the 46 at all severities) and composite."""
    groups: dict[str, list[dict]] = {"clean": [], "corrupted": [], "composite": []}
    for entry in card["conditions"]:
        groups[entry["family"] if entry["family"] in groups else "corrupted"].append(entry)
    return groups


def pooled_confusion(card: dict, entries: list[dict]) -> np.ndarray:
    """Counts (8, 8) over all these conditions: rows true, columns predicted."""
    return sum(confusion(labels_of(card, e["cells"]), predictions_of(e)) for e in entries)


def summarise(card: dict) -> dict:
    """The card on one screen. `corrupted` is the mean of the five families' means, so that none counts by its size.

    What was not measured is None or empty.
    """

    def mean(entries: list[dict], metric: str) -> float | None:
        values = [entry[metric] for entry in entries]
        return None if None in values or not values else round(float(np.mean(values)), 6)

    def by(key: str, entries: list[dict]) -> dict[str, list[dict]]:
        parts: dict[str, list[dict]] = {}
        for entry in entries:
            parts.setdefault(str(entry[key]), []).append(entry)
        return parts

    groups = groups_of(card)
    families = by("family", groups["corrupted"])
    per_family = {name: {m: mean(part, m) for m in METRICS} for name, part in families.items()}
    return {
        "clean": {m: groups["clean"][0][m] for m in METRICS},
        "corrupted": {m: mean(list(per_family.values()), m) for m in METRICS} if per_family else None,
        "composite": {str(e["severity"]): {m: e[m] for m in METRICS} for e in groups["composite"]},
        "families": per_family,
        "severities": {s: mean(part, "accuracy") for s, part in by("severity", groups["corrupted"]).items()},
        "corruptions": {c: mean(part, "accuracy") for c, part in by("corruption", groups["corrupted"]).items()},
        "confusion_pairs": {group: worst_pairs(card, entries) for group, entries in groups.items() if entries},
        "predicted_hidden": predicted_hidden(card)[0],
    }


def worst_pairs(card: dict, entries: list[dict], most: int = 5) -> list[dict]:
    """What is most often taken for what over these conditions: `true`, `predicted`, `share` of the true class."""
    counts = pooled_confusion(card, entries)
    share = counts * (1 - np.eye(NUM_CLASSES)) / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    worst = [divmod(int(k), NUM_CLASSES) for k in np.argsort(-share, axis=None, kind="stable")[:most]]
    return [
        {"true": SHORT[t], "predicted": SHORT[p], "share": round(float(share[t, p]), 6)}
        for t, p in worst
        if share[t, p]
    ]


def predicted_hidden(card: dict) -> tuple[dict | None, str]:
    """The hidden score to expect by the calibration at hand, or None, and the line that says so."""
    try:
        p = calibrate.predict(calibrate.read(calibrate.PATH), card)
    except ValueError as error:
        return None, f"no predicted hidden score: {error}"
    line = f"predicted hidden score {p['score']:.2f} (95% interval {p['low']:.2f} to {p['high']:.2f}), resting on "
    beyond = "this card is" if p["extrapolated"] else "a card beyond the best of them would be"
    return p, f"{line}{p['rests_on']}; {beyond} an extrapolation"


def write_card(card: dict, path: Path) -> None:
    """One line per condition, so that two cards can be compared with diff."""
    head = {key: card[key] for key in ("schema", "provenance", "summary")}
    lines = [f"{json.dumps(key)}: {json.dumps(value, indent=1)}" for key, value in head.items()]
    lines.append(f'"cells": {json.dumps(card["cells"])}')
    lines.append('"conditions": [\n' + ",\n".join(json.dumps(entry) for entry in card["conditions"]) + "\n]")
    write_text(path, "{\n" + ",\n".join(lines) + "\n}\n")


def read_card(path: Path) -> dict:
    """A card as `write_card` left it. Raises ValueError where it is none, or of another schema."""
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as a card: {error}") from error
    if not isinstance(card, dict) or card.get("schema") != SCHEMA:
        raise ValueError(f"{path} is no card of schema {SCHEMA}; make it anew with this version")
    return card


def gains(card: dict, baseline: dict) -> dict[str, np.ndarray]:
    """Accuracy of card minus baseline cell by cell, (n,) in -1 to 1, on the conditions and cells that both have.

    Names: corrupted (the mean of the families), family F, clean, composite S, and each corruption (the mean of its
    severities). Raises ValueError where the two are not of the same held-out cells.
    """
    if card["provenance"]["heldout_sha256"] != baseline["provenance"]["heldout_sha256"]:
        raise ValueError("the two cards are of different held-out cells, so they cannot be compared cell by cell")
    other = {(entry["corruption"], entry["severity"]): entry for entry in baseline["conditions"]}
    rows: dict[str, list[np.ndarray]] = {}
    families: dict[str, list[np.ndarray]] = {}
    for entry in card["conditions"]:
        theirs = other.get((entry["corruption"], entry["severity"]))
        if theirs is None:
            continue
        count = min(entry["cells"], theirs["cells"])
        labels = labels_of(card, count)
        ours_right, theirs_right = (predictions_of(e)[:count] == labels for e in (entry, theirs))
        gain = ours_right.astype(float) - theirs_right
        if entry["family"] in ("clean", "composite"):
            rows[f"{entry['corruption']} {entry['severity'] or ''}".strip()] = [gain]
        else:
            rows.setdefault(entry["corruption"], []).append(gain)
            families.setdefault(f"family {entry['family']}", []).append(gain)
    means = {name: np.mean(parts, axis=0) for name, parts in {**families, **rows}.items()}
    corrupted = {"corrupted": np.mean([means[name] for name in families], axis=0)} if families else {}
    return corrupted | means


def interval(gain: np.ndarray) -> dict[str, float]:
    """`difference`, the mean of (n,) paired gains, and the 95% percentile interval `low` to `high` of 2000 bootstrap
    resamples of the cells (a cell is drawn with all its conditions; training runs are not resampled)."""
    rng = np.random.default_rng(0)
    resampled = gain[rng.integers(0, len(gain), (2000, len(gain)))].mean(axis=1)
    low, high = np.percentile(resampled, (2.5, 97.5))
    return {"difference": float(gain.mean()), "low": float(low), "high": float(high)}


def compare(card: dict, baseline: dict) -> list[dict]:
    """Rows name, cells, difference, low, high of `gains`, as `interval` gives them."""
    return [{"name": name, "cells": len(gain), **interval(gain)} for name, gain in gains(card, baseline).items()]


# --- printing ---------------------------------------------------------------------------------------------------------


def report(card: dict, console: Console) -> None:
    """The summary as a table, with the hidden score that the calibration at hand predicts."""

    def percent(value: float | None, digits: int = 1) -> str:
        return "-" if value is None else f"{100 * value:.{digits}f}"

    summary = card["summary"]
    rows = {"clean": summary["clean"]}
    if summary["corrupted"]:
        rows["corrupted (mean of families)"] = summary["corrupted"]
    rows |= {f"  {name}": scores for name, scores in summary["families"].items()}
    rows |= {f"composite {severity}": scores for severity, scores in summary["composite"].items()}
    shown = ("accuracy", "balanced_accuracy", "macro_precision", "roc_auc", "ece")  # macro recall is balanced accuracy
    table = Table("%", "accuracy", "balanced", "precision", "AUC", "ECE")
    table.columns[0].no_wrap = True
    for name, scores in rows.items():
        table.add_row(name, *(percent(scores[metric]) for metric in shown))
    console.print(table)
    if summary["corrupted"]:
        worst = sorted(summary["corruptions"].items(), key=lambda item: item[1])[:5]
        console.print("hardest: " + ", ".join(f"{name} {percent(value)}" for name, value in worst))
    group = "corrupted" if summary["corrupted"] else "composite"
    pairs = [f"{p['true']} as {p['predicted']} {percent(p['share'])}" for p in summary["confusion_pairs"][group]]
    console.print(f"{group} cells mistaken: " + ", ".join(pairs))
    console.print(predicted_hidden(card)[1])


def report_comparison(rows: list[dict], console: Console) -> None:
    """The groups, and the single corruptions whose interval excludes zero."""
    table = Table("points of accuracy", "cells", "difference", "95% interval")
    for row in rows:
        single = row["name"] in corruptions.CORRUPTIONS
        if not single or row["low"] > 0 or row["high"] < 0:
            values = (100 * row["difference"], 100 * row["low"], 100 * row["high"])
            table.add_row(row["name"], str(row["cells"]), f"{values[0]:+.2f}", f"{values[1]:+.2f} to {values[2]:+.2f}")
    console.print(table)


def read_heldout(path: Path) -> data.Cells:
    """The cells to score on; of MedMNIST's file its validation part."""
    try:
        return data.read(path, part="val")
    except ValueError as error:
        raise ValueError(f"the held-out cells cannot be read: {error}; name an NPZ with --heldout") from error


def run(args: argparse.Namespace, console: Console) -> None:
    baseline = read_card(args.baseline) if args.baseline else None  # before the long part, should it be unreadable
    images = None
    out = args.json
    if args.target.suffix == ".json":
        card = read_card(args.target)
        if args.plots and args.heldout.exists():
            cells = read_heldout(args.heldout)
            if data.digest(cells) == card["provenance"]["heldout_sha256"]:
                images = cells.images
        if out:
            card["summary"] = summarise(card)
            out.parent.mkdir(parents=True, exist_ok=True)
            write_card(card, out)
    else:
        cells = read_heldout(args.heldout)
        images = cells.images
        out = out or Path("card.json")
        out.parent.mkdir(parents=True, exist_ok=True)
        partial = out.with_name(out.name + ".partial").resolve()
        with open_model(args.target) as (model, hashes):
            card = evaluate(model, hashes, cells, args.images, args.quick, partial, args.composite)
        write_card(card, out)
        partial.unlink()
    report(card, console)
    if out:
        console.print(f"card: {out}")
    if args.plots:
        from evaluation.pictures import plot

        console.print("pictures: " + ", ".join(map(str, plot(card, args.plots, images))))
        if images is None:
            console.print(f"no mistakes.png: {args.heldout} does not hold the cells of this card")
    if baseline:
        if baseline["provenance"]["corruptions_sha256"] != card["provenance"]["corruptions_sha256"]:
            console.print("The baseline saw other corrupted pictures (other versions): only clean compares exactly.")
        report_comparison(compare(card, baseline), console)


def main(argv: list[str] | None = None) -> None:
    parser = shell.parser("evaluation.evaluate", __doc__)
    parser.add_argument("target", type=Path, help="submission zip, folder with model.py, training run, or card (.json)")
    parser.add_argument("--heldout", type=Path, default=Path("data/heldout.npz"), help="NPZ: images and labels")
    parser.add_argument("--json", type=Path, help="where the card goes (default card.json)")
    parser.add_argument("--plots", type=Path, help="folder for the pictures")
    parser.add_argument("--baseline", type=Path, help="another card, to be compared with cell by cell")
    parser.add_argument("--images", type=shell.positive, help=f"cells per corruption and severity (default {IMAGES})")
    shorter = parser.add_mutually_exclusive_group()
    shorter.add_argument("--quick", action="store_true", help="200 cells (100 per corruption), severity 3 only")
    shorter.add_argument("--composite", action="store_true", help="clean and the composite alone, on all cells")
    args = parser.parse_args(argv)
    if args.images is None:
        args.images = QUICK_IMAGES if args.quick else IMAGES
    with shell.plain_errors("stopped; the same command goes on with the next condition"):
        run(args, Console())


if __name__ == "__main__":
    main()
