"""The composite's accuracy as a hidden score: calibrated on re-trained systems whose hidden scores are known.

    python -m evaluation.calibrate results/ladder/*.json --out results/calibration.json

Each card is one that evaluation.evaluate wrote (`--composite` is enough) of a run of a recipe in KNOWN; its file's name
without .json names the recipe. evaluation.evaluate reads the result and predicts hidden scores with it.

Method
    strength    Between the composite's five strengths a system's accuracy is interpolated linearly on the logit scale.
                s* is the strength in 1-5 at which the accuracies themselves come closest to the hidden scores, by
                weighted squared difference.
    map         logit(hidden) = a + b logit(accuracy at s*), weighted least squares: it mends what no strength fits.
    weights     (hidden score / its standard deviation) squared. The first factor because submissions live at the upper
                end: .87 counts twelve times as much as .25. The second because some scores are known as a range only.
    interval    95%, for one new system on a test of one phase, from half-widths added in quadrature. On the logit
                scale: (1) the scatter of systems about the line and what it does to a and b, times Student's t with
                n - 2 degrees of freedom; (2) what the known scores' own errors do to a and b and (3) the binomial noise
                of the card's cells, times 1.96. Then in points of accuracy (4) the move between phases, times 1.96,
                never above 1. The known scores' errors are in the scatter already and count a second time in (2): with
                a handful of points too wide is the better mistake.
    left out    Each system predicted from all others, s* and line found anew: what the interval was worth on them.
"""

import argparse
import json
import math
from pathlib import Path

import numpy as np
from scipy.special import expit, logit
from scipy.stats import t

from evaluation import corruptions
from training import shell
from training.files import ROOT, commit, write_json
from training.recipes import REPORTED

PATH = ROOT / "results" / "calibration.json"
PHASE = 0.02  # standard deviation of a hidden score: two phases with different test sets moved scores by a few points
PHASE_MARGIN = 1.96 * PHASE  # 19 phases of 20 move a score by less

# recipe -> (lowest, highest) known hidden accuracy, and who reported it
KNOWN: dict[str, tuple[float, float, str]] = {
    name: (min(scores), max(scores), said.source)
    for name, said in REPORTED.items()
    if said.hidden and (scores := [float(score) / 100 for score in said.hidden.split("-")])
}


def curve(card: dict) -> tuple[list[int], np.ndarray, int]:
    """The composite's measured strengths, logits of the accuracies at them, and cells: half a cell at least is wrong
    and right, so that the logits are finite."""
    measured = {e["severity"]: e for e in card["conditions"] if e["corruption"] == "composite"}
    strengths = sorted(measured)
    cells = min((measured[s]["cells"] for s in strengths), default=0)
    accuracies = [measured[s]["accuracy"] for s in strengths]
    return strengths, logit(np.clip(accuracies, 0.5 / max(cells, 1), 1 - 0.5 / max(cells, 1))), cells


def composite_at(card: dict, strength: float) -> tuple[float, int]:
    """Accuracy (0-1, exclusive) at a strength in 1-5, and the number of cells.

    Linear on the logit scale between the measured strengths, so never beyond the two that it lies between. Raises
    ValueError where the card measured none at or on both sides of it.
    """
    strengths, logits, cells = curve(card)
    if not {math.floor(strength), math.ceil(strength)} <= set(strengths):
        there = ", ".join(map(str, strengths)) or "none"
        raise ValueError(f"composite strength {strength:g} is needed and the card measured {there} of 1-5")
    return float(expit(np.interp(strength, strengths, logits))), cells


def find_strength(cards: list[dict], hidden: np.ndarray, weights: np.ndarray) -> float:
    """The strength, to 0.01, whose accuracies are closest to the hidden scores by weighted squared difference."""
    grid = np.round(np.arange(1, 5.005, 0.01), 2)
    accuracies = np.array([expit(np.interp(grid, *curve(card)[:2])) for card in cards])
    return float(grid[np.argmin(weights @ (accuracies - hidden[:, None]) ** 2)])


