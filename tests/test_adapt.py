"""Weights fitted to another laboratory's cells."""

import contextlib
import io
import json
import sys
from types import SimpleNamespace

import cv2
import keras
import numpy as np
import pytest
from conftest import ROOT, read_npz
from test_train import easy_cells, toy_network

import build_submission
import model
from training import adapt, data, provenance


def command(*arguments) -> str:
    """What the command prints; SystemExit where it ends with an error."""
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(said):
        patch.setattr(sys, "argv", ["adapt", *map(str, arguments)])
        adapt.main()
    return said.getvalue()


@pytest.fixture(scope="module")
def elsewhere():
    """Cells of another laboratory, in random order: (300, 96, 96, 3), five of the classes."""
    images, labels = read_npz("jtsc.npz")
    order = np.random.default_rng(0).permutation(len(images))
    return data.Cells(images[order], labels.reshape(-1)[order].astype(int))


@pytest.fixture(scope="module")
def adapted(elsewhere, tmp_path_factory):
    """The folder that the command made of 60 of these cells, given in folders."""
    folder = tmp_path_factory.mktemp("adapt")
    for i in range(60):
        path = folder / "cells" / data.CLASSES[elsewhere.labels[i]].replace(" ", "_") / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(cv2.imencode(".png", elsewhere.images[i][..., ::-1])[1].tobytes())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(adapt, "KEPT", 8)  # of each class: enough here, and sooner
        command("--data", folder / "cells", "--out", folder / "runs/mine", "--keep", ROOT / "data/heldout.npz")
    return folder / "runs" / "mine"


@pytest.fixture(scope="module")
def toys(tmp_path_factory):
    """(folder, what the last command said): a toy fitted to bright cells, `old`, and it adapted to dark ones, `new`."""
    keras.utils.set_random_seed(3)
    folder, random = tmp_path_factory.mktemp("toys"), toy_network()
    cells = easy_cells()
    np.savez(folder / "here.npz", images=cells.images, labels=cells.labels)
    np.savez(folder / "there.npz", images=cells.images // 2, labels=cells.labels)
    (folder / "random").mkdir()
    provenance.save_half(random, folder / "random/model.weights.h5")
    manifest = {"sha256": model.sha256(folder / "random/model.weights.h5"), "views": 4, "temperature": 0.5}
    (folder / "random/manifest.json").write_text(json.dumps(manifest))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model, "build_network", toy_network)
        for name, start, out, keep in (("here", "random", "old", "none"), ("there", "old", "new", folder / "here.npz")):
            options = ("--weights", folder / start, "--out", folder / out, "--keep", keep)
            said = command("--data", folder / f"{name}.npz", *options)
    return folder, said


