"""The report card: scores against scikit-learn, runs end to end on small models, resuming, comparing, drawing."""

import json
import os
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from sklearn import metrics

from evaluation import corruptions, evaluate, pictures
from training import data

ROOT = Path(__file__).resolve().parent.parent
HASHES = {"model_py_sha256": "a", "weights_sha256": "b"}

# looks at each image alone, opens its weights relative to the working directory as the course's template does
MODEL = """
import numpy as np

class Model:
    def __init__(self, folder="weights"):
        self.w = np.frombuffer(open(f"{folder}/model.weights.h5", "rb").read(), np.uint8)[:24].reshape(3, 8) / 60.0

    def predict(self, X):
        return self.predict_proba(X).argmax(axis=1)

    def predict_proba(self, X):
        z = X.mean(axis=(1, 2)) / 64 @ self.w
        z = np.exp(z - z.max(axis=1, keepdims=True))
        return (z / z.sum(axis=1, keepdims=True)).astype(np.float32)
"""


class Fake:
    """A model in memory: colour means against eight prototypes; counts its calls and stops at one of them."""

    def __init__(self, stop_at: int | None = None):
        self.calls, self.stop_at = 0, stop_at
        self.prototypes = np.random.default_rng(1).uniform(60, 250, (8, 3))

    def predict(self, X):
        return self._probabilities(X).argmax(axis=1)

    def predict_proba(self, X):
        self.calls += 1
        if self.calls == self.stop_at:
            raise KeyboardInterrupt
        return self._probabilities(X)

    def _probabilities(self, X):
        z = -np.abs(X.mean(axis=(1, 2))[:, None] - self.prototypes).mean(axis=-1) / 10
        z = np.exp(z - z.max(axis=1, keepdims=True))
        return z / z.sum(axis=1, keepdims=True)


class LabelsOnly:
    def predict(self, X):
        return X[:, 0, 0, 0].astype(np.int64) % 8


