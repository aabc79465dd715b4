"""The calibration on cards whose truth is known, and its use by the report card; no network anywhere."""

import json
from itertools import pairwise

import numpy as np
import pytest
from scipy.stats import linregress
from small import card_of

from evaluation import calibrate, cards, corruptions
from evaluation import card as report_card
from evaluation.__main__ import main
from evaluation.calibrate import KNOWN, expit, logit

SYSTEMS = ("spritzers_simple_cnn", "lionia_basic_cnn", "spritzers_vgg", "frozen", "flips_shifts", "lionia_resnet50v2",
           "randaugment")  # fmt: skip


def card(accuracies, cells: int = 1712, heldout: str = "h", pictures: str = "c") -> dict:
    """What calibrate reads of a card: the composite at strengths 1, 2, ... as far as there are accuracies."""
    conditions = [
        {"corruption": "composite", "severity": s, "cells": cells, "accuracy": float(a)}
        for s, a in enumerate(accuracies, 1)
    ]
    origin = {"heldout_sha256": heldout, "corruptions_sha256": pictures, "weights_sha256": "w"}
    return {"provenance": origin, "conditions": [{"corruption": "clean", "severity": 0}, *conditions]}


def ladder(a: float = 0.0, b: float = 1.0, strength: float = 3.4, names=SYSTEMS, **keys) -> dict[str, dict]:
    """Cards with logit(hidden) = a + b logit(composite) at this strength; 0.6 logits are lost at each strength."""
    severities = np.array(corruptions.SEVERITIES)
    return {
        name: card(expit((logit(KNOWN[name][0]) - a) / b - 0.6 * (severities - strength)), **keys) for name in names
    }


@pytest.mark.parametrize("strength", [1.0, 2.25, 3.4, 5.0])
def test_the_strength_at_which_the_ladder_holds(strength):
    found = calibrate.calibrate(ladder(strength=strength))
    assert found["strength"] == pytest.approx(strength, abs=0.011)
    assert found["misfit_points"]["composite_itself"] < 0.2
    assert found["fit"]["b"] == pytest.approx(1, abs=0.01) and found["fit"]["residual_error"] < 0.01
    assert [p["hidden"] for p in found["points"]] == sorted(p["hidden"] for p in found["points"])


def test_a_known_line_is_recovered():
    a, b = 0.4, 1.7
    found = calibrate.calibrate(ladder(a, b, strength=3.0))
    assert found["fit"]["b"] == pytest.approx(b, abs=1e-3)
    assert found["fit"]["a"] == pytest.approx(a + b * 0.6 * (found["strength"] - 3), abs=1e-3)
    assert found["misfit_points"]["composite_itself"] > 1 > found["misfit_points"]["line"]
    for point in found["points"]:
        assert point["fitted"] == pytest.approx(point["hidden"], abs=1e-3)
        assert point["left_out"]["score"] == pytest.approx(point["hidden"], abs=0.02)
        assert point["left_out"]["low"] < point["hidden"] < point["left_out"]["high"]


def test_the_upper_end_decides_the_strength():
    """The two ends want different strengths: the best system's wins, as it does not unweighted."""
    cards = ladder(strength=2.0, names=SYSTEMS[:3]) | ladder(strength=4.0, names=SYSTEMS[3:])
    hidden = np.array([KNOWN[name][0] for name in cards])
    logits = np.array([calibrate.curve(found)[0] for found in cards.values()])
    weighted = calibrate.calibrate(cards)["strength"]
    assert weighted > calibrate.solve(logits, hidden, hidden)[0] + 0.1  # all weights are 1
    assert weighted > 3.5


def test_a_range_counts_less_than_a_score():
    points = {p["system"]: p for p in calibrate.calibrate(ladder(names=[*SYSTEMS, "fine_tuned"]))["points"]}
    assert points["fine_tuned"]["hidden"] == 0.57
    assert points["fine_tuned"]["weight"] < points["frozen"]["weight"] / 8
    assert points["randaugment"]["weight"] > 10 * points["lionia_basic_cnn"]["weight"] * 0.9


