"""Put training runs side by side: cost, scores, and what the reports say of the same systems.

    python -m evaluation.compare runs/*                                              a table
    python -m evaluation.compare runs/* --json results/systems.json --speed          what docs' table is made from
    python -m evaluation.compare runs/new --json results/systems.json --keep        one run more, the others stay
    python -m evaluation.compare runs/* --curves curves.png                          loss and accuracy by epoch

Reads run.json of each folder, and its report card where there is one: card.json in the folder, or <recipe>.json in the
folder --cards. A recipe without a run gets a row that says so; a shortened run is marked as a trial.
"""

import dataclasses
import json
import os
import shlex
import sys
import textwrap
import time
from pathlib import Path

import numpy as np

import model
from evaluation import calibrate, evaluate
from training import data, shell, train
from training.files import write_atomically, write_json
from training.recipes import RECIPES, REPORTED, Recipe
from training.settings import from_scratch

SPEED_IMAGES = 256
FILES = ("run.json", "manifest.json")  # a folder with neither is no run, or one in its first epoch


# --- reading ---------------------------------------------------------------------------------------------------------


def read_run(folder: Path) -> dict:
    """run.json of a training run. Raises ValueError where it is missing, damaged or without an epoch."""
    path = folder / "run.json"
    try:
        run = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}): name folders of training.train") from error
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}): --resume the run, or leave it out") from error
    try:
        [run[key] for key in ("recipe", "network", "weights", "parameters", "flops", "file_mb", "seconds")]
        [run["settings"][key] for key in ("limit", "patience", "head_epochs", "epochs")]
        [shipped(run)[key]["accuracy"] for key in ("validation", "augmented_validation")]
        for entry in run["history"]:
            [entry[part][metric] for part in ("train", "validation") for metric in ("loss", "accuracy")]
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise ValueError(f"{path} is not a run.json of training.train: {error!r}") from error
    return run


def shipped(run: dict) -> dict:
    """The history's entry of the epoch whose weights the run left."""
    return run["history"][train.best_epoch(run["history"], Recipe(patience=run["settings"]["patience"]))]


def read_card(folder: Path, run: dict, cards: Path | None) -> tuple[dict, list[str]]:
    """(heldout, composite and predicted_hidden of the run's report card, []); where none counts, ({}, why)."""
    places = [folder / "card.json", *([cards / f"{run['recipe']}.json"] if cards else [])]
    path = next((path for path in places if path.is_file()), None)
    if path is None:
        return {}, []
    card = evaluate.read_card(path)
    weights = folder / "model.weights.h5"
    if not weights.is_file():
        raise ValueError(f"{weights} is missing, so that nothing shows whether {path} is its card")
    try:
        if card["provenance"]["weights_sha256"] != model.sha256(weights):
            return {}, [f"{path.name} is of other weights"]
        now = evaluate.inference(folder)
        if card["provenance"].get("inference", now) != now:  # cards did not always say it
            return {}, [f"{path.name} is of other views, members or temperature"]
        summary = card["summary"]
        strength, systems = calibrated()
        try:
            composite = calibrate.composite_at(card, strength)[0] if strength else None
        except ValueError:  # a quick card has one strength
            composite = None
        predicted = None if run["recipe"] in systems else summary.get("predicted_hidden")
        predicted = predicted and {key: predicted[key] for key in ("score", "low", "high")}
        heldout = {key: summary["clean"][key] for key in ("accuracy", "macro_precision", "macro_recall", "roc_auc")}
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is not a card of evaluation.evaluate: {error!r}") from error
    return {"heldout": heldout, "composite": composite, "predicted_hidden": predicted}, []


def calibrated() -> tuple[float | None, set[str]]:
    """(the composite's strength, recipes) of the calibration at hand: to predict the score of one would be circular."""
    try:
        calibration = calibrate.read(calibrate.PATH)
    except ValueError:  # there is none
        return None, set()
    return calibration["strength"], {point["system"] for point in calibration["points"]}


