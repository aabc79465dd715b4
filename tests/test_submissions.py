"""Opening what is measured: zips, folders, runs; what is broken is named; and models are asked as they are graded."""

import hashlib
import json
import os
import shutil
import sys

import numpy as np
import pytest
from conftest import ROOT
from small import Fake, cells
from submissions import make_zip

from evaluation import submissions

# looks at each image alone, opens its weights relative to the working directory as the course's template does
MODEL = """
import numpy as np

class Model:
    def __init__(self, folder="weights"):
        self.w = np.frombuffer(open(f"{folder}/model.weights.h5", "rb").read(), np.uint8)[:24].reshape(3, 8) / 60.0

    def predict(self, X):
        return self.predict_proba(X).argmax(axis=1)

    def predict_proba(self, X):
        z = X.mean(axis=(1, 2)) / 64 @ self.w
        z = np.exp(z - z.max(axis=1, keepdims=True))
        return (z / z.sum(axis=1, keepdims=True)).astype(np.float32)
"""


def test_zip_folder_and_run_are_one_model(tmp_path, monkeypatch):
    weights = np.random.default_rng(5).integers(0, 256, 24, dtype=np.uint8).tobytes()
    zipped = make_zip(tmp_path / "s.zip", {"model.py": MODEL, "weights/model.weights.h5": weights})
    shutil.unpack_archive(zipped, tmp_path / "submission")
    shutil.copytree(tmp_path / "submission/weights", tmp_path / "run")
    (tmp_path / "project").mkdir()
    (tmp_path / "project/model.py").write_text(MODEL)
    monkeypatch.setattr(submissions, "ROOT", tmp_path / "project")
    here, path, found = os.getcwd(), list(sys.path), []
    for target in ("s.zip", "submission", "run"):
        with submissions.open_model(tmp_path / target) as (model, hashes):
            found.append((submissions.predict(model, cells().images)[1].tolist(), hashes))
    assert found[0] == found[1] == found[2] and found[0][0][0] != found[0][0][1]
    assert os.getcwd() == here and sys.path == path


def test_a_submission_finds_its_own_modules(tmp_path):
    text = "import helper\nclass Model:\n def predict(self, X): return helper.LABEL\n"
    path = make_zip(tmp_path / "s.zip", {"model.py": text, "helper.py": "LABEL = 5"})
    with submissions.open_model(path) as (model, _):
        assert model.predict(None) == 5


def test_the_manifest_says_what_changes_predictions(tmp_path):
    (tmp_path / "model.weights.h5").write_bytes(b"new")
    assert submissions.inference(tmp_path) == {}
    views, later = {"sha256": "0" * 64, "views": 3}, {"sha256": hashlib.sha256(b"new").hexdigest(), "views": 4}
    for manifest, expected in (
        ({**views, "temperature": 0.5, "network": "ViT"}, {"views": 3, "temperature": 0.5}),
        ({**views, "next": later}, {"views": 4}),  # killed while the weights changed
        ({"views": 3}, {}),  # of nothing
    ):
        (tmp_path / "manifest.json").write_text(json.dumps(manifest))
        assert submissions.inference(tmp_path) == expected
    assert submissions.inference(ROOT / "weights")["views"] == 4


def test_an_ensemble_is_this_projects_model_with_all_its_weights(tmp_path):
    members = {f"member-{k}": {"sha256": 64 * f"{k}", "views": k} for k in (1, 2)}
    for name, manifest in members.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.weights.h5").write_text(name)
        (tmp_path / name / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match="holds neither a model.py nor a run"):  # what joins them is missing
        submissions.identify(tmp_path)
    (tmp_path / "manifest.json").write_text(json.dumps({"members": list(members)}))
    source, hashes = submissions.identify(tmp_path)
    assert source == ROOT / "model.py" and hashes["inference"] == {"members": [{"views": 1}, {"views": 2}]}
    (tmp_path / "member-2" / "model.weights.h5").write_text("other")
    assert submissions.identify(tmp_path)[1]["weights_sha256"] != hashes["weights_sha256"]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"submission/model.py": MODEL}, "neither a model.py nor"),
        ("class Model:\n def __init__(self):\n  raise OSError('no such layer')\n", "no such layer"),
        ("x = 1", "failed to load: AttributeError"),
        (None, "not a zip file"),
    ],
)
def test_what_is_no_model_is_named(tmp_path, files, message):
    (tmp_path / "s.zip").write_bytes(b"PK\x03\x04 not really")
    path = make_zip(tmp_path / "s.zip", files) if files else tmp_path / "s.zip"
    with pytest.raises(ValueError, match=message), submissions.open_model(path):
        pass


@pytest.mark.parametrize(
    ("method", "answer", "message"),
    [
        ("predict", lambda X: np.zeros((len(X), 1), int), r"predict gave int64 \(5, 1\)"),
        ("predict", lambda X: np.zeros(len(X)), "float64"),
        ("predict", lambda X: np.full(len(X), 8), "integers 0-7"),
        ("predict", lambda X: np.full(len(X), -1), "integers 0-7"),
        ("predict", lambda X: 1 / 0, "failed to .*ZeroDivisionError"),
        ("predict_proba", lambda X: np.full((5, 8), np.nan), "predict_proba gave"),
        ("predict_proba", lambda X: np.zeros((5, 7)), "predict_proba gave"),
    ],
)
def test_a_broken_contract_is_named(method, answer, message):
    broken = type("Broken", (), {method: staticmethod(answer)})()
    with pytest.raises(ValueError, match=message):
        submissions.predict(broken, np.zeros((5, 96, 96, 3), np.uint8))


def test_what_is_graded_is_what_is_measured():
    class TwoFaced(Fake):
        def predict(self, X):
            return (super().predict(X) + 1) % 8

    submissions.check_agreement(Fake(), cells().images[:8])
    with pytest.raises(ValueError, match="differ"):
        submissions.check_agreement(TwoFaced(), cells().images[:8])


def test_a_foreign_model_is_kept_quiet(tmp_path, capfd, recwarn):
    loud = "print('54/54 ===')\nimport warnings\nclass Model:\n def predict(self, X):\n"
    loud += "  print('1/1 ==='), warnings.warn('deprecated')\n  return X[:, 0, 0, 0] % 8\n"
    with submissions.open_model(make_zip(tmp_path / "s.zip", loud)) as (model, _):
        assert len(submissions.predict(model, cells().images)[0]) == 40
    said = capfd.readouterr()
    assert said.out + said.err == "" and not recwarn.list
