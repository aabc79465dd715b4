"""Soups, ensembles and the temperature, made of tiny runs of a toy network."""

import hashlib
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT
from test_train import easy_cells, toy_network

import model
from training import compare, data, networks, soup, train
from training.recipes import Recipe

RECIPE = Recipe(weights="none", policy="flips", batch_size=8, validation=0.2)
CELLS = easy_cells()


@pytest.fixture(scope="module", autouse=True)
def toy():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model, "build_network", toy_network)
        patch.setattr(train, "draw_curves", lambda history, path, parts: path.touch())  # half a second each
        yield


def leave_run(folder, trained, **changes):
    """A folder as training leaves it after an epoch, with the weights of this network."""
    settings = {**vars(RECIPE), "recipe": "toy", "limit": None, "data": data.digest(CELLS), **changes}
    settings = json.loads(json.dumps(settings))
    scores = {"accuracy": 0.5, "loss": 1.0}
    history = [{"epoch": 0, "stage": "all", "size": 96, "seconds": 2.0, "train": scores, "validation": scores,
                "augmented_validation": scores}]  # fmt: skip
    folder.mkdir()
    (folder / "audit.json").write_text(json.dumps({"kept": 80, "removed": []}))
    train.export(trained, folder, settings, history)
    size_of = {"parameters": networks.parameters(trained), "flops": networks.flops(trained)}
    train.finish_epoch(size_of, folder, settings, history)
    return folder


