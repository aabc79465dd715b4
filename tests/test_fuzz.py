"""Damaged files of every kind that the judge reads: a verdict or one clear line, soon, and never a false "no fault"."""

import io
import json
import random
import resource
import tempfile
import time
import zipfile
from hashlib import sha256

import numpy as np
import pytest

from grader import competition, verdict, worker
from grader.checks import check_within_limits
from grader.codes import CODES, Finding, refused
from grader.runner import Job, Limits
from grader.scoring_program import scoring
from tests.submissions import GOOD, cells, hdf5, keras_file, make_zip, model, npy, whole_h5

LOADS = model(init="self.net = keras.saving.load_model(os.path.join(os.path.dirname(__file__), {!r}))",
              top="import keras, os")  # fmt: skip
MANIFEST = {"sha256": sha256(hdf5()).hexdigest(), "network": "EfficientNetV2B0", "pixels": None, "views": 4,
            "enhance": [], "temperature": 1.25, "scores": {"validation": {"accuracy": 0.99}}}  # fmt: skip
ZIPS = [
    (GOOD, zipfile.ZIP_DEFLATED),
    ({"sub/model.py": GOOD, "sub/": ""}, zipfile.ZIP_STORED),
    ({"model.py": LOADS.format("n.keras"), "n.keras": keras_file()}, zipfile.ZIP_STORED),
    ({"model.py": LOADS.format("n.h5"), "n.h5": whole_h5()}, zipfile.ZIP_STORED),
    ({"model.py": GOOD, "weights/model.weights.h5": hdf5(), "weights/manifest.json": json.dumps(MANIFEST),
      "metadata": "description: x"}, zipfile.ZIP_STORED),
]  # fmt: skip
PARTS = [b"\0", b"\xff\xff", b"\xff" * 4, b"PK\x01\x02", b"PK\x05\x06", b"PK\6\6", b"../", b"\x09\0", b"\1\0",
         b"PK\x03\x04", b"\xff.\n", b"NaN", b"1e999", b"9" * 400, b"[" * 2000, b"'|O'", b"(9999999999,)", b"<U9",
         b"\\ud800", b"{",
         b"\x93NUMPY\x02\0", b"-1", b'"', b"command: "]  # fmt: skip


def mutate(data: bytes, rng: random.Random) -> bytes:
    """A copy with one to six bytes or pieces put over, put in, taken out, cut off or repeated."""
    for _ in range(rng.randint(1, 6)):
        at = int(rng.random() ** rng.choice([1, 4]) * len(data))  # headers stand at the beginning
        what = rng.choice(PARTS) if rng.random() < 0.5 else rng.randbytes(rng.randint(1, 8))
        how = rng.choice(["put", "put", "insert", "delete", "cut", "repeat"])
        rest = {"put": at + len(what), "delete": at + len(what), "cut": len(data)}.get(how, at)
        put = what if how in ("put", "insert") else data[at:] if how == "repeat" else b""
        data = data[:at] + put + data[rest:]
    return data


def amounts(quick: int, whole: int):
    return pytest.mark.parametrize("amount", [quick, pytest.param(whole, marks=pytest.mark.slow)])


@pytest.fixture
def frugal():
    """frugal(function, *arguments): what it returns, or its one-line ValueError; within 2 s of CPU and 500 MB."""

    def call(function, *arguments):
        start, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        try:
            return function(*arguments)
        except ValueError as error:
            assert isinstance(error.args[0], Finding) or (str(error) and "\n" not in str(error))
        finally:
            assert time.process_time() - start < 2
            assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # KiB

    return call


@amounts(30, 2000)
def test_zips_get_a_verdict_and_touch_nothing(tmp_path, monkeypatch, frugal, amount):
    rng = random.Random(amount)
    wholes = [make_zip(tmp_path / "whole.zip", *made).read_bytes() for made in ZIPS] + [b"", b"PK\x03\x04"]
    folder, inner = tmp_path / "in", tmp_path / "tmp"
    folder.mkdir()
    inner.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(inner))
    monkeypatch.chdir(folder)
    for _ in range(amount):
        (folder / "s.zip").write_bytes(mutate(rng.choice(wholes), rng))
        found = check_within_limits(folder / "s.zip")  # which are 2 s of computing and 500 MB
        assert all(f.code in CODES and str(f) for f in found)
        assert [path.name for path in folder.iterdir()] == ["s.zip"] and not list(inner.iterdir())
        if not refused(found):  # then it unpacks, whole, and model.py is Python
            with zipfile.ZipFile(folder / "s.zip") as file:
                assert file.testzip() is None
                compile(file.read("model.py"), "model.py", "exec")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "tmp", "whole.zip"]


