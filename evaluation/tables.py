"""Write the tables of the README and of docs/ from the JSON files in results/, so that no number is typed.

    python -m evaluation.tables            rewrite the blocks between <!-- NAME --> and <!-- /NAME -->
    python -m evaluation.tables --check    exit 1 if that would change anything

report.json is what build_submission.py wrote, card.json what evaluation.evaluate, calibration.json what
evaluation.calibrate, unforeseen.json what evaluation.unforeseen, ledger.json what evaluation.ledger, systems.json what
evaluation.compare, benchmark.json what evaluation.benchmark, laboratory.json what evaluation.laboratory,
audit_benchmark.json what tests.dirty.
"""

import json
import re
import sys
from pathlib import Path

from evaluation.calibrate import PHASE, PHASE_MARGIN
from training import shell

ROOT = Path(__file__).resolve().parent.parent
HERE = ROOT / "results"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def load(name: str) -> dict:
    return json.loads((HERE / name).read_text(encoding="utf-8"))


REPORTED = ("ran under", "zip", "rehearsal", "shut in", "prediction", "scoring", "forecast", "accuracy", "balanced")


def report() -> str:
    """Some lines of the terminal report, as build_submission.py prints it, and the last one, the verdict."""
    from rich.console import Console

    from grader.report import terminal

    console = Console(width=110, highlight=False, force_terminal=False)
    with console.capture() as capture:
        terminal(load("report.json"), console)
    lines = [line.rstrip() for line in capture.get().strip().splitlines()]
    shown = [line for line in lines if line.startswith(REPORTED)] + lines[-1:]
    return "```text\n" + "\n".join(shown) + "\n```"


def headline() -> str:
    """One line of results."""
    found, cost = load("card.json")["summary"], load("benchmark.json")
    clean, corrupted = (percent(found[part]["accuracy"]) for part in ("clean", "corrupted"))
    predicted = found["predicted_hidden"]
    score, low, high = (percent(predicted[key]) for key in ("score", "low", "high"))
    beyond = ", extrapolated" if predicted["extrapolated"] else ""
    return (
        f"**{clean}% of clean held-out cells, {corrupted}% under {len(found['corruptions'])} corruptions; predicted "
        f"hidden score {score} (95% interval {low} to {high}{beyond}).** A zip of {cost['zip_mb']:.0f} MB; "
        f"{cost['images']:,} pictures in {cost['seconds']['total']:.0f} s on {cost['cores']} cores."
    )


def summary() -> str:
    """Five rows of the card."""
    found = load("card.json")["summary"]
    rows = [("clean", found["clean"]), ("mean of the five families of corruptions", found["corrupted"])]
    rows += [(f"several corruptions at once, strength {s} of 5", found["composite"][s]) for s in "345"]
    lines = ["| held-out cells | accuracy % | balanced % |", "|---|---|---|"]
    return "\n".join(
        lines + [f"| {name} | {percent(s['accuracy'])} | {percent(s['balanced_accuracy'])} |" for name, s in rows]
    )


def laboratory() -> str:
    """Accuracy on another laboratory's cells, and its commonest mistake."""
    found = load("laboratory.json")
    mistakes = [
        (count, name, other, row["cells"])
        for name, row in found["classes"].items()
        for other, count in row["named"].items()
        if other != name
    ]
    count, name, other, cells = max(mistakes)
    return (
        f"All cells are of one hospital. Of {found['cells']} cells of another laboratory ({found['name'].upper()}: "
        f"other stain, camera and scale) these weights name {percent(found['accuracy'])}% rightly; most often {name} "
        f"is taken for {other} ({count} of {cells})."
    )


def laboratory_classes() -> str:
    """Each class of the other laboratory's cells, and the label it is given most often."""
    lines = ["| class | cells | recall % | labels given most often |", "|---|---|---|---|"]
    for name, row in load("laboratory.json")["classes"].items():
        given = ", ".join(f"{other} {count}" for other, count in list(row["named"].items())[:3])
        lines.append(f"| {name} | {row['cells']} | {percent(row['recall'])} | {given} |")
    return "\n".join(lines)


def percent(value: float) -> str:
    return f"{100 * value:.2f}"


