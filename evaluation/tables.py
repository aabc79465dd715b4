"""Write the tables of the README and of docs/ from the JSON files in results/.

python -m evaluation tables            rewrite the blocks between <!-- NAME --> and <!-- /NAME -->
python -m evaluation tables --check    exit status 1 if that would change anything
"""

import argparse
import re

from rich.console import Console

from evaluation import calibrate, card, cards, compare, laboratory, markdown, setup, unforeseen
from evaluation.calibrate import with_interval
from evaluation.markdown import percent
from grader.report import terminal
from training.files import ROOT, write_text

RESULTS = ROOT / "results"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
REPORTED = ("ran under", "zip", "rehearsal", "isolation", "prediction", "scoring", "forecast", "accuracy", "balanced")


def load(name: str) -> dict:
    return cards.read_json(RESULTS / f"{name}.json", "result")


def report(found: dict) -> str:
    """The lines of build_submission.py's terminal report that start as in REPORTED, and the verdict, its last line."""
    console = Console(width=110, highlight=False, force_terminal=False)
    with console.capture() as capture:
        terminal(found, console)
    lines = [line.rstrip() for line in capture.get().strip().splitlines()]
    shown = [line for line in lines if line.startswith(REPORTED)] + lines[-1:]
    return "```text\n" + "\n".join(shown) + "\n```"


def headline(found: dict, built: dict, cores: int) -> str:
    """The main results in one line."""
    clean, corrupted = (percent(found[part]["accuracy"]) for part in ("clean", "corrupted"))
    predicted = found["predicted_hidden"]
    beyond = ", extrapolated" if predicted["extrapolated"] else ""
    return (
        f"**{clean}% of clean held-out cells, {corrupted}% under {len(found['corruptions'])} corruptions; predicted "
        f"hidden score {with_interval(predicted)}{beyond}.** A zip of {built['zip']['bytes'] / 1e6:.0f} MB; "
        f"{built['forecast']['images']:,} pictures in about {built['forecast']['seconds']:.0f} s on {cores} cores."
    )


def audit(b: dict) -> str:
    """The audit's results on the challenge's file, on clean files (false positives) and on files with known faults."""
    own, lost = b["challenge"], b["challenge"]["lost"]
    clean = " and ".join(f"{c['lost']} of {c['cells']:,} {c['file']} ({percent(c['share'])}%)" for c in b["clean"])
    rows, reached = [], {}
    for part, word, goal in (("outliers", "planted", 0.97), ("copies", "copies", 0.99)):
        for kind in dict.fromkeys(row["kind"] for row in b[part]):
            found = [row for row in b[part] if row["kind"] == kind]
            both = [f"{percent(row['recall'], 1)} / {percent(row['precision'], 1)}" for row in found]
            rows.append([f"{word}: {kind}", *both])
        met = sum(min(row["recall"], row["precision"] or 0) >= goal for row in b[part])
        reached[part] = f"{percent(goal, 0)}% in {met} of {len(b[part])}"
    shares = [f"{100 * share:g}% of the file" for share in sorted({row["share"] for row in b["outliers"]})]
    return (
        f"In the challenge's file {own['found']:,} of {own['planted']:,} planted pictures go; of its {own['cells']:,} "
        f"cells {lost['duplicate']} duplicates, {lost['near_duplicate']} near duplicate, {lost['conflicting_label']} "
        f"with conflicting labels, and {lost['outlier']} as outliers ({percent(lost['outlier'] / own['cells'])}%). "
        f"Clean files lose {clean}.\n\n{markdown.table(['recall / precision, %', *shares], rows)}\n\n"
        f"Both figures reach {reached['outliers']} files with planted pictures, and {reached['copies']} with copies."
    )


BLOCKS = {
    "setup": lambda: setup.commands(load("setup")),
    "trial": lambda: setup.trial(load("setup")),
    "report": lambda: report(load("report")),
    "headline": lambda: headline(load("card")["summary"], load("report"), load("setup")["cores"]),
    "summary": lambda: card.short(load("card")["summary"]),
    "card": lambda: card.text(load("card")),
    "classes": lambda: card.classes(load("card")),
    "mistakes": lambda: card.mistakes(load("card")["summary"]),
    "calibration": lambda: "\n\n".join(
        [calibrate.sentence(load("card")["summary"]["predicted_hidden"]), calibrate.text(load("calibration"))]
    ),
    "unforeseen": lambda: unforeseen.text(load("unforeseen")),
    "laboratory": lambda: laboratory.sentence(load("laboratory")),
    "laboratory_classes": lambda: laboratory.table(load("laboratory")),
    "audit": lambda: audit(load("audit_benchmark")),
    "systems": lambda: compare.text(load("systems")["rows"]),
}


def render(text: str) -> str:
    """Return a page with all blocks regenerated. Raises ValueError for an unknown, repeated or unclosed block."""
    for name in re.findall(r"^<!-- (\w+) -->$", text, re.MULTILINE):
        pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        if name not in BLOCKS or len(pattern.findall(text)) != 1:
            raise ValueError(f"<!-- {name} --> must be one of {', '.join(BLOCKS)}, once, and end in <!-- /{name} -->")
        content = BLOCKS[name]()
        text = pattern.sub(lambda found, content=content: found[1] + content + "\n" + found[2], text)
    return text


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--check", action="store_true", help="write nothing; exit status 1 if a page is out of date")


def run(args: argparse.Namespace) -> None:
    for path in PAGES:
        old = path.read_text(encoding="utf-8")
        new = render(old)
        if new != old and args.check:
            raise ValueError(f"{path.name} is not what results/ gives: run python -m evaluation tables")
        if new != old:
            write_text(path, new)
