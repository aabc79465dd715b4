"""Fit a line from composite accuracy to hidden score, on re-trained systems with known hidden scores.

    python -m evaluation calibrate results/ladder/*.json

Each file is a report card from `python -m evaluation card` (`--composite` is enough) of a recipe whose hidden score is
known. The file name without .json is the recipe's name. Cards made afterwards contain a predicted hidden score.
docs/RESULTS.md explains the method.
"""

import argparse
import contextlib
from pathlib import Path

import numpy as np
from scipy.special import expit, logit
from scipy.stats import t

from evaluation import cards, markdown
from evaluation.corruptions import SEVERITIES
from evaluation.markdown import percent
from training import shell
from training.files import ROOT, write_json
from training.recipes import REPORTED

PATH = ROOT / "results" / "calibration.json"
PHASE = 0.02  # standard deviation of a hidden score between phases: different test sets moved scores by a few points
PHASE_MARGIN = 1.96 * PHASE  # a score moves by less in 95% of the phases
SAME = ("heldout_sha256", "corruptions_sha256")  # provenance that all cards of a calibration share

# recipe -> (lowest, highest) known hidden accuracy (0-1), and who reported it
KNOWN: dict[str, tuple[float, float, str]] = {
    name: (min(scores), max(scores), said.source)
    for name, said in REPORTED.items()
    if said.hidden and (scores := [float(score) / 100 for score in said.hidden.split("-")])
}


def curve(card: dict) -> tuple[np.ndarray, int]:
    """Return the logits (5,) of the composite's accuracies at strengths 1-5, and the number of cells.

    Accuracies are kept half a cell away from 0 and 1, so that logits are finite. Raises ValueError if a strength is
    missing.
    """
    measured = {e["severity"]: e for e in card["conditions"] if e["corruption"] == "composite"}
    if set(measured) != set(SEVERITIES):
        there = ", ".join(map(str, measured)) or "none"
        raise ValueError(f"the composite is needed at strengths 1-5 and the card measured {there}")
    cells = min(e["cells"] for e in measured.values())
    accuracies = [measured[s]["accuracy"] for s in SEVERITIES]
    return logit(np.clip(accuracies, 0.5 / cells, 1 - 0.5 / cells)), cells


def composite_at(card: dict, strength: float) -> float:
    """Return the composite's accuracy, above 0 and below 1, at a strength in 1-5: linear on the logit scale."""
    return float(expit(np.interp(strength, SEVERITIES, curve(card)[0])))


def fit_line(x: np.ndarray, y: np.ndarray, weights: np.ndarray, known: np.ndarray) -> dict:
    """Fit y = a + b x by weighted least squares. known: the standard deviation (n,) of the error of each y.

    Returns a, b, residual_error (standard deviation of the scatter about the line), t (97.5% quantile of Student's t),
    and the covariances of (a, b) due to the scatter and due to `known`. The scatter's variance is unbiased for weights
    that express emphasis, not precision. Raises ValueError if the slope is not positive.
    """
    X = np.stack([np.ones_like(x), x], axis=1)
    A = np.linalg.pinv(X * np.sqrt(weights)[:, None]) * np.sqrt(weights)  # (a, b) = A y
    a, b = A @ y
    if np.ptp(x) < 1e-9 or not b > 0:
        raise ValueError("over these systems the composite does not rise with the hidden score: give cards of others")
    leaves = np.eye(len(x)) - X @ A  # residuals = leaves @ y
    variance = weights @ (leaves @ y) ** 2 / np.trace(leaves.T @ (weights[:, None] * leaves))
    return {
        "a": float(a), "b": float(b), "residual_error": float(np.sqrt(variance)), "t": float(t.ppf(0.975, len(x) - 2)),
        "covariance_scatter": (variance * A @ A.T).tolist(), "covariance_known": (A * known**2 @ A.T).tolist(),
    }  # fmt: skip