@amounts(60, 500)
def test_predictions_are_read_alike_by_the_judge_and_the_scoring_program(tmp_path, frugal, capsys, amount):
    rng, labels = random.Random(amount), cells(50)[1]
    for name in ("in/ref", "in/res", "out"):
        (tmp_path / name).mkdir(parents=True)
    np.save(tmp_path / "in/ref/labels.npy", labels)
    np.save(tmp_path / "in/ref/classes.npy", np.array(competition.read()["classes"]))
    path = tmp_path / "in/res/predictions.npy"
    wholes = [npy(labels), npy(labels.astype(np.int8)), npy(np.eye(8)[labels]), make_zip(path, GOOD).read_bytes()]
    for _ in range(amount):
        path.write_bytes(mutate(rng.choice(wholes), rng))
        read = frugal(verdict.read_labels, path, 50, 8)
        assert (frugal(scoring.main, str(tmp_path / "in"), str(tmp_path / "out")) == 0) == (read is not None)
        if read is not None:
            assert read.shape == (50,) and read.dtype == np.int64 and 0 <= read.min() and read.max() <= 7
    assert "Traceback" not in capsys.readouterr().err


@amounts(60, 500)
def test_heldout_cells_are_read_whole_or_refused_in_a_line(tmp_path, frugal, amount):
    rng, (images, labels), wholes = random.Random(amount), cells(2), []
    for save in (np.savez, np.savez_compressed):
        buffer = io.BytesIO()
        save(buffer, images=images, labels=labels)
        wholes.append(buffer.getvalue())
    for _ in range(amount):
        (tmp_path / "cells.npz").write_bytes(mutate(rng.choice(wholes), rng))
        read = frugal(competition.read_cells, tmp_path / "cells.npz")
        if read is not None:
            assert read[0].shape == (2, 96, 96, 3) and read[0].dtype == np.uint8 and set(read[1]) <= set(range(8))


@amounts(60, 500)
def test_progress_files_give_findings_and_a_report_that_is_json(tmp_path, frugal, amount):
    rng, times = random.Random(amount), dict.fromkeys(["again", "once_more", "twice"], 0.5)
    whole = {"stage": "done", "images": 8, "errors": {"half": "ValueError: x"}, "seconds": times, "memory": times}
    crash = {
        "missing": ["cv2", "0.5"],
        "stage": "predict",
        "error": "OSError",
        "message": "No such file or directory: 'w.npy'",
        "seconds": {},
    }
    wholes, path = [json.dumps(part).encode() for part in (whole, crash)], tmp_path / "progress.json"

    def judged(notes: dict) -> list[Finding]:
        job, limits = Job(exit_code=1, notes=notes), Limits()
        expected = verdict.forecast(job, 3421, job, 8)
        json.dumps(expected, allow_nan=False)
        found = [verdict.judge_crash(job, limits), *verdict.judge_forecast(expected, limits)]
        return found + verdict.judge_probes(job, tmp_path, np.zeros(8, int), None, limits, 8)

    odd = [b"9" * 400, b"NaN", b"1e999", b"-Infinity", b"true", b"[[]]", b'"\\ud800"', b"{}", b"0", b"null"]
    for i in range(amount):
        content = rng.choice(wholes)
        path.write_bytes(mutate(content, rng) if i % 2 else content.replace(b"0.5", rng.choice(odd), rng.randint(1, 6)))
        notes = worker.read_json(path)
        if isinstance(notes, dict):
            for found in frugal(judged, notes):
                assert found.code in CODES and json.dumps(found.as_json(), allow_nan=False).isprintable()


@amounts(60, 500)
def test_manifests_are_used_or_refused_in_a_line(tmp_path, frugal, amount):
    import model as graded  # here: it imports Keras

    rng, whole = random.Random(amount), json.dumps(MANIFEST).encode()
    for _ in range(amount):
        (tmp_path / "manifest.json").write_bytes(mutate(whole, rng))
        read = frugal(graded.read_manifest, tmp_path)
        assert read is None or all(usable(read[key]) for key, usable in graded.CHECKS.items() if key in read)
        said = verdict.manifest_accuracy((tmp_path / "manifest.json").read_bytes())
        assert said is None or isinstance(said, float)