def fit_line(x: np.ndarray, y: np.ndarray, weights: np.ndarray, known: np.ndarray) -> dict:
    """y = a + b x by weighted least squares. known: the standard deviation (n,) of each y by itself.

    Returns a, b, residual_error (the scatter's standard deviation, unbiased in its square: the weights are emphasis and
    not precision), dof, t (its 97.5% quantile), and the covariances of (a, b) from the scatter and from `known`.
    Raises ValueError for fewer than four points and for a slope that is not positive.
    """
    if len(x) < 4:
        raise ValueError(f"{len(x)} systems with known hidden scores are too few to calibrate; 4 are the least")
    X = np.stack([np.ones_like(x), x], axis=1)
    A = np.linalg.pinv(X * np.sqrt(weights)[:, None]) * np.sqrt(weights)  # (a, b) = A y
    a, b = A @ y
    if np.ptp(x) < 1e-9 or not b > 0:
        raise ValueError("over these systems the composite does not rise with the hidden score: no calibration")
    leaves = np.eye(len(x)) - X @ A  # residuals = leaves @ y
    variance = weights @ (leaves @ y) ** 2 / np.trace(leaves.T @ (weights[:, None] * leaves))
    dof = len(x) - 2
    return {
        "a": float(a),
        "b": float(b),
        "residual_error": float(np.sqrt(variance)),
        "dof": dof,
        "t": float(t.ppf(0.975, dof)),
        "covariance_scatter": (variance * A @ A.T).tolist(),
        "covariance_known": (A * known**2 @ A.T).tolist(),
    }


def interval(fit: dict, accuracy: float, cells: int) -> tuple[float, float, float]:
    """Score, low and high (0-1) of one new system from its composite accuracy on so many cells."""
    x = np.array([1.0, logit(accuracy)])
    middle = fit["a"] + fit["b"] * x[1]
    scatter = fit["residual_error"] ** 2 + x @ np.array(fit["covariance_scatter"]) @ x
    binomial = fit["b"] ** 2 / (cells * accuracy * (1 - accuracy))
    given = x @ np.array(fit["covariance_known"]) @ x + binomial
    half = np.sqrt(fit["t"] ** 2 * scatter + 1.96**2 * given)
    score, low, high = expit(np.array([middle, middle - half, middle + half]))
    low, high = score - np.hypot(score - low, PHASE_MARGIN), score + np.hypot(high - score, PHASE_MARGIN)
    return float(score), float(max(low, 0)), float(min(high, 1))


def solve(cards: list[dict], hidden: np.ndarray, deviation: np.ndarray) -> tuple[float, np.ndarray, np.ndarray, dict]:
    """Strength, weights (n,) of mean 1, accuracies (n,) at it and the line."""
    weights = (hidden / deviation) ** 2
    weights /= weights.mean()
    strength = find_strength(cards, hidden, weights)
    x = np.array([composite_at(card, strength)[0] for card in cards])
    return strength, weights, x, fit_line(logit(x), logit(hidden), weights, deviation / (hidden * (1 - hidden)))


def left_out(i: int, cards: list[dict], hidden: np.ndarray, deviation: np.ndarray) -> dict | None:
    """Score, low and high (0-1) of system i as the others alone predict it; None where they are too few."""
    rest = np.arange(len(cards)) != i
    others = [card for card, stays in zip(cards, rest, strict=True) if stays]
    try:
        strength, _, _, line = solve(others, hidden[rest], deviation[rest])
        numbers = [round(value, 4) for value in interval(line, *composite_at(cards[i], strength))]
    except ValueError:
        return None
    return dict(zip(("score", "low", "high"), numbers, strict=True))


def misfit(gap: np.ndarray, weights: np.ndarray) -> dict:
    """Of gaps (n,) in points: root mean square, weighted and not, and the largest."""
    return {
        "weighted_rms": round(float(np.sqrt(weights @ gap**2 / len(gap))), 2),
        "rms": round(float(np.sqrt((gap**2).mean())), 2),
        "largest": round(float(np.abs(gap).max()), 2),
    }


def check_comparable(cards: list[dict]) -> None:
    """Raises ValueError for fewer than four cards, and for cards of different cells or corrupted pictures."""
    if len(cards) < 4:
        raise ValueError(f"{len(cards)} systems with known hidden scores are too few to calibrate; 4 are the least")
    for key in ("heldout_sha256", "corruptions_sha256"):
        if len({card["provenance"][key] for card in cards}) > 1:
            raise ValueError(f"the cards differ in {key}: evaluate all systems with one version on the same cells")