def card() -> str:
    """Clean, composite and families, from the report card."""
    card = load("card.json")
    summary, conditions = card["summary"], card["conditions"]
    per_condition = conditions[-1]["cells"]
    rows = [("clean cells", summary["clean"])]
    rows += [(f"composite, strength {s} of 5", summary["composite"][s]) for s in sorted(summary["composite"])]
    names = {"medmnist_c": "MedMNIST-C's eleven for blood", "noise": "noise", "colour": "colour",
             "geometry": "geometry", "occlusion": "occlusion"}  # fmt: skip
    rows += [(names[name], summary["families"][name]) for name in names]
    rows.append(("mean of the five families", summary["corrupted"]))
    lines = ["| held-out cells | accuracy % | balanced % | ROC AUC | ECE |", "|---|---|---|---|---|"]
    for name, s in rows:
        numbers = percent(s["accuracy"]), percent(s["balanced_accuracy"]), f"{s['roc_auc']:.4f}", f"{s['ece']:.3f}"
        lines.append(f"| {name} | {' | '.join(numbers)} |")
    worst = sorted(summary["corruptions"].items(), key=lambda item: item[1])[:6]
    named = ", ".join(f"{name.replace('_', ' ')} {percent(value)}" for name, value in worst)
    return "\n".join(lines) + (
        f"\n\nClean and composite over all {card['cells']['count']} held-out cells; each corruption at five severities"
        f" on {per_condition} of them. Hardest, mean over the severities: {named}."
    )


def classes() -> str:
    """Precision, recall and ROC AUC of each class on clean cells, recall on the composite."""
    card = load("card.json")
    clean = next(e for e in card["conditions"] if e["corruption"] == "clean")
    composite = [e for e in card["conditions"] if e["corruption"] == "composite"]
    lines = ["| class | precision % | recall % | ROC AUC | recall on the composite % |", "|---|---|---|---|---|"]
    for k, name in enumerate(card["cells"]["classes"]):
        corrupted = sum(e["recall"][k] for e in composite) / len(composite)
        numbers = [percent(clean["precision"][k]), percent(clean["recall"][k]), f"{clean['auc'][k]:.4f}"]
        lines.append(f"| {name} | {' | '.join([*numbers, percent(corrupted)])} |")
    return "\n".join(lines)


def corruptions() -> str:
    """Accuracy under each corruption at each severity."""
    entries = [e for e in load("card.json")["conditions"] if e["corruption"] not in ("clean", "composite")]
    severities = sorted({e["severity"] for e in entries})
    lines = ["| corruption | family | " + " | ".join(map(str, severities)) + " |", "|---" * (2 + len(severities)) + "|"]
    for name in dict.fromkeys(e["corruption"] for e in entries):
        row = {e["severity"]: e for e in entries if e["corruption"] == name}
        numbers = " | ".join(percent(row[s]["accuracy"]) for s in severities)
        lines.append(f"| {name.replace('_', ' ')} | {row[severities[0]]['family']} | {numbers} |")
    return "\n".join(lines)


def mistakes() -> str:
    """What is most often taken for what."""
    pairs = load("card.json")["summary"]["confusion_pairs"]
    names = {"clean": "Clean", "corrupted": "Under the corruptions", "composite": "On the composite"}
    return "\n".join(
        f"- {names[group]}: "
        + ", ".join(f"{p['true']} taken for {p['predicted']} {percent(p['share'])}%" for p in pairs[group])
        for group in names
    )


def benchmark() -> str:
    """One sentence of figures."""
    b = load("benchmark.json")
    s = b["seconds"]
    return (
        f"{b['images']} corrupted cells take {s['total']:.0f} s on {b['cores']} cores ({s['import']:.0f} s to import, "
        f"{s['load']:.0f} s to load, {s['predict']:.0f} s to predict) and {b['peak_memory_mb']} MB at the peak; "
        f"the zip has {b['zip_mb']:.1f} MB. The slowest augmentation policy of any recipe, by itself, makes "
        f"{min(b['augmentation_images_per_second'].values()):,} images a second on those cores."
    )


