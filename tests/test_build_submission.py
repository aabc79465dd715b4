"""The command that people run: the zip, the verdicts of a rehearsal, the reports."""

import errno
import hashlib
import html
import io
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from rich.console import Console

import build_submission
from grader import competition, environment, rehearsal, report, runner, sandbox, verdict, worker
from grader.codes import CODES, Finding, finding
from tests import digests
from tests.submissions import GOOD, RIGHT, cells, hdf5, make_zip, model, npz, submission

ROOT, OWN = build_submission.ROOT, build_submission.OWN
PLAIN = ["model.py", "weights/manifest.json", "weights/model.weights.h5"]
NAMES = competition.read()["classes"]


@pytest.fixture
def source(tmp_path):
    """A folder to build from: model.py, weights/model.weights.h5 and its manifest."""
    folder = tmp_path / "source"
    (folder / "weights").mkdir(parents=True)
    (folder / "model.py").write_text(GOOD)
    (folder / "weights/model.weights.h5").write_bytes(hdf5())
    manifest = {"sha256": hashlib.sha256(hdf5()).hexdigest(), "scores": {"validation": 0.99}}
    (folder / "weights/manifest.json").write_text(json.dumps(manifest))
    return folder


@pytest.fixture
def rehearse(command, tmp_path):
    """rehearse(model.py, *options, n=128) -> what `command` gives for a zip of it and n cells."""

    def go(source, *options, n=128):
        zip_path, heldout = make_zip(tmp_path / "s.zip", source), npz(tmp_path / "cells.npz", n)
        return command("--check", zip_path, "--rehearse", "--without-isolation", "--heldout", heldout, *options)

    return go


def test_a_good_submission_is_built_scored_and_reported(command, source, tmp_path):
    status, out, made = command("--source", source, "--heldout", npz(tmp_path / "cells.npz", 128))
    assert status == 0, out
    with zipfile.ZipFile("submission.zip") as file:
        assert file.namelist() == list(made["files"]) == PLAIN
        assert file.read("model.py").decode() == GOOD
    digest = hashlib.sha256(Path("submission.zip").read_bytes()).hexdigest()
    assert made["zip"] == {"path": "submission.zip", "bytes": os.path.getsize("submission.zip"), "sha256": digest}
    assert (made["version"], made["verdict"], made["words"], made["findings"]) == (report.VERSION, "good", "GOOD", [])
    first, second, versions, *_ = out[out.index("stage 1") :].splitlines()
    assert first == "stage 1 of 2: predicting and scoring 128 images"
    assert second == "stage 2 of 2: predicting 128 of them again in other ways"
    assert versions.startswith("ran under   Python 3.11") and "TensorFlow 2.17.0, Keras 3.4.1" in out
    assert "128 are too few to forecast the memory" in " ".join(out.split()) and "isolation" in out
    assert time.time() - 600 < time.mktime(time.strptime(made["date"], "%Y-%m-%dT%H:%M:%S")) - time.timezone
    assert made["environment"]["differs"] == [] and "cv2" in made["environment"]["hidden"]
    assert made["scores"] == dict.fromkeys(worker.columns(), 1.0)
    assert np.trace(made["confusion"]) == made["heldout"]["images"] == 128
    assert made["rehearsal"]["history"][-1] == "Finished"
    assert set(made["rehearsal"]["jobs"]) == {"prediction", "scoring", "probe"}
    assert made["forecast"]["images"] == build_submission.FORECAST and made["forecast"]["seconds"] > 0
    assert made["quota"]["bytes_per_upload"] < 2 * made["zip"]["bytes"] + 100_000
    assert {path.stem for path in Path("runs/rehearsal").iterdir()} == {*worker.LOGS, "probe"}
    said = digest[:32], "accuracy 1.0000 on 128 held-out cells", "neutrophil", "GOOD", "submission.zip is written"
    assert not [words for words in said if words not in out]
    assert max(map(len, out.splitlines())) <= 80
    assert set(made) <= set(re.findall(r"^\| `(\w+)` \|", (ROOT / "docs/CHECKING.md").read_text(), re.MULTILINE))


def test_without_cells_no_accuracy_is_claimed_and_nothing_is_left_behind(command, source, tmp_path, monkeypatch):
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    status, out, made = command("--source", source)
    assert list((tmp_path / "tmp").iterdir()) == []
    assert {path.name for path in Path().iterdir()} == {"submission.zip", "report.json", "report.html", "runs"}
    assert (status, made["verdict"], made["findings"]) == (0, "runs", []) and Path("submission.zip").exists()
    assert "RUNS, ACCURACY UNKNOWN" in out and "GOOD" not in out
    assert not {"scores", "heldout", "confusion", "mistakes"} & set(made)
    assert "No accuracy was measured" in out and "--heldout NPZ" in out and "accuracy 0" not in out
    assert "No accuracy was measured" in Path("report.html").read_text()


def test_a_refused_submission_is_not_written_and_leaves_the_older_zip_alone(command, source):
    status, out, _ = command("--source", source, "--out", "model.rar")
    assert status == 1 and "ZIP06" in out and not Path("model.rar").exists()
    Path("submission.zip").write_bytes(b"older")
    (source / "model.py").write_text(model("return unknown"))
    status, out, made = command("--source", source)
    assert (status, made["verdict"]) == (1, "refused") and "PY05" in out and "REFUSED" in out
    assert "rehearsal" not in made  # it is not even unpacked
    (source / "model.py").write_text(model("raise ValueError('\\x1b]0;title\\x07<script>[red]')"))
    status, out, made = command("--source", source)
    assert status == 1 and "RUN01" in out and "model.py" in out  # the end of the log is shown
    assert made["rehearsal"]["log_end"][-1] == "ValueError: ?]0;title?<script>[red]"
    assert "\x1b]" not in out  # no control sequence reaches a terminal
    assert "[red]" in out and "<script" not in Path("report.html").read_text()  # neither is taken for markup
    assert Path("submission.zip").read_bytes() == b"older"


