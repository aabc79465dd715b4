"""Report cards as files: read and write them, summarise one, and compare two cell by cell.

A card's `conditions` hold every prediction: `predicted` is one digit per cell, `confidence` the largest probability
in units of 1/65535 (base64 of little-endian uint16). A condition of N cells uses the first N of `cells.order`, in that
order. Scores are in 0-1. A card holds hashes and versions but no date, so that two runs on the same weights, cells and
libraries write the same file.
"""

import base64
import json
from collections import defaultdict
from collections.abc import Callable, Iterable
from functools import cache
from operator import itemgetter
from pathlib import Path

import numpy as np
from scipy.stats import bootstrap

from evaluation.scoring import METRICS, confusion
from training import data, files

SCHEMA = 1
commit = cache(files.commit)  # cached, since results change the working tree


def read_json(path: Path, what: str, keys: Iterable[str] = ()) -> dict:
    """Read a JSON object. Raises ValueError if it is unreadable or lacks a key; `what` names it in the message."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path} is missing: check the path, or make the {what} first") from None
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as a {what}: {error}") from error
    if not isinstance(content, dict) or not set(keys) <= content.keys():
        raise ValueError(f"{path} is not a {what} of this version")
    return content


def read_card(path: Path) -> dict:
    """Read a card written by `write_card`. Raises ValueError if it is not a card or has another schema."""
    card = read_json(path, "card", ("schema", "provenance", "summary", "cells", "conditions"))
    if card["schema"] != SCHEMA:
        raise ValueError(f"{path} is not a card of schema {SCHEMA}: create it again")
    return card


def write_card(card: dict, path: Path) -> None:
    """Write a card with one line per condition, so that diff can compare two cards."""
    lines = [f"{json.dumps(key)}: {json.dumps(card[key], indent=1)}" for key in ("schema", "provenance", "summary")]
    lines.append(f'"cells": {json.dumps(card["cells"])}')
    lines.append('"conditions": [\n' + ",\n".join(json.dumps(entry) for entry in card["conditions"]) + "\n]")
    files.write_text(path, "{\n" + ",\n".join(lines) + "\n}\n")


def labels_of(card: dict, count: int) -> np.ndarray:
    """True labels (count,) in the card's order."""
    return np.array(list(card["cells"]["labels"]), int)[card["cells"]["order"][:count]]


def predictions_of(entry: dict) -> np.ndarray:
    """Predicted labels (cells,) of one condition, in the card's order."""
    return np.array(list(entry["predicted"]), int)


def pack(probabilities: np.ndarray) -> str:
    """Encode a condition's `confidence` from probabilities (n, 8)."""
    largest = np.rint(65535 * np.clip(probabilities.max(axis=1), 0, 1)).astype("<u2")
    return base64.b64encode(largest.tobytes()).decode()


def confidence_of(entry: dict) -> np.ndarray:
    """Largest probabilities (cells,) of one condition."""
    return np.frombuffer(base64.b64decode(entry["confidence"]), "<u2") / 65535


def grouped(entries: list[dict], key: Callable[[dict], str]) -> dict[str, list[dict]]:
    """Group conditions by key(condition)."""
    return {name: [e for e in entries if key(e) == name] for name in dict.fromkeys(map(key, entries))}


def groups_of(card: dict) -> dict[str, list[dict]]:
    """Group the card's conditions: clean, composite, corrupted (the 46 corruptions). Empty groups are left out."""
    return grouped(card["conditions"], lambda e: e["family"] if e["family"] in ("clean", "composite") else "corrupted")


def pooled_confusion(card: dict, entries: list[dict]) -> np.ndarray:
    """Counts (8, 8) over all these conditions: rows true, columns predicted."""
    return sum(confusion(labels_of(card, e["cells"]), predictions_of(e)) for e in entries)


def mean(entries: Iterable[dict], metric: str) -> float | None:
    """The mean of a score, to six digits; None if an entry lacks it."""
    values = [entry[metric] for entry in entries]
    return None if None in values else round(float(np.mean(values)), 6)


def summarise(card: dict) -> dict:
    """Summarise a card, without the predicted hidden score. What was not measured is None or empty.

    `corrupted` is the mean of the five families' means: each family has the same weight.
    """
    groups = groups_of(card)
    by_family, by_name = (grouped(groups.get("corrupted", []), itemgetter(key)) for key in ("family", "corruption"))
    families = {name: {m: mean(part, m) for m in METRICS} for name, part in by_family.items()}
    return {
        "clean": {m: groups["clean"][0][m] for m in METRICS},
        "corrupted": {m: mean(families.values(), m) for m in METRICS} if families else None,
        "composite": {str(e["severity"]): {m: e[m] for m in METRICS} for e in groups["composite"]},
        "families": families,
        "corruptions": {name: mean(part, "accuracy") for name, part in by_name.items()},
        "confusion_pairs": {group: worst_pairs(card, entries) for group, entries in groups.items()},
    }


def worst_pairs(card: dict, entries: list[dict]) -> list[dict]:
    """The five most frequent confusions in these conditions: `true`, `predicted`, `share` (0-1) of the true class."""
    counts = pooled_confusion(card, entries)
    share = counts * (1 - np.eye(len(counts))) / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    worst = np.unravel_index(np.argsort(-share, axis=None, kind="stable")[:5], share.shape)
    return [
        {"true": data.CLASSES[t], "predicted": data.CLASSES[p], "share": round(float(share[t, p]), 6)}
        for t, p in zip(*worst, strict=True)
        if share[t, p]
    ]


def gains(card: dict, baseline: dict) -> dict[str, np.ndarray]:
    """Return each name's accuracy gain over the baseline by cell, (n,) in -1 to 1, on conditions and cells of both.

    Names: clean, composite (the mean of its strengths), composite S, family F, each corruption (the mean of its
    severities), and corrupted (the mean of the families). Raises ValueError if held-out cells or corruptions differ.
    """
    for key, what in (("heldout_sha256", "held-out cells"), ("corruptions_sha256", "corruptions")):
        if card["provenance"][key] != baseline["provenance"][key]:
            raise ValueError(f"the two cards are of different {what}: create both again with the same")
    other = {(entry["corruption"], entry["severity"]): entry for entry in baseline["conditions"]}
    parts: dict[str, list[np.ndarray]] = defaultdict(list)
    for entry in card["conditions"]:
        name, family, severity = (entry[key] for key in ("corruption", "family", "severity"))
        if (name, severity) in other:
            both = entry, other[name, severity]
            count = min(e["cells"] for e in both)
            ours, theirs = (predictions_of(e)[:count] == labels_of(card, count) for e in both)
            wider = {"clean": "clean", "composite": f"composite {severity}"}.get(family, f"family {family}")
            for row in dict.fromkeys((wider, name)):
                parts[row].append(ours * 1.0 - theirs)
    means = {name: np.mean(part, axis=0) for name, part in parts.items()}
    families = [gain for name, gain in means.items() if name.startswith("family ")]
    return means | ({"corrupted": np.mean(families, axis=0)} if families else {})


def interval(gain: np.ndarray) -> tuple[float, float, float]:
    """Return the mean of (n,) paired gains, and the low and the high end of its 95% percentile interval, from 2000
    bootstrap resamples of the cells. The variation between training runs is not included."""
    if len(gain) < 2:  # nothing to resample
        return (float(gain.mean()),) * 3
    found = bootstrap((gain,), np.mean, n_resamples=2000, method="percentile", random_state=0).confidence_interval
    return float(gain.mean()), float(found.low), float(found.high)