def notes(run: dict) -> list[str]:
    """What makes a run another than its recipe: a limit, epochs that are missing, changed knobs."""
    settings, done = run["settings"], len(run["history"])
    precision = run.get("precision", "float32")
    found = [f"in {precision}"] * (precision != "float32")
    recipe = settings
    if run["recipe"] in RECIPES:
        recipe = json.loads(json.dumps(dataclasses.asdict(RECIPES[run["recipe"]])))  # tuples to lists
    planned = settings["head_epochs"] + recipe["epochs"]
    patience = settings["patience"]
    stopped = patience is not None and done - 1 - run["history"].index(shipped(run)) >= patience
    if settings["limit"] is not None:
        found.append(f"trial: {done} of {planned} epochs, at most {settings['limit']} cells")
    elif done < planned:
        found.append(f"{'stopped early' if stopped else 'trial'}: {done} of {planned} epochs")
    changed = [knob for knob in recipe if settings.get(knob, recipe[knob]) != recipe[knob]]
    if done < planned:  # said already
        changed = [knob for knob in changed if knob not in ("epochs", "head_epochs")]
    if "weights" in changed and settings["weights"] == "none":
        found.append("from random weights")
        changed.remove("weights")
    return found + [f"other {', '.join(changed)}"] * bool(changed)


def command(name: str, settings: dict | None = None, precision: str = "float32", out: str | None = None) -> str | None:
    """The command that trains a recipe, or a run of it with these settings; None where the recipe is gone."""
    if name not in RECIPES:
        return None
    recipe, settings = RECIPES[name], settings or {}
    words = ["python", "-m", "training.train", "--recipe", name]
    if settings.get("weights", recipe.weights) != recipe.weights:
        words += ["--weights", settings["weights"]]
        recipe = from_scratch(recipe) if settings["weights"] == "none" else recipe
    for knob, own in dataclasses.asdict(recipe).items():
        value = as_tuple(settings.get(knob, own))
        if value != own and knob != "weights":
            words += ["--set", f"{knob}={value}"]
    if settings.get("limit") is not None:
        words += ["--limit", str(settings["limit"])]
    if precision != "float32":
        words += ["--precision", precision]
    return shlex.join([*words, "--out", f"runs/{out or name}"])


def as_tuple(value):
    """JSON's lists as the tuples that they were."""
    return tuple(map(as_tuple, value)) if isinstance(value, list) else value


def speed(folder: Path) -> dict:
    """Images a second through the whole of predict_proba, on generated images, best of three after a warm-up."""
    predictor = model.Model(folder)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (SPEED_IMAGES, data.IMAGE_SIZE, data.IMAGE_SIZE, 3), np.uint8)
    predictor.predict_proba(images[:1])
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        predictor.predict_proba(images)
        seconds.append(time.perf_counter() - started)
    return {"images_per_second": round(SPEED_IMAGES / min(seconds), 1), "cores": os.cpu_count()}


# --- rows ------------------------------------------------------------------------------------------------------------


def make_row(folder: Path, cards: Path | None = None) -> dict:
    """What is known of one run. Scores are shares in 0-1; None where something is not known."""
    run = read_run(folder)
    scores, problems = read_card(folder, run, cards)
    now = shipped(run)
    return {
        "recipe": run["recipe"],
        "run": folder.name,
        "network": run["network"],
        "weights": run["weights"],
        "epochs": len(run["history"]),
        "notes": notes(run) + problems,
        "command": command(run["recipe"], run["settings"], run.get("precision", "float32"), folder.name),
        "parameters": run["parameters"],
        "flops": run["flops"],
        "file_mb": run["file_mb"],
        "seconds": run["seconds"],
        "train": now["train"]["accuracy"],
        "validation": now["validation"]["accuracy"],
        "augmented_validation": now["augmented_validation"]["accuracy"],
        "heldout": scores.get("heldout"),
        "composite": scores.get("composite"),
        "predicted_hidden": scores.get("predicted_hidden"),
    }


def compare(
    folders: list[Path], cards: Path | None = None, known: list[dict] = (), measure: bool = False, keep: bool = False
) -> list[dict]:
    """A list of rows: one per run, in the order of RECIPES; and one per recipe without a run.

    known: rows of an earlier table, of which the speeds are kept where a run's size is the same; measure: measure anew;
    keep: the known rows of other runs, whose folders may be gone, stay in the table, unless their recipe is gone, too.
    """
    rows = [make_row(folder, cards) for folder in folders]
    speeds = {(row["run"], row.get("network"), row.get("flops")): row.get("speed") for row in known}
    for folder, row in zip(folders, rows, strict=True):
        row["speed"] = speed(folder) if measure else speeds.get((row["run"], row["network"], row["flops"]))
    named = {folder.name for folder in folders}
    others = [row for row in known if row["recipe"] in RECIPES and row["run"] not in {None, *named}]
    rows = [stated(row) for row in others if keep] + rows
    there = {row["recipe"] for row in rows}
    rows += [
        {"recipe": name, "run": None, "network": recipe.network, "weights": None, "notes": ["not trained here"],
         "command": command(name)}
        for name, recipe in RECIPES.items()
        if name not in there
    ]  # fmt: skip
    for row in rows:
        row["reported"] = {key: getattr(REPORTED.get(row["recipe"]), key, None) for key in ("local", "hidden")}
    order = list(RECIPES)
    return sorted(rows, key=lambda row: order.index(row["recipe"]) if row["recipe"] in order else len(order))