def audit() -> str:
    """What the audit finds in the challenge's file, loses of clean ones, and finds in dirtier ones."""
    b = load("audit_benchmark.json")
    own, lost = b["challenge"], b["challenge"]["lost"]
    clean = " and ".join(f"{c['lost']} of {c['cells']:,} {c['file']} ({percent(c['share'])}%)" for c in b["clean"])
    lines = [
        f"In the challenge's file {own['found']:,} of {own['planted']:,} planted pictures go; of its {own['cells']:,} "
        f"cells {lost['duplicate']} duplicates, {lost['near_duplicate']} near duplicate, {lost['conflicting_label']} "
        f"with conflicting labels, and {lost['outlier']} as outliers ({percent(lost['outlier'] / own['cells'])}%). "
        f"Clean files lose {clean}.",
        "",
        "| recall / precision, % | " + " | ".join(f"{100 * share:g}% of the file" for share in shares(b)) + " |",
        "|---" * (1 + len(shares(b))) + "|",
    ]
    for part, word in (("outliers", "planted"), ("copies", "copies")):
        for kind in dict.fromkeys(row["kind"] for row in b[part]):
            rows = [row for row in b[part] if row["kind"] == kind]
            lines.append(f"| {word}: {kind} | " + " | ".join(recall_and_precision(row) for row in rows) + " |")
    met = [row for row in b["outliers"] if min(row["recall"], row["precision"] or 0) >= 0.97]
    copies = [row for row in b["copies"] if min(row["recall"], row["precision"] or 0) >= 0.99]
    return "\n".join(lines) + (
        f"\n\nBoth figures reach 97% in {len(met)} of {len(b['outliers'])} files with planted pictures, and 99% in "
        f"{len(copies)} of {len(b['copies'])} with copies."
    )


def shares(benchmark: dict) -> list[float]:
    return sorted({row["share"] for row in benchmark["outliers"]})


def recall_and_precision(row: dict) -> str:
    precision = "-" if row["precision"] is None else f"{100 * row['precision']:.1f}"
    return f"{100 * row['recall']:.1f} / {precision}"


def systems() -> str:
    """Every system of the two reports and ours, as evaluation.compare lists them."""
    from evaluation.compare import markdown

    return markdown(load("systems.json")["rows"])


def calibration() -> str:
    """The predicted hidden score, and the systems that it rests on."""
    c, predicted = load("calibration.json"), load("card.json")["summary"]["predicted_hidden"]
    lines = ["| re-trained system | hidden score | composite | predicted from the others |", "|---|---|---|---|"]
    for point in c["points"]:
        alone = point["left_out"]
        numbers = [percent(point["hidden"]), percent(point["composite_at_strength"]), percent(alone["score"])]
        numbers[2] += f" ({percent(alone['low'])} to {percent(alone['high'])})"
        lines.append(f"| `{point['system']}` | {' | '.join(numbers)} |")
    beyond = ", beyond the best of them, so that it is an extrapolation" if predicted["extrapolated"] else ""
    return (
        f"**Predicted hidden score: {percent(predicted['score'])} (95% interval {percent(predicted['low'])} to "
        f"{percent(predicted['high'])})**, from {percent(predicted['composite'])}% on the composite at strength "
        f"{predicted['strength']:g}{beyond}. A score moves by {100 * PHASE:g} points from phase to phase (one standard "
        "deviation), so that the best of calibrations would still leave the lower end at "
        f"{percent(predicted['score'] - PHASE_MARGIN)}. This one rests on {len(c['points'])} systems with known hidden "
        "scores, trained anew here and scored on the same composite (`python -m evaluation.calibrate "
        "results/ladder/*.json`):\n\n" + "\n".join(lines)
    )


def unforeseen() -> str:
    """What ships and what came before it, oldest first, on changes that neither training nor the card makes."""
    u = load("unforeseen.json")
    now, middle, first = u["models"]
    named = ((first, "three cosines"), (middle, "six, 13 more operations"), (now, "nine, patterns, 112 pixels"))
    lines = [f"| | {' | '.join(f'{name} %' for _, name in named)} |", "|---" * 4 + "|"]
    for kind in now["kinds"]:
        lines.append(f"| {kind.replace('_', ' ')} | {' | '.join(percent(m['kinds'][kind]) for m, _ in named)} |")
    lines.append(f"| mean | {' | '.join(percent(m['mean']) for m, _ in named)} |")
    gains = [f"weights {m['weights_sha256'][:12]} {points(m['gain_of_the_first'])}" for m in (first, middle)]
    return "\n".join(lines) + (
        f"\n\nOver {u['cells']} held-out cells, in points on average: now against the first column, "
        f"{' and against the second, '.join(gains)}."
    )


