"""The training run: batches, stages, checkpoints, files. A toy network stands in where the real one adds nothing."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from conftest import DATA, ROOT

import model
from training import data, train
from training.recipes import RECIPES, Recipe

RECIPE = Recipe(
    policy="flips", mixup=0.2, cutmix=0.2, epochs=3, sizes=((0, 32), (2, 96)), batch_size=8, validation=0.2
)


def easy_cells(n: int = 80) -> data.Cells:
    """Noisy pictures whose colour gives the label away: each of its three bits lights one channel."""
    rng = np.random.default_rng(0)
    labels = np.arange(n) % 8
    bits = labels[:, None] >> np.arange(3) & 1
    images = 150 * bits[:, None, None] + rng.integers(0, 100, (n, 96, 96, 3))
    return data.Cells(images.astype(np.uint8), labels)


def toy_network(size=None, backbone_weights=None):
    import keras

    inputs = keras.Input((size, size, 3))
    x = keras.layers.Rescaling(1 / 127.5, -1)(inputs)
    x = keras.layers.Conv2D(8, 3, strides=4)(x)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.ReLU()(x))
    return keras.Model(inputs, keras.layers.Dense(8, activation="softmax", name="head")(x))


@pytest.fixture
def toy(monkeypatch):
    monkeypatch.setattr(model, "build_network", toy_network)


def run(out, recipe=RECIPE, cells=None, **options):
    return train.train(recipe, "toy", cells or easy_cells(), out, workers=1, **options)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a finished run of the toy."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model, "build_network", toy_network)
        run(folder)
    return folder


def test_a_run_leaves_its_files(whole):
    manifest = json.loads((whole / "manifest.json").read_text())
    history = json.loads((whole / "history.json").read_text())
    assert [(e["stage"], e["size"]) for e in history] == [("head", 32), ("all", 32), ("all", 32), ("all", 96)]
    assert manifest["settings"]["epochs"] == 3 and manifest["settings"]["data"] == data.digest(easy_cells())
    assert set(manifest["scores"]) == {"validation", "augmented_validation"}
    assert (whole / "curves.png").read_bytes()[:4] == b"\x89PNG"
    audit = json.loads((whole / "audit.json").read_text())
    assert audit["kept"] == 80 and audit["removed"] == []
    names = {p.name for p in whole.iterdir()}
    assert names == {
        "audit.json", "checkpoint-004", "curves.png", "history.json", "manifest.json", "model.weights.h5"
    }  # fmt: skip


def test_exported_weights_load_and_predict_the_same(whole):
    network = toy_network(96)
    manifest = model.load_weights(network, whole)
    with np.load(whole / "checkpoint-004" / "average.npz") as file:
        average = [file[f"arr_{i}"] for i in range(len(file.files))]
    for weight, exact in zip(network.get_weights(), average, strict=True):
        assert weight.dtype == np.float32
        assert np.allclose(weight, exact, rtol=1e-3) if weight.ndim > 1 else np.array_equal(weight, exact)
    _, validation, _ = train.prepare(easy_cells(), RECIPE, None)
    assert train.score(network, validation)["accuracy"] == manifest["scores"]["validation"]["accuracy"]


def test_training_learns(toy, tmp_path):
    recipe = dataclasses.replace(RECIPE, epochs=15, learning_rate=0.02, mixup=0, cutmix=0, sizes=((0, 32),))
    manifest = run(tmp_path / "run", recipe)
    assert manifest["scores"]["validation"]["accuracy"] >= 0.5  # chance is 0.125


class Killed(BaseException):
    pass


def kill_in_epoch(monkeypatch, number):
    """Stop a run in the middle of an epoch, as a signal would, with nothing tidied by the run itself."""
    whole = train.Batches.epoch

    def epoch(self, current, size):
        for step, batch in enumerate(whole(self, current, size)):
            if current == number and step == 2:
                raise Killed
            yield batch

    monkeypatch.setattr(train.Batches, "epoch", epoch)


@pytest.mark.parametrize("number", [1, 3])
def test_killed_and_resumed_is_the_same_as_never_stopped(toy, tmp_path, monkeypatch, whole, number):
    """At the change of stages (1) and of sizes (3). The toy has no dropout: only the checkpoint makes a difference."""
    with monkeypatch.context() as patch:
        kill_in_epoch(patch, number)
        with pytest.raises((Killed, Exception)):
            run(tmp_path / "run")
    before = json.loads((tmp_path / "run" / "history.json").read_text())
    assert len(before) == number
    assert model.load_weights(toy_network(96), tmp_path / "run")["epochs_done"] == number
    run(tmp_path / "run", resume=True)
    after = json.loads((tmp_path / "run" / "history.json").read_text())
    assert after[:number] == before and len(after) == 4
    for a, b in zip(after, json.loads((whole / "history.json").read_text()), strict=True):
        for part in ("train", "validation", "augmented_validation"):
            assert a[part]["loss"] == pytest.approx(b[part]["loss"], rel=1e-4)


def test_a_finished_run_resumed_changes_nothing(toy, whole):
    before = {p: p.read_bytes() for p in whole.rglob("*") if p.is_file()}
    assert run(whole, resume=True) == json.loads((whole / "manifest.json").read_text())
    assert {p: p.read_bytes() for p in whole.rglob("*") if p.is_file()} == before


def test_refusals(toy, whole, tmp_path):
    with pytest.raises(FileExistsError, match="--resume"):
        run(whole)
    with pytest.raises(ValueError, match="another learning_rate"):
        run(whole, dataclasses.replace(RECIPE, learning_rate=1.0), resume=True)
    with pytest.raises(ValueError, match="fewer than one batch"):
        run(tmp_path / "new", dataclasses.replace(RECIPE, batch_size=1000))
    assert not (tmp_path / "new").exists()


def test_batches_are_the_same_whatever_the_workers(tmp_path):
    cells = easy_cells(40)
    made = []
    for workers in (1, 2):
        batches = train.Batches(cells, dataclasses.replace(RECIPE, policy="ours"), workers)
        try:
            made.append([*batches.epoch(0, 96), *batches.epoch(1, 64)])
        finally:
            batches.close()
    assert len(made[0]) == 10
    for (x, y), (x2, y2) in zip(*made, strict=True):
        assert np.array_equal(x, x2) and np.array_equal(y, y2)
        assert x.dtype == np.float32 and x.shape[1:] in ((96, 96, 3), (64, 64, 3)) and np.allclose(y.sum(axis=1), 1)
    assert not np.array_equal(made[0][0][0], made[0][5][0])  # another epoch, other draws


def test_plain_batches_hold_every_cell_once():
    cells = easy_cells(40)
    batches = train.Batches(cells, Recipe(policy="none", batch_size=8), 1)
    try:
        made = list(batches.epoch(0, 96))
    finally:
        batches.close()
    images = np.concatenate([x for x, _ in made])
    labels = np.concatenate([y for _, y in made]).argmax(axis=1)
    assert sorted(i.tobytes() for i in images.astype(np.uint8)) == sorted(i.tobytes() for i in cells.images)
    by_picture = {i.tobytes(): label for i, label in zip(cells.images, cells.labels, strict=True)}
    assert [by_picture[i.tobytes()] for i in images.astype(np.uint8)] == labels.tolist()


def test_training_needs_no_framework_to_be_imported():
    code = "import sys, training.train; assert not {'keras', 'tensorflow', 'torch', 'jax'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_recipes_are_complete(name):
    from training import augment

    recipe = RECIPES[name]
    assert recipe.policy in augment.POLICIES and recipe.sizes[0][0] == 0 and recipe.sizes[-1][1] == model.IMAGE_SIZE


@pytest.fixture
def command():
    """Starts the training command in a process group of its own; whatever still runs at the end is killed."""
    started = []

    def start(*arguments):
        arguments = [sys.executable, "-m", "training.train", *map(str, arguments)]
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        started.append(subprocess.Popen(arguments, cwd=ROOT, start_new_session=True, **streams))
        return started[-1]

    yield start
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def test_the_command_killed_and_resumed_on_real_cells(command, training_set, tmp_path):
    """The real network, the real command, SIGKILL for the whole process group in the middle of an epoch."""
    if not (DATA / "pretrained" / "efficientnetv2b0_notop.weights.h5").exists():
        pytest.skip("needs data/pretrained/efficientnetv2b0_notop.weights.h5 (see the README, 'Data')")
    images, labels = training_set
    np.savez(tmp_path / "few.npz", images=images[:160], labels=labels[:160])
    arguments = ["--data", tmp_path / "few.npz", "--out", tmp_path / "run", "--epochs", 1, "--workers", 1]
    first = command(*arguments)
    deadline = time.monotonic() + 240
    while not (tmp_path / "run" / "checkpoint-001").exists():
        assert first.poll() is None and time.monotonic() < deadline, first.stdout.read()
        time.sleep(0.05)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    again = command(*arguments)
    assert "--resume" in again.communicate()[0] and again.returncode == 1
    second = command(*arguments, "--resume")
    output = second.communicate(timeout=240)[0]
    assert second.returncode == 0, output
    history = json.loads((tmp_path / "run" / "history.json").read_text())
    assert [e["stage"] for e in history] == ["head", "all"]
    labels = model.Model(tmp_path / "run").predict(images[:8])
    assert labels.shape == (8,)


def test_the_command_explains_bad_data(command, tmp_path):
    process = command("--data", tmp_path / "none.npz", "--out", tmp_path / "run")
    output = process.communicate()[0]
    assert process.returncode == 1 and "Traceback" not in output
    assert "none.npz" in output or "missing" in output
