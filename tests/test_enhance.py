import os
import subprocess
import sys

import cv2
import numpy as np
import pytest
from conftest import ROOT

from training import enhance

STEPS = ("illumination", "clahe", "segment", "bilateral")


@pytest.fixture
def cell():
    """A dark, textured disc of radius 20 on a bright field with a little noise."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:96, :96] - 47.5
    image = np.where((np.hypot(y, x) < 20)[..., None], (120, 60, 140), (230, 210, 220))
    return np.clip(image + rng.normal(0, 3, image.shape), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("shape", [(96, 96, 3), (64, 80, 3)])
def test_steps_are_pure(name, shape):
    image = np.random.default_rng(1).integers(0, 256, shape, np.uint8)
    before = image.copy()
    after = enhance.STEPS[name](image)
    assert after.shape == shape and after.dtype == np.uint8
    assert (image == before).all() and not np.shares_memory(after, image)
    assert (enhance.STEPS[name](image) == after).all()


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("value", [0, 128, 255])
def test_blank_images_stay_blank(name, value):
    after = enhance.STEPS[name](np.full((96, 96, 3), value, np.uint8)).astype(int)
    assert after.min() == after.max()
    if name != "clahe":  # which has nothing to spread, and moves the one level there is
        assert abs(after.min() - value) <= 1


def test_illumination_flattens_a_gradient_behind_a_cell():
    light = np.tile(np.linspace(140, 240, 96, dtype=np.float32), (96, 1))
    y, x = np.mgrid[:96, :96] - 47.5
    disc = np.hypot(y, x) < 15
    image = np.repeat(np.where(disc, 0.4 * light, light)[..., None], 3, 2).astype(np.uint8)
    after = enhance.illumination(image).astype(float)
    assert np.ptp(after[~disc]) < 0.5 * np.ptp(image[~disc].astype(float))
    assert after[disc].mean() / after[~disc].mean() == pytest.approx(0.4, abs=0.03)  # the cell stays as dark as it was


def test_illumination_keeps_an_even_field_and_colours(cell):
    after = enhance.illumination(cell).astype(float)
    assert np.abs(after - cell).mean() < 3
    ratio = after[48, 48] / cell[48, 48]
    assert np.ptp(ratio) < 0.03


def test_clahe_spreads_lightness_and_leaves_hue():
    rng = np.random.default_rng(2)
    image = np.clip(rng.normal(150, 6, (96, 96, 1)) + np.array([20, -20, 10]), 0, 255).astype(np.uint8)
    after = enhance.clahe(image)
    before_lab, after_lab = (cv2.cvtColor(part, cv2.COLOR_RGB2LAB).astype(float) for part in (image, after))
    assert after_lab[..., 0].std() > 1.5 * before_lab[..., 0].std()
    assert np.abs(after_lab[..., 1:].mean((0, 1)) - before_lab[..., 1:].mean((0, 1))).max() < 3


def test_segment_keeps_the_disc_and_evens_the_background(cell):
    y, x = np.mgrid[:96, :96] - 47.5
    away = np.hypot(y, x)
    after = enhance.segment(cell)
    assert (after[away < 19] == cell[away < 19]).all()
    field = after[away > 23]
    assert (field == field[0]).all() and np.abs(field[0].astype(int) - (230, 210, 220)).max() <= 2


def test_segment_drops_what_is_not_in_the_middle(cell):
    cell[2:14, 2:14] = (120, 60, 140)
    after = enhance.segment(cell)
    assert (after[2:14, 2:14] == after[0, 0]).all() and (after[48, 48] == cell[48, 48]).all()


def test_bilateral_keeps_an_edge_and_lowers_noise():
    rng = np.random.default_rng(3)
    image = np.full((96, 96, 3), 60.0)
    image[:, 48:] = 190
    image = np.clip(image + rng.normal(0, 8, image.shape), 0, 255).astype(np.uint8)
    after = enhance.bilateral(image).astype(float)
    assert after[8:-8, 8:40].std() < 0.5 * image[8:-8, 8:40].std()
    assert after[8:-8, 49].mean() - after[8:-8, 46].mean() > 120


def test_apply_runs_the_steps_in_order(cell):
    both = enhance.apply(cell, ("illumination", "clahe", "segment"))
    assert (both == enhance.segment(enhance.clahe(enhance.illumination(cell)))).all()
    assert (both != enhance.apply(cell, ("segment", "clahe", "illumination"))).any()
    same = enhance.apply(cell, ())
    assert (same == cell).all() and not np.shares_memory(same, cell)
    assert (enhance.apply(cell[:, ::-1], ("bilateral",)) == enhance.bilateral(cell[:, ::-1].copy())).all()


def test_apply_says_what_is_wrong(cell):
    with pytest.raises(ValueError, match="unknown step 'sharpen'; choose from illumination, clahe, segment, bilateral"):
        enhance.apply(cell, ("clahe", "sharpen"))


def test_file_stands_alone(tmp_path):
    """A submission ships this file by itself: no other module of the package is imported."""
    (tmp_path / "enhance.py").write_bytes((ROOT / "training" / "enhance.py").read_bytes())
    code = "import sys, enhance; print(sorted(m for m in sys.modules if m.startswith(('training', 'matplotlib'))))"
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    ran = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert ran.stdout == "[]\n", ran.stderr