def points(gain: dict) -> str:
    """A gain of the ledger in points, with its interval."""
    return "{:+.2f} ({:+.2f} to {:+.2f})".format(*(100 * gain[key] for key in ("difference", "low", "high")))


def certain(gain: dict) -> bool:
    """Whether the interval of a gain leaves out zero."""
    return not gain["low"] <= 0 <= gain["high"]


def trials() -> str:
    """The ledger in short: what the interval of the gain on the composite says mattered, and what not."""
    from evaluation.ledger import cards_of, committed

    sign, known, there = {True: [], False: []}, load("ledger.json")["trials"], committed()
    for trial in sorted(known, key=lambda trial: -trial["gain"]["composite"]["difference"]):
        gain = trial["gain"]["composite"]
        families = {name: g for name, g in trial["gain"].items() if name.startswith("family ") and certain(g)}
        most = max(families, key=lambda name: abs(families[name]["difference"]), default=None)
        text = f"- {points(gain)}: {trial['change']}, against {trial['against']}"
        if most:
            text += f"; most of all in {most.removeprefix('family ')}, {points(families[most])}"
        sign[certain(gain)].append(text)
    both = sum(cards_of(trial, there) == "both" for trial in known)
    again = sum(bool(trial["command"]) for trial in known)
    return "\n".join(
        [
            "Points on the composite (the mean of its five strengths), with 95% intervals over the cells; how much one "
            "training run differs from the next is not in them. The interval leaves out zero:",
            "",
            *sign[True],
            "",
            "It does not:",
            "",
            *sign[False],
            "",
            f"Of the {len(known)} trials, {both} have both their cards in `results/`, and {again} can be made again by "
            "a command of this repository; recipes, code or weights of the others are gone.",
        ]
    )


def ledger() -> str:
    """Every trial, a row each."""
    from evaluation.ledger import GROUPS, cards_of, committed

    columns = ["change", "against", "cost", "seeds", *(f"{group} %" for group in GROUPS)]
    columns += [*(f"gain {group}" for group in GROUPS), "kept", "why", "cards", "made again by"]
    lines, there = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"], committed()
    for trial in load("ledger.json")["trials"]:
        scores = ["-" if trial[group] is None else percent(trial[group]) for group in GROUPS]
        ranges = [points(trial["gain"][group]) if group in trial["gain"] else "-" for group in GROUPS]
        kept, seeds = "yes" if trial["kept"] else "no", ", ".join(map(str, trial["seeds"]))
        cells = [trial["change"], trial["against"], trial["cost"], seeds, *scores, *ranges, kept, trial["why"]]
        cells += [cards_of(trial, there), f"`{trial['command']}`" if trial.get("command") else "none"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


BLOCKS = {
    block.__name__: block
    for block in (report, headline, summary, laboratory, laboratory_classes, card, calibration, unforeseen, trials,
                  ledger, benchmark, audit, systems, classes, corruptions, mistakes)
}  # fmt: skip


def render(text: str) -> str:
    """A page with every block in it made anew. ValueError where a block is not closed, or unknown."""
    for name in re.findall(r"^<!-- (\w+) -->$", text, re.MULTILINE):
        pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        if name not in BLOCKS or len(pattern.findall(text)) != 1:
            raise ValueError(f"<!-- {name} --> must be one of {', '.join(BLOCKS)}, once, and end in <!-- /{name} -->")
        content = BLOCKS[name]()
        text = pattern.sub(lambda found, content=content: found[1] + content + "\n" + found[2], text)
    return text


def main() -> None:
    parser = shell.parser("evaluation.tables", __doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a page is not up to date")
    args = parser.parse_args()
    for path in PAGES:
        old = path.read_text(encoding="utf-8")
        new = render(old)
        if not args.check:
            path.write_text(new, encoding="utf-8")
        elif new != old:
            sys.exit(f"{path.name} is not what results/ gives: run python -m evaluation.tables")


if __name__ == "__main__":
    main()