def interval(fit: dict, card: dict, strength: float) -> dict[str, float]:
    """Return score, low and high (0-1, a 95% interval) for a new system, from its composite accuracy at a strength."""
    accuracy, cells = composite_at(card, strength), curve(card)[1]
    x = np.array([1.0, logit(accuracy)])
    middle = fit["a"] + fit["b"] * x[1]
    scatter = fit["residual_error"] ** 2 + x @ np.array(fit["covariance_scatter"]) @ x
    binomial = fit["b"] ** 2 / (cells * accuracy * (1 - accuracy))
    given = x @ np.array(fit["covariance_known"]) @ x + binomial
    half = np.sqrt(fit["t"] ** 2 * scatter + 1.96**2 * given)
    score, low, high = expit(np.array([middle, middle - half, middle + half]))
    low, high = score - np.hypot(score - low, PHASE_MARGIN), score + np.hypot(high - score, PHASE_MARGIN)
    ends = {"score": score, "low": max(low, 0), "high": min(high, 1)}
    return {name: round(float(value), 4) for name, value in ends.items()}


def solve(logits: np.ndarray, hidden: np.ndarray, deviation: np.ndarray) -> tuple[float, np.ndarray, np.ndarray, dict]:
    """Return strength, weights (n,) of mean 1, accuracies (n,) at that strength, and line. logits: (n, 5), of `curve`.
    The strength (to 0.01) is the one whose accuracies differ least from the hidden scores, in weighted squares."""
    weights = (hidden / deviation) ** 2
    weights /= weights.mean()
    grid = np.round(np.arange(1, 5.005, 0.01), 2)
    accuracies = expit([np.interp(grid, SEVERITIES, row) for row in logits])
    best = np.argmin(weights @ (accuracies - hidden[:, None]) ** 2)
    x = accuracies[:, best]
    line = fit_line(logit(x), logit(hidden), weights, deviation / (hidden * (1 - hidden)))
    return float(grid[best]), weights, x, line


def calibrate(found: dict[str, dict]) -> dict:
    """Return the calibration, as `--json` writes it. found: recipe in KNOWN -> its card, with all five strengths.

    Raises ValueError for fewer than four cards, for cards of different cells or corruptions, or a slope not above 0.
    """
    if len(found) < 4:
        raise ValueError(f"{len(found)} systems with known hidden scores are too few to calibrate; 4 are the least")
    names = sorted(found, key=lambda name: (sum(KNOWN[name][:2]), name))
    for key in SAME:
        if len({card["provenance"][key] for card in found.values()}) > 1:
            raise ValueError(f"the cards differ in {key}: evaluate all systems with one version on the same cells")
    low, high = np.array([KNOWN[name][:2] for name in names]).T
    hidden = (low + high) / 2
    deviation = np.sqrt(PHASE**2 + (high - low) ** 2 / 12)  # uniform over the range
    logits = np.array([curve(found[name])[0] for name in names])
    strength, weights, x, fit = solve(logits, hidden, deviation)
    fitted = expit(fit["a"] + fit["b"] * logit(x))
    points = []
    for i, name in enumerate(names):
        card, rest, left_out = found[name], np.arange(len(names)) != i, None
        with contextlib.suppress(ValueError):  # without this system, the slope may not be above 0
            other_strength, _, _, other_fit = solve(logits[rest], hidden[rest], deviation[rest])
            left_out = interval(other_fit, card, other_strength)
        points.append({
            "system": name, "hidden": round(float(hidden[i]), 4), "hidden_range": KNOWN[name][:2],
            "weight": round(float(weights[i]), 4),
            "composite": {str(s): round(float(a), 6) for s, a in zip(SEVERITIES, expit(logits[i]), strict=True)},
            "composite_at_strength": round(float(x[i]), 6), "fitted": round(float(fitted[i]), 6),
            "left_out": left_out, "source": KNOWN[name][2],
            "weights_sha256": card["provenance"]["weights_sha256"],
        })  # fmt: skip
    gaps = {"composite_itself": 100 * (x - hidden), "line": 100 * (fitted - hidden)}
    return {
        "strength": strength,
        "points": points,
        "fit": fit,
        "misfit_points": {name: round(float(np.sqrt(weights @ gap**2 / len(gap))), 2) for name, gap in gaps.items()},
        "provenance": {"commit": cards.commit(), **{key: found[names[0]]["provenance"][key] for key in SAME}},
    }