@pytest.fixture(scope="module", autouse=True)
def fingerprint():
    """A constant one: each card would draw 235 pictures for its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(corruptions, "fingerprint", lambda: "one")
        yield


@pytest.fixture(scope="module")
def cells():
    """40 noisy images, coloured by their class, labels 0-7 five times."""
    rng = np.random.default_rng(3)
    labels = np.arange(40) % 8
    images = 90 + 15 * labels[:, None, None, None] + rng.normal(0, 25, (40, 96, 96, 3))
    return data.Cells(np.clip(images, 0, 255).astype(np.uint8), labels.astype(np.int64))


@pytest.fixture(scope="module")
def card(cells, tmp_path_factory):
    return evaluate.evaluate(Fake(), HASHES, cells, 8, True, tmp_path_factory.mktemp("card") / "partial")


@pytest.fixture
def folder(tmp_path, cells):
    """A working folder: heldout.npz, `submission` (model.py, weights/), submission.zip, `run` (weights only)."""
    np.savez(tmp_path / "heldout.npz", images=cells.images, labels=cells.labels[:, None].astype(np.uint8))
    weights = np.random.default_rng(5).integers(0, 256, 24, dtype=np.uint8).tobytes()
    for where in (tmp_path / "submission" / "weights", tmp_path / "run"):
        where.mkdir(parents=True)
        (where / "model.weights.h5").write_bytes(weights)
    (tmp_path / "submission" / "model.py").write_text(MODEL)
    with zipfile.ZipFile(tmp_path / "submission.zip", "w") as archive:
        archive.write(tmp_path / "submission" / "model.py", "model.py")
        archive.write(tmp_path / "submission" / "weights" / "model.weights.h5", "weights/model.weights.h5")
    return tmp_path


def command(folder: Path, target: str, *more: str) -> Path:
    """Runs the quick card of `target`; returns where it went."""
    out = folder / "out" / f"{target}.card.json"
    where = ["--heldout", str(folder / "heldout.npz"), "--json", str(out)]
    evaluate.main([str(folder / target), *where, "--quick", "--images", "3", *more])
    return out


# --- scores -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [8, 5])
def test_scores_are_scikit_learns(classes):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, classes, 300)
    probabilities = rng.dirichlet(np.ones(8), 300)
    probabilities[np.arange(300), labels] += 0.3
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    predicted = probabilities.argmax(axis=1)
    scores = evaluate.score(labels, predicted, probabilities)
    expected = {
        "accuracy": metrics.accuracy_score(labels, predicted),
        "macro_precision": metrics.precision_score(labels, predicted, average="macro", zero_division=0),
        "macro_recall": metrics.recall_score(labels, predicted, average="macro", zero_division=0),
        "balanced_accuracy": metrics.recall_score(
            labels, predicted, average="macro", labels=range(classes), zero_division=0
        ),
    }
    if classes == 8:
        expected["roc_auc"] = metrics.roc_auc_score(labels, probabilities, multi_class="ovr", average="macro")
        expected["balanced_accuracy"] = metrics.balanced_accuracy_score(labels, predicted)
    else:
        assert scores["auc"][5:] == scores["recall"][5:] == [None] * 3
    assert {name: scores[name] for name in expected} == pytest.approx(expected, abs=1e-6)
    per_class = metrics.precision_score(labels, predicted, average=None, labels=range(8), zero_division=0)
    assert scores["precision"] == pytest.approx(per_class, abs=1e-6)


def test_auc_counts_ties_half():
    labels, sure = np.array([0, 0, 1, 1]), np.array([0.9, 0.5, 0.5, 0.1])
    assert evaluate.roc_auc(labels, np.column_stack([sure, 1 - sure, *[0 * sure] * 6]))[:3] == [0.875, 0.875, None]


def test_calibration_error_by_hand():
    # 0.9 sure and right three times of four; 0.5 sure and right once of two: (4 * 0.15 + 2 * 0) / 6
    labels = np.array([0, 0, 0, 1, 2, 3])
    probabilities = np.full((6, 8), 0.1 / 7)
    probabilities[:4, 0] = 0.9
    probabilities[4:] = 0.5 / 7
    probabilities[4:, 2] = 0.5
    assert evaluate.score(labels, probabilities.argmax(axis=1), probabilities)["ece"] == pytest.approx(0.1, abs=1e-6)
    sure = np.eye(8)[labels]
    assert evaluate.score(labels, labels, sure)["ece"] == 0
    assert evaluate.score(labels, (labels + 1) % 8, np.roll(sure, 1, axis=1))["ece"] == 1


def test_confusion_counts_rows_true():
    counts = evaluate.confusion(np.array([0, 0, 7]), np.array([0, 3, 7]))
    assert counts[0, 0] == counts[0, 3] == counts[7, 7] == 1 and counts.sum() == 3


# --- what is measured -------------------------------------------------------------------------------------------------


def test_the_order_is_stratified_everywhere():
    labels = np.random.default_rng(0).choice(8, 1712, p=[0.07, 0.18, 0.09, 0.17, 0.07, 0.08, 0.2, 0.14])
    order = data.stratified_order(labels)
    assert sorted(order) == list(range(1712)) and np.array_equal(order, data.stratified_order(labels))
    share = np.bincount(labels) / 1712
    for n in (40, 200, 500, 1500):
        assert np.abs(np.bincount(labels[order[:n]], minlength=8) - n * share).max() <= 1.01
    assert not np.array_equal(np.sort(order[:200]), np.arange(200))


def test_the_full_plan():
    plan = evaluate.conditions_of(1712, evaluate.IMAGES, quick=False)
    assert len(plan) == len(set(plan)) == 1 + 5 + 46 * 5
    assert {name for name, *_ in plan} == {"clean", "composite", *corruptions.CORRUPTIONS}
    assert sum(count for *_, count in plan) < 200_000
    assert {count for name, *_, count in plan if name in ("clean", "composite")} == {1712}
    quick = evaluate.conditions_of(1712, 100, quick=True)
    assert len(quick) == 1 + 1 + 46 and sum(count for *_, count in quick) == 2 * 200 + 46 * 100
    assert evaluate.conditions_of(1712, evaluate.IMAGES, quick=False, composite=True) == plan[:6]


def test_the_card_holds_what_it_was_computed_from(card, cells):
    order = np.array(card["cells"]["order"])
    for entry in card["conditions"][::7]:
        images, count = cells.images[order[: entry["cells"]]], entry["cells"]
        if entry["corruption"] != "clean":
            images = corruptions.corrupt_batch(images, entry["corruption"], entry["severity"])
        expected = Fake().predict_proba(images)
        assert np.array_equal(evaluate.predictions_of(entry), expected.argmax(axis=1))
        assert np.abs(evaluate.confidence_of(entry) - expected.max(axis=1)).max() < 1e-5
        assert np.array_equal(evaluate.labels_of(card, count), cells.labels[order[:count]])
        right = evaluate.predictions_of(entry) == evaluate.labels_of(card, count)
        assert entry["accuracy"] == pytest.approx(right.mean(), abs=1e-6)
    summary = card["summary"]
    means = []
    for family, members in corruptions.FAMILIES.items():
        mean = np.mean([e["accuracy"] for e in card["conditions"] if e["corruption"] in members])
        assert summary["families"][family]["accuracy"] == pytest.approx(mean, abs=1e-6)
        means.append(mean)
    assert summary["corrupted"]["accuracy"] == pytest.approx(np.mean(means), abs=1e-5)
    assert summary["clean"]["accuracy"] == card["conditions"][0]["accuracy"]
    worst = summary["confusion_pairs"]["clean"][0]
    t, p = evaluate.SHORT.index(worst["true"]), evaluate.SHORT.index(worst["predicted"])
    counts = evaluate.pooled_confusion(card, card["conditions"][:1])
    assert t != p and worst["share"] == pytest.approx(counts[t, p] / counts[t].sum(), abs=1e-6)


def test_the_full_card_stays_small(tmp_path, monkeypatch):
    monkeypatch.setattr(corruptions, "corrupt_batch", lambda images, name, severity: images)
    rng = np.random.default_rng(0)
    cells = data.Cells(rng.integers(0, 256, (1712, 96, 96, 3), dtype=np.uint8), np.arange(1712) % 8)
    noise = rng.dirichlet(np.ones(8), 1712)

    class Cheap:
        def predict(self, X):
            return noise[: len(X)].argmax(axis=1)

        def predict_proba(self, X):
            return noise[: len(X)]

    card = evaluate.evaluate(Cheap(), HASHES, cells, evaluate.IMAGES, False, tmp_path / "partial")
    evaluate.write_card(card, tmp_path / "card.json")
    assert (tmp_path / "card.json").stat().st_size < 2_000_000
    assert evaluate.read_card(tmp_path / "card.json") == card


# --- models -----------------------------------------------------------------------------------------------------------


def test_zip_folder_and_run_give_one_card(folder, monkeypatch):
    here, path = os.getcwd(), list(sys.path)
    from_zip, from_folder = command(folder, "submission.zip"), command(folder, "submission")
    (folder / "project").mkdir()
    (folder / "project" / "model.py").write_text(MODEL)
    monkeypatch.setattr(evaluate, "ROOT", folder / "project")
    from_run = command(folder, "run")
    cards = [json.loads(path.read_text()) for path in (from_zip, from_folder, from_run)]
    assert cards[0]["conditions"] == cards[1]["conditions"] == cards[2]["conditions"]
    assert len({card["provenance"]["weights_sha256"] for card in cards}) == 1
    assert os.getcwd() == here and sys.path == path and "graded_model" not in sys.modules


def test_two_runs_write_the_same_file(folder):
    first = command(folder, "submission.zip").read_bytes()
    out = command(folder, "submission.zip")
    assert out.read_bytes() == first
    assert [p.name for p in out.parent.iterdir()] == [out.name]  # nothing unfinished is left


def test_a_model_without_probabilities(cells, tmp_path):
    card = evaluate.evaluate(LabelsOnly(), HASHES, cells, 8, True, tmp_path / "partial")
    assert card["summary"]["corrupted"]["roc_auc"] is card["summary"]["clean"]["ece"] is None
    assert card["summary"]["clean"]["accuracy"] is not None
    drawn = pictures.plot(card, tmp_path / "plots", cells.images)
    assert [path.name for path in drawn] == ["heatmap.png", "confusion.png"]


def test_what_is_graded_is_what_is_measured(cells, tmp_path):
    class TwoFaced(Fake):
        def predict(self, X):
            return (super().predict(X) + 1) % 8

    with pytest.raises(ValueError, match="differ"):
        evaluate.evaluate(TwoFaced(), HASHES, cells, 8, True, tmp_path / "partial")


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda X: np.zeros((len(X), 1), int), r"predict gave int64 \(5, 1\)"),
        (lambda X: np.zeros(len(X)), "float64"),
        (lambda X: np.full(len(X), 8), "integers 0-7"),
        (lambda X: np.full(len(X), -1), "integers 0-7"),
    ],
)
def test_a_broken_contract_is_named(answer, message):
    class Broken:
        predict = staticmethod(answer)

    with pytest.raises(ValueError, match=message):
        evaluate.predict(Broken(), np.zeros((5, 96, 96, 3), np.uint8))


@pytest.mark.parametrize("answer", [np.full((5, 8), np.nan), np.zeros((5, 7))])
def test_broken_probabilities_are_named(answer):
    class Broken:
        predict_proba = staticmethod(lambda X: answer)

    with pytest.raises(ValueError, match="predict_proba"):
        evaluate.predict(Broken(), np.zeros((5, 96, 96, 3), np.uint8))


# --- resuming ---------------------------------------------------------------------------------------------------------


def test_a_killed_run_goes_on(cells, card, tmp_path):
    partial = tmp_path / "partial"
    with pytest.raises(KeyboardInterrupt):
        evaluate.evaluate(Fake(stop_at=12), HASHES, cells, 8, True, partial)
    lines = partial.read_text().splitlines()
    assert len(lines) == 1 + 10  # what it belongs to, ten conditions (the agreement check was the first call)
    partial.write_text("\n".join(lines)[:-40])  # killed while writing the tenth
    second = Fake()
    resumed = evaluate.evaluate(second, HASHES, cells, 8, True, partial)
    assert second.calls == 1 + 48 - 9
    assert resumed == card


@pytest.mark.parametrize("change", ["nothing", "weights", "inference", "cells", "corruptions"])
def test_nothing_is_resumed_from_other_work(cells, tmp_path, monkeypatch, change):
    """A run that is killed after ten conditions, and another that is killed in its first: what is left of the ten."""
    partial, hashes = tmp_path / "partial", dict(HASHES)
    with pytest.raises(KeyboardInterrupt):
        evaluate.evaluate(Fake(stop_at=12), HASHES, cells, 8, True, partial)
    if change == "weights":
        hashes["weights_sha256"] = "c"
    elif change == "inference":
        hashes["inference"] = {"views": 3}
    elif change == "cells":
        cells = data.Cells(cells.images ^ np.uint8(1), cells.labels)
    elif change == "corruptions":
        monkeypatch.setattr(corruptions, "fingerprint", lambda: "other")
    with pytest.raises(KeyboardInterrupt):
        evaluate.evaluate(Fake(stop_at=2), hashes, cells, 8, True, partial)
    assert len(partial.read_text().splitlines()) == (1 + 10 if change == "nothing" else 1)


def test_the_command_stops_in_words_and_resumes(folder, monkeypatch):
    whole = command(folder, "submission").read_bytes()
    measure, count = evaluate.measure, 0

    def interrupted(*arguments):
        nonlocal count
        count += 1
        if count == 20:
            raise KeyboardInterrupt
        return measure(*arguments)

    out = folder / "out" / "submission.card.json"
    out.unlink()
    monkeypatch.setattr(evaluate, "measure", interrupted)
    with pytest.raises(SystemExit, match="goes on"):
        command(folder, "submission")
    assert not out.exists() and out.with_name(out.name + ".partial").exists()
    assert command(folder, "submission").read_bytes() == whole
    assert count == 48 + 1  # no condition was measured twice but the one that was stopped


# --- comparing --------------------------------------------------------------------------------------------------------


def edited(card: dict, corruption: str, right: int) -> dict:
    """A copy whose first `right` predictions under one corruption are correct, and the others wrong."""
    copy = json.loads(json.dumps(card))
    for entry in copy["conditions"]:
        if entry["corruption"] == corruption:
            labels = evaluate.labels_of(card, entry["cells"])
            said = np.where(np.arange(len(labels)) < right, labels, (labels + 1) % 8)
            entry["predicted"] = "".join(map(str, said))
    return copy


def test_paired_differences(card):
    ours, theirs = edited(card, "clean", 30), edited(card, "clean", 20)
    rows = {row["name"]: row for row in evaluate.compare(ours, theirs)}
    assert rows["clean"]["difference"] == pytest.approx(0.25) and rows["clean"]["cells"] == 40
    assert 0.05 < rows["clean"]["low"] < 0.25 < rows["clean"]["high"] < 0.45
    same = [row for name, row in rows.items() if name != "clean"]
    assert all(row["difference"] == row["low"] == row["high"] == 0 for row in same)
    assert evaluate.compare(theirs, ours)[-1]["name"] == evaluate.compare(ours, theirs)[-1]["name"]
    back = {row["name"]: row["difference"] for row in evaluate.compare(theirs, ours)}
    assert back["clean"] == pytest.approx(-0.25)
    assert {"corrupted", "family noise", "jpeg", "composite 3"} <= set(rows)


def test_a_family_counts_once_in_the_corrupted_mean(card):
    ours, theirs = edited(card, "cutout", 8), edited(card, "cutout", 0)
    rows = {row["name"]: row["difference"] for row in evaluate.compare(ours, theirs)}
    assert rows["cutout"] == 1 and rows["family occlusion"] == 0.5
    assert rows["corrupted"] == pytest.approx(0.5 / 5)


def test_cards_of_different_sizes_meet_on_common_cells(card, cells, tmp_path):
    smaller = evaluate.evaluate(Fake(), HASHES, cells, 4, True, tmp_path / "partial")
    rows = {row["name"]: row for row in evaluate.compare(card, smaller)}
    assert rows["jpeg"]["cells"] == 4 and rows["clean"]["cells"] == 40
    assert all(row["difference"] == 0 for row in rows.values())


def test_other_cells_are_not_compared(card):
    other = json.loads(json.dumps(card))
    other["provenance"]["heldout_sha256"] = "0"
    with pytest.raises(ValueError, match="different held-out cells"):
        evaluate.compare(card, other)


# --- pictures, command line -------------------------------------------------------------------------------------------


def test_pictures_come_from_the_json(card, cells, tmp_path):
    evaluate.write_card(card, tmp_path / "card.json")
    card = evaluate.read_card(tmp_path / "card.json")
    names = ["heatmap.png", "confusion.png", "reliability.png"]
    assert [path.name for path in pictures.plot(card, tmp_path / "a")] == names
    drawn = pictures.plot(card, tmp_path / "b", cells.images)
    assert [path.name for path in drawn] == [*names, "mistakes.png"]
    for path in drawn:
        assert path.read_bytes()[:4] == b"\x89PNG" and path.stat().st_size > 5000
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_the_composite_alone(folder):
    where = ["--heldout", str(folder / "heldout.npz"), "--json", str(folder / "card.json")]
    evaluate.main([str(folder / "submission"), *where, "--composite"])
    entries = evaluate.read_card(folder / "card.json")["conditions"]
    assert [(e["corruption"], e["severity"], e["cells"]) for e in entries] == [
        ("clean", 0, 40), *(("composite", severity, 40) for severity in corruptions.SEVERITIES)
    ]  # fmt: skip


def test_a_finished_card_is_read_drawn_and_compared(folder, capsys):
    out = command(folder, "submission.zip")
    plots = folder / "plots"
    where = ["--heldout", str(folder / "heldout.npz"), "--plots", str(plots), "--baseline", str(out)]
    evaluate.main([str(out), *where])
    assert {path.name for path in plots.iterdir()} == {
        "heatmap.png",
        "confusion.png",
        "reliability.png",
        "mistakes.png",
    }
    said = capsys.readouterr().out
    assert "clean" in said and "+0.00 to +0.00" in said


def test_each_submission_runs_its_own_modules(tmp_path):
    for label in range(2):
        path = tmp_path / f"{label}.zip"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("model.py", "import helper\nclass Model:\n def predict(self, X): return helper.LABEL\n")
            archive.writestr("helper.py", f"LABEL = {label}")
        with evaluate.open_model(path) as (model, _):
            assert model.predict(None) == label


def test_of_medmnists_file_the_validation_part_is_held_out(tmp_path):
    sizes = {"train": 8, "val": 9, "test": 10}
    parts = {f"{part}_images": np.full((n, 96, 96, 3), n, np.uint8) for part, n in sizes.items()}
    labels = {f"{part}_labels": np.arange(n)[:, None] % 8 for part, n in sizes.items()}
    np.savez(tmp_path / "bloodmnist_96.npz", **parts, **labels)
    cells = evaluate.read_heldout(tmp_path / "bloodmnist_96.npz")
    assert len(cells) == 9 and (cells.images == 9).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere", "--heldout", "heldout.npz"], "nowhere is missing"),
        (["submission", "--heldout", "nowhere.npz"], "held-out cells cannot be read"),
        (["submission", "--heldout", "broken.zip"], "held-out cells cannot be read"),
        (["submission", "--heldout", "labels.npz"], "labels must be integers in 0-7"),
        (["submission", "--heldout", "heldout.npz", "--baseline", "broken.json"], "cannot be read as a card"),
        (["old.json"], "no card of schema"),
        (["broken.zip", "--heldout", "heldout.npz"], "no zip file"),
        (["nested.zip", "--heldout", "heldout.npz"], "neither a model.py nor"),
        (["crashing", "--heldout", "heldout.npz"], "cannot be loaded: no such layer"),
        (["failing", "--heldout", "heldout.npz"], "failed to predict: TypeError: wanted"),
    ],
)
def test_errors_say_what_is_wrong(folder, cells, monkeypatch, arguments, message):
    monkeypatch.chdir(folder)
    Path("broken.zip").write_bytes(b"PK\x03\x04 not really")
    Path("broken.json").write_text("{")
    Path("old.json").write_text('{"schema": 0}')
    with zipfile.ZipFile("nested.zip", "w") as archive:
        archive.writestr("submission/model.py", MODEL)
    Path("crashing").mkdir()
    Path("crashing/model.py").write_text("class Model:\n def __init__(self):\n  raise OSError('no such layer')\n")
    Path("failing").mkdir()
    Path("failing/model.py").write_text("class Model:\n def predict(self, X):\n  raise TypeError('wanted')\n")
    np.savez("labels.npz", images=cells.images, labels=cells.labels[:, None] + 1)
    with pytest.raises(SystemExit, match=message):
        evaluate.main([*arguments, "--quick", "--images", "4"])
    assert not Path("card.json").exists() and Path.cwd() == folder


def test_a_foreign_model_is_kept_quiet(folder, capfd, recwarn):
    loud = "print('54/54 ===')\nimport warnings\n"
    loud += MODEL.replace("        z = X", "        print('1/1 ==='), warnings.warn('deprecated')\n        z = X")
    (folder / "submission" / "model.py").write_text(loud)
    out = command(folder, "submission")
    said = capfd.readouterr()
    assert "===" not in said.out + said.err and "deprecated" not in said.err and not recwarn.list
    assert "card: " in said.out and out.exists()


def test_usage_errors_exit_with_2(folder, capsys):
    target = str(folder / "submission")
    for arguments in ([], [target, "--images", "0"], [target, "--quick", "--composite"]):
        with pytest.raises(SystemExit) as stopped:
            evaluate.main(arguments)
        assert stopped.value.code == 2 and capsys.readouterr().err.count("\n") == 1


# --- the committed card -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def committed():
    weights, path = ROOT / "weights" / "model.weights.h5", ROOT / "results" / "card.json"
    for file in (weights, path):
        if not file.exists():
            pytest.skip(f"needs {file.relative_to(ROOT)}, the card of the committed weights")
    return evaluate.read_card(path)


@pytest.fixture(scope="module")
def committed_cells(committed, heldout):
    cells = data.Cells(heldout[0], heldout[1].ravel().astype(np.int64))
    assert data.digest(cells) == committed["provenance"]["heldout_sha256"]
    return cells


def test_64_images_of_the_committed_card(committed, committed_cells):
    chosen = committed_cells.take(np.array(committed["cells"]["order"][:64]))
    with evaluate.open_model(ROOT) as (model, hashes):
        assert hashes["weights_sha256"] == committed["provenance"]["weights_sha256"], "the card is of other weights"
        for entry in committed["conditions"][:6:3]:  # clean, composite 3
            now = evaluate.measure(model, chosen, (entry["corruption"], entry["family"], entry["severity"], 64))
            then = evaluate.predictions_of(entry)[:64] == chosen.labels
            assert abs(now["accuracy"] - then.mean()) <= 1 / 64


@pytest.mark.long
def test_the_whole_committed_card(committed, committed_cells, tmp_path):
    images = min(entry["cells"] for entry in committed["conditions"])
    with evaluate.open_model(ROOT) as (model, hashes):
        again = evaluate.evaluate(model, hashes, committed_cells, images, False, tmp_path / "partial")
    then, now = committed["summary"], again["summary"]
    assert abs(then["clean"]["accuracy"] - now["clean"]["accuracy"]) <= 0.0005
    assert abs(then["corrupted"]["accuracy"] - now["corrupted"]["accuracy"]) <= 0.0005
    for severity, scores in then["composite"].items():
        assert abs(scores["accuracy"] - now["composite"][severity]["accuracy"]) <= 0.0005
