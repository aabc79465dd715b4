"""Unforeseen changes: the same on every call, unlike anything in training, and counted rightly."""

import json

import numpy as np
import pytest
from test_corruptions import drawn_cells

from evaluation import corruptions, unforeseen
from evaluation.__main__ import main
from training import augment

MODEL = """
import numpy as np

class Model:
    def predict(self, X):
        return np.full(len(X), {label})
"""


@pytest.mark.parametrize("kind", unforeseen.KINDS)
def test_every_kind_changes_each_cell_and_nothing_else(kind):
    cells = drawn_cells(6)
    before = cells.copy()
    changed = unforeseen.change(cells, kind)
    assert changed.shape == cells.shape and changed.dtype == np.uint8
    assert np.array_equal(cells, before) and np.array_equal(unforeseen.change(cells, kind), changed)
    assert np.array_equal(unforeseen.change(cells[:2], kind), changed[:2])  # whatever comes after
    assert (np.abs(changed.astype(int) - cells).mean(axis=(1, 2, 3)) > 0.5).all()


def test_training_and_the_card_have_none_of_them():
    operations = {*vars(augment), *vars(augment.simple), *augment.RANDAUGMENT, *augment.KERAS_RANDAUGMENT}
    assert not set(unforeseen.KINDS) & (operations | set(corruptions.CORRUPTIONS))


def test_palette_and_halftone_by_hand():
    cell = drawn_cells(1)[0]
    rng = np.random.default_rng(0)
    assert len(np.unique(unforeseen.palette(cell, rng).reshape(-1, 3), axis=0)) == 4
    ramp = np.linspace(0, 255, 96).astype(np.uint8)[None, :, None].repeat(96, axis=0).repeat(3, axis=2)
    dots = unforeseen.halftone(ramp, rng)
    assert set(np.unique(dots)) == {0, 255}
    ink = (dots == 0).mean(axis=(0, 2)).reshape(4, 24).mean(axis=1)
    assert (np.diff(ink) < 0).all() and ink[0] > 0.9 and ink[-1] < 0.1


def test_the_command_counts_and_compares(tmp_path, capsys):
    labels = np.array([0, 0, 0, 1], np.uint8)
    np.savez(tmp_path / "cells.npz", images=drawn_cells(4), labels=labels[:, None])
    for label in (0, 1):
        (tmp_path / str(label)).mkdir()
        (tmp_path / str(label) / "model.py").write_text(MODEL.format(label=label))
    words = ["--heldout", str(tmp_path / "cells.npz"), "--json", str(tmp_path / "u.json")]
    main(["unforeseen", str(tmp_path / "0"), str(tmp_path / "1"), *words])
    found = json.loads((tmp_path / "u.json").read_text())
    first, second = found["models"]
    assert found["cells"] == 4 and set(first["kinds"]) == set(unforeseen.KINDS)
    assert set(first["kinds"].values()) == {0.75} == {first["mean"]} and second["mean"] == 0.25
    assert first["gain_of_the_first"]["difference"] == 0 and second["gain_of_the_first"]["difference"] == 0.5
    assert "swirl" in capsys.readouterr().out
    assert "| mean | 75.00 | 25.00 |" in unforeseen.text(found) and "+50.00" in unforeseen.text(found)
    with pytest.raises(SystemExit, match="holds neither a model.py nor"):
        main(["unforeseen", str(tmp_path), *words])
