"""Scores on another laboratory's cells, which may lack some classes."""

import json

import numpy as np

from evaluation import laboratory
from evaluation.__main__ import main
from training import data


class Fixed:
    def __init__(self, labels):
        self.labels = np.array(labels)

    def predict(self, X):
        return self.labels[: len(X)]


def test_scores_by_hand():
    cells = data.Cells(np.zeros((4, 96, 96, 3), np.uint8), np.array([1, 1, 6, 6]))
    found = laboratory.score(Fixed([1, 0, 1, 1]), cells)
    assert found["cells"] == 4 and found["accuracy"] == 0.25
    assert list(found["classes"]) == ["eosinophil", "neutrophil"]  # classes without cells are left out
    assert found["classes"]["eosinophil"] == {"cells": 2, "recall": 0.5, "named": {"basophil": 1, "eosinophil": 1}}
    assert found["classes"]["neutrophil"] == {"cells": 2, "recall": 0.0, "named": {"eosinophil": 2}}


def test_the_command_names_the_commonest_mistake(tmp_path, monkeypatch, capsys):
    np.savez(tmp_path / "other.npz", images=np.zeros((4, 96, 96, 3), np.uint8), labels=np.array([1, 1, 6, 6]))
    predictor = Fixed([1, 0, 1, 1])
    predictor.manifest = {"sha256": "s"}
    monkeypatch.setattr("model.Model", lambda folder: predictor)
    main(["laboratory", str(tmp_path / "other.npz"), "--json", str(tmp_path / "l.json")])
    found = json.loads((tmp_path / "l.json").read_text())
    assert "25.00% named rightly" in capsys.readouterr().out and found["provenance"]["weights_sha256"] == "s"
    assert "| eosinophil | 2 | 50.00 | basophil 1, eosinophil 1 |" in laboratory.table(found)
    text = laboratory.sentence(found)
    assert "Of 4 cells" in text and "25.00%" in text and "neutrophil is taken for eosinophil (2 of 2)" in text