def predict(calibration: dict, card: dict) -> dict:
    """Predict the hidden score: score, low, high (0-1, a 95% interval), composite (accuracy at the strength),
    strength, extrapolated (the composite is above that of every calibrated system) and rests_on (text).

    Raises ValueError if the card has other corruptions or too few strengths (`--quick`).
    """
    cells_differ, pictures_differ = (calibration["provenance"][k] != card["provenance"][k] for k in SAME)
    if pictures_differ:
        raise ValueError("calibration and card are of different corrupted pictures: create both again with one version")
    accuracy = composite_at(card, calibration["strength"])
    points = calibration["points"]
    known = f"{percent(points[0]['hidden'])} to {percent(points[-1]['hidden'])}"
    other = ", measured on other held-out cells than this card" if cells_differ else ""
    return {
        **interval(calibration["fit"], card, calibration["strength"]),
        "composite": round(accuracy, 6),
        "strength": calibration["strength"],
        "extrapolated": accuracy > max(point["composite_at_strength"] for point in points),
        "rests_on": f"{len(points)} re-trained systems with known scores, {known}{other}",
    }


def read(path: Path) -> dict:
    """Read a calibration. Raises ValueError if the file is not one."""
    return cards.read_json(path, "calibration", ("strength", "points", "fit", "provenance"))


def with_interval(p: dict) -> str:
    """Format a score and its interval, in %."""
    return f"{percent(p['score'])} (95% interval {percent(p['low'])} to {percent(p['high'])})"


def sentence(p: dict) -> str:
    """Describe a prediction that `predict` returned."""
    beyond = ", beyond the best of them, so that it is an extrapolation" if p["extrapolated"] else ""
    return (
        f"**Predicted hidden score: {with_interval(p)}**, "
        f"from {percent(p['composite'])}% on the composite at strength {p['strength']:g}{beyond}. It rests on "
        f"{p['rests_on']}. A score moves by {100 * PHASE:g} points from phase to phase (one standard deviation): the "
        f"best of calibrations would still leave the lower end at {percent(p['score'] - PHASE_MARGIN)}."
    )


def text(calibration: dict) -> str:
    """Table of the calibrated systems, each with its score fitted and predicted from the others."""
    rows = []
    for point in calibration["points"]:
        left_out = "{} ({} to {})".format(*map(percent, point["left_out"].values())) if point["left_out"] else "-"
        numbers = [percent(point[key]) for key in ("hidden", "composite_at_strength", "fitted")]
        rows.append([f"`{point['system']}`", *numbers, left_out])
    header = ["re-trained system", "hidden score", f"composite at {calibration['strength']:g}", "fitted"]
    return markdown.table([*header, "predicted from the others"], rows)


def options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("cards", type=Path, nargs="+", help="cards of re-trained systems, RECIPE.json")
    add("--json", type=shell.new_file, default=PATH, metavar="OUT", help="default: results/calibration.json")


def run(args: argparse.Namespace) -> None:
    names = [path.stem for path in args.cards]
    if len(set(names)) < len(names):
        raise ValueError("two cards are of one system; give one of each")
    found = {}
    for path in args.cards:
        if path.stem in KNOWN or not path.is_file():  # of a missing file, read_card says so
            found[path.stem] = cards.read_card(path)
        else:
            print(f"{path} left out: no hidden score is known of '{path.stem}'")
    calibration = calibrate(found)
    write_json(args.json, calibration)
    markdown.show(text(calibration))
    print(f"calibration: {args.json}")