@pytest.mark.parametrize("spoil, words", [
    (lambda folder: (folder / "model.py").unlink(), "has no model.py"),
    (lambda folder: os.truncate(folder / PLAIN[2], 3 * 10**9), "files that are not needed (weights/model.weights"),
    (lambda folder: (folder / PLAIN[2]).rename(folder / OWN), "model.weights.h5 cannot be read"),
])  # fmt: skip
def test_a_folder_that_makes_no_submission_is_refused(command, source, spoil, words):
    spoil(source)
    status, out, _ = command("--source", source)
    assert status == 1 and words in " ".join(out.split()) and not Path("submission.zip").exists()


@pytest.mark.parametrize("arguments, words", [
    ("--check pipe", "pipe is not a file (--help"),
    ("--heldout nowhere.npz", "nowhere.npz is not a file (--help"),
    ("--heldout bad.npz", "bad.npz is not a file of images and labels"),
    ("--heldout shape.npz", "images are (4, 96, 96, 1)"),
    ("--heldout labels.npz", "labels must be integers 0 to 7"),
    ("--bundle b.zip", "--bundle needs --heldout"),
    ("--out folder", "folder cannot be written (it is not a regular file"),
    ("--html pipe", "not a regular file"),
    ("--report " + "n" * 256, "name too long"),
    ("--report nowhere/r.json", "nowhere is not a folder"),
    ("--report r.html --html r.html", "r.html cannot be written (it is another input or output)"),
    ("--heldout bad.npz --report bad.npz", "bad.npz cannot be written (it is another input or output)"),
    ("--logs bad.npz/logs", "bad.npz is not a folder"),
    ("--time-limit 0", "positive"),
    ("--profile lenient", "invalid choice"),
    ("--source nowhere", "nowhere is not a folder"),
    ("--check a.zip --bundle a.zip", "not allowed with"),
    ("--check s.zip --report r.json", "--report would have no effect with --check alone"),
    ("--check s.zip --heldout c.npz --python p", "--heldout, --python would have no effect with"),
    ("--check s.zip --rehearse --out o.zip", "--out would have no effect with --check --rehearse"),
    ("--check s.zip --rehearse --source .", "--source would have no effect with"),
    ("--rehearse", "--rehearse would have no effect without --check"),
    ("--corrupt 3 --final c.npz", "--corrupt, --final would have no effect without --bundle"),
    ("--bundle b.zip --heldout c.npz --memory-limit 1", "--memory-limit would have no effect with --bundle"),
])  # fmt: skip
def test_wrong_usage_is_2_and_one_line_that_says_what(command, source, arguments, words):
    Path("bad.npz").write_bytes(b"PK")
    os.mkfifo("pipe")
    Path("folder").mkdir()
    np.savez("shape.npz", images=np.zeros((4, 96, 96, 1), np.uint8), labels=np.zeros(4, int))
    np.savez("labels.npz", images=np.zeros((4, 96, 96, 3), np.uint8), labels=np.full(4, 8))
    status, out, _ = command(*arguments.split(), *(["--source", source] if arguments.startswith("--heldout") else []))
    assert status == 2 and words in out and "Traceback" not in out and out.count("\n") == 1
    assert not Path("submission.zip").exists()


@pytest.mark.parametrize("arguments", [
    "--check s.zip --packages cv2 --profile an2dl",
    "--check s.zip --rehearse --report r.json --python p --forecast 9",
    "--source . --out o.zip --metadata x --logs l --time-limit 9",
    "--bundle b.zip --heldout c.npz",
])  # fmt: skip
def test_options_with_effect_are_taken(command, arguments):
    Path("s.zip").touch()
    Path("c.npz").touch()
    assert build_submission.parse(arguments.split())


def test_check_judges_a_zip_without_running_it(command, tmp_path):
    path = make_zip(tmp_path / "s.zip", model(init="open('/tmp/ran-it', 'w')\nraise SystemExit"))
    status, out, made = command("--check", path)
    assert (status, made) == (0, None) and not os.path.exists("/tmp/ran-it")
    assert "NO FAULT FOUND (not run)" in out and "GOOD" not in out
    status, out, _ = command("--check", make_zip(tmp_path / "t.zip", model(top="import keras_cv")))
    assert status == 1 and "IMP01" in out and "REFUSED" in out
    status, out, _ = command("--check", tmp_path / "t.zip", "--packages", "other, keras_cv")
    assert status == 0


def test_names_are_printed_as_they_stand_on_any_terminal(command, source, monkeypatch):
    monkeypatch.setattr(build_submission, "POSIX", False)  # so that nothing is run
    odd = "x[/red]:smile:\N{MICROSCOPE}.zip"
    Path(odd).parent.mkdir()
    status, out, _ = command("--source", source, "--out", odd)
    assert status == 0 and f"{odd} is written." in out and Path(odd).exists()
    for encoding, shown in (("ascii", odd.encode("ascii", "backslashreplace")), ("utf-8", odd.encode())):
        done = subprocess.run([sys.executable, ROOT / OWN, "--check", odd], capture_output=True,
                              env={**os.environ, "PYTHONIOENCODING": encoding})  # fmt: skip
        assert done.returncode == 0 and shown in done.stdout and not done.stderr