def test_a_toy_learns_new_cells_and_does_not_forget_the_old(toys, monkeypatch):
    monkeypatch.setattr(model, "build_network", toy_network)
    (folder, said), cells = toys, easy_cells()
    assert "80 cells: " in said and said.count("95% interval") == 2 and "cross-validated\n" in said
    assert said.count("lost: better") == 1
    old, new = model.Model(folder / "old"), model.Model(folder / "new")
    assert np.mean(old.predict(cells.images) == cells.labels) > 0.9
    assert np.mean(old.predict(cells.images // 2) == cells.labels) < 0.5
    assert np.mean(new.predict(np.concatenate([cells.images, cells.images // 2])) == np.tile(cells.labels, 2)) > 0.9
    assert {path.name for path in (folder / "new").iterdir()} == {"model.weights.h5", "manifest.json"}
    contents, _ = build_submission.collect(folder / "new")
    assert contents["weights/model.weights.h5"] == (folder / "new/model.weights.h5").read_bytes()


@pytest.mark.slow
def test_the_command_makes_a_run_that_is_better_there_and_not_worse_here(adapted, elsewhere, heldout, predictor):
    rest, new = elsewhere.take(np.arange(60, 100)), model.Model(adapted)
    before, after = (np.mean(m.predict(rest.images) == rest.labels) for m in (predictor, new))
    assert before < 0.7 and after > 0.8
    here = np.random.default_rng(1).permutation(len(heldout[0]))[:32]
    assert np.mean(new.predict(heldout[0][here]) == heldout[1][here, 0]) > 0.95


@pytest.mark.slow
def test_the_run_is_the_old_one_but_for_its_head(adapted, predictor):
    old, new = (made.network.get_weights() for made in (predictor, model.Model(adapted)))
    changed = [after.shape for before, after in zip(old, new, strict=True) if not np.array_equal(before, after)]
    assert sorted(changed) == [(8,), (1280, 8)]
    manifest, source = (json.loads((path / "manifest.json").read_text()) for path in (adapted, ROOT / "weights"))
    assert manifest["adapted_from"] == source["sha256"] and manifest["cells"] == 60
    assert all(manifest[key] == source[key] for key in ("network", "pixels", "views", "temperature"))


def test_features_and_head_say_what_the_model_says(toys, monkeypatch):
    monkeypatch.setattr(model, "build_network", toy_network)
    predictor = model.Model(toys[0] / "old")
    images = np.concatenate([easy_cells(8).images, 255 - easy_cells(8).images // 2])
    head = adapt.Head(*predictor.network.get_layer("head").get_weights())
    found = adapt.chances(adapt.features_of(predictor, images), head, len(predictor.views))
    assert 0 < np.sum(found.max(1) < model.SURE) < len(images)
    found = found ** (1 / predictor.temperature)
    found /= found.sum(1, keepdims=True)
    assert np.abs(found - predictor.predict_proba(images)).max() < 1e-3


def gauss(n: int, seed: int = 0, shift: float = 0.0):
    """((n, 2, 16) features of eight classes in two views, (n,) labels), and a head that is right where shift is 0."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 8
    features = 3 * np.eye(16)[labels][:, None] + 0.3 * rng.normal(size=(n, 2, 16))
    return features + shift * np.eye(16)[(labels + 1) % 8][:, None], labels, adapt.Head(np.eye(16, 8) * 2, np.zeros(8))


def test_a_strong_pull_gives_the_old_head_and_a_weak_one_the_cells(monkeypatch):
    monkeypatch.setattr(adapt, "STRENGTHS", (1e9, 0.01))
    features, labels, old = gauss(200, shift=5)
    kept = np.zeros((8, 16)) + 3 * np.eye(8, 16)
    strong, weak = adapt.fit(features, labels, old, kept, 0.5)
    assert np.allclose(strong.kernel, old.kernel, atol=1e-4) and np.allclose(strong.bias, old.bias, atol=1e-4)
    assert (adapt.chances(features, old, 2).argmax(1) == labels).mean() < 0.05
    assert (adapt.chances(features, weak, 2).argmax(1) == labels).mean() > 0.95
    assert ((kept @ weak.kernel + weak.bias).argmax(1) == range(8)).all()


def test_a_fit_is_the_minimum_that_its_docstring_states(monkeypatch):
    monkeypatch.setattr(adapt, "STRENGTHS", (0.3,))
    features, labels, old = gauss(16, shift=1)
    kept, temperature = 2 * np.eye(8, 16), 0.7
    (head,) = adapt.fit(features, labels, old, kept, temperature)
    scale = np.sqrt((np.concatenate([features.reshape(-1, 16), kept]) ** 2).sum(1).mean())

    def loss(head):
        logs = adapt.log_softmax((features @ head.kernel + head.bias) / temperature, axis=2)
        cost = -logs.mean(1)[np.arange(16), labels].sum()
        cost -= adapt.KEPT_WEIGHT * np.diag(adapt.log_softmax((kept @ head.kernel + head.bias) / temperature, 1)).sum()
        change = np.vstack([(head.kernel - old.kernel) * scale, head.bias - old.bias]) / temperature
        return cost + 0.3 / 2 * (change**2).sum()

    rng, least = np.random.default_rng(1), loss(head)
    for _ in range(50):
        step = adapt.Head(*(w + 0.01 * rng.normal(size=w.shape) for w in head))
        assert loss(step) > least


def test_classes_without_a_cell_stay_known():
    features, labels, old = gauss(400, shift=5)
    some = labels < 3
    kept = 3 * np.eye(8, 16)
    head = adapt.fit(features[some], labels[some], old, kept, 0.5)[-1]
    known, classes, _ = gauss(200, seed=1)
    assert (adapt.chances(known, head, 2).argmax(1) == classes)[classes > 3].mean() > 0.95


def test_copies_of_a_picture_are_never_on_both_sides():
    """Labels at random: nothing can be learnt, unless a cell's copy is in the other parts."""
    rng = np.random.default_rng(0)
    features, labels = rng.normal(size=(60, 1, 16)).repeat(2, 0), rng.integers(0, 8, 60).repeat(2)
    old, kept = adapt.Head(np.zeros((16, 8)), np.zeros(8)), np.zeros((8, 16))
    apart = adapt.cross_validate(features, labels, np.arange(60).repeat(2), old, kept, 0.5, 1)[1].mean()
    torn = adapt.cross_validate(features, labels, np.arange(120), old, kept, 0.5, 1)[1].mean()
    assert apart < 0.3 < torn


def test_shares_and_verdicts_by_hand():
    right, wrong = np.ones(30, bool), np.zeros(30, bool)
    assert adapt.share(np.arange(10) < 8) == "80.0% (95% interval 49.0% to 94.3%)"
    assert "0 cells gained, 0 lost: too few to tell" in adapt.verdict(right, right)
    assert adapt.verdict(np.arange(30) < 25, right).startswith("5 cells gained, 0 lost: too few")  # p = 2 / 2**5
    assert adapt.verdict(np.arange(30) < 24, right) == "6 cells gained, 0 lost: better"  # p = 2 / 2**6
    assert adapt.verdict(right, wrong).endswith("lost: worse, keep the old weights")


@pytest.mark.parametrize(
    "labels, said", [(np.arange(24) % 8, "24 cells of 8 classes"), (np.zeros(30, int), "30 cells of 1 classes")]
)
def test_too_few_cells_are_refused(labels, said, tmp_path, monkeypatch):
    monkeypatch.setattr(model, "Model", lambda folder: SimpleNamespace(members=()))
    np.savez(tmp_path / "cells.npz", images=np.zeros((len(labels), 96, 96, 3), np.uint8), labels=labels)
    with pytest.raises(SystemExit, match=f"error: {said} are too few"):
        command("--data", tmp_path / "cells.npz", "--out", tmp_path / "mine", "--keep", "none")
    assert not (tmp_path / "mine").exists()


def test_a_run_that_is_there_is_left_alone(tmp_path):
    with pytest.raises(SystemExit, match="already there: choose another --out"):
        command("--data", tmp_path, "--out", tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("keep", ["cells", "none"])
def test_ten_draws_of_another_laboratory_and_of_the_same(heldout, training_set, elsewhere, monkeypatch, keep):
    """87% of JTSC's other cells are right after 50, 89% after 100; PBC's own cells cost held-out ones 0.5 points."""
    predictor = model.Model()
    training = data.Cells(training_set[0], training_set[1][:, 0].astype(int))
    sets = {"jtsc": elsewhere, "own": training.take(np.arange(1000)),
            "heldout": data.Cells(heldout[0], heldout[1][:, 0].astype(int))}  # fmt: skip
    features = {name: adapt.features_of(predictor, cells.images) for name, cells in sets.items()}
    old = adapt.Head(*(np.asarray(w, float) for w in predictor.network.get_layer("head").get_weights()))
    real, memory = adapt.to_keep, adapt.to_keep(predictor, training, old, features["jtsc"])
    monkeypatch.setattr(adapt, "features_of", lambda predictor, known: known)  # computed once, above
    monkeypatch.setattr(adapt, "to_keep", lambda *a: memory if keep == "cells" else real(*a))

    def accuracy(name, head, rows=slice(None)):
        found = adapt.chances(features[name][rows], head, len(predictor.views)).argmax(1)
        return np.mean(found == sets[name].labels[rows])

    def draw(name, n, seed):
        """(accuracy on the rest after n cells, points that held-out cells lose)."""
        order = np.random.default_rng(seed).permutation(len(sets[name]))
        chosen = data.Cells(features[name][order[:n]], sets[name].labels[order[:n]])
        head = adapt.adapt(predictor, chosen, None)[0]
        return accuracy(name, head, order[n:]), 100 * (accuracy("heldout", old) - accuracy("heldout", head))

    goals = ("jtsc", 50, 0.87, 100), ("jtsc", 100, 0.89, 100), ("own", 50, 0, 0.5), ("own", 100, 0, 0.5)
    for name, n, least, most in goals:
        rest, lost = np.transpose([draw(name, n, seed) for seed in range(10)])
        print(f"{keep}: {name}, {n}: {rest.mean():.4f} of the rest (sd {rest.std():.4f});"
              f" held-out cells lose {lost.mean():.2f} points, {lost.max():.2f} at most")  # fmt: skip
        assert rest.mean() >= least and lost.mean() <= most
