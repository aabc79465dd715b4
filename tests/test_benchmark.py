"""The benchmark: what it gives a submission, what it writes, and what it refuses."""

import json
import zipfile

import numpy as np
import pytest

from evaluation import benchmark, corruptions
from evaluation.__main__ import main

MODEL = """
import numpy as np

class Model:
    def predict(self, X):
        assert X.dtype == np.uint8 and X.shape[1:] == (96, 96, 3), X.shape
        return np.zeros(len(X), int)
"""


@pytest.fixture
def made(tmp_path):
    with zipfile.ZipFile(tmp_path / "s.zip", "w") as file:
        file.writestr("model.py", MODEL)
    images = np.random.default_rng(0).integers(0, 256, (3, 96, 96, 3), np.uint8)
    np.savez(tmp_path / "cells.npz", images=images, labels=np.zeros((3, 1), np.uint8))
    return tmp_path, lambda *words: main(["benchmark", str(tmp_path / "s.zip"), *map(str, words)])


def test_figures_of_a_fresh_process(made):
    folder, run = made
    run("--images", 5, "--heldout", folder / "cells.npz", "--json", folder / "b.json")
    figures = json.loads((folder / "b.json").read_text())
    assert (figures["images"], figures["zip_mb"]) == (5, 0.0)
    assert figures["seconds"]["total"] == pytest.approx(
        sum(figures["seconds"][part] for part in ("import", "load", "predict")), abs=0.02
    )
    assert figures["peak_memory_mb"] > 20 and "5 corrupted cells take" in benchmark.text(figures)


def test_pictures_are_the_cells_corrupted_over_and_over(made):
    folder, _ = made
    cells = np.load(folder / "cells.npz")["images"]
    expected = [corruptions.corrupt(cells[i], "composite", 3) for i in (0, 1, 2, 0)]
    assert np.array_equal(benchmark.pictures(4, folder / "cells.npz"), expected)


def test_what_is_missing_is_named(made, tmp_path):
    folder, run = made
    with pytest.raises(SystemExit, match=r"none.npz does not exist"):
        run("--heldout", folder / "none.npz")
    (folder / "s.zip").write_bytes(b"no zip")
    with pytest.raises(SystemExit, match="is no zip"):
        run("--heldout", folder / "cells.npz")


@pytest.mark.parametrize("end", ["sys.exit(0)", "os._exit(0)", "raise KeyError(1)"])
def test_a_model_that_ends_the_process_fails_in_words(made, end):
    folder, run = made
    with zipfile.ZipFile(folder / "s.zip", "w") as file:
        file.writestr("model.py", f"import os, sys\n{end}\n")
    with pytest.raises(SystemExit, match=r"s\.zip failed: (SystemExit|BrokenProcessPool|KeyError)"):
        run("--images", 1, "--heldout", folder / "cells.npz")
