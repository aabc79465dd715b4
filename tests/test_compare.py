"""The table of all systems, from small made-up run folders."""

import dataclasses
import hashlib
import json
import re
import shlex
import time

import numpy as np
import pytest

import model
from evaluation import calibrate, cards, compare
from evaluation.__main__ import main
from training import train
from training.recipes import RECIPES

LOSSES = (1.0, 0.4, 0.6)  # of validation: the second epoch is the best
WHOLE = RECIPES["ours"].head_epochs + RECIPES["ours"].epochs


def make_run(folder, name="ours", done=3, **changes):
    """A run folder with a history whose accuracy is 0.90, 0.91, ... in training and 0.01 less in validation."""
    settings = {**dataclasses.asdict(RECIPES[name]), "recipe": name, "limit": None, "data": "0", **changes}
    history = []
    for epoch in range(done):
        part = {"loss": LOSSES[epoch % 3], "accuracy": 0.9 + epoch / 100}
        less = {**part, "accuracy": part["accuracy"] - 0.01}
        history.append({"epoch": epoch, "stage": "all", "size": 96, "seconds": 2.0, "train": part, "validation": less,
                        "augmented_validation": less})  # fmt: skip
    run = {"recipe": name, "network": settings["network"], "weights": settings["weights"], "parameters": 5_929_592,
           "flops": 2_500_000_000, "file_mb": 12.3, "seconds": 6.0, "commit": None, "settings": settings,
           "history": history}  # fmt: skip
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps(run))
    (folder / "model.weights.h5").write_bytes(b"weights")
    return folder


CALIBRATION = calibrate.read(calibrate.PATH)


def make_card(path, strengths="12345", **changed):
    """Write a card of `make_run`'s weights, and return it. changed: provenance; None takes a key out."""
    clean = {"accuracy": 0.99, "macro_precision": 0.98, "macro_recall": 0.97, "roc_auc": 0.9991}
    weights = {"weights_sha256": hashlib.sha256(b"weights").hexdigest(), "inference": {}}
    provenance = {**weights, **CALIBRATION["provenance"], **changed}
    conditions = [
        {"corruption": "composite", "severity": int(s), "cells": 1000, "accuracy": 1 - int(s) / 10} for s in strengths
    ]
    card = {"schema": cards.SCHEMA, "summary": {"clean": clean}, "cells": {}, "conditions": conditions}
    card["provenance"] = {key: value for key, value in provenance.items() if value is not None}
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(card))
    return card


def row_of(rows, run):
    (row,) = (row for row in rows if row["run"] == run)
    return row


def shown(row, *names):
    return [compare.COLUMNS[name](row) for name in names]


def test_every_recipe_has_a_row(tmp_path):
    rows = compare.compare([make_run(tmp_path / "vit", "vit", 60), make_run(tmp_path / "ours", "ours", WHOLE)])
    assert [row["recipe"] for row in rows] == list(RECIPES)
    there = {row["recipe"] for row in rows if row["notes"] != ["not trained here"]}
    assert there == {"ours", "vit"} and row_of(rows, "ours")["notes"] == row_of(rows, "vit")["notes"] == []
    starts = [shown(row, "start") for row in (row_of(rows, "ours"), row_of(rows, "vit"), rows[-2])]
    assert starts == [["imagenet"], ["none"], ["-"]]


def test_scores_are_of_the_epoch_that_ships(tmp_path):
    last = compare.make_row(make_run(tmp_path / "last", "fine_tuned", 3))
    best = compare.make_row(make_run(tmp_path / "best", "lionia_basic_cnn", 3))  # has patience
    assert shown(last, "train", "validation") == ["92.00", "91.00"]
    assert shown(best, "train", "validation") == ["91.00", "90.00"]


