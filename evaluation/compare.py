"""Compare training runs: cost, scores, and the scores that the reports state for the same systems.

    python -m evaluation compare runs/*                                              a table
    python -m evaluation compare runs/new --json results/systems.json --speed        add it to the table in the pages
    python -m evaluation compare runs/* --curves curves.png                          loss and accuracy by epoch

Reads run.json of each folder and, if there is one, its report card: card.json in the folder, or <recipe>.json in the
folder --cards. Shortened runs are marked as trials. With --json, recipes without a run get the row "not trained here".
"""

import argparse
import contextlib
import dataclasses
import os
import shlex
import sys
import timeit
from collections.abc import Iterable
from pathlib import Path

import numpy as np

import model
from evaluation import calibrate, cards, markdown, submissions
from evaluation.markdown import number, percent
from training import data, shell, train
from training.files import write_json
from training.recipes import RECIPES, REPORTED, Recipe

SPEED_IMAGES = 256


def read_run(folder: Path) -> dict:
    """Read run.json of a training run. Raises ValueError if it is missing, damaged or has no epoch."""
    run = cards.read_json(folder / "run.json", "run of training", ("recipe", "settings", "history"))
    if not run["history"]:
        raise ValueError(f"{folder / 'run.json'} contains no epoch yet: leave this run out")
    return run


def shipped(run: dict) -> dict:
    """Return the history's entry of the epoch whose weights the run saved."""
    return run["history"][train.best_epoch(run["history"], Recipe(patience=run["settings"]["patience"]))]


def read_scores(folder: Path, run: dict, beside: Path | None) -> tuple[dict, list[str]]:
    """Return heldout, composite and predicted_hidden of the run's report card ({} without a valid card), and problems.
    No hidden score is predicted for a system that the calibration was fitted on: that would be circular."""
    path = folder / "card.json"
    if beside and not path.is_file():
        path = beside / f"{run['recipe']}.json"
    if not path.is_file():
        return {}, []
    card = cards.read_card(path)
    if card["provenance"]["weights_sha256"] != model.sha256(folder / "model.weights.h5"):
        return {}, [f"{path.name} is of other weights"]
    now = submissions.inference(folder)
    if card["provenance"].get("inference", now) != now:  # cards in results/ladder/ lack it
        return {}, [f"{path.name} is of other inference settings"]
    scores = {"heldout": card["summary"]["clean"]}
    with contextlib.suppress(ValueError):  # no calibration, one of other corruptions, or a quick card of one strength
        calibration = calibrate.read(calibrate.PATH)
        scores["composite"] = calibrate.composite_at(card, calibration["strength"])
        if run["recipe"] not in {point["system"] for point in calibration["points"]}:
            scores["predicted_hidden"] = calibrate.predict(calibration, card)
    return scores, []


def changed(run: dict) -> dict:
    """Return the settings in which a run differs from its recipe."""
    own = dataclasses.asdict(RECIPES[run["recipe"]])
    theirs = {knob: as_tuple(run["settings"].get(knob, value)) for knob, value in own.items()}
    return {knob: value for knob, value in theirs.items() if value != own[knob]}


def as_tuple(value):
    """Convert JSON's lists back to tuples."""
    return tuple(map(as_tuple, value)) if isinstance(value, list) else value


def notes(run: dict) -> list[str]:
    """List how a run differs from its recipe: precision, a limit, missing epochs, changed settings."""
    settings, history = run["settings"], run["history"]
    done, planned = len(history), settings["head_epochs"] + RECIPES[run["recipe"]].epochs
    patience = settings["patience"]
    stopped = patience is not None and done - 1 - history.index(shipped(run)) >= patience
    precision = run.get("precision", "float32")
    found = [f"in {precision}"] if precision != "float32" else []
    if settings["limit"] is not None:
        found.append(f"trial: {done} of {planned} epochs, at most {settings['limit']} cells")
    elif done < planned:
        found.append(f"{'stopped early' if stopped else 'trial'}: {done} of {planned} epochs")
    other = [knob for knob in changed(run) if done >= planned or knob not in ("epochs", "head_epochs")]  # already noted
    return found + ([f"other {', '.join(other)}"] if other else [])


def command(run: dict, out: str) -> str:
    """Return the command that repeats a run."""
    words = ["python", "-m", "training.train", "--recipe", run["recipe"]]
    for knob, value in changed(run).items():
        words += ["--weights", value] if knob == "weights" else ["--set", f"{knob}={value}"]
    for option, value in (("--limit", run["settings"].get("limit")), ("--precision", run.get("precision"))):
        words += [option, str(value)] if value not in (None, "float32") else []
    return shlex.join([*words, "--out", f"runs/{out}"])


def speed(folder: Path) -> dict:
    """Measure predict_proba's images per second on generated images: the best of three calls after a warm-up."""
    predictor = model.Model(folder)
    images = np.random.default_rng(0).integers(0, 256, (SPEED_IMAGES, *2 * [data.IMAGE_SIZE], 3), np.uint8)
    predictor.predict_proba(images[:1])
    seconds = min(timeit.repeat(lambda: predictor.predict_proba(images), number=1, repeat=3))
    return {"images_per_second": round(SPEED_IMAGES / seconds, 1), "cores": os.cpu_count()}


