"""Fixtures shared by the tests. Tests that need the challenge's data skip without it and say how to get it."""

import json
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "data"


def read_npz(name: str) -> tuple[np.ndarray, np.ndarray]:
    path = DATA / name
    if not path.exists():
        pytest.skip(f"needs data/{name}, the challenge's own file (see the README, 'Data')")
    with np.load(path) as file:
        return file["images"], file["labels"]


@pytest.fixture(scope="session")
def training_set():
    """(images (13759, 96, 96, 3) uint8, labels (13759, 1) uint8) of data/training_set.npz."""
    return read_npz("training_set.npz")


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """command(*arguments) in an empty folder, 80 columns -> (exit status, what is printed, report.json or None)."""
    import build_submission

    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(build_submission, "ROOT", tmp_path / "cwd")  # so that no data of the project's is found

    def go(*arguments):
        Path("report.json").unlink(missing_ok=True)
        try:
            status = build_submission.main(list(map(str, arguments)))
        except SystemExit as error:
            status = error.code
        said = capsys.readouterr()
        report = json.loads(Path("report.json").read_text()) if Path("report.json").exists() else None
        return status, said.out + said.err, report

    return go


@pytest.fixture(scope="session")
def predictor():
    """model.Model() of the committed weights, for tests that leave it as it is."""
    import model

    return model.Model()


@pytest.fixture(scope="session")
def heldout():
    """(images (1712, 96, 96, 3) uint8, labels (1712, 1) uint8) of data/heldout.npz."""
    return read_npz("heldout.npz")
