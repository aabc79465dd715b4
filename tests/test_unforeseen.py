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
        return np.zeros(len(X), int)
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
    operations = {*vars(augment), *augment.RANDAUGMENT, *augment.KERAS_RANDAUGMENT}
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


def test_the_command_counts(tmp_path, capsys):
    np.savez(tmp_path / "cells.npz", images=drawn_cells(4), labels=np.array([[0], [0], [0], [1]], np.uint8))
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours" / "model.py").write_text(MODEL)
    words = ["--heldout", str(tmp_path / "cells.npz"), "--json", str(tmp_path / "u.json")]
    main(["unforeseen", str(tmp_path / "ours"), *words])
    found = json.loads((tmp_path / "u.json").read_text())
    assert found["cells"] == 4 and set(found["kinds"]) == set(unforeseen.KINDS)
    assert set(found["kinds"].values()) == {0.75} == {found["mean"]}
    assert "swirl" in capsys.readouterr().out and "| mean | 75.00 |" in unforeseen.text(found)
    with pytest.raises(SystemExit, match="holds neither a model.py nor"):
        main(["unforeseen", str(tmp_path), *words])
