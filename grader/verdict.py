"""Turns the results of a rehearsal into findings, with the codes of codes.py, and a verdict.

This code runs outside the sandbox on files that untrusted code may have written: it unpickles nothing and checks every
type and shape.
"""

import errno
import json
import math
import os
import re
import stat
import statistics
from pathlib import Path

from grader.codes import Finding, finding, refused
from grader.source import ELSEWHERE, GRADER_PACKAGES
from grader.worker import Job, Limits, Run

MB = 1e6
TOLERANCE = 0.01  # share of labels, or one label, that rounding may change at other batch sizes: only a warning
GAP = 0.02  # an accuracy this far below the manifest's gets a warning
GROWTH = 1.0, 36  # MB per image, and multiple of an image's bytes: above both, memory is held for all images at once
BEYOND = 16e3  # MB that no known grader gives to one submission
# Error messages of Python, requests and Keras if there is no network.
NETWORK = re.compile(
    "gaierror|URLError|URL fetch failure|Network is unreachable|Name or service not known|ConnectionError"
    "|Connection refused|Temporary failure in name resolution|the network is blocked"
)
SHIFTED = 0.5  # mean over the classes of the share of labels with the same shift; more than this is no chance


def load(path: Path, most: float):
    """Load an array from an untrusted .npy. Raises ValueError if it is no array or has more than `most` bytes."""
    import numpy as np

    try:
        info = os.lstat(path)
        if not stat.S_ISREG(info.st_mode) or info.st_size > most:
            raise ValueError("not a plain file of labels")  # a link could lead to this machine's own files
        with open(path, "rb") as file:
            return np.lib.format.read_array(file, allow_pickle=False)
    except Exception as error:  # numpy raises exceptions of many types on damaged files
        raise ValueError(str(error) or type(error).__name__) from None


def read_confidences(path: Path, labels) -> list[float]:
    """The probability (0-1) of each of the labels (n,), from an untrusted .npy (n, classes); [] if it is invalid."""
    try:
        found = load(path, 1e6)[range(len(labels)), labels].astype(float).round(4)
    except (ValueError, IndexError, TypeError):
        return []
    return found.tolist() if found.shape == labels.shape and ((found >= 0) & (found <= 1)).all() else []


def read_labels(path: Path, n: int, classes: int):
    """Labels (n,) int64 from an untrusted .npy. If they break the contract, raises ValueError(Finding)."""
    import numpy as np

    try:
        labels = load(path, 1000 * n + 1e6)
    except ValueError as error:
        raise ValueError(finding("OUT05", why=str(error))) from None
    if labels.shape == (n, classes):
        raise ValueError(finding("OUT01", shape=str(labels.shape)))
    if labels.shape != (n,):
        raise ValueError(finding("OUT02", shape=str(labels.shape), n=n))
    if not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(finding("OUT03", dtype=str(labels.dtype)))
    if n and not (labels.min() >= 0 and labels.max() < classes):
        raise ValueError(finding("OUT04", low=int(labels.min()), high=int(labels.max()), last=classes - 1))
    return labels.astype(np.int64)


def judge_job(job: Job, name: str, limits: Limits) -> list[Finding]:
    """Findings on any job: limits exceeded, files changed."""
    passed = {
        "time": ("LIM01", f"{limits.seconds:g}"),
        "memory": ("LIM02", f"{limits.memory / MB:.0f} MB" if limits.memory else "what this machine has"),
        "disk": ("LIM03", f"{limits.disk / MB:.0f}"),
        "processes": ("LIM04", limits.processes),
    }
    found = [finding("SAF01", name=path) for path in job.changed[:3]]
    if stopped := job.stopped or ("memory" if job.exit_code == 137 else None):
        code, limit = passed[stopped]
        found.append(finding(code, job=name, limit=limit))
    return found


