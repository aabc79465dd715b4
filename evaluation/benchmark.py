"""Measure the time and memory that a submission needs, in a fresh process as at the grader.

    python -m evaluation benchmark submission.zip                                   # 3,421 images
    python -m evaluation benchmark submission.zip --json results/benchmark.json     # for the pages

The images are the held-out cells under the composite corruption at severity 3 of 5. Run it on an idle machine.
"""

import argparse
import os
import resource
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from importlib import metadata
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from evaluation import corruptions, markdown
from evaluation.submissions import unpack
from training import data, shell
from training.files import write_json

IMAGES = 3421  # size of BloodMNIST's test split, a likely size of the hidden test set


def pictures(images: int, heldout: Path) -> np.ndarray:
    """Return corrupted held-out cells, uint8 (images, 96, 96, 3); cells repeat if there are fewer."""
    cells = data.read(heldout, part="val").images
    return corruptions.corrupt_batch(cells[np.arange(images) % len(cells)], "composite", 3)


def measure(folder: Path, images: int, heldout: Path) -> dict:
    """Return seconds for each stage and peak memory in MB of labelling `images` pictures. Needs a fresh process."""
    X = pictures(images, heldout)
    sys.path.insert(0, str(folder))
    marks = [time.perf_counter()]
    from model import Model

    marks.append(time.perf_counter())
    model = Model()
    marks.append(time.perf_counter())
    labels = model.predict(X)
    marks.append(time.perf_counter())
    if labels.shape != (images,):
        raise ValueError(f"predict gave {labels.shape}, not ({images},)")
    seconds = dict(zip(("import", "load", "predict"), np.diff(marks).round(2).tolist(), strict=True))
    unit = 1024 if sys.platform != "darwin" else 1  # ru_maxrss is in KiB, on macOS in bytes
    return {
        "images": images,
        "seconds": {**seconds, "total": round(marks[-1] - marks[0], 2)},
        "images_per_second": round(images / (marks[-1] - marks[-2]), 1),
        "peak_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "versions": {name: metadata.version(name) for name in ("keras", "tensorflow", "numpy")},
    }  # fmt: skip


def text(b: dict) -> str:
    """The figures in one sentence."""
    s = b["seconds"]
    return (
        f"{b['images']} corrupted cells take {s['total']:.0f} s on "
        f"{b['cores']} cores ({s['import']:.0f} s to import, {s['load']:.0f} s to load, {s['predict']:.0f} s to "
        f"predict) and {b['peak_memory_mb']} MB at the peak; the zip has {b['zip_mb']:.1f} MB."
    )


def options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("submission", type=Path, help="a zip with model.py and weights/")
    add("--images", type=shell.positive, default=IMAGES, help="how many to label (default: %(default)s)")
    add("--heldout", type=Path, default=Path("data/heldout.npz"), help="NPZ: cells to corrupt (default: %(default)s)")
    add("--json", type=shell.new_file, metavar="OUT", help="write the figures there, too")


def run(args: argparse.Namespace) -> None:
    data.read(args.heldout, part="val")  # reports a faulty file before the process starts
    with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(1, get_context("spawn")) as fresh:
        unpack(args.submission, Path(folder))
        try:
            figures = fresh.submit(measure, Path(folder), args.images, args.heldout).result()
        except (Exception, SystemExit) as error:  # a submission may raise anything
            raise ValueError(f"{args.submission} failed: {type(error).__name__}: {error}") from error
    figures["zip_mb"] = round(args.submission.stat().st_size / 1e6, 2)
    if args.json:
        write_json(args.json, figures)
    markdown.show(text(figures))
