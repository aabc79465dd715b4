"""Every recipe against the text that it comes from: each knob that a report states, and what fills the gaps."""

import dataclasses
import json
import re
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT

import build_submission
import model
from tests.submissions import npz
from training import augment, data, networks, optimization, settings, train
from training.recipes import RECIPES, REPORTED, Recipe

# Not stated: as plain as Keras has it.
PLAIN = {"weight_decay": 0.0, "label_smoothing": 0.0, "average_epochs": 0.0, "schedule": "constant", "patience": 5,
         "epochs": 30}  # fmt: skip
SCRATCH = PLAIN | {"weights": "none", "head_epochs": 0, "batch_size": 64}
LADDER = {"epochs": 3, "label_smoothing": 0.0, "average_epochs": 0.2}
LARGE = PLAIN | {"accumulate": 4}  # four steps a batch of 32
CONVOLUTIONS = ("Conv2D", "DepthwiseConv2D")
ENHANCED = ("illumination", "clahe", "segment")
TRANSFORMER = {"weights": "none", "head_epochs": 0, "batch_size": 64, "epochs": 60, "warmup_epochs": 5.0,
               "mixup": 0.15, "cutmix": 0.25}  # fmt: skip
B0, B4, KERAS = "EfficientNetV2B0", "EfficientNetB4", "randaugment_keras_cv"
PINNED = {  # network, pixels that it sees, frozen layers, policy, optimizer, rate, dropout; all else
    "frozen": (B0, 96, 0, "none", "adamw", 3e-4, 0.3, LADDER | {"head_epochs": 3, "epochs": 0}),
    "fine_tuned": (B0, 96, 0, "none", "adamw", 3e-4, 0.3, LADDER),
    "flips_shifts": (B0, 96, 0, "flips_shifts", "adamw", 3e-4, 0.3, LADDER),
    "randaugment": (B0, 96, 0, "randaugment", "adamw", 3e-4, 0.3, LADDER | {"epochs": 6}),
    "randaugment_cutout": (B0, 96, 0, "randaugment_cutout", "adamw", 3e-4, 0.1, LADDER | {"epochs": 6}),
    "lionia_basic_cnn": ("BasicCNN", 96, 0, "none", "adam", 1e-3, 0.3, SCRATCH),
    "lionia_convnext_base": ("ConvNeXtBase", 96, 0, "shifts", "adam", 1e-4, 0.3, PLAIN),
    "lionia_resnet50v2": ("ResNet50V2", 96, 0, "shifts", "adam", 1e-4, 0.3, PLAIN | {"class_weights": True}),
    "lionia_efficientnetv2b0": (B0, 96, 0, KERAS, "lion", 1e-4, 0.3, PLAIN),
    "lionia_adam": (B0, 96, 0, KERAS, "adam", 1e-4, 0.3, PLAIN),
    "lionia_oversample": (B0, 96, 0, KERAS, "lion", 1e-4, 0.3, PLAIN | {"oversample": True}),
    "lionia_bilateral": (B0, 96, 0, KERAS, "lion", 1e-4, 0.3, PLAIN | {"enhance": ("bilateral",)}),
    "lionia_enhanced": (B0, 96, 0, KERAS, "lion", 1e-4, 0.3, PLAIN | {"enhance": ENHANCED}),
    "lionia_cutmix": (B0, 96, 0, KERAS, "lion", 1e-4, 0.3, PLAIN | {"cutmix": 0.5}),
    "spritzers_linear": ("Linear", 96, 0, "none", "adam", 1e-3, 0.0, SCRATCH),
    "spritzers_simple_cnn": ("SimpleCNN", 96, 0, "none", "adam", 1e-3, 0.3, SCRATCH),
    "spritzers_vgg": ("HalfVGG", 96, 0, "shifts", "adam", 1e-4, 0.3, SCRATCH),
    "spritzers_mobilenetv3small": ("MobileNetV3Small", 96, 0, "shifts", "adam", 1e-4, 0.3, PLAIN),
    "spritzers_resnet101": ("ResNet101", 96, 0, "shifts", "adam", 1e-4, 0.3, PLAIN),
    "spritzers_densenet169": ("DenseNet169", 96, 0, "shifts", "adam", 1e-4, 0.3, PLAIN),
    "spritzers_efficientnetb4": (B4, 380, 124, "shifts", "adam", 1e-4, 0.3, LARGE),
    "spritzers_augmix": (B4, 380, 124, "augmix_keras_cv", "adam", 1e-4, 0.3, LARGE),
    "spritzers_randmix": (B4, 380, 124, KERAS, "adam", 1e-4, 0.3, LARGE | {"mixup": 0.5, "cutmix": 0.5}),
    "spritzers_oversample": (B4, 380, 124, KERAS, "adam", 1e-4, 0.3, LARGE | {"oversample": True}),
    "spritzers_lion": (B4, 380, 100, "augmix_randaugment_keras_cv", "lion", 1e-5, 0.3,
                       LARGE | {"head_epochs": 5, "only": CONVOLUTIONS}),
    "vit": ("ViT", 96, 0, "ours", "adamw", 5e-4, 0.1, TRANSFORMER),
    "hybrid": ("Hybrid", 96, 0, "ours", "adamw", 5e-4, 0.1, TRANSFORMER),
    "autoaugment": (B0, 96, 0, "autoaugment", "lion", 1e-4, 0.3, PLAIN),
    "higher_resolution": (B0, 224, 0, KERAS, "lion", 1e-4, 0.3, PLAIN),
    "class_augmentation": (B0, 96, 0, KERAS, "lion", 1e-4, 0.3, PLAIN | {"class_policies": tuple(
        (label, "randaugment_cutout_keras_cv") for label in (0, 2, 4, 5))}),
    "cell_segmentation": (B0, 96, 0, KERAS, "lion", 1e-4, 0.3, PLAIN | {"enhance": ("segment",)}),
}  # fmt: skip
FIGURES = {  # local, hidden, in % and as stated
    "frozen": (None, "63"),
    "fine_tuned": (None, "46-68"),
    "flips_shifts": (None, "74"),
    "randaugment": (None, "87"),
    "randaugment_cutout": (None, "90"),
    "lionia_basic_cnn": ("96.3", "28"),
    "lionia_convnext_base": ("93.0", "38"),
    "lionia_resnet50v2": ("98.1", "77"),
    "lionia_efficientnetv2b0": ("98.0", "87"),
    "spritzers_simple_cnn": (None, "25"),
    "spritzers_vgg": ("95-97", "45"),
    "spritzers_mobilenetv3small": ("95-97", "45"),
    "spritzers_efficientnetb4": (None, "65"),
    "spritzers_randmix": ("99.33", "86"),
    "spritzers_oversample": (None, "86"),
    "spritzers_lion": (None, "92"),
}


