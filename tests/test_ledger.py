"""The ledger of trials: gains cell by cell, one entry a change, a page that follows from the JSON."""

import json
import re
import sys

import numpy as np
import pytest
from test_evaluate import HASHES, Fake

from evaluation import evaluate, ledger, tables
from training import data
from training.recipes import RECIPES

SAID = {"change": "c", "against": "b", "cost": "none", "seeds": [0], "kept": False, "why": "w"}


class Spoiled(Fake):
    """Fake, but the first `wrong` cells of every batch are named wrongly."""

    def __init__(self, wrong: int):
        super().__init__()
        self.wrong = wrong

    def _probabilities(self, X):
        p = super()._probabilities(X)
        p[: self.wrong] = np.roll(p[: self.wrong], 1, axis=1)
        return p


@pytest.fixture(scope="module")
def cards(tmp_path_factory):
    """Quick cards of one model, and of it spoiled."""
    colours = np.random.default_rng(3).integers(0, 256, (40, 1, 1, 3))
    images = np.broadcast_to(colours, (40, 96, 96, 3)).astype(np.uint8)
    cells = data.Cells(images, Fake().predict(images))
    folder = tmp_path_factory.mktemp("cards")
    models = {"plain": Fake(), "spoiled": Spoiled(20)}
    return [evaluate.evaluate(model, HASHES, cells, 8, True, folder / name) for name, model in models.items()]


def test_against_itself_nothing_is_gained(cards):
    found = ledger.entry([cards[0]], [cards[0]], SAID)
    assert set(found["gain"]) == {"clean", "corrupted", "composite", *(f"family {f}" for f in found["families"])}
    assert all(v == 0 for gain in found["gain"].values() for v in gain.values())


def test_gain_is_the_difference_of_the_scores(cards):
    found, base = (ledger.entry([card], [cards[0]], SAID) for card in reversed(cards))
    for group in ("clean", "corrupted", "composite"):
        gain = found["gain"][group]
        assert gain["difference"] == pytest.approx(found[group] - base[group], abs=1e-4)
        assert gain["low"] <= gain["difference"] <= gain["high"]
    assert found["clean"] != base["clean"]
    both = ledger.entry([cards[1], cards[0]], [cards[0], cards[0]], SAID)
    assert both["gain"]["clean"]["difference"] == pytest.approx(found["gain"]["clean"]["difference"] / 2, abs=1e-4)


def test_cards_that_do_not_compare_are_refused(cards):
    other = json.loads(json.dumps(cards[0]))
    other["provenance"]["corruptions_sha256"] = "another"
    with pytest.raises(ValueError, match="of different corruptions"):
        ledger.entry([cards[0]], [other], SAID)
    with pytest.raises(ValueError, match="2 cards need as many"):
        ledger.entry(cards, cards[:1], SAID)


def test_a_row_says_which_cards_are_there_and_what_makes_it_again(cards, tmp_path, monkeypatch):
    trial = ledger.entry([cards[1]], [cards[0]], SAID)
    own, baseline = trial["weights"][0], trial["baseline"][0]
    monkeypatch.setattr(ledger, "CARDS", [tmp_path / "card.json"])
    evaluate.write_card(cards[0], tmp_path / "card.json")
    assert own in ledger.committed() and ledger.committed() == {own}
    for there, words in (({own, baseline}, "both"), (set(), "none")):
        assert ledger.cards_of(trial, there) == words
    split = {**trial, "baseline": ["another"]}
    assert [ledger.cards_of(split, {name}) for name in (own, "another")] == ["its own", "the baseline's"]
    trials = [trial, {**trial, "command": "python -m training.train"}]
    monkeypatch.setattr(tables, "load", lambda name: {"trials": trials})
    made = tables.ledger().splitlines()[-2:]
    assert made[0].endswith("| both | none |") and made[1].endswith("| both | `python -m training.train` |")


def test_commands_of_the_ledger_name_recipes_that_exist():
    for trial in ledger.read():
        if trial["command"]:
            assert re.search(r"--recipe (\w+)", trial["command"])[1] in RECIPES


def test_the_command_enters_a_change_once(cards, tmp_path, monkeypatch):
    for k, card in enumerate(cards):
        evaluate.write_card(card, tmp_path / f"{k}.json")
    monkeypatch.setattr(ledger, "LEDGER", tmp_path / "ledger.json")
    monkeypatch.setattr(tables, "HERE", tmp_path)

    def command(*arguments):
        monkeypatch.setattr(sys, "argv", ["ledger", *map(str, arguments)])
        ledger.main()

    said = ["--baseline", tmp_path / "0.json", "--cost", "none", "--why", "it is a test"]
    command(tmp_path / "1.json", *said, "--change", "spoiled", "--kept", "no")
    command(tmp_path / "0.json", *said, "--change", "same", "--kept", "yes")
    command(tmp_path / "1.json", *said, "--change", "spoiled", "--kept", "yes")
    assert [(t["change"], t["kept"]) for t in ledger.read()] == [("spoiled", True), ("same", True)]
    assert len([row for row in tables.ledger().splitlines() if "it is a test" in row]) == 2
    with pytest.raises(SystemExit):
        command(tmp_path / "1.json", "--change", "half said")
