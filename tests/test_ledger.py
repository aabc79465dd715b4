"""The ledger of trials: gains cell by cell, one entry a change, a page that follows from the JSON."""

import re
import shutil

import pytest
from conftest import ROOT
from small import card_of

from evaluation import cards, ledger
from evaluation.__main__ import main
from training.recipes import RECIPES

SAID = {"change": "c", "against": "b", "cost": "none", "seeds": [0], "kept": False, "why": "w", "command": None}


def test_against_itself_nothing_is_gained():
    found = ledger.entry([card_of()], [card_of()], SAID)
    families = {f"family {name}" for name in card_of()["summary"]["families"]}
    assert set(found["gain"]) == {"clean", "corrupted", "composite", *families}
    assert all(v == 0 for gain in found["gain"].values() for v in gain.values())


def test_gain_is_the_difference_of_the_scores():
    found, base = (ledger.entry([card], [card_of()], SAID) for card in (card_of(20), card_of()))
    for group in ("clean", "corrupted", "composite"):
        gain = found["gain"][group]
        assert gain["difference"] == pytest.approx(found[group] - base[group], abs=1e-4)
        assert gain["low"] <= gain["difference"] <= gain["high"]
    assert found["clean"] != base["clean"]
    both = ledger.entry([card_of(20), card_of()], [card_of(), card_of()], SAID)
    assert both["gain"]["clean"]["difference"] == pytest.approx(found["gain"]["clean"]["difference"] / 2, abs=1e-4)
    with pytest.raises(ValueError, match="2 cards need as many"):
        ledger.entry([card_of(20), card_of()], [card_of()], SAID)


def test_of_the_composite_alone_no_family_is_known():
    short = {**card_of(), "conditions": card_of()["conditions"][:6]}
    found = ledger.entry([{**short, "summary": cards.summarise(short)}], [short], SAID)
    assert set(found["gain"]) == {"clean", "composite"} and found["corrupted"] is None
    assert ledger.text([found]).endswith("| - | +0.00 (+0.00 to +0.00) | no | w | none |")


def test_commands_of_the_ledger_name_recipes_that_exist():
    for trial in cards.read_json(ledger.LEDGER, "ledger")["trials"]:
        if trial["command"]:
            assert re.search(r"--recipe (\w+)", trial["command"])[1] in RECIPES


def test_the_command_enters_a_change_once(tmp_path, monkeypatch):
    for wrong in (0, 20):
        cards.write_card(card_of(wrong), tmp_path / f"{wrong}.json")
    shutil.copy(ROOT / "results" / "ledger.json", tmp_path / "ledger.json")
    monkeypatch.setattr(ledger, "LEDGER", tmp_path / "ledger.json")
    before = cards.read_json(ledger.LEDGER, "ledger")["trials"]

    def enter(wrong: int, *more: str):
        said = ["--baseline", str(tmp_path / "0.json"), "--cost", "none", "--why", "it is a test"]
        main(["ledger", str(tmp_path / f"{wrong}.json"), *said, *more])

    enter(20, "--change", "spoiled", "--kept", "no")
    enter(0, "--change", "same", "--kept", "yes")
    enter(20, "--change", "spoiled", "--kept", "yes")
    trials = cards.read_json(ledger.LEDGER, "ledger")["trials"]
    assert trials[:-2] == before
    assert [(t["change"], t["kept"]) for t in trials[-2:]] == [("spoiled", True), ("same", True)]
    rows = [row for row in ledger.text(trials).splitlines() if "it is a test" in row]
    assert [row.split(" | ")[0] for row in rows] == ["| same", "| spoiled"]  # by their gains
    with pytest.raises(SystemExit):
        enter(20, "--change", "half said")
