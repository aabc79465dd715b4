"""Ensembles: the mean of the members' probabilities, whatever their networks."""

import hashlib
import json
import sys

import numpy as np
import pytest
from test_train import easy_cells

import model
from training import ensemble, networks, train


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs of unlike networks, one of which enhances its images."""
    folder = tmp_path_factory.mktemp("runs")
    for name, manifest in (("a", {"network": "Linear"}), ("b", {"network": "SimpleCNN", "enhance": ["clahe"]})):
        (folder / name).mkdir()
        weights = folder / name / "model.weights.h5"
        networks.build(manifest["network"]).save_weights(weights)
        manifest["sha256"] = hashlib.sha256(weights.read_bytes()).hexdigest()
        (folder / name / "manifest.json").write_text(json.dumps(manifest))
    return folder


def test_probabilities_are_the_mean_of_the_members(runs, tmp_path, monkeypatch):
    line = ["train", "--ensemble", str(runs / "a"), str(runs / "b"), "--out", str(tmp_path / "both")]
    monkeypatch.setattr(sys, "argv", line)
    train.main()
    both = model.Model(tmp_path / "both")
    X = easy_cells(20).images
    parts = [model.Model(runs / name).predict_proba(X) for name in "ab"]
    assert np.allclose(both.predict_proba(X), np.mean(parts, axis=0)) and not np.allclose(*parts)
    assert both.predict(X).shape == (20,)
    assert json.loads((tmp_path / "both" / "manifest.json").read_text()) == {"members": ["member-1", "member-2"]}


def test_what_cannot_be_combined(runs, tmp_path):
    with pytest.raises(ValueError, match="at least two"):
        ensemble.combine([runs / "a"], tmp_path / "one")
    with pytest.raises(FileNotFoundError, match="manifest.json is missing"):
        ensemble.combine([runs / "a", tmp_path], tmp_path / "none")
    with pytest.raises(FileExistsError, match="already there"):
        ensemble.combine([runs / "a", runs / "b"], tmp_path)
    ensemble.combine([runs / "a", runs / "b"], tmp_path / "both")
    with pytest.raises(ValueError, match="name its members"):
        ensemble.combine([runs / "a", tmp_path / "both"], tmp_path / "nested")
    assert {p.name for p in tmp_path.iterdir()} == {"both"}