def calibrate(cards: dict[str, dict]) -> dict:
    """The calibration as `--out` holds it. cards: recipe in KNOWN -> card of its run, all with five strengths.

    Raises ValueError for fewer than four, for cards of different cells or corrupted pictures, and where no line rises.
    """
    names = sorted(cards, key=lambda name: (sum(KNOWN[name][:2]), name))
    chosen = [cards[name] for name in names]
    check_comparable(chosen)
    low, high = np.array([KNOWN[name][:2] for name in names]).T
    hidden = (low + high) / 2
    deviation = np.sqrt(PHASE**2 + (high - low) ** 2 / 12)  # anywhere in the range alike
    strength, weights, x, fit = solve(chosen, hidden, deviation)
    fitted = expit(fit["a"] + fit["b"] * logit(x))
    points = [
        {
            "system": name,
            "hidden": round(float(hidden[i]), 4),
            "hidden_range": KNOWN[name][:2],
            "hidden_deviation": round(float(deviation[i]), 4),
            "weight": round(float(weights[i]), 4),
            "composite": {str(s): round(composite_at(chosen[i], s)[0], 6) for s in corruptions.SEVERITIES},
            "composite_at_strength": round(float(x[i]), 6),
            "fitted": round(float(fitted[i]), 6),
            "residual": round(float(hidden[i] - fitted[i]), 6),
            "source": KNOWN[name][2],
            "weights_sha256": chosen[i]["provenance"]["weights_sha256"],
            "left_out": left_out(i, chosen, hidden, deviation),
        }
        for i, name in enumerate(names)
    ]
    return {
        "strength": strength,
        "points": points,
        "fit": fit,
        "misfit_points": {
            name: misfit(100 * (scores - hidden), weights)
            for name, scores in (("composite_itself", x), ("line", fitted))
        },
        "method": " ".join(__doc__.split("Method\n")[1].split()),
        "provenance": {
            "commit": commit(),
            **{key: chosen[0]["provenance"][key] for key in ("heldout_sha256", "corruptions_sha256")},
        },
    }


def predict(calibration: dict, card: dict) -> dict:
    """The hidden score to expect: score, low, high (0-1, a 95% interval), composite (accuracy at the strength),
    strength, extrapolated (the composite is above the best calibrated system's) and rests_on, in words.

    Raises ValueError where the card is of other corrupted pictures or did not measure the strength (`--quick`).
    """
    if calibration["provenance"]["corruptions_sha256"] != card["provenance"]["corruptions_sha256"]:
        raise ValueError("the calibration is of other corrupted pictures than the card (another version)")
    accuracy, cells = composite_at(card, calibration["strength"])
    score, low, high = interval(calibration["fit"], accuracy, cells)
    points = calibration["points"]
    best = max(points, key=lambda point: point["composite_at_strength"])
    rests_on = (
        f"{len(points)} re-trained systems with known scores, {points[0]['hidden']:.2f} to {points[-1]['hidden']:.2f}"
    )
    if calibration["provenance"]["heldout_sha256"] != card["provenance"]["heldout_sha256"]:
        rests_on += ", measured on other held-out cells than this card"
    return {
        "score": round(score, 4),
        "low": round(low, 4),
        "high": round(high, 4),
        "composite": round(accuracy, 6),
        "strength": calibration["strength"],
        "extrapolated": accuracy > best["composite_at_strength"],
        "rests_on": rests_on,
    }


def read(path: Path) -> dict:
    """A calibration as `--out` left it. Raises ValueError where it is none."""
    try:
        calibration = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"there is no calibration at {path.parent.name}/{path.name}") from None
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as a calibration: {error}") from error
    if not isinstance(calibration, dict) or not {"strength", "points", "fit", "provenance"} <= calibration.keys():
        raise ValueError(f"{path} is no calibration; make it anew with python -m evaluation.calibrate")
    return calibration


# --- command line -----------------------------------------------------------------------------------------------------


def show(calibration: dict) -> None:
    """The points, one a line, and what the fit is worth."""
    print(f"composite strength {calibration['strength']:g} of 5; hidden, composite, fitted, from the others alone:")
    for p in calibration["points"]:
        left = p["left_out"]
        alone = f"{left['score']:.3f} ({left['low']:.2f}-{left['high']:.2f})" if left else "-"
        print(f"  {p['system']:28} {p['hidden']:.3f}  {p['composite_at_strength']:.3f}  {p['fitted']:.3f}  {alone}")
    for what, misfit in calibration["misfit_points"].items():
        print(f"misfit of the {what.replace('_', ' ')}: {misfit['weighted_rms']} points weighted, {misfit['rms']} "
              f"unweighted, {misfit['largest']} at most")  # fmt: skip
    if calibration["strength"] in (1, 5):
        print("The strength is at the end of its range: a weaker or stronger composite would have fitted better.")


def run(args: argparse.Namespace) -> None:
    from evaluation.evaluate import read_card

    cards = {}
    for path in args.cards:
        if path.stem not in KNOWN:
            print(f"{path} left out: no hidden score is known of '{path.stem}'")
        elif path.stem in cards:
            raise ValueError(f"two cards are named {path.stem}; give one of each system")
        else:
            cards[path.stem] = read_card(path)
    calibration = calibrate(cards)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(args.out, calibration)
    show(calibration)
    print(f"calibration: {args.out}")


def main(argv: list[str] | None = None) -> None:
    parser = shell.parser("evaluation.calibrate", __doc__)
    parser.add_argument("cards", type=Path, nargs="+", help="cards of re-trained systems, RECIPE.json")
    parser.add_argument("--out", type=Path, default=PATH, help="where the calibration goes")
    args = parser.parse_args(argv)
    with shell.plain_errors():
        run(args)


if __name__ == "__main__":
    main()