def test_every_recipe_is_pinned():
    assert set(PINNED) == set(RECIPES) - {"ours"} == set(REPORTED)
    settings.check(RECIPES["ours"])


@pytest.mark.parametrize("name", PINNED)
def test_a_recipe_is_what_its_report_says(name):
    network, pixels, frozen, policy, optimizer, rate, dropout, rest = PINNED[name]
    size = networks.NETWORKS[network].size
    assert pixels == size or network == B0
    expected = Recipe(
        network=network, frozen=frozen, policy=policy, optimizer=optimizer, learning_rate=rate, dropout=dropout,
        sizes=((0, pixels if pixels != size else 96),), **rest,
    )  # fmt: skip
    assert dataclasses.asdict(RECIPES[name]) == dataclasses.asdict(expected)
    settings.check(RECIPES[name])


def test_figures_are_those_of_the_sources():
    assert {name: (r.local, r.hidden) for name, r in REPORTED.items() if r.local or r.hidden} == FIGURES
    for name, said in REPORTED.items():
        team = {"lionia": "LionIA", "spritzers": "Spritzers"}.get(name.split("_")[0])
        assert team is None or said.source.startswith(team), name
    assert "EfficientNetB2" in REPORTED["randaugment_cutout"].source


def test_strengths_of_the_policies():
    """2 operations at magnitude 0.3 and AugMix at severity 0.2; rotations and shifts on every image."""
    layers = {name: policy.layers for name, policy in augment.POLICIES.items()}
    for name, rate, operations in (("randaugment", 1.0, 14), (KERAS, 10 / 11, 10)):
        found = [(layer.odds, layer.strength, layer.low, len(layer.operations)) for layer in layers[name]]
        assert found == [(rate, 0.3, 0.3, operations)] * 2
    (mix,) = layers["augmix_keras_cv"]
    assert (mix.odds, mix.operations, mix.strength, mix.low) == (1.0, (augment.keras_augmix,), 0.2, 0.2)
    assert layers["augmix_randaugment_keras_cv"] == (mix, *layers[KERAS])
    *two, cutout = layers["randaugment_cutout_keras_cv"]
    assert tuple(two) == layers[KERAS] and cutout == layers["randaugment_cutout"][2]
    assert (cutout.odds, cutout.operations, cutout.strength, cutout.low) == (1.0, (augment.cutout,), 0.5, 0.0)
    assert layers["shifts"] == layers["flips_shifts"] == (augment.Layer(1.0, (augment.rotate_shift,), 1.0, 1.0),)
    assert not any(augment.POLICIES[policy].always for policy in ("shifts", KERAS, "augmix_keras_cv", "autoaugment"))