def test_between_two_strengths_lies_between_their_scores():
    scores = [0.99, 0.95, 0.95, 0.4, 0.45]
    for k, ends in enumerate(pairwise(scores), 1):
        part = np.array([calibrate.composite_at(card(scores), s) for s in np.linspace(k, k + 1, 21)])
        assert part[0] == pytest.approx(ends[0]) and part[-1] == pytest.approx(ends[1])
        assert min(ends) - 1e-12 <= part.min() and part.max() <= max(ends) + 1e-12
        assert (np.diff(part) * np.sign(ends[1] - ends[0]) >= -1e-12).all()
    assert calibrate.composite_at(card([1.0] * 5, cells=50), 2.5) == pytest.approx(0.99)  # half a cell of 50


def test_the_fit_is_scipys_where_weights_are_equal():
    rng = np.random.default_rng(0)
    x = np.linspace(-1, 2, 7)
    y = 0.3 + 1.2 * x + rng.normal(0, 0.3, 7)
    fit, expected = calibrate.fit_line(x, y, np.ones(7), np.zeros(7)), linregress(x, y)
    assert (fit["a"], fit["b"]) == pytest.approx((expected.intercept, expected.slope))
    errors = np.sqrt(np.diag(fit["covariance_scatter"]))
    assert errors == pytest.approx([expected.intercept_stderr, expected.stderr])
    assert np.abs(fit["covariance_known"]).max() == 0 and fit["t"] == pytest.approx(2.5706, abs=1e-3)


@pytest.mark.parametrize("count", [4, 6])
def test_the_interval_covers_new_systems(count):
    """Truth, scatter, the phases' moves and the cells' noise all drawn anew; the new system lies above the best."""
    rng = np.random.default_rng(1)
    covered, rounds = 0, 200
    x = np.linspace(-1, 2, count)
    for _ in range(rounds):
        truth = 0.2 + 1.1 * x + rng.normal(0, 0.25, count)
        hidden = np.clip(expit(truth) + rng.normal(0, calibrate.PHASE, count), 0.02, 0.98)
        weights = hidden**2 / np.mean(hidden**2)
        fit = calibrate.fit_line(x, logit(hidden), weights, calibrate.PHASE / (hidden * (1 - hidden)))
        new = expit(0.2 + 1.1 * 2.3 + rng.normal(0, 0.25)) + rng.normal(0, calibrate.PHASE)
        measured = np.clip(rng.binomial(1712, expit(2.3)) / 1712, 0.001, 0.999)
        found = calibrate.interval(fit, card([measured] * 5), 3)
        covered += found["low"] <= min(new, 1) <= found["high"]
    assert 0.92 <= covered / rounds <= 1


def test_scores_rise_and_end_at_one():
    found = calibrate.calibrate(ladder(0.2, 1.3))
    predictions = [calibrate.predict(found, card([value] * 5)) for value in (0.2, 0.5, 0.8, 0.95, 0.99, 1.0)]
    assert np.all(np.diff([p["score"] for p in predictions]) > 0)
    for p in predictions:
        assert 0 <= p["low"] < p["score"] <= p["high"] <= 1
    assert predictions[-1]["high"] == 1
    assert [p["extrapolated"] for p in predictions] == [False, False, False, True, True, True]
    assert predictions[0]["rests_on"].startswith("7 re-trained systems with known scores, 25.00 to 87.00")


def test_fewer_cells_and_other_cells():
    found = calibrate.calibrate(ladder())
    few, many = (calibrate.predict(found, card([0.8] * 5, cells=n)) for n in (100, 10000))
    assert few["score"] == many["score"] and few["low"] < many["low"] and few["high"] > many["high"]
    assert "other held-out cells" in calibrate.predict(found, card([0.8] * 5, heldout="x"))["rests_on"]
    assert "other held-out cells" not in few["rests_on"]


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (ladder(names=SYSTEMS[:3]), "3 systems .* too few"),
        (dict(zip(SYSTEMS, reversed(ladder().values()), strict=True)), "does not rise"),
        ({name: card([0.9, 0.8, 0.7, 0.6, 0.5]) for name in SYSTEMS}, "does not rise"),
        (ladder() | {"frozen": card([0.6] * 5, pictures="x")}, "differ in corruptions_sha256"),
        (ladder() | {"frozen": card([0.6] * 5, heldout="x")}, "differ in heldout_sha256"),
        (ladder() | {"frozen": card([0.6] * 2)}, "strengths 1-5 and the card measured 1, 2$"),
    ],
)
def test_what_cannot_be_calibrated_is_named(found, message):
    with pytest.raises(ValueError, match=message):
        calibrate.calibrate(found)