def make_row(folder: Path, beside: Path | None = None) -> dict:
    """Return one run's row of the table. Scores are in 0-1; unknown values are None."""
    run = read_run(folder)
    if run["recipe"] not in RECIPES:
        raise ValueError(f"{folder} is of the recipe {run['recipe']}, which is gone: leave this run out")
    try:
        now = shipped(run)
        scores, problems = read_scores(folder, run, beside)
        return {
            **{key: run[key] for key in ("recipe", "network", "weights", "parameters", "flops", "file_mb", "seconds")},
            "run": folder.name,
            "epochs": len(run["history"]),
            "notes": notes(run) + problems,
            "command": command(run, folder.name),
            **{part: now[part]["accuracy"] for part in ("train", "validation", "augmented_validation")},
            **{key: scores.get(key) for key in ("heldout", "composite", "predicted_hidden")},
        }
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{folder} contains no run of this version, or no card of it: {error!r}") from error


def compare(
    folders: list[Path], beside: Path | None = None, known: Iterable[dict] = (), measure: bool = False
) -> list[dict]:
    """Return the table's rows in the order of RECIPES: one per run, and one per recipe without a run.

    known: rows of an earlier table. Those of runs not in `folders` stay if their recipe still exists; a run's speed
    stays if its network and FLOPs are the same. measure: measure all speeds again.
    """
    rows = [make_row(folder, beside) for folder in folders]
    speeds = {(row["run"], row.get("network"), row.get("flops")): row.get("speed") for row in known}
    for folder, row in zip(folders, rows, strict=True):
        row["speed"] = speed(folder) if measure else speeds.get((row["run"], row["network"], row["flops"]))
    named = {None, *(folder.name for folder in folders)}
    rows = [row for row in known if row["recipe"] in RECIPES and row["run"] not in named] + rows
    for name in RECIPES.keys() - {row["recipe"] for row in rows}:
        empty = {"recipe": name, "run": None, "network": RECIPES[name].network, "weights": None}
        again = command({"recipe": name, "settings": {}}, name)
        rows.append({**empty, "notes": ["not trained here"], "command": again})
    for row in rows:
        row["reported"] = {key: getattr(REPORTED.get(row["recipe"]), key, None) for key in ("local", "hidden")}
    return sorted(rows, key=lambda row: list(RECIPES).index(row["recipe"]))


def part(row: dict, key: str, score: str) -> float | None:
    return (row.get(key) or {}).get(score)


def predicted(row: dict) -> str:
    score, low, high = (percent(part(row, "predicted_hidden", end), 1) for end in ("score", "low", "high"))
    return score if score == "-" else f"{score} ({low}-{high})"


COLUMNS = {  # heading -> function from a row to its text
    "system": lambda row: row["recipe"] + (f" ({row['run']})" if row["run"] not in (None, row["recipe"]) else ""),
    "network": lambda row: row["network"],
    "start": lambda row: row["weights"] or "-",
    "epochs": lambda row: number(row.get("epochs")),
    "parameters, M": lambda row: number(row.get("parameters"), 1e-6, 2),
    "GFLOPs": lambda row: number(row.get("flops"), 1e-9, 2),
    "file, MB": lambda row: number(row.get("file_mb"), 1, 1),
    "images/s": lambda row: number(part(row, "speed", "images_per_second")),
    "train": lambda row: percent(row.get("train")),
    "validation": lambda row: percent(row.get("validation")),
    "held-out": lambda row: percent(part(row, "heldout", "accuracy")),
    "precision": lambda row: percent(part(row, "heldout", "macro_precision")),
    "recall": lambda row: percent(part(row, "heldout", "macro_recall")),
    "ROC AUC": lambda row: number(part(row, "heldout", "roc_auc"), 1, 4),
    "composite": lambda row: percent(row.get("composite")),
    "predicted hidden": predicted,
    "reported local": lambda row: row["reported"]["local"] or "-",
    "reported hidden": lambda row: row["reported"]["hidden"] or "-",
    "what was done": lambda row: "; ".join(row["notes"]) or "as its recipe says",
    "command": lambda row: f"`{row['command']}`",
}
SHORT = ("system", "epochs", "images/s", "validation", "held-out", "composite", "predicted hidden", "what was done")


def text(rows: list[dict], columns=tuple(COLUMNS)) -> str:
    """The table; rows as `compare` returns them."""
    return markdown.table(columns, [[COLUMNS[column](row) for column in columns] for row in rows])


def options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("runs", type=Path, nargs="+", help="folders of training runs")
    add("--cards", type=Path, help="folder with report cards, <recipe>.json each")
    add("--json", type=shell.new_file, metavar="OUT", help="write the rows there; those of other runs there stay")
    add("--speed", action="store_true", help="measure images/s on the CPU, alone on the machine")
    add("--curves", type=shell.new_file, metavar="OUT.png", help="draw loss and accuracy, no table")


def run(args: argparse.Namespace) -> None:
    if args.speed:  # before the framework initialises a GPU
        os.environ.update(CUDA_VISIBLE_DEVICES="-1", JAX_PLATFORMS="cpu")
    if args.cards and not args.cards.is_dir():
        raise ValueError(f"{args.cards} is not a folder")
    runs = [path for path in args.runs if not path.is_dir() or (path / "run.json").exists()]
    for path in sorted(set(args.runs) - set(runs)):
        print(f"{path} contains no run: left out", file=sys.stderr)
    if not runs:
        raise ValueError("no run to compare: give folders of training runs")
    if args.curves:
        if args.cards or args.json or args.speed:
            raise ValueError("--curves draws only the curves: leave out the other options")
        from evaluation import pictures

        pictures.save(pictures.curves({path.name: read_run(path) for path in runs}), args.curves, dpi=110)
        return
    old = args.json and args.json.exists() and cards.read_json(args.json, "table of compare", ["rows"])
    rows = compare(runs, args.cards, old["rows"] if old else (), args.speed)
    if args.json:
        write_json(args.json, {"rows": rows})
    names = {path.name for path in runs}
    markdown.show(text([row for row in rows if row["run"] in names], SHORT))