def test_trials_and_changes_are_marked(tmp_path):
    cases = {
        "short": ("ours", 2, {"epochs": 1}, [f"trial: 2 of {WHOLE} epochs"]),
        "few": ("ours", WHOLE, {"limit": 500}, [f"trial: {WHOLE} of {WHOLE} epochs, at most 500 cells"]),
        "killed": ("lionia_basic_cnn", 3, {}, ["trial: 3 of 30 epochs"]),
        "patient": ("lionia_basic_cnn", 7, {}, ["stopped early: 7 of 30 epochs"]),
        "changed": ("ours", WHOLE, {"mixup": 0.5}, ["other mixup"]),
        "scratch": ("spritzers_mobilenetv3small", 31, {"weights": "none"}, ["other weights"]),
        "long": ("fine_tuned", 6, {"epochs": 5}, ["other epochs"]),
    }
    folders = [make_run(tmp_path / key, name, n, **changes) for key, (name, n, changes, _) in cases.items()]
    rows = compare.compare(folders)
    assert {key: row_of(rows, key)["notes"] for key in cases} == {key: case[-1] for key, case in cases.items()}
    assert shown(row_of(rows, "scratch"), "start") == ["none"]
    assert shown(row_of(rows, "short"), "system") == ["ours (short)"]


@pytest.mark.parametrize(
    "words",
    [
        "--recipe ours",
        "--recipe ours --set mixup=0.5 --set sizes=((0,64),(0.5,96)) --set policy=flips --set patience=3 --limit 400",
        "--recipe spritzers_efficientnetb4 --weights none --set epochs=1 --limit 64",
        "--recipe frozen --weights /cells/net.weights.h5 --set head_epochs=2",
    ],
)
def test_the_command_of_a_row_gives_its_settings(tmp_path, monkeypatch, words):
    """A run's settings, written as a command and read by training.train, are the same settings."""

    def read(command):
        monkeypatch.setattr("sys.argv", shlex.split(command)[2:])
        args, recipe = train.parse()
        return args.recipe, str(args.out), args.limit, recipe

    name, _, limit, recipe = given = read(f"python -m training.train --out runs/run {words}")
    row = compare.make_row(make_run(tmp_path / "run", name, 3, **dataclasses.asdict(recipe), limit=limit))
    assert read(row["command"]) == given


def test_card_in_the_folder_or_beside(tmp_path):
    """It predicts a hidden score, but not of `frozen`, whose known score is a point of the calibration."""
    folders = [make_run(tmp_path / name, name) for name in ("ours", "vit", "frozen", "hybrid")]
    make_card(folders[0] / "card.json", strengths="3")
    for name in ("ours", "vit", "frozen"):  # of `ours`, the one in the run's own folder counts
        card = make_card(tmp_path / "cards" / f"{name}.json")
    rows = compare.compare(folders, tmp_path / "cards")
    names = ("held-out", "precision", "recall", "ROC AUC", "composite", "predicted hidden")
    quick, new, known, none = (shown(row_of(rows, folder.name), *names) for folder in folders)
    clean, composite = ["99.00", "98.00", "97.00", "0.9991"], calibrate.composite_at(card, CALIBRATION["strength"])
    assert quick == [*clean, "-", "-"] and none == ["-"] * 6  # a quick card has one strength
    assert known == [*clean, f"{100 * composite:.2f}", "-"] and new[:5] == known[:5]
    assert re.fullmatch(r"\d\d\.\d \(\d\d\.\d-\d\d\.\d\)", new[5])
    assert row_of(rows, "vit")["predicted_hidden"] == calibrate.predict(CALIBRATION, card)


def test_card_that_does_not_count(tmp_path):
    folder = make_run(tmp_path / "ours", done=WHOLE)
    (folder / "manifest.json").write_text(json.dumps({"views": 3, "sha256": hashlib.sha256(b"weights").hexdigest()}))
    for changed, notes in (
        ({"inference": {"views": 3}}, []),
        ({"inference": None}, []),  # as in results/ladder/
        ({"inference": {}}, ["card.json is of other inference settings"]),
        ({"inference": {"views": 3}, "weights_sha256": "0"}, ["card.json is of other weights"]),
    ):
        make_card(folder / "card.json", **changed)
        row = compare.make_row(folder)
        assert row["notes"] == notes and (row["heldout"] is None) == bool(notes)
    (folder / "card.json").write_text("{}")
    with pytest.raises(ValueError, match=r"card\.json is not a card"):
        compare.make_row(folder)