def test_a_system_without_which_the_line_falls_has_no_prediction_from_the_others():
    """The best of four makes the line rise: the other three alone cannot be calibrated."""
    by_score = sorted(SYSTEMS, key=lambda name: KNOWN[name][0])[-4:]
    found = calibrate.calibrate({name: card([a] * 5) for name, a in zip(by_score, (0.7, 0.6, 0.5, 0.95), strict=True)})
    assert [point["left_out"] is None for point in found["points"]] == [False, False, False, True]
    assert calibrate.text(found).splitlines()[-1].endswith("| - |")


def write(folder, found: dict[str, dict]) -> list[str]:
    folder.mkdir()
    paths = {name: folder / f"{name}.json" for name in found}
    for name, path in paths.items():
        path.write_text(json.dumps({"schema": 1, "summary": {}, "cells": {}, **found[name]}))
    return list(map(str, paths.values()))


def test_the_command_writes_one_file_whatever_the_order(tmp_path, capsys):
    paths = write(tmp_path / "ladder", ladder() | {"vit": card([0.5] * 5)})
    for out, given in (("a.json", paths), ("b.json", paths[::-1])):
        main(["calibrate", *given, "--json", str(tmp_path / out)])
    first = (tmp_path / "a.json").read_bytes()
    assert (tmp_path / "b.json").read_bytes() == first
    found = calibrate.read(tmp_path / "a.json")
    assert found == json.loads(first) and len(found["points"]) == len(SYSTEMS)
    for point in found["points"]:
        assert point["source"] and set(point["composite"]) == set("12345")
        assert f"| `{point['system']}` | {100 * point['hidden']:.2f} |" in calibrate.text(found)
    assert "vit.json left out" in "".join(capsys.readouterr().out.split("\n"))


def test_the_command_stops_in_words(tmp_path):
    out = tmp_path / "c.json"
    twice = write(tmp_path / "x", ladder()) + write(tmp_path / "y", ladder(names=SYSTEMS[:1]))
    vit = write(tmp_path / "z", {"vit": card([0.5] * 5)})
    cases = {"0 systems": vit, "gone.json is missing": [*vit, "gone.json"], "two cards are of one system": twice}
    for message, paths in cases.items():
        with pytest.raises(SystemExit, match=message):
            main(["calibrate", *paths, "--json", str(out)])
    assert not out.exists()
    out.write_text('{"strength": 3}')
    with pytest.raises(ValueError, match="not a calibration"):
        calibrate.read(out)


def test_a_card_with_and_without_a_calibration(tmp_path, monkeypatch, capsys):
    path = tmp_path / "card.json"
    cards.write_card(card_of(), path)
    monkeypatch.setattr(calibrate, "PATH", tmp_path / "calibration.json")
    main(["card", str(path), "--json", str(tmp_path / "without.json")])
    assert "No predicted hidden score" in capsys.readouterr().out
    assert cards.read_card(tmp_path / "without.json")["summary"]["predicted_hidden"] is None

    calibrate.PATH.write_text(json.dumps(calibrate.calibrate(ladder(pictures="one"))))
    before = path.read_bytes()
    main(["card", str(path)])
    assert path.read_bytes() == before  # printed, not written
    main(["card", str(path), "--json", str(tmp_path / "with.json")])
    written = cards.read_card(tmp_path / "with.json")
    expected = calibrate.predict(calibrate.read(calibrate.PATH), card_of())
    assert written["summary"]["predicted_hidden"] == expected and written["conditions"] == card_of()["conditions"]
    said = " ".join(capsys.readouterr().out.split())
    assert f"Predicted hidden score: {100 * expected['score']:.2f} (95% interval {100 * expected['low']:.2f} to" in said
    assert "7 re-trained systems with known scores" in said

    calibrate.PATH.write_text(json.dumps(calibrate.calibrate(ladder(pictures="other"))))
    prediction, line = report_card.predicted_hidden(card_of())
    assert prediction is None and "different corrupted pictures" in line