def stated(row: dict) -> dict:
    """A row of an earlier table; where that had no commands, it is of earlier code, and today's recipe may differ."""
    if "command" in row:
        return row
    return {**row, "notes": [*row["notes"], "by earlier code"], "command": command(row["recipe"])}


COLUMNS = (
    "system", "network", "start", "epochs", "parameters, M", "GFLOPs", "file, MB", "images/s", "train", "validation",
    "held-out", "precision", "recall", "ROC AUC", "composite", "predicted hidden", "reported local", "reported hidden",
    "what was done",
)  # fmt: skip

WIDTH = 100  # of the table for a terminal
SHOWN = {
    "system": "system", "epochs": "epochs", "file, MB": "MB", "images/s": "images/s", "validation": "validation",
    "held-out": "held-out", "composite": "composite", "predicted hidden": "hidden score",
}  # fmt: skip
SAID = (
    "Accuracy in %: validation, of the run's own cells; held-out, of the clean held-out cells; composite, of several "
    "corruptions at once, at the strength that predicts the hidden score, with its 95% interval. -: not known here. "
    "--json has all figures."
)


def cells_of(row: dict) -> list[str]:
    """A row as text, one for each of COLUMNS; scores in %, - for what is not known."""

    def number(value: float | None, scale: float, digits: int) -> str:
        return "-" if value is None else f"{scale * value:.{digits}f}"

    heldout, hidden, weights = row.get("heldout") or {}, row.get("predicted_hidden"), row["weights"]
    named = row["recipe"] if row["run"] in (None, row["recipe"]) else f"{row['recipe']} ({row['run']})"
    return [
        named,
        row["network"],
        weights or "-",
        str(row.get("epochs", "-")),
        number(row.get("parameters"), 1e-6, 2),
        number(row.get("flops"), 1e-9, 2),
        number(row.get("file_mb"), 1, 1),
        number((row.get("speed") or {}).get("images_per_second"), 1, 0),
        number(row.get("train"), 100, 2),
        number(row.get("validation"), 100, 2),
        number(heldout.get("accuracy"), 100, 2),
        number(heldout.get("macro_precision"), 100, 2),
        number(heldout.get("macro_recall"), 100, 2),
        number(heldout.get("roc_auc"), 1, 4),
        number(row.get("composite"), 100, 2),
        "{} ({}-{})".format(*(number(hidden[k], 100, 1) for k in ("score", "low", "high"))) if hidden else "-",
        row["reported"]["local"] or "-",
        row["reported"]["hidden"] or "-",
        "; ".join(row["notes"]) or "as its recipe says",
    ]


