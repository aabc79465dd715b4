"""The table of all systems, from small made-up run folders."""

import dataclasses
import hashlib
import json
import re
import shlex
import sys
import time

import numpy as np
import pytest

import model
from evaluation import calibrate, compare, evaluate
from training import settings
from training.recipes import RECIPES

LOSSES = (1.0, 0.4, 0.6)  # of validation: the second epoch is the best


WHOLE = RECIPES["ours"].head_epochs + RECIPES["ours"].epochs


def settings_of(name, **changes):
    settings = {**dataclasses.asdict(RECIPES[name]), "recipe": name, "limit": None, "data": "0", **changes}
    return json.loads(json.dumps(settings))


def make_run(folder, name="ours", done=3, **changes):
    """A run folder with a history whose accuracy is 0.90, 0.91, ... in training and 0.01 less in validation."""
    settings = settings_of(name, **changes)
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


def make_card(path, predicted=None, weights=b"weights", strengths="12345", **more):
    clean = {"accuracy": 0.99, "macro_precision": 0.98, "macro_recall": 0.97, "roc_auc": 0.9991}
    composite = {s: {**clean, "accuracy": 1 - int(s) / 10} for s in strengths}
    summary = {"clean": clean, "composite": composite}
    if predicted is not None:
        summary["predicted_hidden"] = predicted
    card = {
        "schema": evaluate.SCHEMA,
        "provenance": {"weights_sha256": hashlib.sha256(weights).hexdigest(), **more},
        "conditions": [
            {"corruption": "composite", "severity": int(s), "cells": 1000, "accuracy": scores["accuracy"]}
            for s, scores in composite.items()
        ],
        "summary": summary,
    }
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(card))


def on_composite():
    """What those cards say of the composite at the calibration's strength, which lies between 0.8 and 0.7."""
    strength = calibrate.read(calibrate.PATH)["strength"]
    assert 2 < strength < 3
    return calibrate.expit((3 - strength) * np.log(4) + (strength - 2) * np.log(7 / 3))


def row_of(rows, run):
    (row,) = (row for row in rows if row["run"] == run)
    return row


def column(row, name):
    return compare.cells_of(row)[compare.COLUMNS.index(name)]


def test_every_recipe_has_a_row(tmp_path):
    rows = compare.compare([make_run(tmp_path / "vit", "vit", 60), make_run(tmp_path / "ours", "ours", WHOLE)])
    assert [row["recipe"] for row in rows] == list(RECIPES)
    there = {row["recipe"] for row in rows if row["notes"] != ["not trained here"]}
    assert there == {"ours", "vit"} and row_of(rows, "ours")["notes"] == row_of(rows, "vit")["notes"] == []
    assert column(row_of(rows, "ours"), "start") == "imagenet" and column(row_of(rows, "vit"), "start") == "none"
    assert column(rows[-2], "start") == "-"


def test_scores_are_of_the_epoch_that_ships(tmp_path):
    last = make_run(tmp_path / "last", "fine_tuned", 3)
    best = make_run(tmp_path / "best", "lionia_basic_cnn", 3)  # has patience
    rows = compare.compare([last, best])
    assert (column(row_of(rows, "last"), "train"), column(row_of(rows, "last"), "validation")) == ("92.00", "91.00")
    assert (column(row_of(rows, "best"), "train"), column(row_of(rows, "best"), "validation")) == ("91.00", "90.00")