def test_a_full_disk_leaves_no_verdict_and_nothing_torn(command, source, monkeypatch):
    full = mock.Mock(side_effect=OSError(errno.ENOSPC, "No space left on device"))
    monkeypatch.setattr(build_submission, "POSIX", False)
    Path("submission.zip").write_bytes(b"older")
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        status, out, made = command("--source", source)
    assert status == 2 and made is None and "No space left" in out and "FOUND" not in out
    assert [path.name for path in Path().iterdir()] == ["submission.zip"]
    assert Path("submission.zip").read_bytes() == b"older"
    assert command("--source", source)[0] == 0 and zipfile.is_zipfile("submission.zip")


def test_two_that_write_one_file_leave_it_whole(tmp_path):
    path, contents = tmp_path / "s.zip", [bytes([i]) * 300_000 for i in range(2)]
    path.write_bytes(contents[0])
    writers = [threading.Thread(target=lambda c=c: [build_submission.write(path, c) for _ in range(20)])
               for c in contents]  # fmt: skip
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        assert path.read_bytes() in contents
    assert [left.name for left in tmp_path.iterdir()] == ["s.zip"]


@pytest.mark.slow
def test_a_build_that_is_terminated_tidies_up(source, tmp_path):
    (source / "model.py").write_text(model("import time\ntime.sleep(60)\n" + RIGHT))
    (tmp_path / "tmp").mkdir()
    (tmp_path / "cwd").mkdir()
    command = [sys.executable, ROOT / OWN, "--source", source, "--report", "r.json"]
    process = subprocess.Popen(command, cwd=tmp_path / "cwd", env={**os.environ, "TMPDIR": str(tmp_path / "tmp")},
                               stdout=subprocess.PIPE, text=True)  # fmt: skip
    while process.poll() is None and not list((tmp_path / "tmp").glob("*/prediction/tmp")):
        time.sleep(0.1)
    time.sleep(1)  # the submission hangs by now
    process.terminate()
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 1 and "interrupted" in out
    assert not list((tmp_path / "tmp").iterdir()) and not list((tmp_path / "cwd").iterdir())


# What a rehearsal finds: (code, model.py, options). The published faults of real submissions are among them: OUT01
# (one-hot), OUT02 (shape (n, 1)), PRO01 (random augmentation), PRO05 (images taken to be in 0-1), LIM06 (all views in
# memory). What is not among the quick ones is judged below without a run.
LABELS = RIGHT.removeprefix("return ")
COMPUTED = "name = 'x'.replace('x', {!r})\n"
SEVERAL = "views = np.stack([np.float64(X)] * 8)\nreturn views[0, :, 0, 0, 0].astype(np.int64) // 32"
NOISY = "noise = np.random.normal(0, 12, len(X))\nreturn np.clip((X[:, 0, 0, 0] + noise) // 32, 0, 7).astype(int)"
REHEARSED = [
    ("RUN01", model("return cv2.resize(X, (9, 9))", top="try: import cv2\nexcept ImportError: cv2 = None"), []),
    ("RUN02", model("os._exit(0)", top="import os"), []),
    ("IMP01", model(init=COMPUTED.format("keras_cv") + "importlib.import_module(name)", top="import importlib"), []),
    ("PATH01", model(init=COMPUTED.format("w.txt") + "open(name)"), []),
    ("PATH02", model(init=COMPUTED.format("/content/w.txt") + "open(name)"), []),
    ("OUT01", model(f"return np.eye(8)[{LABELS}]"), []),
    ("OUT02", model(f"return ({LABELS})[:, None]"), []),
    ("OUT03", model(f"return ({LABELS}).astype(float)"), []),
    ("OUT04", model(f"return {LABELS} + 1"), []),
    ("OUT06", model("open(sys.argv[-1] + '/metadata', 'w')\n" + RIGHT, top="import sys"), []),
    ("LIM01", model("time.sleep(60)\n" + RIGHT, top="import time"), ["--time-limit", "1"]),
    ("LIM02", model("held = np.ones(60_000_000)\nwhile held.sum() > 5e7: pass\n" + RIGHT), ["--memory-limit", "400"]),
    ("LIM05", model("time.sleep(0.001 * len(X))\n" + RIGHT, top="import time"), ["--forecast", "500000"]),
    ("LIM06", model(SEVERAL), []),
    ("PRO01", model(NOISY), []),
    ("PRO02", model("x = X[:, 0, 0, 0] - X[:, 0, 0, 0].mean()\nreturn (x // 32).astype(int) % 8"), []),
    ("PRO03", model("return (X[:, 0, 0, 0] + 100).astype(int) // 32 % 7"), []),
    ("PRO04", model(f"labels = {LABELS}\nX[:] = 0\nreturn labels"), []),
    ("PRO05", model("return np.clip(X[:, 0, 0, 0] * 255.0 // 32, 0, 7).astype(int)"), []),
    ("PRO07", model(f"return np.array([int(x) for x in np.squeeze({LABELS})])"), []),
    ("PRO08", model(f"return 7 - {LABELS}"), []),
    ("PRO09", model(f"return ({LABELS} + 1) % 8"), []),
]  # fmt: skip
QUICK = {"RUN01", "RUN02", "OUT01", "LIM01", "LIM02", "PRO01", "PRO02", "PRO05", "PRO09"}
FAULTS = [pytest.param(*row, id=row[0], marks=[pytest.mark.slow] * (row[0] not in QUICK)) for row in REHEARSED]