def markdown(rows: list[dict]) -> str:
    """The table in Markdown, with what its columns mean below; rows as `compare` returns them."""
    lines = ["| " + " | ".join([*COLUMNS, "command"]) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
    for row in rows:
        cells = [*cells_of(row), f"`{row['command']}`" if row.get("command") else "none: its recipe is gone"]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + f"\n\n{legend(rows)}"


def legend(rows: list[dict]) -> str:
    cores = sorted({row["speed"]["cores"] for row in rows if row.get("speed")})
    speed = f" Images/s: of noise, all views included, on a CPU, {' or '.join(map(str, cores))} cores." if cores else ""
    return (
        "Scores in %, ROC AUC in 0-1; precision, recall and ROC AUC are macro averages on the clean held-out cells. "
        "Start: the weights before training. Train: on the batches of the epoch that ships, augmented and "
        "mixed as the recipe says. Composite: accuracy at the strength that predicts the hidden score. Predicted "
        "hidden: with its 95% interval; of no system that the calibration rests on. Command: trains the run as it was; "
        "where it was not trained here, or by earlier code, the system as its recipe says. ImageNet weights need "
        "internet once, the large networks a GPU. Reported: what teams state, "
        "local and hidden; frozen, fine_tuned, flips_shifts, randaugment and randaugment_cutout are another team's "
        "steps, there on EfficientNetB2." + speed
    )


def text(rows: list[dict]) -> str:
    """The table for a terminal of WIDTH columns: some of COLUMNS, a line per row, its notes below it."""
    table = [[SHOWN.get(column, column) for column in COLUMNS if column in SHOWN]]
    table += [[cell for column, cell in zip(COLUMNS, cells_of(row), strict=True) if column in SHOWN] for row in rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    widths[0] = min(widths[0], WIDTH - sum(widths[1:]) - 2 * len(widths[1:]))
    lines = []
    for (name, *cells), notes in zip(table, [[], *(row["notes"] for row in rows)], strict=True):
        cells = [cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True)]
        name = name if len(name) <= widths[0] else name[: widths[0] - 3] + "..."
        lines.append("  ".join([name.ljust(widths[0]), *cells]))
        lines += textwrap.wrap("; ".join(notes), WIDTH, initial_indent="    ", subsequent_indent="    ")
    return "\n".join([*lines, "", *textwrap.wrap(SAID, WIDTH)])


def draw_curves(folders: list[Path], path: Path) -> None:
    """Loss above accuracy by epoch, training and validation; a column per run (LionIA, Figure 1)."""
    from matplotlib.figure import Figure

    runs = [(folder.name, run) for folder in folders if (run := read_run(folder))["history"]]
    if not runs:
        raise ValueError("none of these runs has a history to draw")
    wide, blocks = min(4, len(runs)), -(-len(runs) // 4)
    figure = Figure(figsize=(3 * wide + 0.6, 5 * blocks), layout="constrained")
    places = figure.subplots(2 * blocks, wide, squeeze=False)
    for axes in places.ravel():
        axes.set_axis_off()
    for i, (name, run) in enumerate(runs):
        history, parts = run["history"], ("train", "validation")
        for row, metric in enumerate(("loss", "accuracy")):
            axes = places[2 * (i // wide) + row, i % wide]
            axes.set_axis_on()
            for part in parts:
                axes.plot([e["epoch"] + 1 for e in history], [e[part][metric] for e in history], "o-", ms=2, label=part)
            axes.set(title=name if row == 0 else "", xlabel="epoch" if row else "", ylabel="" if i % wide else metric)
            axes.set_ylim(*((0, None) if row == 0 else (None, 1)))
    places[0, 0].legend()
    write_atomically(path, lambda temporary: figure.savefig(temporary, dpi=110, metadata={"Software": None}))


def read_rows(path: Path | None) -> list[dict]:
    """Rows of an earlier --json; none where there is no such file. Raises ValueError where it is damaged."""
    if path is None or not path.exists():
        return []
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
        [row[key] for row in rows for key in ("recipe", "run", "network", "weights", "notes")]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not a table of evaluation.compare ({error!r}): move it away") from error
    return rows


def main() -> None:
    parser = shell.parser("evaluation.compare", __doc__)
    parser.add_argument("runs", type=Path, nargs="+", help="folders of training runs")
    parser.add_argument("--cards", type=Path, help="folder with report cards, <recipe>.json each")
    parser.add_argument("--json", type=shell.new_file, metavar="OUT", help="write the rows here; speeds there are kept")
    parser.add_argument("--keep", action="store_true", help="keep the rows of other runs that --json already holds")
    parser.add_argument("--speed", action="store_true", help="measure images/s on the CPU, alone on the machine")
    parser.add_argument("--curves", type=shell.new_file, metavar="OUT.png", help="draw loss and accuracy, no table")
    args = parser.parse_args()
    if args.speed:  # before a framework starts and takes a GPU
        os.environ.update(CUDA_VISIBLE_DEVICES="-1", JAX_PLATFORMS="cpu")
    runs = [path for path in args.runs if not path.is_dir() or any((path / n).exists() for n in FILES)]
    for path in sorted(set(args.runs) - set(runs)):
        print(f"{path} holds no run: left out", file=sys.stderr)
    if args.cards and not args.cards.is_dir():
        parser.error(f"{args.cards} is no folder of cards")
    with shell.plain_errors():
        if not runs:
            raise ValueError("there is no run to compare: name folders that training.train wrote")
        if args.curves:
            draw_curves(runs, args.curves)
            return
        rows = compare(runs, args.cards, read_rows(args.json), args.speed, args.keep)
        if args.json:
            write_json(args.json, {"rows": rows})
        print(text([row for row in rows if row["run"] in {folder.name for folder in runs}]))


if __name__ == "__main__":
    main()