def note(notes: dict, key: str) -> str:
    """A text from untrusted notes, cut to 1000 characters; "" for anything but text."""
    value = notes.get(key)
    return value[:1000] if isinstance(value, str) else ""


def judge_crash(job: Job, limits: Limits) -> Finding:
    """Why a job that exceeded no limit left no labels, from its exit code and its notes."""
    stage, error, message = (note(job.notes, key) for key in ("stage", "error", "message"))
    if not error and job.exit_code == 135:
        return finding("LIM08", stage=stage or "start")
    if not error:
        return finding("RUN02", stage=stage or "start", status=job.exit_code)
    if f"[Errno {errno.ENOSPC}]" in message:
        return finding("LIM03", limit=f"{limits.disk / MB:.0f}")
    if NETWORK.search(f"{error}: {message}"):
        return finding("NET02", stage=stage, error=f"{error}: {message}")
    module = re.search(r"No module named '(\w+)", message)
    if error == "ModuleNotFoundError" and module and module[1] not in GRADER_PACKAGES:
        return finding("IMP01", file="the submission", at="", name=module[1])
    path = re.search(r"No such file or directory: '([^']+)'|File not found: filepath=(\S+?)\.? ", message + " ")
    name = path and (path[1] or path[2])
    if name and not os.path.isabs(name):
        return finding("PATH01", "error", file="the submission", at="", name=name)
    if name and not name.startswith(ELSEWHERE) and "/app/ingested_program/" not in name:
        return finding("PATH02", file="the submission", at="", name=name)
    return finding("RUN01", stage=stage, error=f"{error}: {message}", missing=caught(job.notes))


def caught(notes: dict) -> str:
    """A phrase on the modules whose import failed before a crash, from untrusted notes; "" for none."""
    given = notes.get("missing") if isinstance(notes.get("missing"), list) else []
    names = dict.fromkeys(name.split(".")[0] for name in given[:100] if isinstance(name, str))
    return f"; before that it could not import {', '.join(names)}, which the grader lacks" if names else ""


def judge_run(run: Run, n: int, limits: Limits) -> list[Finding]:
    """Findings on the prediction and scoring jobs for `n` images."""
    job = run.prediction
    found = judge_job(job, "prediction", limits)
    if job.stopped:
        return found
    if "metadata file" in run.detail:
        found.append(finding("OUT06"))
    elif job.notes.get("error") or not os.path.lexists(run.predictions):
        found.append(judge_crash(job, limits))
    else:
        try:
            read_labels(run.predictions, n, len(run.classes))
        except ValueError as error:
            found.append(error.args[0])
    if run.status == "Failed" and not found:
        scoring = judge_job(run.scoring, "scoring", limits)
        last = (run.scoring.stderr.strip().splitlines() or [""])[-1]
        found += scoring or [finding("SCO01", why=f"{run.detail}{': ' if last else ''}{last}")]
    return found