def colour_network(noise: float = 0.0, seed: int = 0):
    """The toy with weights that know the cells' colour code, spoiled by noise of that deviation."""
    rng = np.random.default_rng(seed)
    network = toy_network(96)
    kernel = np.zeros((3, 3, 3, 8), np.float32)
    for bit in range(3):
        kernel[:, :, bit, bit], kernel[:, :, bit, bit + 3] = 1 / 9, -1 / 9
    code = (np.arange(8) >> np.arange(3)[:, None] & 1) * 10.0
    head = np.concatenate([code, 10 - code, np.zeros((2, 8))])
    weights = network.get_weights()
    weights[0], weights[-2] = kernel, head
    network.set_weights([w + rng.normal(0, noise, w.shape) * (w.ndim > 1) for w in weights])
    return network


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Folders by name: two good ones that differ, and one whose weights are noise."""
    folder = tmp_path_factory.mktemp("runs")
    return {
        name: leave_run(folder / name, colour_network(noise, seed))
        for name, noise, seed in (("a", 0.02, 1), ("b", 0.02, 2), ("spoiled", 30.0, 3))
    }


def weights_of(folder):
    return model.Model(folder).networks[0].get_weights()


def left_in(folder):
    return sorted(path.name for path in folder.iterdir())


def test_average_is_the_mean(runs, tmp_path):
    manifest = soup.combine([runs["a"], runs["b"]], CELLS, tmp_path / "out")
    for a, b, mean in zip(*map(weights_of, (runs["a"], runs["b"], tmp_path / "out")), strict=True):
        assert np.allclose((a + b) / 2, mean, rtol=1e-3, atol=1e-6)
    assert not all(np.array_equal(a, b) for a, b in zip(weights_of(runs["a"]), weights_of(runs["b"]), strict=True))
    made = manifest["soup"]["ingredients"]
    assert [part["run"] for part in made] == ["a", "b"] and all(part["used"] for part in made)
    assert made[1]["sha256"] == hashlib.sha256((runs["b"] / "model.weights.h5").read_bytes()).hexdigest()
    assert made[1]["settings"]["policy"] == "flips" and manifest["epochs_done"] == 2
    assert left_in(tmp_path) == ["out"]
    assert left_in(tmp_path / "out") == ["audit.json", "manifest.json", "model.weights.h5", "run.json"]


def test_average_includes_batch_norm_statistics(runs, tmp_path):
    network = colour_network()
    network.layers[3].moving_mean.assign(np.full(8, 4.0))
    leave_run(tmp_path / "c", network)
    soup.combine([runs["a"], tmp_path / "c"], CELLS, tmp_path / "out")
    assert np.allclose(model.Model(tmp_path / "out").networks[0].layers[3].moving_mean, 2.0)


def test_a_run_with_itself_predicts_the_same(runs, tmp_path):
    soup.combine([runs["a"], runs["a"]], CELLS, tmp_path / "out")
    both = [model.Model(folder).predict_proba(CELLS.images) for folder in (runs["a"], tmp_path / "out")]
    assert np.allclose(*both, atol=1e-6)


def test_views_are_those_asked_for(runs, tmp_path):
    manifest = soup.combine([runs["a"]], CELLS, tmp_path / "four", views=4)
    assert manifest["views"] == 4 and model.Model(tmp_path / "four").views == model.VIEWS
    assert soup.combine([tmp_path / "four", runs["b"]], CELLS, tmp_path / "one")["views"] == 1
    soup.combine([tmp_path / "one"], CELLS, tmp_path / "copy", views=2)
    one, copy = (json.loads((tmp_path / name / "run.json").read_text()) for name in ("one", "copy"))
    assert one == copy and copy["recipe"] == "average of four, b"
    with pytest.raises(ValueError, match="name at least two runs, or one with"):
        soup.combine([tmp_path / "four"], CELLS, tmp_path / "none")


def test_the_scores_are_those_of_what_was_written(runs, tmp_path):
    manifest = soup.combine([runs["a"], runs["spoiled"]], CELLS, tmp_path / "out", "ensemble")
    _, validation, _ = train.prepare(CELLS, RECIPE, None)
    answers = model.Model(tmp_path / "out").predict_proba(validation.images)
    likelihood = answers[np.arange(len(validation)), validation.labels]
    said = manifest["scores"]["validation"]
    assert said["accuracy"] == np.mean(answers.argmax(axis=1) == validation.labels)
    assert said["loss"] == pytest.approx(-np.log(np.clip(likelihood, 1e-7, 1)).mean(), rel=1e-4)


def test_greedy_leaves_the_spoiled_run_out(runs, tmp_path):
    folders = [runs["spoiled"], runs["a"], runs["b"]]
    manifest = soup.combine(folders, CELLS, tmp_path / "out", "greedy")
    assert [part["used"] for part in manifest["soup"]["ingredients"]] == [False, True, True]
    for a, b, mean in zip(*map(weights_of, (runs["a"], runs["b"], tmp_path / "out")), strict=True):
        assert np.allclose((a + b) / 2, mean, rtol=1e-3, atol=1e-6)
    assert manifest["scores"]["validation"]["accuracy"] == 1
    plain = soup.combine(folders, CELLS, tmp_path / "plain")
    assert plain["scores"]["validation"]["accuracy"] < 1  # the spoiled run does spoil


def test_ensemble_averages_the_probabilities(runs, tmp_path):
    folders = [runs["a"], runs["spoiled"]]
    manifest = soup.combine(folders, CELLS, tmp_path / "two", "ensemble")
    apart = [model.Model(folder).predict_proba(CELLS.images) for folder in folders]
    assert np.allclose(model.Model(tmp_path / "two").predict_proba(CELLS.images), np.mean(apart, axis=0), atol=1e-5)
    assert list(manifest["members"]) == ["member-2.weights.h5"]
    assert (tmp_path / "two" / "member-2.weights.h5").read_bytes() == (runs["spoiled"] / soup.FIRST).read_bytes()
    run = json.loads((tmp_path / "two" / "run.json").read_text())
    alone = json.loads((runs["a"] / "run.json").read_text())
    assert run["parameters"] == 2 * alone["parameters"] and run["flops"] == 2 * alone["flops"] > 0
    three = soup.combine([tmp_path / "two", runs["b"]], CELLS, tmp_path / "three", "ensemble")
    assert list(three["members"]) == ["member-2.weights.h5", "member-3.weights.h5"]
    with pytest.raises(ValueError, match="cannot be averaged"):
        soup.combine([tmp_path / "two", runs["b"]], CELLS, tmp_path / "four")


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_temperature_is_recovered(temperature):
    """Labels drawn from softmax(z), probabilities given as softmax(z T): T brings them back."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (40000, 8))
    chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = (chances.cumsum(axis=1) < rng.random((len(chances), 1))).sum(axis=1).clip(0, 7)
    wrong = np.exp(logits * temperature)
    wrong = wrong / wrong.sum(axis=1, keepdims=True)
    assert soup.fit_temperature(wrong, labels) == pytest.approx(temperature, rel=0.03)
    assert np.array_equal(soup.at_temperature(wrong, temperature).argmax(axis=1), wrong.argmax(axis=1))
    assert np.allclose(soup.at_temperature(wrong, temperature), chances)


