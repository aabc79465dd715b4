"""The report card's command: what it measures, goes on after a kill, and says; and the committed card."""

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from small import HASHES, PLAN, Fake, card_of, cells
from test_submissions import MODEL

from evaluation import card, cards, corruptions, submissions
from evaluation.__main__ import main
from training import data


@pytest.fixture(scope="module", autouse=True)
def quick():
    """A constant fingerprint: each card would draw 235 pictures for it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(corruptions, "fingerprint", lambda: "one")
        yield


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working folder: cells.npz, and `submission` with model.py and weights/. Cards are of PLAN."""
    np.savez(tmp_path / "cells.npz", images=cells().images, labels=cells().labels[:, None].astype(np.uint8))
    monkeypatch.chdir(tmp_path)
    Path("submission/weights").mkdir(parents=True)
    Path("submission/weights/model.weights.h5").write_bytes(bytes(range(24)))
    Path("submission/model.py").write_text(MODEL)
    monkeypatch.setattr(card, "conditions_of", lambda *_: PLAN)
    return tmp_path


WORDS = ["card", "submission", "--heldout", "cells.npz", "--json", "card.json"]


def test_the_full_plan():
    plan = card.conditions_of(1712)
    assert len(plan) == len(set(plan)) == 1 + 5 + 46 * 5
    assert {name for name, *_ in plan} == {"clean", "composite", *corruptions.CORRUPTIONS}
    assert sum(count for *_, count in plan) < 200_000
    assert {count for name, *_, count in plan if name in ("clean", "composite")} == {1712}
    quick = card.conditions_of(1712, quick=True)
    assert len(quick) == 1 + 1 + 46 and sum(count for *_, count in quick) == 2 * 200 + 46 * 100
    assert card.conditions_of(1712, composite=True) == plan[:6]


def test_the_full_card_stays_small(tmp_path, monkeypatch):
    monkeypatch.setattr(corruptions, "corrupt_batch", lambda images, name, severity: images)
    noise = np.random.default_rng(0).dirichlet(np.ones(8), 1712)
    many = data.Cells(np.zeros((1712, 96, 96, 3), np.uint8), np.arange(1712) % 8)
    cheap = type("Cheap", (), {"predict": lambda self, X: noise[: len(X)].argmax(axis=1),
                               "predict_proba": lambda self, X: noise[: len(X)]})()  # fmt: skip
    plan = card.conditions_of(1712)
    made = card.evaluate(cheap, HASHES, many, [plan[0], plan[1], plan[6]], tmp_path / "partial")
    _, whole, each = (len(json.dumps(entry)) for entry in made["conditions"])
    assert 6 * whole + 230 * each < 1_000_000


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"plan": PLAN[:6]},
        {"hashes": {**HASHES, "weights_sha256": "c"}},
        {"hashes": {**HASHES, "inference": {"views": 3}}},
        {"cells": data.Cells(cells().images ^ np.uint8(1), cells().labels)},
        {"fingerprint": "other"},
    ],
    ids=lambda change: "".join(change) or "nothing",
)
def test_a_killed_run_goes_on_and_no_other(tmp_path, monkeypatch, change):
    """A run is killed after two conditions; another measures the rest if it is of the same, else all."""
    given = {"hashes": HASHES, "cells": cells(), "plan": PLAN, "partial": tmp_path / "partial"}
    with pytest.raises(KeyboardInterrupt):  # the agreement check is the first call
        card.evaluate(Fake(stop_at=4), **given)
    second, now = Fake(), {key: change.get(key, value) for key, value in given.items()}
    monkeypatch.setattr(corruptions, "fingerprint", lambda: change.get("fingerprint", "one"))
    made = card.evaluate(second, **now)
    assert second.calls == 1 + len(now["plan"]) - (2 if set(change) <= {"plan"} else 0)
    assert change or made == card_of()
    given["partial"].write_text('{"key": 1}\n{}\n')  # of another version
    assert card.evaluate(Fake(), **given)["conditions"] == card_of()["conditions"]


def test_the_command_stops_in_words_resumes_and_writes_the_same_file(folder, monkeypatch):
    main(WORDS)
    out, partial = Path("card.json"), Path("card.json.partial")
    whole = out.read_bytes()
    assert not partial.exists()
    out.unlink()
    measure, conditions = card.measure, []

    def interrupted(model, cells, condition):
        conditions.append(condition)
        if len(conditions) == 6:
            raise KeyboardInterrupt
        return measure(model, cells, condition)

    monkeypatch.setattr(card, "measure", interrupted)
    with pytest.raises(SystemExit, match="continues"):
        main(WORDS)
    assert not out.exists() and partial.exists()
    main(WORDS)
    assert out.read_bytes() == whole
    assert conditions == [*PLAN[:6], *PLAN[5:]]  # none was measured twice but the one that was stopped