def read_probes(folder: Path, errors: dict, n: int, classes: int) -> tuple[dict, list[Finding]]:
    """{probe: labels} of the probes that returned labels, and the findings on the others."""
    asked = {"again": ("a second call", n), "once_more": ("a third call", n), "half": ("fewer images", n // 2),
             "shuffled": ("shuffled images", n), "alone": ("a single image", min(4, n)),
             "float32": ("float32 images", n), "float64": ("float64 images", min(32, n)),
             "scaled": ("images in 0-1", n)}  # fmt: skip
    labels, found = {}, []
    for name, (what, size) in asked.items():
        if name not in errors:
            try:
                labels[name] = read_labels(folder / f"{name}.npy", size, classes)
            except ValueError as error:
                found.append(finding("PRO07", what=what, error=error.args[0].wrong))
        elif name != "scaled":
            found.append(finding("PRO07", what=what, error=note(errors, name)))
    return labels, found


def judge_probes(job: Job, folder: Path, first, truth, limits: Limits, classes: int) -> list[Finding]:
    """Findings on the probe job. `first`: labels of the same images in the scored run; `truth`: true ones, or None."""
    found = judge_job(job, "probing", limits)
    if job.stopped:
        return found
    if job.notes.get("stage") != "done":
        return [*found, judge_crash(job, limits)]
    errors = job.notes.get("errors") if isinstance(job.notes.get("errors"), dict) else {}
    if "changed" in errors:
        found.append(finding("PRO04"))
    labels, failed = read_probes(folder, errors, len(first), classes)
    found += failed

    def differ(code: str, names: list[str], reference, tolerance: float = TOLERANCE, **details) -> list[Finding]:
        """A finding if one of these probes has other labels than `reference`; the first that has."""
        for name in (name for name in names if name in labels):
            tipped, asked = int((labels[name] != reference[: len(labels[name])]).sum()), len(labels[name])
            if tipped:
                level = "error" if tipped > max(tolerance * asked, tolerance > 0) else "warning"
                return [finding(code, level, share=f"{tipped / asked:.1%}", **details)]
        return []

    if "again" in labels:
        found += (
            differ("PRO01", ["once_more"], labels["again"], 0.0)
            or differ("PRO02", ["shuffled", "alone", "half"], labels["again"])
            or differ("PRO01", ["again"], first)
            or differ("PRO03", ["float32"], labels["again"], dtype="float32")
            + differ("PRO03", ["float64"], labels["again"], dtype="float64")
        )
    if truth is not None and "scaled" in labels:
        plain, scaled = float((first == truth).mean()), float((labels["scaled"] == truth).mean())
        constant = float((truth == statistics.mode(truth.tolist())).mean())
        if scaled > max(plain + 0.2, constant):
            found.append(finding("PRO05", scaled=f"{scaled:.1%}", plain=f"{plain:.1%}"))
    return found


def forecast(probe: Job, n: int, job: Job, seen: int) -> dict:
    """Linear extrapolation of seconds and peak MB of a prediction job to `n` images; {} without measurements.

    job: the prediction job, on `seen` images. If `seen` is more than the probe's largest call had, time per image is
    the job's mean, and memory per image comes from the difference between job and probe. If not, both come from the
    probe: its call with twice the images, less a call with the images once. If a second equal call takes more memory
    than the first, that is not growth and is subtracted.
    """
    try:
        seconds, memory, images = (probe.notes[key] for key in ("seconds", "memory", "images"))
        if seen > 2 * images:
            per_image = job.notes["seconds"]["predict"] / seen
            growth = (job.peak_memory - memory["twice"] * 1024) / (seen - 2 * images) / MB
        else:
            per_image = max(seconds["twice"] - seconds["once_more"], 0.2 * seconds["once_more"]) / images
            growth = (memory["twice"] - 2 * memory["once_more"] + memory["again"]) * 1024 / images / MB
        load, growth = max(0.0, job.seconds - per_image * seen), max(0.0, growth)
        expected = {
            "images": n,
            "seconds": load + per_image * n,
            "seconds_load": load,
            "seconds_per_image": per_image,
            "memory_mb": job.peak_memory / MB + growth * max(0, n - seen),
            "memory_mb_per_image": growth,
        }
        return expected if all(map(math.isfinite, expected.values())) else {}
    except (KeyError, TypeError, ZeroDivisionError, OverflowError):
        return {}


def judge_forecast(expected: dict, limits: Limits, image: int = 0) -> list[Finding]:
    """Findings if forecast time or memory is near or above the limits. image: bytes of one image; 0 if not known."""
    if not expected:
        return []
    found, n, total = [], expected["images"], f"{expected['memory_mb']:.0f}"
    if expected["seconds"] > 0.5 * limits.seconds:
        found.append(finding("LIM05", n=n, seconds=f"{expected['seconds']:.0f}", limit=f"{limits.seconds:g}"))
    if expected["memory_mb"] > max(BEYOND, (limits.memory or 0) / MB):
        found.append(finding("LIM07", n=n, total=total))
    elif expected["memory_mb_per_image"] > max(GROWTH[0], GROWTH[1] * image / MB):
        found.append(finding("LIM06", each=f"{expected['memory_mb_per_image']:.1f}", total=total, n=n))
    return found


def shift(matrix) -> tuple[int, float]:
    """(s, share of the labels) if most labels k are predicted as (k + s) % size; (0, 0.0) if there is no such s.

    matrix: (size, size) counts, rows true. Classes have equal weight. Three must occur: a constant is no shift.
    """
    seen, size = matrix.sum(axis=1), len(matrix)
    there = seen > 0
    for s in range(1, size):
        right = matrix[range(size), [(k + s) % size for k in range(size)]]
        if there.sum() >= 3 and (right[there] / seen[there]).mean() > SHIFTED:
            return s, float(right.sum() / seen.sum())
    return 0, 0.0


def judge_accuracy(matrix, classes: list[str], manifest: bytes | None) -> list[Finding]:
    """Findings if labels are shifted, or the accuracy is clearly below the manifest's or no better than a constant.

    matrix: counts, rows true, columns predicted; classes: their names.
    """
    counts = matrix.sum(axis=1)
    accuracy = float(matrix.trace() / counts.sum())
    by, share = shift(matrix)
    if by:
        return [finding("PRO09", share=f"{share:.1%}", shift=by, size=len(classes), accuracy=f"{accuracy:.4f}")]
    found, said = [], manifest_accuracy(manifest)
    if said is not None and accuracy < said - GAP:
        found.append(finding("PRO06", found=f"{accuracy:.4f}", said=f"{said:.4f}"))
    always = counts.max() / counts.sum()
    if accuracy <= (always if always < 1 else 1 / len(classes)):  # with one class, a constant is right
        found.append(finding("PRO08", found=f"{accuracy:.4f}", name=classes[counts.argmax()], always=f"{always:.4f}"))
    return found


def conclude(found: list[Finding], asked: bool, ran: bool, scored: bool) -> tuple[str, str]:
    """(key, words) of the verdict. asked: a rehearsal was wanted; ran: it took place; scored: it had true labels.

    Keys: "refused"; "unknown": not run, or stopped for lack of a network; "runs": it runs, but the score is unknown, no
    better than guessing, or from other versions than the grader's; "good".
    """
    codes = {f.code for f in found}
    under = next((f.wrong.removeprefix("the rehearsal ran ") for f in found if f.code == "ENV01"), "")
    suffix = f", but {under}: not the grader's versions" if under else ""
    if refused(found):
        here = suffix and {f.code for f in found if f.level == "error"} == {"RUN01"}  # maybe because of the versions
        return "refused", ("FAILS HERE" if here else "REFUSED") + suffix
    if "NET02" in codes:
        return "unknown", "NOT KNOWN: it needs the network, which the rehearsal does not have"
    if not ran and "ZIP14" in codes:
        return "unknown", "NOT KNOWN: it takes too much to read"
    if not ran:
        return "unknown", f"NO FAULT FOUND ({'it cannot be run on this system' if asked else 'not run'})"
    if scored and not suffix and "PRO08" not in codes:
        return "good", "GOOD"
    words = "RUNS, NO BETTER THAN GUESSING" if "PRO08" in codes else "RUNS AND SCORES"
    return "runs", (words if scored else "RUNS, ACCURACY UNKNOWN") + suffix


def manifest_accuracy(manifest: bytes | None) -> float | None:
    """The accuracy on clean validation images that weights/manifest.json states, or None."""
    try:
        value = json.loads(manifest)["scores"]["validation"]
        return float(value["accuracy"] if isinstance(value, dict) else value)
    except (TypeError, ValueError, KeyError, OverflowError, RecursionError):
        return None