@pytest.mark.slow
def test_what_the_spritzers_froze():
    network = networks.build("EfficientNetB4")
    layers = networks.backbone_layers(network)
    assert [layers[place].name for place in (99, 123)] == ["block3a_se_expand", "block3c_activation"]

    def trained(name, stage="all"):
        optimization.freeze(network, RECIPES[name], stage)
        return [layer for layer in layers if layer.trainable_weights]

    first, final = trained("spritzers_efficientnetb4"), trained("spritzers_lion")
    assert first[0].name == "block3c_se_reduce" and any("BatchNorm" in type(layer).__name__ for layer in first)
    assert final[0].name == "block3a_project_conv" and {type(layer).__name__ for layer in final} == set(CONVOLUTIONS)
    assert len(final) == sum(type(layer).__name__ in CONVOLUTIONS for layer in layers[100:]) > 100
    assert not trained("spritzers_lion", "head") and network.layers[-1].trainable_weights


def test_lion_and_adam_differ_in_nothing_else():
    lion, adam = (dataclasses.asdict(RECIPES[name]) for name in ("lionia_efficientnetv2b0", "lionia_adam"))
    assert {key: (lion[key], adam[key]) for key in lion if lion[key] != adam[key]} == {"optimizer": ("lion", "adam")}


@pytest.mark.parametrize("first", ["training.reports", "training.recipes"])
def test_the_registry_is_whole_whichever_module_comes_first(first):
    code = f"import {first}; from training.recipes import RECIPES; print(len(RECIPES))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == str(len(RECIPES)), done.stderr


def test_the_page_of_the_reports_names_every_recipe_and_no_other():
    text = (ROOT / "docs" / "REPORTS.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(\w+)`", text))
    assert set(PINNED) <= named
    prefixed = {name for name in named if name.startswith(("lionia_", "spritzers_"))}
    assert prefixed <= set(PINNED)
    for path in re.findall(r"`((?:training|evaluation|tests|results)/[\w./]+)`", text):
        assert (ROOT / path).exists(), path


LARGEST = ("ConvNeXtBase", "ResNet101", "DenseNet169", "EfficientNetB4")
WRITTEN = (("--out", "a.zip"), ("--report", "report.json"), ("--html", "report.html"), ("--logs", "logs"))


def trial(name, cells, out):
    """The trial command from random weights; returns the history of its one epoch."""
    options = ("--weights", "none", "--limit", 64, "--epochs", 1, "--data", cells, "--out", out, "--workers", 1)
    command = [sys.executable, "-m", "training.train", "--recipe", name, *map(str, options)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (entry,) = json.loads((out / "run.json").read_text())["history"]
    return entry


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.long if r.network in LARGEST else pytest.mark.slow) for n, r in RECIPES.items()],
)
def test_a_trial_is_trained_saved_read_back_and_submitted(name, tmp_path):
    """Every recipe at its real network and size: a step is trained at a rate above 0, what is read back has the loss
    that was measured before it was written, up to the file's half precision, and its zip runs and is scored."""
    entry = trial(name, npz(tmp_path / "cells.npz", 72), tmp_path / "run")
    assert np.isfinite(entry["train"]["loss"])
    predictor = model.Model(tmp_path / "run")
    assert predictor.network.layers[-1].get_weights()[1].any()  # the head's biases start at 0
    cells = train.limited(data.read(tmp_path / "cells.npz"), 64, 0)
    _, validation, _ = train.prepare(cells, RECIPES[name])
    images = model.preprocess(validation.images, predictor.steps)
    found = train.score(np.asarray(predictor.network(images, training=False)), validation.labels)
    assert found["loss"] == pytest.approx(entry["validation"]["loss"], rel=0.02)

    written = [word for option, file in WRITTEN for word in (option, str(tmp_path / file))]
    options = ["--heldout", str(npz(tmp_path / "heldout.npz", 16)), "--time-limit", "3600", *written]
    options += ["--packages", "cv2"] * bool(RECIPES[name].enhance)
    status = build_submission.main(["--source", str(tmp_path / "run"), *options])
    report = json.loads((tmp_path / "report.json").read_text())
    assert status == 0 and report["verdict"] in ("good", "runs") and "scores" in report, report["findings"]
