"""Fixtures shared by the tests. Tests that need the challenge's data skip without it and say how to get it."""

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


@pytest.fixture(scope="session")
def predictor():
    """model.Model() of the committed weights, for tests that leave it as it is."""
    import model

    return model.Model()


@pytest.fixture(scope="session")
def heldout():
    """(images (1712, 96, 96, 3) uint8, labels (1712, 1) uint8) of data/heldout.npz."""
    return read_npz("heldout.npz")