def test_trials_and_changes_are_marked(tmp_path):
    cases = {
        "short": ("ours", 2, {"epochs": 1}, [f"trial: 2 of {WHOLE} epochs"]),
        "few": ("ours", WHOLE, {"limit": 500}, [f"trial: {WHOLE} of {WHOLE} epochs, at most 500 cells"]),
        "killed": ("lionia_basic_cnn", 3, {}, ["trial: 3 of 30 epochs"]),
        "patient": ("lionia_basic_cnn", 7, {}, ["stopped early: 7 of 30 epochs"]),
        "changed": ("ours", WHOLE, {"mixup": 0.5}, ["other mixup"]),
        "scratch": ("spritzers_mobilenetv3small", 31, {"weights": "none"}, ["from random weights"]),
        "long": ("fine_tuned", 6, {"epochs": 5}, ["other epochs"]),
    }
    folders = [make_run(tmp_path / key, name, n, **changes) for key, (name, n, changes, _) in cases.items()]
    rows = compare.compare(folders)
    assert {key: row_of(rows, key)["notes"] for key in cases} == {key: case[-1] for key, case in cases.items()}
    assert column(row_of(rows, "scratch"), "start") == "none"
    assert column(row_of(rows, "short"), "system") == "ours (short)"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("ours", ""),
        ("ours", "--set mixup=0.5 --set sizes=((0,64),(0.5,96)) --set policy=flips --set patience=3 --limit 400"),
        ("spritzers_efficientnetb4", "--weights none --set epochs=1 --limit 64"),
        ("frozen", "--weights /cells/net.weights.h5 --set head_epochs=2"),
    ],
)
def test_the_command_of_a_row_gives_its_settings(tmp_path, name, words):
    """A run's settings, written as a command and read by training.train's own parts, are the same settings."""

    def read(command):
        given = dict(weights=None, limit=None, set=[])
        words = shlex.split(command)[5:]
        for option, value in zip(words[::2], words[1::2], strict=True):
            key = option.removeprefix("--")
            given[key] = [*given["set"], value] if key == "set" else value
        recipe = RECIPES[name]
        if given["weights"]:
            recipe = dataclasses.replace(recipe, weights=given["weights"])
            recipe = settings.from_scratch(recipe) if given["weights"] == "none" else recipe
        return settings.override(recipe, given["set"]), given["limit"]

    recipe, limit = read(f"python -m training.train --recipe {name} {words}")
    changes = dataclasses.asdict(recipe) | {"limit": limit and int(limit)}
    row = compare.make_row(make_run(tmp_path / "run", name, 3, **changes))
    assert read(row["command"].replace(" --out runs/run", "")) == (recipe, limit)
    assert row["command"].endswith("--out runs/run")


def test_rows_of_earlier_tables_say_so_and_those_of_gone_recipes_go(tmp_path):
    rows = compare.compare([make_run(tmp_path / "ours", done=WHOLE)])
    known = [{**row_of(rows, "ours"), "recipe": name, "run": name} for name in ("vit", "gone")]
    for row in known:
        del row["command"]
    rows = compare.compare([make_run(tmp_path / "new", "frozen", 3)], known=known, keep=True)
    assert "gone" not in {row["run"] for row in rows}
    vit = row_of(rows, "vit")
    assert vit["notes"] == ["by earlier code"]
    assert vit["command"] == "python -m training.train --recipe vit --out runs/vit"
    again = compare.compare([make_run(tmp_path / "newer", "frozen", 3)], known=rows, keep=True)
    assert row_of(again, "vit") == vit and row_of(again, "new")["notes"] == []


def test_no_prediction_for_what_the_calibration_rests_on(tmp_path):
    """The same card, with a prediction in it: of `frozen`, whose hidden score is a point of the calibration, none."""
    predicted = {"score": 0.93, "low": 0.9, "high": 0.96}
    folders = [make_run(tmp_path / name, name) for name in ("ours", "frozen")]
    for folder in folders:
        make_card(folder / "card.json", predicted)
    rows = compare.compare(folders)
    assert row_of(rows, "ours")["predicted_hidden"]["score"] == 0.93
    assert row_of(rows, "frozen")["predicted_hidden"] is None
    assert [row_of(rows, name)["composite"] for name in ("ours", "frozen")] == [pytest.approx(on_composite())] * 2


def test_card_in_the_folder_or_beside(tmp_path):
    folders = [make_run(tmp_path / name, name) for name in ("ours", "vit", "frozen")]
    predicted = {"score": 0.93, "low": 0.9, "high": 0.96}
    make_card(folders[0] / "card.json")
    make_card(tmp_path / "cards" / "ours.json", predicted)  # the one in the run's own folder counts
    make_card(tmp_path / "cards" / "vit.json", predicted)
    rows = compare.compare(folders, tmp_path / "cards")
    shown = ("held-out", "precision", "recall", "ROC AUC", "composite", "predicted hidden")
    clean, composite = ["99.00", "98.00", "97.00", "0.9991"], f"{100 * on_composite():.2f}"
    assert [column(row_of(rows, "ours"), name) for name in shown] == [*clean, composite, "-"]
    assert [column(row_of(rows, "vit"), name) for name in shown] == [*clean, composite, "93.0 (90.0-96.0)"]
    assert [column(row_of(rows, "frozen"), name) for name in shown] == ["-"] * 6


