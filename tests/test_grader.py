"""The competition itself: its two programs and its bundle."""

import json
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
from sklearn import metrics

from grader import codes, worker
from grader.scoring_program import scoring
from tests import submissions

GRADER = Path(worker.__file__).parent
NAMES = [f"class <{label}>" for label in range(8)]


@pytest.mark.parametrize("classes", [range(8), [0, 3, 5]], ids=["all classes", "three classes"])
@pytest.mark.parametrize("seed", range(3))
def test_scores_are_scikit_learns(classes, seed):
    rng = np.random.default_rng(seed)
    labels = rng.choice(list(classes), 200)
    predictions = np.where(rng.random(200) < 0.7, labels, rng.integers(0, 8, 200))
    found = scoring.score(scoring.confusion(labels, predictions, 8))
    known = {"average": "macro", "zero_division": 0}
    assert found == pytest.approx(
        {
            "accuracy": metrics.accuracy_score(labels, predictions),
            "balanced_accuracy": metrics.balanced_accuracy_score(labels, predictions),
            "macro_precision": metrics.precision_score(labels, predictions, **known),
            "macro_recall": metrics.recall_score(labels, predictions, **known),
            "macro_f1": metrics.f1_score(labels, predictions, **known),
        }
    )
    matrix = metrics.confusion_matrix(labels, predictions, labels=range(8))
    assert (scoring.confusion(labels, predictions, 8) == matrix).all()


def test_scores_by_hand():
    # two of class 0: one right, one taken for 1; two of class 1: both right
    found = scoring.score(scoring.confusion(np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1]), 2))
    assert found["accuracy"] == 0.75
    assert found["macro_precision"] == pytest.approx((1 + 2 / 3) / 2)
    assert found["balanced_accuracy"] == found["macro_recall"] == 0.75


def run_scoring(tmp_path: Path, labels, predictions: bytes | None, classes=NAMES) -> int:
    for name in ("in/ref", "in/res", "out"):
        (tmp_path / name).mkdir(parents=True)
    np.save(tmp_path / "in/ref/labels.npy", np.asarray(labels))
    np.save(tmp_path / "in/ref/classes.npy", np.array(classes))
    if predictions is not None:
        (tmp_path / "in/res/predictions.npy").write_bytes(predictions)
    return scoring.main(str(tmp_path / "in"), str(tmp_path / "out"))


def test_a_submission_that_ships_predictions_is_not_scored(tmp_path, capsys):
    labels = np.arange(8)
    (tmp_path / "submission" / "weights").mkdir(parents=True)
    (tmp_path / "submission" / "weights" / "predictions.npy").write_bytes(b"")  # a name that does no harm
    assert run_scoring(tmp_path, labels, submissions.npy(labels)) == 0
    folders = [str(tmp_path / name) for name in ("in", "out", "submission")]
    assert scoring.main(*folders) == 0
    (tmp_path / "submission" / "predictions.npy").write_bytes(submissions.npy(labels))
    assert scoring.main(*folders) == 1
    assert "would replace its predictions" in capsys.readouterr().err


def test_scoring_writes_flat_scores_under_the_leaderboards_keys_and_a_page(tmp_path):
    labels = np.arange(8).repeat(2)
    assert run_scoring(tmp_path, labels, submissions.npy(np.roll(labels, 1))) == 0
    scores = json.loads((tmp_path / "out/scores.json").read_text())
    assert list(scores) == worker.columns()
    assert scores["accuracy"] == 0.5
    page = (tmp_path / "out/detailed_results.html").read_text()
    table = ElementTree.fromstring(re.search(r'<table class="confusion">.*?</table>', page, re.DOTALL)[0])
    shown = [(cell.text, cell.get("class")) for cell in table.iter("td") if cell.text]
    assert sorted(shown) == [("1", "right")] * 8 + [("1", "wrong strong")] * 8
    assert page.count("class &lt;7&gt;") == 3 and "<7>" not in page
    assert not re.search(r"<script|<link|<img|src=|href=|url\(", page)


def test_one_mistake_in_a_thousand_shows_and_ten_show_more():
    matrix = np.diag([1000] * 8)
    matrix[0, 1], matrix[1, 2], matrix[2, 3] = 1, 10, 500
    found = re.findall(r'class="wrong[ a-z]*" style="--part:([\d.]+)"', scoring.confusion_table(matrix, NAMES))
    parts = [float(part) for part in found]
    assert parts == sorted(set(parts)) and len(parts) == 3 and 0.2 < parts[0] and parts[2] <= 1


@pytest.mark.parametrize(
    "predictions, words",
    [
        (np.eye(8, dtype=int)[[0, 1, 2]], "one-hot"),
        (np.array([[0], [1], [2]]), r"shape \(3, 1\)"),
        (np.array([0, 1]), r"shape \(2,\) for 3 images"),
        (np.array([0.0, 1.0, 2.0]), "float64"),
        (np.array([True, False, True]), "bool"),
        (np.array([0, 1, 8]), "labels 0 to 8"),
        (np.array([0, -1, 2]), "labels -1 to 2"),
    ],
)
def test_scoring_refuses_what_breaks_the_contract(tmp_path, capsys, predictions, words):
    assert run_scoring(tmp_path, [0, 1, 2], submissions.npy(predictions)) == 1
    assert re.search(words, capsys.readouterr().err)
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("predictions", [np.eye(3, dtype=int), np.array([0, 1, 3])], ids=["one-hot", "a fourth"])
def test_scoring_counts_the_classes_by_their_names(tmp_path, capsys, predictions):
    assert run_scoring(tmp_path, [0, 1, 2], submissions.npy(predictions), NAMES[:3]) == 1
    assert re.search("one-hot|they must be 0 to 2", capsys.readouterr().err)


@pytest.mark.parametrize("contents", [None, b"", b"junk", b"\x93NUMPY\x01\x00\xff\xff{'shape': (9e9,)"])
def test_scoring_refuses_missing_and_damaged_predictions(tmp_path, capsys, contents):
    assert run_scoring(tmp_path, [0, 1, 2], contents) == 1
    assert capsys.readouterr().err.startswith("refused: ")
    assert not list((tmp_path / "out").iterdir())


def test_the_table_of_codes_is_whole_and_has_those_that_are_used():
    text = "".join(path.read_text() for path in GRADER.glob("*.py"))
    assert set(re.findall(r'"([A-Z]{2,4}\d\d)"', text)) == set(codes.CODES)
    for row in codes.CODES.values():
        assert all(row) and row.level in ("error", "warning", "error or warning")