@pytest.mark.parametrize("code, faulty, options", FAULTS)
def test_each_fault_of_a_rehearsal_has_its_code(rehearse, code, faulty, options):
    status, out, made = rehearse(faulty, *options)
    found = {f["code"]: f for f in made["findings"]}
    assert code in found, out
    assert status == (1 if CODES[code].level != "warning" else 0)
    assert f"{code} {found[code]['level']}" in out
    assert re.fullmatch(r"[^\n]+; on the platform, [^\n]+; [^\n]+\.", found[code]["message"])
    assert code != "RUN01" or "before that it could not import cv2, which the grader lacks" in found[code]["message"]


@pytest.mark.parametrize("labels, code", [
    (np.eye(8), "OUT01"), (np.zeros((8, 1), int), "OUT02"), (np.zeros(7, int), "OUT02"), (np.zeros(8), "OUT03"),
    (np.zeros(8, bool), "OUT03"), (np.arange(8) + 1, "OUT04"), (np.arange(8) - 1, "OUT04"),
    (np.array([None] * 8), "OUT05"), (np.arange(8).astype(np.int8), None), (np.arange(8).astype(np.uint64), None),
])  # fmt: skip
def test_labels_that_break_the_contract(tmp_path, labels, code):
    np.save(tmp_path / "p.npy", labels)
    if code is None:
        assert verdict.read_labels(tmp_path / "p.npy", 8, 8).tolist() == list(range(8))
    else:
        with pytest.raises(ValueError) as error:
            verdict.read_labels(tmp_path / "p.npy", 8, 8)
        assert error.value.args[0].code == code


@pytest.mark.parametrize("status, error, message, code, level", [
    (1, "KeyError", "'labels'", "RUN01", "error"), (0, "", "", "RUN02", "error"), (135, "", "", "LIM08", "error"),
    (1, "ModuleNotFoundError", "No module named 'keras_cv.layers'", "IMP01", "error"),
    (1, "ModuleNotFoundError", "No module named 'keras'", "RUN01", "error"),
    (1, "FileNotFoundError", "[Errno 2] No such file or directory: 'w.npy'", "PATH01", "error"),
    (1, "ValueError", "File not found: filepath=w.keras. Please ensure", "PATH01", "error"),
    (1, "FileNotFoundError", "[Errno 2] No such file or directory: '/content/w.npy'", "PATH02", "error"),
    (1, "FileNotFoundError", "[Errno 2] No such file or directory: '/app/ingested_program/w.npy'", "RUN01", "error"),
    (1, "OSError", "[Errno 28] No space left on device", "LIM03", "error"),
    (1, "URLError", "<urlopen error [Errno -3] Temporary failure in name resolution>", "NET02", "warning"),
])  # fmt: skip
def test_why_a_run_left_no_labels(status, error, message, code, level):
    job = worker.Job(exit_code=status, notes={"stage": "Model()", "error": error, "message": message})
    found = verdict.judge_crash(job, worker.Limits())
    assert (found.code, found.level) == (code, level)


def probed(folder, first, truth=None, errors=(), **answers) -> list[Finding]:
    """The findings on probes that gave the labels `first`, but for these `answers`."""
    n = len(first)
    sizes = {"again": n, "once_more": n, "half": n // 2, "shuffled": n, "alone": min(n, 4), "float32": n,
             "float64": min(n, 32), "scaled": n}  # fmt: skip
    for name, size in sizes.items():
        np.save(folder / f"{name}.npy", answers.get(name, first[:size]))
    job = worker.Job(notes={"stage": "done", "errors": dict(errors)}, exit_code=0)
    return verdict.judge_probes(job, folder, first, truth, worker.Limits(), 8)


def test_what_probe_scoring_and_forecast_say_becomes_findings(tmp_path):
    labels, limits = np.arange(64) % 8, worker.Limits()
    errors = {"changed": "half", "alone": "TypeError: x", "scaled": "y"}
    found = probed(tmp_path, labels, errors=errors, float32=7 - labels)
    assert [f.code for f in found] == ["PRO04", "PRO07", "PRO03"] and "a single image: TypeError: x" in found[1].wrong
    run = worker.Run(status="Failed", detail="Error, the output directory already contains a metadata file")
    assert [f.code for f in verdict.judge_run(run, 8, limits)] == ["OUT06"]
    for seconds, codes in ((299, []), (301, ["LIM05"])):
        expected = {"images": 9, "seconds": seconds, "memory_mb": 9, "memory_mb_per_image": 0.1}
        assert [f.code for f in verdict.judge_forecast(expected, limits)] == codes


def test_what_is_near_each_of_these_faults_is_none(rehearse):
    """All in one submission, which stays below LIM02's limit, too."""
    twin = """
        noise = np.random.default_rng(0).normal(0, 12, 1)
        importlib.import_module('x'.replace('x', 'json'))
        if np.ones(20_000_000).sum() < 0: return None
        time.sleep(0.0001 * len(X))
        labels = []
        for i in range(0, len(X), 16):
            labels.append(np.stack([np.float64(X[i : i + 16])] * 8)[0, :, 0, 0, 0].copy())
        X = 0 * X
        labels = np.clip(np.concatenate(labels) / 255.0 * 255 // 32, 0, 7).astype(int)
        labels = np.eye(8)[(labels * 3 % 8) * 3 % 8].argmax(axis=1)[:, None].reshape(-1).astype(np.int8)
        return [int(x) for x in (labels.astype(int) + 8) % 8]
        """
    status, out, made = rehearse(model(twin, top="import importlib, time"), "--memory-limit", 400)
    assert (status, made["findings"]) == (0, []), out


