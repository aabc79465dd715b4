"""Score a model on clean and corrupted cells, and write the report card: a JSON file and pictures.

    python -m evaluation card submission.zip --json card.json --plots card/     about ten minutes on two cores
    python -m evaluation card runs/ours --json quick.json --quick               a minute
    python -m evaluation card runs/ours --json ours.json --composite            clean and the composite, all cells
    python -m evaluation card card.json --baseline other.json                   compare two cards, without a model

Clean cells and the composite at five strengths are scored on every held-out cell. Each of the 46 corruptions is scored
at five severities on the same 400 cells, a sample stratified by class. An interrupted run resumes from the finished
conditions in CARD.json.partial. With results/calibration.json the card also contains a predicted hidden score.
"""

import argparse
import contextlib
import json
import platform
import sys
from operator import itemgetter
from pathlib import Path

from rich.console import Console
from rich.progress import track

from evaluation import calibrate, cards, corruptions, markdown, submissions
from evaluation.markdown import number, percent
from evaluation.scoring import score
from training import data, shell
from training.files import write_text

IMAGES = 400  # cells per corruption and severity
QUICK = 200, 100, (3,)  # cells, cells per corruption, severities
HEADING = ("held-out cells", "accuracy %", "balanced %", "ROC AUC", "ECE")
COLUMNS = {"accuracy": (100, 2), "balanced_accuracy": (100, 2), "roc_auc": (1, 4), "ece": (1, 3)}  # scale, digits
CONDITION = ("corruption", "family", "severity", "cells")
Condition = tuple[str, str, int, int]  # values of CONDITION


def conditions_of(total: int, quick: bool = False, composite: bool = False) -> list[Condition]:
    """List the conditions of a card on `total` held-out cells, clean first. composite: clean and composite only."""
    whole, images, severities = QUICK if quick else (total, IMAGES, corruptions.SEVERITIES)
    plan = [("clean", "clean", 0, min(total, whole))]
    plan += [("composite", "composite", severity, min(total, whole)) for severity in severities]
    for family, members in corruptions.FAMILIES.items() if not composite else ():
        plan += [(name, family, severity, min(total, images)) for name in members for severity in severities]
    return plan


def measure(model: object, cells: data.Cells, condition: Condition) -> dict:
    """Measure one entry of the card's `conditions`. cells: in the card's order; the first `count` are used."""
    name, _, severity, count = condition
    images, labels = cells.images[:count], cells.labels[:count]
    if name != "clean":
        images = corruptions.corrupt_batch(images, name, severity)
    predicted, probabilities = submissions.predict(model, images)
    return {
        **dict(zip(CONDITION, condition, strict=True)),
        **score(labels, predicted, probabilities),
        "predicted": "".join(map(str, predicted)),
        "confidence": None if probabilities is None else cards.pack(probabilities),
    }


def provenance(hashes: dict, cells: data.Cells) -> dict:
    """Return the commit, hashes of model, weights, cells and corruptions, and the versions of the libraries."""
    libraries = ("numpy", "cv2", "keras", "tensorflow", "torch", "jax")
    versions = {name: sys.modules[name].__version__ for name in libraries if name in sys.modules}
    return {
        "commit": cards.commit(),
        **hashes,
        "heldout_sha256": data.digest(cells),
        "corruptions_sha256": corruptions.fingerprint(),
        "versions": {"python": platform.python_version(), **versions},
    }


def evaluate(model: object, hashes: dict, cells: data.Cells, plan: list[Condition], partial: Path) -> dict:
    """Measure the conditions in `plan` and return the card. `partial` holds those that are finished: an interrupted run
    with the same model, cells and libraries continues from there."""
    submissions.check_agreement(model, cells.images[:64])
    origin, order = provenance(hashes, cells), data.stratified_order(cells.labels)
    key, done = json.dumps([cards.SCHEMA, {**origin, "commit": None}]), {}
    with contextlib.suppress(ValueError):  # there is no such file, or it is of another version
        begun = cards.read_json(partial, "begun card", ("key", "conditions"))
        done = {tuple(e[part] for part in CONDITION): e for e in begun["conditions"] if begun["key"] == key}
    ordered = cells.take(order)
    for condition in track(plan, "conditions", console=Console(stderr=True)):
        if condition not in done:
            done[condition] = measure(model, ordered, condition)
            write_text(partial, json.dumps({"key": key, "conditions": list(done.values())}))
    labels = "".join(map(str, cells.labels))
    return summarised({
        "schema": cards.SCHEMA,
        "provenance": origin,
        "cells": {"count": len(cells), "classes": list(data.CLASSES), "labels": labels, "order": order.tolist()},
        "conditions": [done[condition] for condition in plan],
    })  # fmt: skip


def summarised(card: dict) -> dict:
    """Return the card with its summary, which holds the predicted hidden score or None."""
    return {**card, "summary": cards.summarise(card) | {"predicted_hidden": predicted_hidden(card)[0]}}


def predicted_hidden(card: dict) -> tuple[dict | None, str]:
    """Return the hidden score predicted by results/calibration.json, or None, and a sentence that states it."""
    try:
        predicted = calibrate.predict(calibrate.read(calibrate.PATH), card)
    except ValueError as error:
        return None, f"No predicted hidden score: {error}."
    return predicted, calibrate.sentence(predicted)