def test_calibration_of_one_run(runs, tmp_path):
    network = colour_network(0.02, 1)
    weights = network.get_weights()
    network.set_weights([*weights[:-2], weights[-2] * 0.2, weights[-1]])  # right, and far too modest
    modest = leave_run(tmp_path / "modest", network)
    manifest = soup.combine([modest], CELLS, tmp_path / "out", calibrate=True)
    assert manifest["temperature"] < 0.9
    assert (tmp_path / "out" / soup.FIRST).read_bytes() == (modest / soup.FIRST).read_bytes()
    assert (tmp_path / "out" / "run.json").read_bytes() == (modest / "run.json").read_bytes()
    before, after = model.Model(modest), model.Model(tmp_path / "out")
    assert after.temperature == manifest["temperature"]
    assert np.array_equal(before.predict(CELLS.images), after.predict(CELLS.images))
    _, validation, _ = train.prepare(CELLS, RECIPE, None)
    losses = [train.score(m.predict_proba(validation.images), validation.labels)["loss"] for m in (before, after)]
    assert losses[1] < losses[0]
    assert manifest["scores"]["validation"]["loss"] == pytest.approx(losses[1], rel=1e-3)
    again = soup.combine([tmp_path / "out"], CELLS, tmp_path / "again", calibrate=True)
    assert again["temperature"] == pytest.approx(manifest["temperature"])  # from the start, not on top of the other


def test_a_run_that_saw_the_validation_cells_takes_its_temperature_from_another(runs, tmp_path):
    seen = tmp_path / "seen"
    shutil.copytree(runs["b"], seen)
    manifest = json.loads((seen / "manifest.json").read_text())
    tainted = manifest | {"settings": manifest["settings"] | {"validation_too": True}}
    for changed in (manifest | {"started_from": tainted}, tainted):  # it makes no difference which stage saw them
        (seen / "manifest.json").write_text(json.dumps(changed))
        for kind, calibrate in (("average", True), ("greedy", False)):
            with pytest.raises(ValueError, match="trained on the validation cells too"):
                soup.combine([runs["a"], seen], CELLS, tmp_path / "out", kind, calibrate)
    with pytest.raises(ValueError, match="has no temperature"):
        soup.combine([seen], CELLS, tmp_path / "out", temperature_of=runs["a"])
    fitted = soup.combine([runs["a"]], CELLS, tmp_path / "fitted", calibrate=True)
    taken = soup.combine([seen], CELLS, tmp_path / "out", temperature_of=tmp_path / "fitted")
    assert taken["temperature"] == fitted["temperature"] == model.Model(tmp_path / "out").temperature
    assert taken["calibration"] == {"temperature_of": fitted["sha256"]}
    assert set(fitted["scores"]) == {"validation", "augmented_validation"}
    assert set(taken["scores"]) == {"seen_validation", "seen_augmented_validation"}
    both = soup.combine([runs["a"], seen], CELLS, tmp_path / "both")
    assert train.saw_validation(both) and set(both["scores"]) == set(taken["scores"])
    assert compare.make_row(tmp_path / "both")["validation"] is None
    with pytest.raises(ValueError, match="trained on the validation cells too"):
        soup.combine([tmp_path / "both"], CELLS, tmp_path / "again", calibrate=True)
    manifest["settings"]["seed"] = tainted["settings"]["seed"] = 7
    (seen / "manifest.json").write_text(json.dumps(manifest | {"temperature": 2.0}))
    with pytest.raises(ValueError, match="differ in seed"):
        soup.combine([runs["a"]], CELLS, tmp_path / "other", temperature_of=seen)
    (seen / "manifest.json").write_text(json.dumps(tainted))  # a run on all cells, whatever its split
    both = soup.combine([runs["a"], seen], CELLS, tmp_path / "other", temperature_of=tmp_path / "fitted")
    assert both["temperature"] == fitted["temperature"] and set(both["scores"]) == set(taken["scores"])
    tainted["settings"]["data"] = "0"
    (seen / "manifest.json").write_text(json.dumps(tainted))
    with pytest.raises(ValueError, match="differ in data"):
        soup.combine([runs["a"], seen], CELLS, tmp_path / "third")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 1}, "differ in seed"),
        ({"validation": 0.1}, "differ in validation"),
        ({"data": "0"}, "differ in data"),
        ({"limit": 50}, "differ in limit"),
        ({"enhance": ["clahe"]}, "enhance of"),
        ({"pixels": 112}, "see images at other sizes"),
        ({"network": "SimpleCNN"}, "network of"),
    ],
)
def test_runs_that_do_not_fit_are_refused(runs, tmp_path, changes, message):
    other = tmp_path / "other"
    shutil.copytree(runs["b"], other)
    manifest = json.loads((other / "manifest.json").read_text())
    for part in (manifest, manifest["settings"]):
        part.update({key: value for key, value in changes.items() if key in part or key == "pixels"})
    (other / "manifest.json").write_text(json.dumps(manifest))
    for kind in soup.KINDS:
        with pytest.raises(ValueError, match=message):
            soup.combine([runs["a"], other], CELLS, tmp_path / "out", kind)
    assert left_in(tmp_path) == ["other"]