def test_a_finished_card_is_read_drawn_and_compared(folder, capsys, monkeypatch):
    drawn = []
    monkeypatch.setattr("evaluation.pictures.plot", lambda *given: drawn.append(given) or [given[1] / "heatmap.png"])
    cards.write_card(card_of(), folder / "a.json")
    cards.write_card(card_of(20), folder / "b.json")
    main(["card", "b.json", "--heldout", "cells.npz", "--plots", "plots", "--baseline", "a.json"])
    said = " ".join(capsys.readouterr().out.split())
    shown, images = drawn[0][0], drawn[0][2]
    assert shown["conditions"] == card_of(20)["conditions"] and np.array_equal(images, cells().images)
    gain = 100 * cards.gains(card_of(20), card_of())["clean"].mean()
    assert "clean cells" in said and "taken for" in said and f"{gain:+.2f}" in said and gain < 0
    assert sorted(path.name for path in folder.glob("*.json")) == ["a.json", "b.json"]  # nothing was written
    main(["card", "b.json", "--heldout", "gone.npz", "--plots", "plots"])
    assert "no mistakes.png" in capsys.readouterr().out and drawn[1][2] is None


def test_a_card_of_labels_alone_and_of_the_composite_alone_can_be_shown(tmp_path):
    labels_only = type("LabelsOnly", (), {"predict": lambda self, X: X[:, 0, 0, 0].astype(np.int64) % 8})()
    made = card.evaluate(labels_only, HASHES, cells(), PLAN[:6], tmp_path / "partial")
    summary = made["summary"]
    assert summary["corrupted"] is summary["clean"]["ece"] is summary["clean"]["roc_auc"] is None
    assert summary["families"] == summary["corruptions"] == {}
    assert set(summary["confusion_pairs"]) == {"clean", "composite"} and set(summary["composite"]) == set("12345")
    text = card.text(made)
    assert "| - | - |" in text and "(composite), strength 5" in text and "Hardest" not in text and "nan" not in text


def test_of_medmnists_file_the_validation_part_is_held_out(folder):
    sizes = {"train": 16, "val": 24, "test": 32}
    parts = {part: cells().take(np.arange(size)) for part, size in sizes.items()}
    np.savez("b.npz", **{f"{part}_{key}": array for part in parts for key, array in vars(parts[part]).items()})
    main(["card", "submission", "--heldout", "b.npz"])
    assert cards.read_card(Path("card.json"))["provenance"]["heldout_sha256"] == data.digest(parts["val"])


def test_the_order_is_stratified_everywhere():
    labels = np.random.default_rng(0).choice(8, 1712, p=[0.07, 0.18, 0.09, 0.17, 0.07, 0.08, 0.2, 0.14])
    order = data.stratified_order(labels)
    assert sorted(order) == list(range(1712)) and np.array_equal(order, data.stratified_order(labels))
    share = np.bincount(labels) / 1712
    for n in (40, 200, 500, 1500):
        assert np.abs(np.bincount(labels[order[:n]], minlength=8) - n * share).max() <= 1.01
    assert not np.array_equal(np.sort(order[:200]), np.arange(200))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere", "--heldout", "cells.npz"], "nowhere is not there"),
        (["submission", "--heldout", "nowhere.npz"], "nowhere.npz does not exist"),
        (["submission", "--heldout", "cells.npz", "--baseline", "broken.json"], "cannot be read as a card"),
        (["broken.json"], "cannot be read as a card"),
    ],
)
def test_errors_say_what_is_wrong(folder, words, message):
    Path("broken.json").write_text("{")
    with pytest.raises(SystemExit, match=f"^error: .*{message}"):
        main(["card", *words])
    assert not Path("card.json").exists()


@pytest.fixture(scope="module")
def committed():
    return cards.read_card(ROOT / "results" / "card.json")


@pytest.fixture(scope="module")
def committed_cells(committed, heldout):
    found = data.Cells(heldout[0], heldout[1].ravel().astype(np.int64))
    assert data.digest(found) == committed["provenance"]["heldout_sha256"]
    return found


@pytest.mark.slow
def test_images_of_the_committed_card(committed, committed_cells, predictor):
    chosen = committed_cells.take(np.array(committed["cells"]["order"][:16]))
    _, hashes = submissions.identify(ROOT)
    assert hashes["weights_sha256"] == committed["provenance"]["weights_sha256"], "the card is of other weights"
    for entry in committed["conditions"][:6:3]:  # clean, composite 3
        now = card.measure(predictor, chosen, (entry["corruption"], entry["family"], entry["severity"], 16))
        then = cards.predictions_of(entry)[:16] == chosen.labels
        assert abs(now["accuracy"] - then.mean()) <= 1 / 16


@pytest.mark.long
def test_the_whole_committed_card(committed, committed_cells, tmp_path):
    with submissions.open_model(ROOT) as (model, hashes):
        again = card.evaluate(model, hashes, committed_cells, card.conditions_of(1712), tmp_path / "partial")
    then, now = committed["summary"], again["summary"]
    assert abs(then["clean"]["accuracy"] - now["clean"]["accuracy"]) <= 0.0005
    assert abs(then["corrupted"]["accuracy"] - now["corrupted"]["accuracy"]) <= 0.0005
    for severity, scores in then["composite"].items():
        assert abs(scores["accuracy"] - now["composite"][severity]["accuracy"]) <= 0.0005
