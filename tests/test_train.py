"""The training run: batches, stages, checkpoints, files. A toy network stands in where the real one adds nothing."""

import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from conftest import ROOT

import model
from training import data, enhance, networks, optimization, settings, train
from training.recipes import RECIPES, Recipe

RECIPE = Recipe(
    weights="none", policy="flips", mixup=0.2, cutmix=0.2, epochs=3, sizes=((0, 32), (0.7, 96)), batch_size=8,
    validation=0.2, views=4,
)  # fmt: skip


SHORT = dataclasses.replace(  # one network, a third of the time
    RECIPE, head_epochs=0, epochs=3, sizes=((0, 96),), mixup=0, cutmix=0, learning_rate=0.1, views=1
)


def easy_cells(n: int = 80) -> data.Cells:
    """Noisy pictures whose colour gives the label away: each of its three bits lights one channel."""
    rng = np.random.default_rng(0)
    labels = np.arange(n) % 8
    bits = labels[:, None] >> np.arange(3) & 1
    images = 150 * bits[:, None, None] + rng.integers(0, 100, (n, 96, 96, 3))
    return data.Cells(images.astype(np.uint8), labels)


def toy_network(backbone_weights=None, dropout=0.3, pixels=None):
    inputs = x = keras.Input((96, 96, 3))
    if pixels not in (None, 96):
        x = keras.layers.Resizing(pixels, pixels)(x)
    x = keras.layers.Rescaling(1 / 127.5, -1)(x)
    x = keras.layers.Conv2D(8, 3, strides=4)(x)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.ReLU()(x))
    x = keras.layers.Dropout(dropout)(x)
    return keras.Model(inputs, keras.layers.Dense(8, activation="softmax", name="head")(x))


@pytest.fixture
def toy(monkeypatch):
    monkeypatch.setattr(model, "build_network", toy_network)


def history_of(folder):
    return json.loads((folder / "run.json").read_text())["history"]


def run(out, recipe=RECIPE, cells=None, **options):
    return train.train(recipe, "toy", cells or easy_cells(), out, workers=0, **options)