def test_random_augmentation_that_changes_few_labels_is_found(rehearse, tmp_path):
    """Random test-time augmentation of a good model: almost every label stays."""
    views = "noise = np.random.normal(0, 6, (5, len(X)))\nvotes = np.round((X[:, 0, 0, 0] - 16 + noise).mean(0) / 32)\n"
    images, labels = cells(128)
    images[:, 0, 0, 0] = labels * 32 + 29  # not far from the border between two classes
    np.savez(tmp_path / "near.npz", images=images, labels=labels)
    augmented = model(views + "return np.clip(votes, 0, 7).astype(int)")
    status, _, made = rehearse(augmented, "--heldout", tmp_path / "near.npz")
    assert status == 1 and "PRO01" in {f["code"] for f in made["findings"]}


@pytest.mark.parametrize("said, codes", [('{"accuracy": 1}', []), ('{"accuracy": 1.1}', ["PRO06"]), ("1.1", ["PRO06"]),
                                         ("null", [])])  # fmt: skip
def test_accuracy_far_below_the_manifests_is_a_warning(said, codes):
    manifest = f'{{"scores": {{"validation": {said}}}}}'.encode()
    found = verdict.judge_accuracy(np.diag([8] * 8), NAMES, manifest)
    assert [(f.code, f.level) for f in found] == [(code, "warning") for code in codes]


def test_every_code_is_provoked_by_a_test():
    text = "".join(path.read_text() for path in (ROOT / "tests").glob("test_*.py"))
    assert [code for code in CODES if code not in text] == []


@pytest.mark.parametrize(("probe", "n", "tipped", "expected"), [
    ("half", 64, 0, []), ("half", 64, 1, [("PRO02", "warning")]), ("half", 64, 2, [("PRO02", "error")]),
    ("alone", 4, 1, [("PRO02", "warning")]), ("float64", 32, 1, [("PRO03", "warning")]),
    ("shuffled", 400, 4, [("PRO02", "warning")]), ("shuffled", 400, 5, [("PRO02", "error")]),
    ("once_more", 400, 1, [("PRO01", "error")]),  # the same question: no rounding
])  # fmt: skip
def test_labels_that_rounding_may_tip_over(tmp_path, probe, n, tipped, expected):
    answer = (np.arange(n) < tipped).astype(np.int64)
    first = np.zeros({"half": 2 * n, "alone": 64}.get(probe, n), np.int64)
    assert [(f.code, f.level) for f in probed(tmp_path, first, **{probe: answer})] == expected


def test_a_constant_answer_to_images_in_0_to_1_says_nothing_of_the_scale(tmp_path):
    truth = np.arange(64) % 8
    truth[:24] = 1
    for scaled, codes in ((np.ones(64, np.int64), []), (truth, ["PRO05"])):
        found = probed(tmp_path, (truth + 1) % 8, truth, scaled=scaled)
        assert [f.code for f in found] == codes


def test_a_forecast_is_a_straight_line():
    memory = {"again": 10**5, "once_more": 1.1 * 10**5, "twice": 3.1 * 10**5}
    probe = worker.Job(notes={"images": 100, "seconds": {"once_more": 2.0, "twice": 3.5}, "memory": memory})
    made = verdict.forecast(probe, 1000, worker.Job(seconds=6.0, peak_memory=10**8), 100)
    assert made["seconds_per_image"] == pytest.approx(0.015) and made["seconds_load"] == pytest.approx(4.5)
    assert made["seconds"] == pytest.approx(4.5 + 1000 * 0.015)
    each = 1.9 * 10**5 * 1024 / 100 / 1e6  # less the 10,000 KiB that an equal call took
    assert made["memory_mb_per_image"] == pytest.approx(each) and made["memory_mb"] == pytest.approx(100 + 900 * each)
    job = worker.Job(notes={"seconds": {"predict": 15.0}}, seconds=20.0, peak_memory=347_440_000)
    longer = verdict.forecast(probe, 1000, job, 500)  # says more
    assert longer["seconds"] == pytest.approx(20 + 500 * 0.03) and longer["seconds_load"] == 5
    assert longer["memory_mb_per_image"] == pytest.approx(0.1)
    assert longer["memory_mb"] == pytest.approx(347.44 + 500 * 0.1)
    memory["twice"] = memory["once_more"]
    assert verdict.forecast(probe, 1000, worker.Job(seconds=6.0), 100)["memory_mb_per_image"] == 0
    assert verdict.forecast(worker.Job(notes={"images": "many"}), 1000, job, 500) == {}


@pytest.mark.slow
def test_from_very_few_pictures_only_a_time_beyond_the_limit_is_found(rehearse):
    slow = model("time.sleep(0.006 * len(X))\n" + RIGHT, top="import time")
    for source, codes in ((slow, ["LIM05"]), (model(RIGHT), [])):
        assert [f["code"] for f in rehearse(source, "--time-limit", 10, n=20)[2]["findings"]] == codes


@pytest.mark.slow
def test_from_few_pictures_the_time_of_many_is_told_to_30_percent(rehearse):
    source = model("time.sleep(0.003 * len(X))\n" + RIGHT, top="import time")
    few, many = (rehearse(source, "--forecast", 1500, n=n)[2] for n in (128, 1500))
    took = many["rehearsal"]["jobs"]["prediction"]["seconds"]
    assert few["forecast"]["seconds"] == pytest.approx(took, rel=0.3)
    assert many["forecast"]["seconds"] == pytest.approx(took, abs=0.1)


SURE = """
    def predict_proba(self, X):
        chances = np.zeros((len(X), 8))
        chances[:, 5] = 1 - np.arange(len(X))[::-1] / 10
        return chances
"""