def test_card_that_does_not_count(tmp_path):
    folder = make_run(tmp_path / "ours", done=WHOLE)
    make_card(folder / "card.json", weights=b"older weights")
    row = compare.make_row(folder)
    assert row["heldout"] is None and row["notes"] == ["card.json is of other weights"]
    make_card(folder / "card.json", inference={"views": 3})
    row = compare.make_row(folder)
    assert row["heldout"] is None and row["notes"] == ["card.json is of other views, members or temperature"]
    (folder / "manifest.json").write_text('{"views": 3, "members": {}}')
    assert compare.make_row(folder)["heldout"]
    make_card(folder / "card.json", strengths="3")  # a quick one
    row = compare.make_row(folder)
    assert row["heldout"]["accuracy"] == 0.99 and row["composite"] is None
    (folder / "card.json").write_text("{")
    with pytest.raises(ValueError, match=r"card\.json cannot be read"):
        compare.make_row(folder)
    (folder / "card.json").write_text(json.dumps({"schema": evaluate.SCHEMA}))
    with pytest.raises(ValueError, match=r"card\.json is not a card"):
        compare.make_row(folder)


def test_markdown_is_a_table(tmp_path):
    folder = make_run(tmp_path / "a|b")
    make_card(folder / "card.json")
    rows = compare.compare([folder])
    command = rows[0]["command"].replace("|", "\\|")
    table = [line for line in compare.markdown(rows).splitlines() if line.startswith("|")]
    assert len(table) == 2 + len(rows)
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in table} == {len(compare.COLUMNS) + 2}
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
    assert "Images/s" in compare.legend([row]) and "Images/s" not in compare.legend([])


def test_rows_of_runs_that_are_gone_are_kept_on_request(tmp_path):
    first = [make_run(tmp_path / name, recipe) for name, recipe in (("gone", "ours"), ("vit", "vit"))]
    before = compare.compare(first)
    again, new = make_run(tmp_path / "later" / "vit", "vit", 5), make_run(tmp_path / "new", "ours", 7)
    rows = compare.compare([again, new], known=before, keep=True)
    assert row_of(rows, "gone") == row_of(before, "gone") and row_of(rows, "vit")["epochs"] == 5
    assert [row["run"] for row in rows if row["recipe"] == "ours"] == ["gone", "new"]
    assert sorted(set(RECIPES) - {"ours", "vit"}) == sorted(row["recipe"] for row in rows if row["run"] is None)
    assert "gone" not in {row["run"] for row in compare.compare([again, new], known=before)}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read"),
        ('{"recipe": "ou', "is damaged"),
        ("[]", "is not a run.json"),
        ('{"recipe": "ours"}', "is not a run.json"),
    ],
)
def test_broken_run_is_named(tmp_path, content, message):
    folder = make_run(tmp_path / "broken")
    (folder / "run.json").unlink()
    if content is not None:
        (folder / "run.json").write_text(content)
    with pytest.raises(ValueError, match=rf"broken/run\.json {message}"):
        compare.compare([folder])


def test_run_without_an_epoch_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"run\.json is not"):
        compare.compare([make_run(tmp_path / "new", done=0)])


def test_curves(tmp_path):
    folders = [make_run(tmp_path / str(i)) for i in range(5)]
    compare.draw_curves(folders, tmp_path / "curves.png")
    import cv2

    height, width = cv2.imread(str(tmp_path / "curves.png")).shape[:2]
    assert width > 1000 and height > 1000  # four side by side, the fifth below
    assert np.unique(cv2.imread(str(tmp_path / "curves.png"))[height // 2 :, width // 2 :]).tolist() == [255]


def test_the_command(tmp_path, monkeypatch, capsys):
    folder, out = make_run(tmp_path / "ours"), tmp_path / "systems.json"
    monkeypatch.setattr(sys, "argv", ["compare", str(folder), "--json", str(out)])
    compare.main()
    rows = json.loads(out.read_text())["rows"]
    assert len(rows) == len(RECIPES)
    assert capsys.readouterr().out == compare.text([row_of(rows, "ours")]) + "\n"  # what was asked, and nothing else
    out.write_text("{}")
    with pytest.raises(SystemExit, match="error: .*is not a table"):
        compare.main()
    assert out.read_text() == "{}"


def test_the_table_for_a_terminal_fits_100_columns(tmp_path):
    folders = [make_run(tmp_path / name, recipe) for name, recipe in (("ours", "ours"), ("of a long name " * 9, "vit"))]
    make_card(folders[0] / "card.json", {"score": 0.93, "low": 0.9, "high": 0.96})
    rows = [row for row in compare.compare(folders) if row["run"]]
    rows[0]["notes"], rows[1]["notes"] = [], ["a note of many words " * 9]
    lines = compare.text(rows).splitlines()
    assert max(map(len, lines)) <= 100
    assert lines[0].startswith("system ") and lines[0].split()[1:4] == ["epochs", "MB", "images/s"]
    assert lines[1].startswith("ours ") and "99.00" in lines[1]
    assert lines[2].startswith("vit (of a long name") and "..." in lines[2]
    assert lines[3].startswith("    a note of many words")
