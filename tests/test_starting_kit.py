"""The template that participants start from: it works, and each mistake that it says it avoids is refused."""

import json
import shutil

import numpy as np
import pytest
from conftest import ROOT

import build_submission

KIT = ROOT / "grader" / "starting_kit"
MISTAKES = {
    "PATH01": ('os.path.join(FOLDER, "weights.npy")', '"weights.npy"'),
    "PRO02": ("for image in X]", "for image in X * (190 / np.mean(X))]"),
    "OUT01": ("return distances.argmin(axis=1)", "return np.exp(-distances)"),
}


def build(folder, tmp_path, *more) -> tuple[int, dict]:
    """(exit status, report) of the command on a folder."""
    arguments = ["--source", folder, "--out", tmp_path / "s.zip", *more]
    arguments += ["--report", tmp_path / "r.json", "--html", tmp_path / "r.html", "--logs", tmp_path / "logs"]
    status = build_submission.main(list(map(str, arguments)))
    return status, json.loads((tmp_path / "r.json").read_text())


@pytest.fixture
def cells(tmp_path):
    """An npz of 160 plain pictures, each in the mean colour of its class and a little off."""
    rng, labels = np.random.default_rng(0), np.arange(160) % 8
    images = np.load(KIT / "weights.npy")[labels][:, None, None] + rng.normal(0, 20, (160, 96, 96, 3))
    np.savez(tmp_path / "cells.npz", images=np.clip(images, 0, 255).astype(np.uint8), labels=labels)
    return tmp_path / "cells.npz"


def test_the_template_is_built_rehearsed_and_scored(cells, tmp_path):
    status, report = build(KIT, tmp_path, "--heldout", cells)
    assert status == 0 and (tmp_path / "s.zip").exists()
    assert sorted(report["files"]) == ["model.py", "weights.npy"]
    assert report["scores"]["accuracy"] > 0.95
    assert not [finding for finding in report["findings"] if finding["level"] == "error"]


@pytest.mark.parametrize("code", ["PATH01", "PRO02", pytest.param("OUT01", marks=pytest.mark.slow)])
def test_each_mistake_is_refused(code, cells, tmp_path):
    folder = shutil.copytree(KIT, tmp_path / "mine")
    text = (folder / "model.py").read_text()
    assert text.count(MISTAKES[code][0]) == 1
    (folder / "model.py").write_text(text.replace(*MISTAKES[code]))
    status, report = build(folder, tmp_path, "--heldout", cells, "--profile", "strict")
    assert status == 1 and not (tmp_path / "s.zip").exists()
    assert code in [finding["code"] for finding in report["findings"]]


def test_the_template_is_short_and_takes_no_image_and_floats():
    code = (KIT / "model.py").read_text().split('"""', 2)[2]
    assert len([line for line in code.splitlines() if line.strip()]) <= 20 and code.count("  # ") >= 3
    namespace = {"__file__": str(KIT / "model.py")}
    exec(code, namespace)
    images = np.random.default_rng(0).integers(0, 256, (5, 96, 96, 3), np.uint8)
    predict = namespace["Model"]().predict
    assert predict(images[:0]).shape == (0,) and (predict(images.astype(np.float32)) == predict(images)).all()
