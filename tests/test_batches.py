"""Batches: the same whatever the workers, every cell once, nothing left of a run that is killed."""

import contextlib
import dataclasses
import os
import shutil
import signal
import subprocess
import sys
from multiprocessing import shared_memory
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from test_train import RECIPE, easy_cells

from training import batches, train
from training.batches import Batches
from training.recipes import Recipe


def test_oversampling_and_class_weights_by_hand():
    labels = np.array([0, 0, 0, 1, 2, 2, 3, 4, 5, 6, 7, 7])
    slots = batches.oversample(labels)
    assert np.bincount(labels[slots]).tolist() == [3] * 8 and sorted(slots[:3]) == [0, 1, 2]
    assert set(slots.tolist()) == set(range(12))
    assert batches.class_weights(labels).tolist() == [0.5, 1.5, 0.75, 1.5, 1.5, 1.5, 1.5, 0.75]  # 12 / (8 n)


def test_copies_in_one_epoch_are_augmented_anew_and_weighted():
    cells = easy_cells(24)
    cells = cells.take(np.flatnonzero((cells.labels != 3) | (np.arange(24) < 8)))  # one cell of class 3
    recipe = Recipe(policy="ours", oversample=True, class_weights=True, batch_size=24)
    ((images, targets, weights),) = Batches(cells, recipe, 0).epoch(0)
    rare = images[targets[:, 3] == 1]
    assert len(rare) == 3 and len({i.tobytes() for i in rare}) == 3
    assert weights.tolist() == batches.class_weights(cells.labels)[targets.argmax(axis=1)].tolist()


def test_classes_can_have_policies_of_their_own():
    cells = easy_cells(16)
    recipe = Recipe(policy="none", class_policies=((3, "ours"),), batch_size=16)
    ((images, targets, _),) = Batches(cells, recipe, 0).epoch(0)
    known = {i.tobytes() for i in cells.images}
    for image, label in zip(images, targets.argmax(axis=1), strict=True):
        assert (image.tobytes() in known) == (label != 3)
    validation = train.augmented(cells, recipe)
    unchanged = (validation.images == cells.images).all((1, 2, 3))
    assert (unchanged == (cells.labels != 3)).all()


def test_batches_are_the_same_whatever_the_workers():
    cells = easy_cells(40)
    made = []
    for workers in (0, 2):
        with contextlib.closing(Batches(cells, dataclasses.replace(RECIPE, policy="ours"), workers)) as made_ahead:
            made.append([*made_ahead.epoch(0), *made_ahead.epoch(1)])
    assert len(made[0]) == 10
    for (x, y, _), (x2, y2, _) in zip(*made, strict=True):
        assert np.array_equal(x, x2) and np.array_equal(y, y2)
        assert x.dtype == np.uint8 and x.shape[1:] == (96, 96, 3) and np.allclose(y.sum(axis=1), 1)
    assert not np.array_equal(made[0][0][0], made[0][5][0])  # another epoch, other draws


KILLED = """
import os, signal
import numpy as np
from training import batches, data
from training.recipes import Recipe

if __name__ == "__main__":
    cells = data.Cells(np.zeros((8, 96, 96, 3), np.uint8), np.arange(8))
    made_ahead = batches.Batches(cells, Recipe(), workers=2)
    made_ahead.pool.submit(batches._make_batch, 0, np.arange(8)).result()
    print(made_ahead.memory.name, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_nothing_stays_of_a_run_that_was_killed(tmp_path):
    script = tmp_path / "killed.py"
    script.write_text(KILLED)
    # this waits for the workers, too: each holds the pipes
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60,
                          env={**os.environ, "PYTHONPATH": str(ROOT)})  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr
    with pytest.raises(FileNotFoundError):
        shared_memory.SharedMemory(done.stdout.strip())


def test_workers_want_room_for_the_images(monkeypatch):
    usage = shutil._ntuple_diskusage(100, 99, 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    monkeypatch.setattr(Path, "is_dir", lambda path: True)
    with pytest.raises(ValueError, match=r"--shm-size=1g\), or augment without workers \(--workers 0\)"):
        Batches(easy_cells(), RECIPE, workers=1)
    Batches(easy_cells(), RECIPE, workers=0).close()


def test_plain_batches_hold_every_cell_once():
    cells = easy_cells(40)
    made = list(Batches(cells, Recipe(policy="none", batch_size=8), 0).epoch(0))
    images = np.concatenate([x for x, _, _ in made])
    labels = np.concatenate([y for _, y, _ in made]).argmax(axis=1)
    assert sorted(i.tobytes() for i in images) == sorted(i.tobytes() for i in cells.images)
    by_picture = {i.tobytes(): label for i, label in zip(cells.images, cells.labels, strict=True)}
    assert [by_picture[i.tobytes()] for i in images] == labels.tolist()