def test_mistakes_are_shown_on_a_page_that_needs_nothing_else(rehearse):
    flawed = model(f"labels = {LABELS}\nlabels[labels == 3] = 5\nreturn labels") + SURE
    _, out, made = rehearse(flawed, n=64)
    labels = cells()[1]
    assert made["mistakes"] == [[i, 3, 5] for i in np.flatnonzero(labels == 3)]
    page = Path("report.html").read_text()
    shown = page.count("<b>immature granulocyte</b> taken for <b>monocyte</b>")
    assert shown == len(made["mistakes"]) == page.count("data:image/png;base64,")
    assert page.count('<table class="confusion">') == 1 and "<script" not in page
    assert made["confidences"] == [0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0], out
    assert re.findall(r"([\d.]+)% sure", page) == ["99.9", "90.0", "80.0", "70.0", "60.0", "50.0", "40.0"]
    assert "% sure" not in "".join(report.mistaken({**made, "confidences": []}, cells()[0]))
    parts = ["accuracy 89.06%", " UTC", "Confusion matrix", "Classes", "Mistakes: 7", "The run"]
    assert sorted(parts, key=page.index) == parts
    assert not re.search(r'(?:src|href)="(?!data:)|url\(|@import', page)
    assert made["zip"]["sha256"] in page
    for name, _ in report.facts(made):
        assert f"<dt>{name}<dd>" in page and html.escape(report.EXPLAINED[name]) in page


def test_confidences_are_probabilities_of_all_classes_or_none(tmp_path):
    chances, labels = np.full((3, 8), 0.125), np.array([7, 0, 3])
    for given, read in ((chances, [0.125] * 3), (chances * 9, []), (chances[:, :3], []), (chances + np.nan, []),
                        (np.array([object()] * 3), [])):  # fmt: skip
        np.save(tmp_path / "c.npy", given)
        assert verdict.read_confidences(tmp_path / "c.npy", labels) == read


