"""Ensembles: the mean of the members' probabilities, whatever their networks."""

import json
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT
from test_train import easy_cells

import model
from training import ensemble, train
from training.recipes import Recipe


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs of unlike networks, one of which enhances its images."""
    folder = tmp_path_factory.mktemp("runs")
    options = {"weights": "none", "head_epochs": 0, "epochs": 1, "batch_size": 16, "validation": 0.2}
    train.train(Recipe(network="BasicCNN", **options), "a", easy_cells(), folder / "a", workers=0)
    recipe = Recipe(network="SimpleCNN", enhance=("clahe",), **options)
    train.train(recipe, "b", easy_cells(), folder / "b", workers=0)
    return folder


def test_probabilities_are_the_mean_of_the_members(runs, tmp_path):
    command = [sys.executable, "-m", "training.ensemble", runs / "a", runs / "b", "--out", tmp_path / "both"]
    subprocess.run(command, cwd=ROOT, check=True)
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
