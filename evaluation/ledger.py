"""Add a trial to results/ledger.json: one change, measured against a baseline on the same cells.

    python -m evaluation ledger CARD.json --baseline BASE.json --change "two views" --cost "2x inference" \\
        --kept no --why "gains less than it costs"
    python -m evaluation tables                          show it in docs/LEDGER.md

CARD and BASE are report cards. An entry holds the accuracy and the gain over the baseline, on clean cells, on the mean
of the five families, on each family, and on the composite (mean of its strengths). Gains are paired by cell and have
95% bootstrap intervals over the cells; the variation between training runs is not included. A change that is measured
with several seeds has a card and a baseline for each; their gains are averaged.
"""

import argparse
from pathlib import Path

import numpy as np

from evaluation import cards, markdown
from training.files import ROOT, write_json

LEDGER = ROOT / "results" / "ledger.json"
GROUPS = ("clean", "corrupted", "composite")


def entry(own: list[dict], baselines: list[dict], said: dict) -> dict:
    """Return one trial of the ledger. said: its `change`, `cost`, `against`, `kept`, `why` and `command`."""
    if len(own) != len(baselines):
        raise ValueError(f"{len(own)} cards need as many baselines, not {len(baselines)}")
    pairs = [cards.gains(card, baseline) for card, baseline in zip(own, baselines, strict=True)]
    summaries = [card["summary"] for card in own]
    parts = {"clean": [s["clean"] for s in summaries], "corrupted": [s["corrupted"] for s in summaries],
             "composite": [scores for s in summaries for scores in s["composite"].values()]}  # fmt: skip
    return {
        **said,
        **{name: cards.mean(part, "accuracy") if all(part) else None for name, part in parts.items()},
        "gain": {group: cards.interval(np.mean([pair[group] for pair in pairs], axis=0))
                 for group in pairs[0] if group in GROUPS or group.startswith("family ")},
        "weights": [card["provenance"]["weights_sha256"][:12] for card in own],
        "baseline": [card["provenance"]["weights_sha256"][:12] for card in baselines],
        "commit": own[0]["provenance"]["commit"],
    }  # fmt: skip


def text(trials: list[dict]) -> str:
    """Table of all trials, the largest gain on the composite first."""
    rows = []
    for trial in sorted(trials, key=lambda trial: -trial["gain"]["composite"]["difference"]):
        gained = [markdown.points(trial["gain"][group]) if group in trial["gain"] else "-" for group in GROUPS]
        said = [trial[key] for key in ("change", "against", "cost")]
        again = f"`{trial['command']}`" if trial["command"] else "none"
        rows.append([*said, *gained, "yes" if trial["kept"] else "no", trial["why"], again])
    gains = [f"gain {group}" for group in GROUPS]
    return markdown.table(["change", "against", "cost", *gains, "kept", "why", "made again by"], rows)


def options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("cards", type=Path, nargs="+", help="the trial's card, or those of its seeds")
    add("--baseline", type=Path, nargs="+", required=True, help="the baseline's cards, as many")
    add("--change", required=True, help="what was changed; an entry of the same words is replaced")
    add("--against", default="the shipped weights", help="what the baseline is (default: %(default)s)")
    add("--cost", required=True, help="what the change costs")
    add("--kept", choices=("yes", "no"), required=True, help="whether the change stays")
    add("--why", required=True, help="why it was kept or not")
    add("--command", help="what makes the trial again: python -m training.train ...")


def run(args: argparse.Namespace) -> None:
    said = {key: getattr(args, key) for key in ("change", "cost", "against", "why", "command")}
    own, baselines = ([cards.read_card(path) for path in paths] for paths in (args.cards, args.baseline))
    new = entry(own, baselines, {**said, "kept": args.kept == "yes"})
    known = cards.read_json(LEDGER, "ledger", ["trials"])["trials"]
    trials = {trial["change"]: trial for trial in known} | {args.change: new}  # an old entry is replaced in its place
    write_json(LEDGER, {"trials": list(trials.values())})