def test_refusals_leave_nothing(runs, tmp_path):
    a, b = runs["a"], leave_run(tmp_path / "b", colour_network())
    with pytest.raises(ValueError, match="at least two"):
        soup.combine([a], CELLS, tmp_path / "out")
    with pytest.raises(ValueError, match="other cells"):
        soup.combine([a, b], easy_cells(88), tmp_path / "out")
    with pytest.raises(FileExistsError, match="already there"):
        soup.combine([a, b], CELLS, tmp_path / "b")
    with pytest.raises(ValueError, match="no training run"):
        soup.combine([a, tmp_path / "none"], CELLS, tmp_path / "out")
    audit = (b / "audit.json").read_text()
    (b / "audit.json").write_text(json.dumps({"kept": 79, "removed": [{"index": 5}]}))
    with pytest.raises(ValueError, match="removes other cells"):
        soup.combine([a, b], CELLS, tmp_path / "out")
    (b / "audit.json").unlink()
    with pytest.raises(ValueError, match="audit.json is missing"):
        soup.combine([a, b], CELLS, tmp_path / "out")
    (b / "audit.json").write_text(audit)
    whole = (b / soup.FIRST).read_bytes()
    (b / soup.FIRST).write_bytes(whole[:-1])
    with pytest.raises(ValueError, match="truncated, or altered"):
        soup.combine([a, b], CELLS, tmp_path / "out")
    (b / soup.FIRST).unlink()
    with pytest.raises(ValueError, match="is missing"):
        soup.combine([a, b], CELLS, tmp_path / "out")
    (b / "manifest.json").write_text('{"sha256": "0", "settings": {}}')
    with pytest.raises(ValueError, match="not one of training.train"):
        soup.combine([a, b], CELLS, tmp_path / "out")
    assert left_in(tmp_path) == ["b"]


def test_interrupted_leaves_nothing(runs, tmp_path, monkeypatch):
    def stop(network, path):
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "save_half", stop)
    with pytest.raises(KeyboardInterrupt):
        soup.combine([runs["a"], runs["b"]], CELLS, tmp_path / "out")
    assert left_in(tmp_path) == []


def test_the_command_explains_what_is_wrong(tmp_path):
    command = [sys.executable, "-m", "training.soup", "a", "b", "--out", tmp_path / "out", "--data", tmp_path / "none"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.startswith("error: ") and "Traceback" not in done.stderr