def finished(folder, recipe):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model, "build_network", toy_network)
        run(folder / "run", recipe)
    return folder / "run"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a finished run of the toy."""
    return finished(tmp_path_factory.mktemp("whole"), RECIPE)


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    """The folder of a finished run of SHORT."""
    return finished(tmp_path_factory.mktemp("short"), SHORT)


def test_a_run_leaves_its_files(whole):
    manifest = json.loads((whole / "manifest.json").read_text())
    history = history_of(whole)
    assert [(e["stage"], e["size"]) for e in history] == [("head", 32), ("all", 32), ("all", 32), ("all", 96)]
    assert manifest["settings"]["epochs"] == 3 and manifest["data"] == data.digest(easy_cells())
    assert manifest["kept"] == 80 and manifest["views"] == 4 and manifest["pixels"] == 96 and manifest["epochs"] == 4
    assert 0.1 <= manifest["temperature"] <= 10 and manifest["temperature"] != 1.0
    assert (whole / "manifest.json").stat().st_size < 4096
    assert set(manifest["scores"]) == {"validation", "augmented_validation"}
    audit = json.loads((whole / "audit.json").read_text())
    assert audit["kept"] == 80 and audit["removed"] == []
    names = {p.name for p in whole.iterdir()}
    assert names == {
        "audit.json", "checkpoint-004", "manifest.json", "model.weights.h5", "run.json"
    }  # fmt: skip


def test_exported_weights_load_and_predict_the_same(toy, whole):
    shipped = model.Model(whole)
    network, manifest = shipped.network, shipped.manifest
    with np.load(whole / "checkpoint-004" / "average.npz") as file:
        average = [file[f"arr_{i}"] for i in range(len(file.files))]
    for weight, exact in zip(network.get_weights(), average, strict=True):
        assert weight.dtype == np.float32
        assert np.allclose(weight, exact, rtol=1e-3) if weight.ndim > 1 else np.array_equal(weight, exact)
    _, validation, _ = train.prepare(easy_cells(), RECIPE)
    probabilities = shipped.predict_proba(validation.images)
    assert train.score(probabilities, validation.labels) == manifest["scores"]["validation"]


def test_training_learns(short):
    manifest = json.loads((short / "manifest.json").read_text())
    assert manifest["scores"]["validation"]["accuracy"] >= 0.5  # chance is 0.125


class Killed(BaseException):
    pass


def kill_in_epoch(monkeypatch, number):
    """Stop a run in the middle of an epoch, as a signal would, with nothing tidied by the run itself."""
    whole = train.Batches.epoch

    def epoch(self, current):
        for step, batch in enumerate(whole(self, current)):
            if current == number and step == 2:
                raise Killed
            yield batch

    monkeypatch.setattr(train.Batches, "epoch", epoch)


@pytest.mark.parametrize("number", [pytest.param(1, marks=pytest.mark.slow), 3])
def test_killed_and_resumed_is_the_same_as_never_stopped(toy, tmp_path, monkeypatch, whole, number):
    """At the change of stages (1) and of sizes (3)."""
    with monkeypatch.context() as patch:
        kill_in_epoch(patch, number)
        with pytest.raises((Killed, Exception)):
            run(tmp_path / "run")
    before = history_of(tmp_path / "run")
    assert len(before) == number
    assert model.Model(tmp_path / "run").manifest["epochs"] == number
    run(tmp_path / "run", resume=True)
    after = history_of(tmp_path / "run")
    assert after[:number] == before and len(after) == 4
    for a, b in zip(after, history_of(whole), strict=True):
        for part in ("train", "validation", "augmented_validation"):
            assert a[part]["loss"] == pytest.approx(b[part]["loss"], rel=1e-4)


VICTIMS = [(".next.weights.h5", 1), ("manifest.json", 1), ("manifest.json", 2), ("run.json", 1), ("checkpoint-002", 1)]
VICTIMS = [("model.weights.h5", 1), *(pytest.param(*victim, marks=pytest.mark.slow) for victim in VICTIMS)]


@pytest.mark.parametrize("victim, number", VICTIMS)
def test_killed_while_writing(toy, tmp_path, monkeypatch, short, victim, number):
    """A kill before the number-th renaming to a name, in the second epoch: what is there is whole and fits."""
    rename, left = os.replace, [number]

    def replace(source, target):
        if Path(target).name == victim and (tmp_path / "run" / "run.json").exists():
            left[0] -= 1
            if not left[0]:
                raise Killed
        rename(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", replace)
        with pytest.raises(Killed):
            run(tmp_path / "run", SHORT)
    network = toy_network()
    checkpoint = max((tmp_path / "run").glob("checkpoint-*"))
    network.load_weights(checkpoint / "live.weights.h5")
    (tmp_path / "copied").mkdir()
    for name in ("model.weights.h5", "manifest.json"):
        shutil.copy(tmp_path / "run" / name, tmp_path / "copied")
    assert model.Model(tmp_path / "copied").predict(easy_cells(2).images).shape == (2,)
    run(tmp_path / "run", SHORT, resume=True)
    for a, b in zip(history_of(tmp_path / "run"), history_of(short), strict=True):
        assert a["validation"]["loss"] == pytest.approx(b["validation"]["loss"], rel=1e-4)
    assert model.Model(tmp_path / "run").manifest["epochs"] == 3
    assert not [p for p in (tmp_path / "run").iterdir() if p.name.startswith(".")]


@pytest.mark.slow  # killed and resumed is the same, too
def test_two_tiny_runs_give_the_same_bits(toy, tmp_path, short):
    for name, changes in (("same", {}), ("other", {"seed": 1, "epochs": 1})):
        run(tmp_path / name, dataclasses.replace(SHORT, **changes))
    first, same, other = (
        model.Model(folder).network.get_weights() for folder in (short, tmp_path / "same", tmp_path / "other")
    )
    assert all(np.array_equal(a, b) for a, b in zip(first, same, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))
    assert history_of(short)[0]["train"] == history_of(tmp_path / "same")[0]["train"]


def test_a_finished_run_resumed_changes_nothing(toy, whole):
    before = {p: p.read_bytes() for p in whole.rglob("*") if p.is_file()}
    assert run(whole, resume=True) == json.loads((whole / "manifest.json").read_text())
    assert {p: p.read_bytes() for p in whole.rglob("*") if p.is_file()} == before


@pytest.mark.slow
def test_a_constant_schedule_can_be_prolonged_and_a_cosine_cannot(toy, whole, tmp_path):
    recipe = dataclasses.replace(SHORT, schedule="constant", epochs=1)
    longer = dataclasses.replace(recipe, epochs=2)
    run(tmp_path / "run", recipe)
    run(tmp_path / "run", longer, resume=True)
    run(tmp_path / "at_once", longer)
    prolonged, at_once = history_of(tmp_path / "run"), history_of(tmp_path / "at_once")
    assert [e["train"]["loss"] for e in prolonged] == pytest.approx([e["train"]["loss"] for e in at_once], rel=1e-3)
    assert len(prolonged) == 2
    run(tmp_path / "run", recipe, resume=True)  # has more epochs than that already
    assert history_of(tmp_path / "run") == prolonged
    with pytest.raises(ValueError, match="started with epochs 3, not 4"):
        run(whole, dataclasses.replace(RECIPE, epochs=4), resume=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frozen": 99}, "frozen=99, but the backbone of EfficientNetV2B0 has 6 layers"),
        ({"only": ("LSTM",)}, "no layer of EfficientNetV2B0"),
        ({"weights": "nowhere.weights.h5"}, "nowhere.weights.h5 is missing"),
        ({"network": "AlexNet"}, "network is 'AlexNet'; choose from Linear"),
        ({"policy": "mild"}, "policy is 'mild'; choose from none"),
        ({"optimizer": "sgd"}, "optimizer is 'sgd'; choose from adamw, adam, lion"),
        ({"enhance": ("sharpen",)}, "enhance holds 'sharpen'"),
        ({"class_policies": ((9, "flips"),)}, "labels 0-7"),
        ({"sizes": ((0.5, 64),)}, "sizes must begin at share 0"),
        ({"sizes": ((0, 16),)}, "have 32 pixels or more"),
        ({"sizes": (0, 96)}, "sizes must hold pairs (share of the epochs, pixels)"),
        ({"views": 5}, "views must be 1 to 4: 5"),
        ({"class_policies": (3, "ours")}, "class_policies must hold pairs (label, policy)"),
        ({"network": "BasicCNN"}, "BasicCNN has a size of its own"),
        ({"mixup": 0.9, "cutmix": 0.9}, "odds of mixup and cutmix"),
        ({"mixup": -0.1, "cutmix": 0.0}, "odds of mixup and cutmix"),
        ({"epochs": 0, "head_epochs": 0}, "at least 1"),
        ({"dropout": 1.0}, "dropout must be at least 0 and less than 1: 1.0"),
        ({"validation": 0.0}, "validation must be between"),
    ],
)
def test_recipes_that_cannot_run(toy, tmp_path, changes, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        run(tmp_path / "new", dataclasses.replace(RECIPE, **changes))
    assert not any(tmp_path.rglob("*.h5"))


def test_refusals(toy, whole, tmp_path, monkeypatch):
    with pytest.raises(FileExistsError, match="--resume"):
        run(whole)
    with pytest.raises(ValueError, match="started with learning_rate 0.0005, not 1.0"):
        run(whole, dataclasses.replace(RECIPE, learning_rate=1.0), resume=True)
    with pytest.raises(ValueError, match="started with precision 'float32', not 'mixed_bfloat16'"):
        run(whole, resume=True, precision="mixed_bfloat16")
    shutil.copytree(whole, tmp_path / "bare", ignore=shutil.ignore_patterns("checkpoint-*"))
    with pytest.raises(ValueError, match="contains no run to resume"):
        run(tmp_path / "bare", resume=True)
    assert history_of(tmp_path / "bare") == history_of(whole)
    with pytest.raises(ValueError, match="no validation cells"):
        run(tmp_path / "new", limit=10)
    state = json.loads((whole / "checkpoint-004" / "state.json").read_text())
    state["history"].pop()  # not finished, and begun when the audit kept other cells
    state["provenance"]["kept_sha256"] = "0"
    shutil.copytree(whole, tmp_path / "other")
    (tmp_path / "other" / "checkpoint-004" / "state.json").write_text(json.dumps(state))
    with pytest.raises(ValueError, match="started with other data"):
        run(tmp_path / "other", resume=True)
    lacking = easy_cells().take(np.flatnonzero(easy_cells().labels != 5))
    with pytest.raises(ValueError, match="no cells to train on of 5 monocyte"):
        run(tmp_path / "new", cells=lacking)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(100, 99, 1))
        with pytest.raises(ValueError, match="make room"):
            run(tmp_path / "new")
    assert not (tmp_path / "new").exists() or not any((tmp_path / "new").glob("*.h5"))


@pytest.mark.slow
def test_patience_ends_a_run_and_ships_its_best_epoch(toy, tmp_path, monkeypatch):
    losses, calls = [0.9, 0.5, float("nan"), 0.6, 0.4], []

    def score(probabilities, labels):
        calls.append(labels)
        return {"accuracy": 0.5, "loss": losses[min(4, (len(calls) - 1) // 2)]}  # clean, then augmented

    monkeypatch.setattr(train, "score", score)
    recipe = dataclasses.replace(SHORT, epochs=9, patience=2)
    manifest = run(tmp_path / "run", recipe)
    assert manifest["epochs"] == 2 and len(history_of(tmp_path / "run")) == 4
    assert run(tmp_path / "run", recipe, resume=True) == manifest
    assert len(history_of(tmp_path / "run")) == 4


def test_a_temperature_is_fitted_anew_where_there_is_one_already(tmp_path, monkeypatch):
    """A prolonged run can end with the weights that it had before: twice fitted is once fitted."""
    cells, answers = easy_cells(16), np.random.default_rng(1).dirichlet(np.ones(8), 16)

    class Tempered:
        def __init__(self, folder):
            self.manifest = json.loads((folder / "manifest.json").read_text())
            self.temperature = self.manifest["temperature"]

        def predict_proba(self, images):
            found = answers ** (1 / self.temperature)
            return found / found.sum(axis=1, keepdims=True)

    monkeypatch.setattr(model, "Model", Tempered)
    (tmp_path / "manifest.json").write_text('{"temperature": 1.0}')
    fitted = []
    for _ in range(2):
        train.Run(RECIPE, tmp_path, {}, {}, {"validation": cells}, []).set_temperature()
        fitted.append(json.loads((tmp_path / "manifest.json").read_text()))
    assert fitted[0] == fitted[1] and fitted[0]["temperature"] != 1.0


@pytest.mark.parametrize(
    "optimizer, stage, changes, trained",
    [
        ("adamw", "all", {}, ["conv2d", "batch_normalization", "head"]),
        ("adam", "all", {"frozen": 3}, ["batch_normalization", "head"]),
        ("lion", "all", {"only": ("Conv2D",)}, ["conv2d", "head"]),
        ("lion", "head", {}, ["head"]),
    ],
)
def test_every_optimizer_trains_what_is_not_frozen(optimizer, stage, changes, trained):
    network, cells = toy_network(), easy_cells(16)
    recipe = dataclasses.replace(RECIPE, optimizer=optimizer, schedule="constant", **changes)
    train.freeze(network, recipe, stage)
    train.compile_for(network, recipe, stage, 10)
    assert type(network.optimizer).__name__.lower() == optimizer and network.optimizer.built
    layers = {layer.name.rstrip("_0123456789"): layer for layer in network.layers if layer.weights}
    layers.pop("dropout", None)  # its weight is the state of a generator
    before = {name: layer.get_weights() for name, layer in layers.items()}
    value = network.train_on_batch(cells.images.astype(np.float32), np.eye(8, dtype=np.float32)[cells.labels])
    assert np.isfinite(value).all()
    moved = {name for name, layer in layers.items() if not np.array_equal(before[name][0], layer.get_weights()[0])}
    assert moved == set(trained)


def test_every_optimizer_is_tried():
    (cases,) = test_every_optimizer_trains_what_is_not_frozen.pytestmark
    assert {case[0] for case in cases.args[1]} == set(optimization.OPTIMIZERS)


def test_enhancement_is_the_same_code_in_training_and_when_graded(toy, tmp_path):
    recipe = dataclasses.replace(SHORT, epochs=1, policy="none", mixup=0, cutmix=0, enhance=("clahe", "bilateral"))
    cells = easy_cells()
    run(tmp_path / "run", recipe)
    graded = model.Model(tmp_path / "run")
    assert graded.steps == ("clahe", "bilateral")
    images, _ = next(iter(train.as_dataset(train.Batches(cells, recipe, 0), 0)))
    images = np.asarray(images)
    made = {model.preprocess(i[None], graded.steps).tobytes() for i in cells.images}
    assert all(i.tobytes() in made for i in images) and not np.array_equal(images.astype(np.uint8), cells.images[:8])
    enhanced = np.stack([enhance.apply(i, graded.steps) for i in cells.images[:8]])
    plain = graded.network.predict(enhanced.astype(np.float32), verbose=0)
    assert np.allclose(graded._average(cells.images[:8], graded.views[:1]), plain, atol=1e-5)


def test_from_scratch_everything_is_trained_at_once(monkeypatch):
    """--weights none sets aside what keeps pretrained weights; what --set says comes after that."""
    taken = []
    monkeypatch.setattr(train, "train", lambda recipe, *_, **__: taken.append(recipe))
    monkeypatch.setattr(train.data, "read", lambda path: None)
    command = ["train", "--recipe", "lionia_efficientnetv2b0", "--weights", "none", "--set", "frozen=3", "--out", "x"]
    monkeypatch.setattr(sys, "argv", command)
    train.main()
    expected = dict(weights="none", head_epochs=0, frozen=3)
    assert taken == [dataclasses.replace(RECIPES["lionia_efficientnetv2b0"], **expected)]
    assert settings.from_scratch(RECIPES["spritzers_mobilenetv3small"]).only == ()
    assert settings.from_scratch(RECIPES["frozen"]) == dataclasses.replace(RECIPES["frozen"], weights="none")


@pytest.mark.parametrize("momentum, hastened", [(0.999, 0.99), (0.9, 0.9)])
def test_slow_batch_norm_is_hastened(momentum, hastened):
    network = toy_network()
    (norm,) = (layer for layer in network.layers if type(layer).__name__ == "BatchNormalization")
    norm.momentum = momentum
    train.hasten_batch_norm(network)
    assert norm.momentum == hastened


def test_batch_norm_is_hastened_from_scratch_alone(toy, tmp_path, monkeypatch, short):
    hastened = []

    def killed(*_):
        raise Killed

    monkeypatch.setattr(train, "hasten_batch_norm", hastened.append)
    monkeypatch.setattr(train.Run, "train_epoch", killed)
    monkeypatch.setattr(networks, "build", lambda name, weights=None, dropout=0.3, pixels=None: toy_network())
    for name, weights, times in (("new", "none", 1), ("on", str(short / "model.weights.h5"), 1)):
        with pytest.raises(Killed):
            run(tmp_path / name, dataclasses.replace(SHORT, weights=weights))
        assert len(hastened) == times


def test_override():
    recipe = settings.override(RECIPES["ours"], ["mixup=0.5", "policy=flips", "sizes=((0, 96),)", "patience=3"])
    assert (recipe.mixup, recipe.policy, recipe.sizes, recipe.patience) == (0.5, "flips", ((0, 96),), 3)
    for wrong in ("mixup", "colour=1", "epochs=many", "mixup=none"):
        with pytest.raises(ValueError, match="--set"):
            settings.override(RECIPES["ours"], [wrong])


@pytest.mark.parametrize("steps", [3, 8, 19])
def test_the_average_moves_however_short_an_epoch_is(steps):
    average = [np.zeros(2, np.float32), np.array(0)]  # weights and a counter
    callback = train.Average(average, horizon=10, steps=steps)
    callback.set_model(SimpleNamespace(get_weights=lambda: [np.ones(2, np.float32), np.array(7)]))
    for batch in range(steps):
        callback.on_train_batch_end(batch)
    every = min(8, steps)
    assert average[0] == pytest.approx(1 - (1 - every / 10) ** (steps // every)) and average[0].dtype == np.float32
    assert average[1] == 7 and average[1].dtype.kind == "i"


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


@pytest.mark.slow
def test_the_command_killed_and_resumed(command, tmp_path):
    """The real command, SIGKILL for the whole process group in the middle of an epoch, against a run left alone."""
    cells = easy_cells(400)
    np.savez(tmp_path / "cells.npz", images=cells.images, labels=cells.labels[:, None])
    arguments = ["--recipe", "spritzers_simple_cnn", "--data", tmp_path / "cells.npz", "--epochs", 3, "--workers", 1]
    first = command(*arguments, "--out", tmp_path / "killed")
    deadline = time.monotonic() + 120
    while not (tmp_path / "killed" / "checkpoint-001").exists():
        assert first.poll() is None and time.monotonic() < deadline, first.stdout.read()
        time.sleep(0.05)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    assert not (tmp_path / "killed" / "checkpoint-003").exists(), "the kill came too late to mean anything"
    for process in (command(*arguments, "--out", tmp_path / "killed", "--resume"),
                    command(*arguments, "--out", tmp_path / "whole")):  # fmt: skip
        output = process.communicate(timeout=120)[0]
        assert process.returncode == 0, output
    one, other = (history_of(tmp_path / name) for name in ("killed", "whole"))
    assert len(one) == len(other) == 3
    for a, b in zip(one, other, strict=True):
        assert a["train"]["loss"] == pytest.approx(b["train"]["loss"], rel=1e-3)
        assert a["validation"]["loss"] == pytest.approx(b["validation"]["loss"], rel=1e-3)
    assert model.Model(tmp_path / "killed").predict(cells.images[:8]).shape == (8,)


def test_the_command_explains_bad_data(monkeypatch, tmp_path):
    line = ["train", "--data", str(tmp_path / "none.npz"), "--out", str(tmp_path / "run")]
    monkeypatch.setattr(sys, "argv", line)
    with pytest.raises(SystemExit, match="error: .*none.npz"):
        train.main()
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_trial_of_what_ships(command, tmp_path):
    """The recipe `ours` at every size, from the ImageNet backbone, in under four minutes on two cores."""
    if not (ROOT / "data" / "training_set.npz").exists() or not networks.PRETRAINED.is_dir():
        pytest.skip("needs data/training_set.npz and data/pretrained (see docs/DATA.md)")
    started = time.monotonic()
    output = command("--limit", 400, "--epochs", 3, "--out", tmp_path / "run").communicate(timeout=600)[0]
    assert time.monotonic() - started < 240, output
    assert [entry["size"] for entry in history_of(tmp_path / "run")] == [64, 96, 112], output
    assert "epoch   3 of 3" in output and "Traceback" not in output and "cuInit" not in output
    made = model.Model(tmp_path / "run")
    assert made.manifest["pixels"] == 112 and len(made.views) == 4 and made.manifest["recipe"] == "ours"
