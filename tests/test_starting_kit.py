"""The template that participants start from: it works, and each mistake that it says it avoids is refused."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT

KIT = ROOT / "grader" / "starting_kit"
MISTAKES = {
    "PATH01": ('os.path.join(FOLDER, "weights.npy")', '"weights.npy"'),
    "PRO02": ("for image in X]", "for image in X * (190 / np.mean(X))]"),
    "OUT01": ("return distances.argmin(axis=1)", "return np.exp(-distances)"),
}


@pytest.fixture
def cells(tmp_path):
    """An npz of 160 plain pictures, each in the mean colour of its class and a little off."""
    rng, labels = np.random.default_rng(0), np.arange(160) % 8
    images = np.load(KIT / "weights.npy")[labels][:, None, None] + rng.normal(0, 20, (160, 96, 96, 3))
    np.savez(tmp_path / "cells.npz", images=np.clip(images, 0, 255).astype(np.uint8), labels=labels)
    return tmp_path / "cells.npz"


def test_the_template_is_built_rehearsed_and_scored(command, cells):
    status, _, made = command("--source", KIT, "--heldout", cells)
    assert status == 0 and Path("submission.zip").exists()
    assert sorted(made["files"]) == ["model.py", "weights.npy"]
    assert made["scores"]["accuracy"] > 0.95


@pytest.mark.parametrize("code", ["PATH01", "PRO02", pytest.param("OUT01", marks=pytest.mark.slow)])
def test_each_mistake_is_refused(code, command, cells, tmp_path):
    folder = shutil.copytree(KIT, tmp_path / "mine")
    text = (folder / "model.py").read_text()
    assert text.count(MISTAKES[code][0]) == 1
    (folder / "model.py").write_text(text.replace(*MISTAKES[code]))
    status, _, made = command("--source", folder, "--heldout", cells, "--profile", "strict")
    assert status == 1 and code in [finding["code"] for finding in made["findings"]]


def test_the_template_is_short_and_takes_no_image_and_floats():
    code = (KIT / "model.py").read_text().split('"""', 2)[2]
    assert len([line for line in code.splitlines() if line.strip()]) <= 20 and code.count("  # ") >= 3
    namespace = {"__file__": str(KIT / "model.py")}
    exec(code, namespace)
    images = np.random.default_rng(0).integers(0, 256, (5, 96, 96, 3), np.uint8)
    predict = namespace["Model"]().predict
    assert predict(images[:0]).shape == (0,) and (predict(images.astype(np.float32)) == predict(images)).all()