def test_a_png_is_the_image_itself():
    import base64

    import cv2

    image = cells(1)[0][0]
    data = np.frombuffer(base64.b64decode(report.png(image).partition(",")[2]), np.uint8)
    assert (cv2.cvtColor(cv2.imdecode(data, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB) == image).all()


def test_a_foreign_zip_is_run_without_isolation_only_where_the_user_says_so(command, source, tmp_path, monkeypatch):
    monkeypatch.setattr(sandbox, "permitted", lambda python: (False, "no namespaces"))
    path = make_zip(tmp_path / "s.zip", GOOD)
    status, out, made = command("--check", path, "--rehearse")
    assert (status, made["words"]) == (0, "NO FAULT FOUND (it cannot be run on this system)")
    assert "cannot isolate a submission (no namespaces)" in out and "--without-isolation" in out
    assert command("--check", path, "--rehearse", "--without-isolation")[2]["verdict"] == "runs"
    args = build_submission.parse(["--source", str(source)])
    assert build_submission.may_run(args, Console())  # the user's own
    monkeypatch.setattr(environment, "versions", lambda python: {"numpy": None})
    with pytest.raises(ValueError, match="has no numpy: install requirements.txt for it"):
        build_submission.may_run(args, Console())


def test_a_logs_end_leaves_out_tensorflows_notes_where_there_is_more():
    notes = ["2026-01-31 09:00:00.123456: I tensorflow/core/util/port.cc:153] oneDNN custom operations are on.",
             "WARNING: All log messages before absl::InitializeLog() is called are written to STDERR"]  # fmt: skip
    for log, shown in ((notes + ["ValueError: no"], ["ValueError: no"]), (notes, notes)):
        job = worker.Job(exit_code=0, stderr="\n".join(log), notes={"errors": ["x"]})
        assert rehearsal.telling_lines(worker.Run(probe=job)) == shown


def test_folders_of_killed_rehearsals_go_and_those_of_living_ones_stay(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    here = f"an2dl-judge-{platform.node()}"
    kept = [f"{here}-{os.getppid()}-a", f"an2dl-judge-elsewhere-{ended.pid}-a", f"{here}-x", "another"]
    for name in (f"{here}-{ended.pid}-a", *kept):
        (tmp_path / name / "app").mkdir(parents=True)
    (tmp_path / f"{here}-{ended.pid}-b").symlink_to(tmp_path / "another")
    with rehearsal.workplace() as folder:
        assert folder.is_dir()
    assert {path.name for path in tmp_path.iterdir()} == {*kept, f"{here}-{ended.pid}-b"}


def test_a_closed_terminal_is_no_error(tmp_path):
    check = [sys.executable, build_submission.__file__, "--check", str(make_zip(tmp_path / "s.zip", GOOD))]
    assert subprocess.run(["sh", "-c", '"$@" >&-', "sh", *check]).returncode == 0


def test_an_interrupted_rehearsal_leaves_no_process_and_no_file(command, source, monkeypatch):
    before = set(sandbox.descendants(os.getpid()))
    (source / "model.py").write_text(model("while True: pass"))
    monkeypatch.setattr(runner, "over_limit", mock.Mock(side_effect=KeyboardInterrupt))
    status, out, made = command("--source", source)
    assert (status, made) == (1, None) and "interrupted" in out
    assert set(sandbox.descendants(os.getpid())) <= before
    assert list(Path().iterdir()) == []


# The verdict


@pytest.mark.parametrize(("codes", "asked", "ran", "scored", "words"), [
    ([], False, False, False, "NO FAULT FOUND (not run)"),
    ([], True, False, False, "NO FAULT FOUND (it cannot be run on this system)"),
    ([], True, True, False, "RUNS, ACCURACY UNKNOWN"),
    ([], True, True, True, "GOOD"),
    (["LIM06"], True, True, True, "GOOD"),
    (["PRO08"], True, True, True, "RUNS, NO BETTER THAN GUESSING"),
    (["ENV01"], True, True, True, "RUNS AND SCORES, but under x: not the grader's versions"),
    (["ENV01"], True, True, False, "RUNS, ACCURACY UNKNOWN, but under x: not the grader's versions"),
    (["RUN01", "ENV01"], True, True, False, "FAILS HERE, but under x: not the grader's versions"),
    (["RUN01"], True, True, False, "REFUSED"),
    (["OUT01", "ENV01"], True, True, False, "REFUSED, but under x: not the grader's versions"),
    (["PY02"], False, False, False, "REFUSED"),
])  # fmt: skip
def test_the_verdict_claims_no_more_than_was_seen(codes, asked, ran, scored, words):
    details = dict.fromkeys("here there each total n found name always stage error missing shape file".split(), "x")
    key, said = verdict.conclude([finding(code, **details) for code in codes], asked, ran, scored)
    assert said == words and (key == "good") == (words == "GOOD")
    assert key in report.COLOURS


@pytest.mark.parametrize("by", range(1, 8))
def test_a_shift_is_named(by):
    matrix = np.roll(np.diag(np.arange(10, 18)), by, axis=1)
    assert verdict.shift(matrix) == (by, 1.0)
    assert [f.code for f in verdict.judge_accuracy(matrix, NAMES, None)] == ["PRO09"]
    assert f"(k + {by}) % 8" in verdict.judge_accuracy(matrix, NAMES, None)[0].wrong
    assert verdict.shift(matrix + 1)[0] == by  # with mistakes of its own
    clipped = matrix.copy()
    clipped[7] = np.roll(clipped[7], -by)
    assert verdict.shift(clipped)[0] == by


def test_no_shift_is_seen_in_other_mistakes():
    diagonal, swapped = np.diag(np.arange(10, 18)), np.diag(np.arange(10, 18))[:, [1, 0, 2, 3, 4, 5, 6, 7]]
    constant, two = np.outer(np.eye(8, dtype=int)[3] * 50, np.eye(8, dtype=int)[4]), np.zeros((8, 8), int)
    two[[0, 1], [1, 2]] = 20
    for matrix in (diagonal, swapped, constant, two, diagonal[::-1], np.ones((8, 8), int)):
        assert verdict.shift(matrix) == (0, 0.0)
    assert [f.code for f in verdict.judge_accuracy(constant, NAMES, None)] == ["PRO08"]  # one class, all wrong
    assert verdict.judge_accuracy(diagonal, NAMES, None) == []


def test_memory_beyond_any_grader_is_refused(rehearse):
    status, out, made = rehearse(model(SEVERAL), "--forecast", 30_000)
    assert status == 1 and "LIM07" in {f["code"] for f in made["findings"]}, out
    expected = {**made["forecast"], "seconds": 1.0}  # whatever this machine is busy with
    known = worker.Limits(memory=10**12)  # of a grader that is known to have it
    for forecast, limits, code in ((expected, worker.Limits(), "LIM07"), (expected, known, "LIM06"),
                                   ({**expected, "memory_mb": 9000}, worker.Limits(), "LIM06")):  # fmt: skip
        assert [f.code for f in verdict.judge_forecast(forecast, limits)] == [code]


def test_a_rehearsal_under_other_versions_says_so_in_the_verdict(rehearse, tmp_path):
    environment.lay_out(tmp_path / "other", sys.executable)
    next((tmp_path / "other").rglob("tensorflow-*.dist-info")).unlink()
    status, out, made = rehearse(model(SEVERAL), "--python", tmp_path / "other/bin/python", n=64)
    assert (status, made["verdict"], [f["code"] for f in made["findings"]]) == (0, "runs", ["ENV01"]), out
    assert made["scores"]["accuracy"] == 1.0 and made["environment"]["tensorflow"] is None
    assert "64 are too few to forecast the memory" in " ".join(out.split())  # so there is no LIM06
    assert "under no TensorFlow" in made["words"] and "GOOD" not in out
    assert html.escape(made["words"]) in Path("report.html").read_text()


def test_what_the_grader_lacks_is_not_found_unless_it_is_named(rehearse):
    """Neither by a submission nor by processes that it starts."""
    names = ("cv2", "scipy", "sklearn", "PIL", "matplotlib", "h5py", "google.protobuf")
    find = f"""
import importlib, subprocess, sys
found = []
for name in {names}:
    try: found.append(importlib.import_module(name).__name__)
    except ImportError: pass
"""
    ask = f"[sys.executable, '-c', {find + 'print(found)'!r}]"
    init = find + f"raise ValueError(str(found) + subprocess.check_output({ask}, text=True))"
    _, out, made = rehearse(model(init=init), "--packages", "other,cv2,PIL")
    found = "['cv2', 'PIL', 'h5py', 'google.protobuf']"
    assert f"ValueError: {found}{found}" in made["rehearsal"]["log_end"]
    assert "--packages: other is not installed here" in out and "cv2 is not installed" not in out


# Sources


UNWANTED = {
    ".git/config": "hidden", ".venv/pyvenv.cfg": "hidden", ".env": "hidden", ".DS_Store": "hidden",
    "__pycache__/model.cpython-311.pyc": "leftover", "Thumbs.db": "leftover", "old.pyc": "leftover",
    "myenv/pyvenv.cfg": "virtual environment", "try.ipynb": "notebook",
    **{f"cells/{i}.png": "dataset of 101 pictures" for i in range(101)},
}  # fmt: skip
WANTED = ["model.py", "helpers/__init__.py", "helpers/paint.py", "net.keras", "config.json", "stain.png", "notes.md",
          "weights.npz", "table.zip", "data/means.npy"]  # fmt: skip


def test_any_folder_with_a_model_gives_all_that_is_the_users(command, tmp_path, monkeypatch):
    monkeypatch.setattr(build_submission, "POSIX", False)  # as where processes cannot be kept in: nothing is run
    mine = tmp_path / "mine"
    for name in [*WANTED, *UNWANTED]:
        (mine / name).parent.mkdir(parents=True, exist_ok=True)
        (mine / name).write_bytes(b"")
    (mine / "model.py").write_text(GOOD)
    npz(mine / "training.npz")
    np.savez(mine / "weights.npz", kernel=np.ones(3))
    make_zip(mine / "older.zip", {"folder/model.py": GOOD})
    make_zip(mine / "table.zip", {"table.csv": "1"})
    (mine / "elsewhere").symlink_to(tmp_path)
    (mine / "linked.npy").symlink_to(mine / "data/means.npy")
    (mine / "lost").symlink_to(tmp_path / "nowhere")
    contents, left = build_submission.collect(mine)
    assert sorted(contents) == sorted([*WANTED, "linked.npy"])
    for name, why in {**UNWANTED, "training.npz": "dataset", "older.zip": "submission", "elsewhere": "link",
                      "lost": "not a plain file"}.items():  # fmt: skip
        said = left.get(name) or left[f"{name.split('/')[0]}/"]
        assert why in said, (name, said)
    (mine / "net.keras").unlink()
    status, out, made = command("--source", mine, "--out", mine / "s.zip", "--report", "report.json")
    assert (status, made["verdict"]) == (0, "unknown") and "rehearsal" not in made and "GOOD" not in out
    assert "stain.png" in made["files"] and ".git/ (hidden)" in " ".join(out.split())
    assert "older.zip" in made["left_out"] and "older.zip" in Path("report.html").read_text()
    assert command("--source", mine, "--out", mine / "s.zip")[2]["left_out"]["s.zip"] == "written by this command"


# The zip as bytes


def test_the_same_files_give_the_same_bytes(source, tmp_path):
    def ordinary_zip() -> bytes:
        with zipfile.ZipFile(tmp_path / "o.zip", "w") as file:
            file.write(source / "model.py")
        return (tmp_path / "o.zip").read_bytes()

    first, ordinary = submission(source), ordinary_zip()
    for path in (source / "model.py", source / "weights/manifest.json"):
        os.utime(path, (time.time() - 86400, time.time() - 86400))
        path.chmod(0o600)
    assert submission(source) == first
    assert ordinary_zip() != ordinary  # the control: other times and modes do change an ordinary zip
    (source / "model.py").write_text(GOOD + "\n")
    assert submission(source) != first


def names_in(folder):
    return sorted(build_submission.collect(folder)[0])


def test_a_copy_of_the_project_gives_no_more_than_its_manifest_asks_for(source):
    (source / OWN).touch()
    (source / "training").mkdir()
    for name in ("__init__", "enhance", "networks", "train"):
        (source / "training" / f"{name}.py").write_text("")
    assert names_in(source) == PLAIN
    (source / "weights/manifest.json").write_text(json.dumps({"enhance": ["clahe"]}))
    assert names_in(source) == sorted([*PLAIN, "training/__init__.py", "training/enhance.py"])


def test_a_runs_folder_and_an_ensembles_make_a_submission(tmp_path):
    for member, network in (("member-1", "ViT"), ("member-2", "EfficientNetV2B0")):
        (tmp_path / member).mkdir()
        (tmp_path / member / "model.weights.h5").write_bytes(b"")
        (tmp_path / member / "manifest.json").write_text(json.dumps({"network": network, "enhance": []}))
    code = ["training/__init__.py", "training/networks.py"]
    assert names_in(tmp_path / "member-1") == sorted([*PLAIN, *code])
    assert names_in(tmp_path / "member-2") == PLAIN
    (tmp_path / "manifest.json").write_text(json.dumps({"members": ["member-1", "member-2"]}))
    of_members = [f"weights/member-{m}/{name}" for m in "12" for name in ("manifest.json", "model.weights.h5")]
    assert names_in(tmp_path) == sorted(["model.py", "weights/manifest.json", *of_members, *code])
    (tmp_path / "member-2" / "model.weights.h5").unlink()
    with pytest.raises(build_submission.Refused, match="member-2"):
        submission(tmp_path)


@pytest.mark.slow
def test_generated_pictures_are_as_clear_to_the_model_as_cells(predictor):
    """It looks four times at what it is unsure of: else the forecast of time would be of other pictures than cells."""
    cells = competition.generated_cells(64).images
    noise = np.random.default_rng(0).integers(0, 256, cells.shape, np.uint8)
    unsure = [(predictor._average(X, predictor.views[:1]).max(axis=1) < 0.7).mean() for X in (cells, noise)]
    assert unsure[0] < 0.3 < unsure[1]


def test_the_zip_holds_plain_stored_files_in_order(source):
    with zipfile.ZipFile(io.BytesIO(submission(source, metadata='the "best" one'))) as file:
        assert file.namelist() == ["metadata", *PLAIN]
        assert file.read("metadata") == b'description: "the \\"best\\" one"\n'
        for info in file.infolist():
            assert (info.compress_type, info.date_time) == (zipfile.ZIP_STORED, (1980, 1, 1, 0, 0, 0))
            assert (info.create_system, info.external_attr >> 16, info.extra) == (3, 0o100644, b"")


def test_every_python_gives_the_same_bytes(source):
    made = digests.digests(source)
    if len(made) < 2:
        pytest.skip(f"needs two versions of Python from 3.10 to 3.13, found {sorted(made)}")
    assert len(set(made.values())) == 1, made
