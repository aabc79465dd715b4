"""The ledger of trials: each one change, measured against a baseline on the same cells and corruptions.

    python -m evaluation.ledger CARD.json --baseline BASE.json --change "two views" --cost "2x inference" \\
        --kept no --why "gains less than it costs"
    python -m evaluation.tables                          and docs/LEDGER.md shows it

CARD and BASE are report cards of evaluation.evaluate. An entry holds the trial's scores as shares of 1, and for clean,
the mean of the five families, each family and the composite (mean of its strengths) the paired difference to the
baseline with its 95% bootstrap interval over the cells, which says nothing of how much two training runs differ. A
change that is measured with several seeds has a card and a baseline for each; their gains are averaged.
"""

import json
from pathlib import Path

import numpy as np

from evaluation import evaluate
from training import shell
from training.files import ROOT, write_json

LEDGER = ROOT / "results" / "ledger.json"
CARDS = [ROOT / "results" / "card.json", *sorted((ROOT / "results" / "ladder").glob("*.json"))]
GROUPS = ("clean", "corrupted", "composite")


def gains(card: dict, baseline: dict) -> dict[str, np.ndarray]:
    """evaluate.gains in the groups of the ledger: clean, corrupted, composite and the families, (n,) each."""
    if card["provenance"]["corruptions_sha256"] != baseline["provenance"]["corruptions_sha256"]:
        raise ValueError("the two cards are of different corruptions, so they cannot be compared cell by cell")
    found = evaluate.gains(card, baseline)
    groups = {n: gain for n, gain in found.items() if n in ("clean", "corrupted") or n.startswith("family ")}
    return groups | {"composite": np.mean([gain for n, gain in found.items() if n.startswith("composite ")], axis=0)}


def entry(cards: list[dict], baselines: list[dict], said: dict) -> dict:
    """One trial of the ledger. said: its `change`, `cost`, `against`, `seeds`, `kept`, `why` and `command`."""
    if len(cards) != len(baselines):
        raise ValueError(f"{len(cards)} cards need as many baselines, not {len(baselines)}")
    summaries = [card["summary"] for card in cards]

    def mean(values) -> float:
        return round(float(np.mean(list(values))), 5)

    pairs = [gains(card, baseline) for card, baseline in zip(cards, baselines, strict=True)]
    return {
        **said,
        "clean": mean(s["clean"]["accuracy"] for s in summaries),
        "corrupted": mean(s["corrupted"]["accuracy"] for s in summaries) if summaries[0]["corrupted"] else None,
        "composite": mean(np.mean([p["accuracy"] for p in s["composite"].values()]) for s in summaries),
        "families": {f: mean(s["families"][f]["accuracy"] for s in summaries) for f in summaries[0]["families"]},
        "ece": {"clean": mean(s["clean"]["ece"] for s in summaries),
                "corrupted": mean(s["corrupted"]["ece"] for s in summaries) if summaries[0]["corrupted"] else None},
        "gain": {group: {name: round(value, 5) for name, value in
                         evaluate.interval(np.mean([pair[group] for pair in pairs], axis=0)).items()}
                 for group in pairs[0]},
        "cells": {"clean": len(pairs[0]["clean"]),
                  "corruption": min((e["cells"] for c in cards for e in c["conditions"] if e["family"] not in
                                     GROUPS), default=0)},
        "weights": [card["provenance"]["weights_sha256"][:12] for card in cards],
        "baseline": [card["provenance"]["weights_sha256"][:12] for card in baselines],
        "commit": cards[0]["provenance"]["commit"],
    }  # fmt: skip


def committed() -> set[str]:
    """The first digits of the SHA-256 of all weights whose cards are in the repository."""
    return {evaluate.read_card(path)["provenance"]["weights_sha256"][:12] for path in CARDS}


def cards_of(trial: dict, there: set[str]) -> str:
    """Which cards of a trial are in the repository: both, its own, the baseline's or none."""
    own, baseline = (set(trial[key]) <= there for key in ("weights", "baseline"))
    return ("none", "the baseline's", "its own", "both")[2 * own + baseline]


def read() -> list[dict]:
    return json.loads(LEDGER.read_text(encoding="utf-8"))["trials"] if LEDGER.exists() else []


def main() -> None:
    parser = shell.parser("evaluation.ledger", __doc__)
    parser.add_argument("cards", type=Path, nargs="+", help="the trial's card, or those of its seeds")
    parser.add_argument("--baseline", type=Path, nargs="+", required=True, help="the baseline's, as many")
    parser.add_argument("--change", required=True, help="what was changed; one that is there already is measured anew")
    parser.add_argument("--against", default="the shipped weights", help="what the baseline is")
    parser.add_argument("--cost", required=True, help="what the change costs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--kept", choices=("yes", "no"), required=True)
    parser.add_argument("--why", required=True, help="why it was kept or not")
    parser.add_argument("--command", help="what makes the trial again: python -m training.train ...")
    args = parser.parse_args()
    said = {"change": args.change, "against": args.against, "cost": args.cost, "seeds": args.seeds,
            "kept": args.kept == "yes", "why": args.why, "command": args.command}  # fmt: skip
    with shell.plain_errors():
        new = entry(*([evaluate.read_card(p) for p in paths] for paths in (args.cards, args.baseline)), said)
    trials = {trial["change"]: trial for trial in read()} | {args.change: new}  # at its old place, if it has one
    write_json(LEDGER, {"trials": list(trials.values())})


if __name__ == "__main__":
    main()