def rows_of(summary: dict) -> list[list[str]]:
    """Rows of the card's table, with the columns of HEADING: clean, composite, families, and their mean."""
    found = {"clean cells": summary["clean"]}
    for severity, scores in summary["composite"].items():
        found[f"several corruptions at once (composite), strength {severity} of 5"] = scores
    found |= {f"family {name}": scores for name, scores in summary["families"].items()}
    if summary["corrupted"]:
        found["mean of the five families of corruptions"] = summary["corrupted"]
    return [[name, *(number(s[score], *form) for score, form in COLUMNS.items())] for name, s in found.items()]


def text(card: dict) -> str:
    """The summary as a table, the numbers of cells, and the hardest corruptions."""
    worst = sorted(card["summary"]["corruptions"].items(), key=itemgetter(1))[:6]
    named = ", ".join(f"{name.replace('_', ' ')} {percent(value)}" for name, value in worst)
    whole, each = (card["conditions"][k]["cells"] for k in (0, -1))
    hardest = f"; each corruption on {each}. Hardest, mean over the severities: {named}" if worst else ""
    table = markdown.table(HEADING, rows_of(card["summary"]))
    return f"{table}\n\nClean and composite over {whole} held-out cells{hardest}."


def short(summary: dict) -> str:
    """Table of five rows of a full card: clean, the mean, and the composite's strengths 3 to 5."""
    rows = rows_of(summary)
    return markdown.table(HEADING[:3], [row[:3] for row in (rows[0], rows[-1], *rows[3:6])])


def classes(card: dict) -> str:
    """Table of each class's precision, recall and ROC AUC on clean cells, and its recall on the composite."""
    groups = cards.groups_of(card)
    clean, composite, rows = groups["clean"][0], groups["composite"], []
    for k, name in enumerate(card["cells"]["classes"]):
        corrupted = sum(e["recall"][k] for e in composite) / len(composite)
        shares = [percent(clean["precision"][k]), percent(clean["recall"][k])]
        rows.append([name, *shares, number(clean["auc"][k], 1, 4), percent(corrupted)])
    return markdown.table(["class", "precision %", "recall %", "ROC AUC", "recall on the composite %"], rows)


def mistakes(summary: dict) -> str:
    """List of the most frequent confusions in each group."""
    names = {"clean": "Clean", "corrupted": "Under the corruptions", "composite": "On the composite"}
    lines = []
    for group, pairs in summary["confusion_pairs"].items():
        said = [f"{p['true']} taken for {p['predicted']} {percent(p['share'])}%" for p in pairs]
        lines.append(f"- {names[group]}: {', '.join(said) or 'none'}")
    return "\n".join(lines)


def gained(card: dict, baseline: dict) -> str:
    """Table of gains in points of accuracy: the groups, and the corruptions whose interval excludes zero."""
    rows = []
    for name, gain in cards.gains(card, baseline).items():
        mean, low, high = (100 * value for value in cards.interval(gain))
        if name not in corruptions.CORRUPTIONS or low > 0 or high < 0:
            rows.append([name.replace("_", " "), str(len(gain)), f"{mean:+.2f} ({low:+.2f} to {high:+.2f})"])
    return markdown.table(["points of accuracy", "cells", "difference (95% interval)"], rows)


def made(args: argparse.Namespace, out: Path) -> dict:
    """Measure a model's card and write it to `out`."""
    cells = data.read(args.heldout, part="val")
    plan = conditions_of(len(cells), args.quick, args.composite)
    partial = out.with_name(out.name + ".partial").resolve()
    with submissions.open_model(args.target) as (model, hashes):
        with shell.plain_errors("stopped; the same command continues with the next condition"):
            card = evaluate(model, hashes, cells, plan, partial)
    cards.write_card(card, out)
    partial.unlink()
    return card


def options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("target", type=Path, help="submission zip, folder with model.py, training run, ensemble, or card (.json)")
    add("--heldout", type=Path, default=Path("data/heldout.npz"), help="NPZ of cells (default: %(default)s)")
    add("--json", type=shell.new_file, metavar="OUT", help="card to write (default: card.json; of a card none)")
    add("--plots", type=Path, metavar="FOLDER", help="draw the card's pictures there")
    add("--baseline", type=Path, metavar="CARD", help="another card, to be compared with cell by cell")
    shorter = parser.add_mutually_exclusive_group()
    shorter.add_argument("--quick", action="store_true", help="200 cells (100 per corruption), severity 3 only")
    shorter.add_argument("--composite", action="store_true", help="clean and the composite alone, on all cells")


def run(args: argparse.Namespace) -> None:
    baseline = cards.read_card(args.baseline) if args.baseline else None  # a faulty file fails before the long part
    if args.target.suffix != ".json":
        card = made(args, args.json or Path("card.json"))
    else:
        card = summarised(cards.read_card(args.target))
        if args.json:
            cards.write_card(card, args.json)
    markdown.show("\n\n".join([text(card), mistakes(card["summary"]), predicted_hidden(card)[1]]))
    if args.plots:
        from evaluation.pictures import plot

        cells = data.read(args.heldout, part="val") if args.heldout.exists() else None
        own = cells is not None and data.digest(cells) == card["provenance"]["heldout_sha256"]
        print("pictures:", *plot(card, args.plots, cells.images if own else None))
        if not own:
            print(f"no mistakes.png: {args.heldout} does not hold the cells of this card")
    if baseline:
        markdown.show(gained(card, baseline))