def test_markdown_is_a_table(tmp_path):
    folder = make_run(tmp_path / "a|b")
    make_card(folder / "card.json")
    rows = compare.compare([folder])
    command = rows[0]["command"].replace("|", "\\|")
    table = [line for line in compare.text(rows).splitlines() if line.startswith("|")]
    assert len(table) == 2 + len(rows)
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in table} == {len(compare.COLUMNS) + 1}
    assert table[2].startswith("| ours (a\\|b) | EfficientNetV2B0 | imagenet | 3 | 5.93 | 2.50 | 12.3 | - | 92.00 |")
    assert table[2].endswith(f"| `{command}` |") and "not trained here" in table[3]


def test_speed_is_measured_and_kept(tmp_path, monkeypatch):
    class Slow:
        def __init__(self, folder):
            assert folder == tmp_path / "toy"

        def predict_proba(self, images):
            assert images.shape[1:] == (96, 96, 3) and images.dtype == np.uint8
            time.sleep(0.01)

    monkeypatch.setattr(model, "Model", Slow)
    folder = make_run(tmp_path / "toy")
    row = row_of(compare.compare([folder], measure=True), "toy")
    assert 0 < row["speed"]["images_per_second"] <= compare.SPEED_IMAGES / 0.01 and row["speed"]["cores"] >= 1
    monkeypatch.setattr(compare, "speed", None)  # from here on it must not be measured
    assert row_of(compare.compare([folder], known=[row]), "toy")["speed"] == row["speed"]
    assert row_of(compare.compare([folder], known=[{**row, "flops": 1}]), "toy")["speed"] is None


def test_rows_of_runs_that_are_gone_stay_and_those_of_gone_recipes_go(tmp_path):
    first = [make_run(tmp_path / name, recipe) for name, recipe in (("gone", "ours"), ("vit", "vit"))]
    before = compare.compare(first)
    again, new = make_run(tmp_path / "later" / "vit", "vit", 5), make_run(tmp_path / "new", "ours", 7)
    rows = compare.compare([again, new], known=[*before, {**before[0], "recipe": "no such", "run": "no such"}])
    assert row_of(rows, "gone") == row_of(before, "gone") and row_of(rows, "vit")["epochs"] == 5
    assert [row["run"] for row in rows if row["recipe"] == "ours"] == ["gone", "new"]
    assert sorted(set(RECIPES) - {"ours", "vit"}) == sorted(row["recipe"] for row in rows if row["run"] is None)
    assert "no such" not in {row["run"] for row in rows}


def test_what_is_no_run_is_named(tmp_path, monkeypatch):
    folders = [make_run(tmp_path / "new", done=0), make_run(tmp_path / "broken"), make_run(tmp_path / "old", "vit")]
    (tmp_path / "broken/run.json").write_text('{"recipe": "ours", "settings": {}}')
    monkeypatch.delitem(RECIPES, "vit")
    said = ("new/run.json contains no epoch", "broken/run.json is not a run", "old is of the recipe vit, which is gone")
    for folder, message in zip(folders, said, strict=True):
        with pytest.raises(ValueError, match=message):
            compare.compare([folder])


def test_the_command(tmp_path, monkeypatch, capsys):
    folder, out = make_run(tmp_path / "ours"), tmp_path / "systems.json"
    (tmp_path / "empty").mkdir()
    words = ["compare", str(folder), str(tmp_path / "empty"), "--json", str(out)]
    main(words)
    assert len(json.loads(out.read_text())["rows"]) == len(RECIPES)
    said = capsys.readouterr()
    assert "empty contains no run: left out" in said.err and "91.00" in said.out and "spritzers" not in said.out
    main([*words[:3], "--curves", str(tmp_path / "curves.png")])
    assert (tmp_path / "curves.png").read_bytes()[:4] == b"\x89PNG"
    with pytest.raises(SystemExit, match="--curves draws only the curves"):
        main([*words, "--curves", str(tmp_path / "curves.png")])
    out.write_text("{}")
    with pytest.raises(SystemExit, match="error: .*is not a table"):
        main(words)
    assert out.read_text() == "{}"
