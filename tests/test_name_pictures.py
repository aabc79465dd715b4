"""model.py from a shell: pictures of any kind and size, named."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import ROOT

import model
from training import data


def read(path) -> list[dict]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def save(path, image: np.ndarray) -> None:
    """Save RGB pixels with OpenCV's codec for the name's ending."""
    path.write_bytes(cv2.imencode(path.suffix, image[..., ::-1])[1].tobytes())


@pytest.fixture(scope="module")
def pictures(heldout, tmp_path_factory):
    """(folder of 20 held-out cells as files of four kinds and many sizes and shapes, {file name: label})."""
    folder, expected = tmp_path_factory.mktemp("cells"), {}
    rng = np.random.default_rng(3)
    for i, k in enumerate(rng.permutation(len(heldout[0]))[:20]):
        side = int(rng.integers(80, 400))
        image = cv2.resize(heldout[0][k], (side, side), interpolation=cv2.INTER_CUBIC)
        beside = ((0, 0), (side // 3, side // 3), (0, 0)) if i % 2 else ((side // 4, side // 4), (0, 0), (0, 0))
        image = np.pad(image, beside, "reflect") if i % 4 else image
        path = folder / f"in {i % 3}" / f"zelle-ä{i}{('.jpg', '.png', '.TIFF', '.bmp')[(i // 2) % 4]}"
        path.parent.mkdir(exist_ok=True)
        save(path, image)
        expected[path.name] = data.CLASSES[heldout[1][k, 0]]
    return folder, expected


@pytest.fixture
def here(tmp_path, monkeypatch, capsys):
    """here(*arguments) -> (exit status, stdout, stderr): the command in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def go(*arguments):
        monkeypatch.setattr(sys, "argv", ["model.py", *map(str, arguments)])
        try:
            status = model.main()
        except SystemExit as stopped:
            status = stopped.code
        return status, *capsys.readouterr()

    return go


@pytest.fixture
def labelled(pictures, predictor, here, monkeypatch):
    """The command on the folder and two files that cannot be read."""
    monkeypatch.setattr(model.Model, "__init__", lambda self, folder: vars(self).update(vars(predictor)))
    Path("torn.png").write_bytes(b"\x89PNG, or not")
    return here(pictures[0], "torn.png", "gone.jpg", "--csv", "a.csv", "--html", "a.html")


@pytest.mark.slow
def test_a_shell_gets_the_same(pictures, labelled):
    (folder,) = {path.parent for path in pictures[0].rglob("*0.jpg")}
    command = [sys.executable, ROOT / "model.py", folder]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, encoding="utf-8")
    assert said.returncode == 0 and "Traceback" not in said.stderr
    lines = [line for line in said.stdout.splitlines() if str(folder) in line]
    assert lines and set(lines) <= set(labelled[1].splitlines())


def test_every_cell_is_printed_and_shown_and_at_least_19_of_20_are_named_rightly(pictures, labelled):
    rows, page = read("a.csv"), Path("a.html").read_text(encoding="utf-8")
    found = {os.path.basename(row["file"]): row["class"] for row in rows}
    assert found.keys() == pictures[1].keys()
    assert sum(found[name] == label for name, label in pictures[1].items()) >= 19
    assert page.count("<figure") == page.count("data:image/png;base64,") == 20
    for row in rows:
        assert row["file"] in labelled[1] and row["file"] in page
        assert 0 <= float(row["second_confidence"]) <= float(row["confidence"]) <= 1 and row["class"] != row["second"]


def test_what_cannot_be_read_is_named_and_skipped(labelled):
    status, out, err = labelled
    assert status == 1 and "20 named" in out and "2 could not be read" in out
    assert "torn.png: no picture that can be read" in err and "gone.jpg: No such file" in err
    assert set(os.listdir()) == {"torn.png", "a.csv", "a.html"}


class FirstPixel:
    """A model that names a picture by its first pixel's red: surely, but for class 1, which could also be class 0."""

    def predict_proba(self, X):
        chances = np.eye(8, dtype=np.float32)
        chances[1, :2] = 0.4, 0.6
        return chances[X[:, 0, 0, 0] // 32]


def test_an_npz_is_named_as_the_graded_path_names_it(tmp_path, here, monkeypatch):
    monkeypatch.setattr(model, "Model", lambda folder: FirstPixel())
    images = np.random.default_rng(0).integers(0, 256, (70, 96, 96, 3), np.uint8)
    np.savez(tmp_path / "cells.npz", images=images, labels=np.zeros(70))
    np.savez(tmp_path / "none.npz", labels=np.zeros(70))
    status, _, said = here("cells.npz", "none.npz", "--csv", "a.csv")
    rows = read(tmp_path / "a.csv")
    assert [row["class"] for row in rows] == [data.CLASSES[k] for k in images[:, 0, 0, 0] // 32]
    assert rows[69]["file"] == "cells.npz:images[69]"
    assert status == 1 and "none.npz: holds no array of pictures" in said


def test_the_unsure_are_marked_and_come_first(tmp_path):
    images = np.full((2, 96, 96, 3), 200, np.uint8)
    images[1] = 40
    np.savez(tmp_path / "x.npz", images=images)
    rows = list(model.name_pictures(FirstPixel(), [tmp_path / "x.npz"], {}))
    assert [row["unsure"] for row in rows] == ["", "unsure"] and rows[1]["second"] == "basophil"
    assert [row["confidence"] for row in rows] == [1.0, 0.6]
    page = model.as_html([{**row, "file": f"<{i}>"} for i, row in enumerate(rows)])
    assert page.index("&lt;1&gt;") < page.index("&lt;0&gt;") and page.count('class="unsure"') == 1
    assert "2 cells, 1 unsure" in page


def test_a_picture_is_read_as_rgb_and_cut_to_its_centre(tmp_path):
    image = np.zeros((40, 100, 3), np.uint8)
    image[:, 30:70] = 250, 120, 10
    for name in ("a.png", "a.bmp", "a.tif"):
        save(tmp_path / name, image)
        assert (model.read_picture(tmp_path / name) == (250, 120, 10)).all()
    with pytest.warns(UserWarning, match="scaled by 255"):
        assert (model.read_picture(image.transpose(1, 0, 2) / 255) == (250, 120, 10)).all()
    fine = np.indices((192, 192)).sum(0)[..., None] % 2 * np.full(3, 200)
    assert (model.read_picture(fine) == 100).all()  # the mean over an area
    save(tmp_path / "deep.png", np.full((96, 96, 1), 40000, np.uint16))
    assert (model.read_picture(tmp_path / "deep.png") == 40000 // 256).all()  # 16 bits, grey


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["."], "a folder without pictures"),
        (["x.png", "--csv", "no/a.csv"], "no is no folder"),
        (["x.png", "--csv", "x.png"], "named like a picture"),
        (["x.png", "--weights", "."], "manifest.json is missing"),
        ([], "paths"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(tmp_path, here, monkeypatch, arguments, said):
    if "--weights" not in arguments:
        monkeypatch.setattr(model, "Model", lambda folder: FirstPixel())
    status, _, err = here(*arguments)
    assert status in (1, 2) and said in err.splitlines()[-1]
    assert not list(tmp_path.iterdir())


def test_classes_have_one_order():
    assert model.CLASSES == data.CLASSES
