"""Provenance: the weights file, the manifest's record of code, data and versions, and the check before --resume."""

import hashlib
import json
import platform
import tempfile
from pathlib import Path

import cv2
import h5py
import keras
import numpy as np

from training import data, files

FOLDER = Path(__file__).resolve().parent
SOURCES = (
    "../model", "augment", "batches", "clean", "data", "enhance", "files", "networks", "optimization", "provenance",
    "recipes", "reports", "scores", "settings", "train",
)  # fmt: skip


def save_half(network, path: Path) -> None:
    """Save weights as `.weights.h5` with kernels in float16, which halves the file; the rest stays float32.

    Batch norm's variances can exceed float16's range, kernels do not. Keras casts to float32 on loading.
    """

    def write(temporary: Path) -> None:
        with h5py.File(whole) as old, h5py.File(temporary, "w") as new:

            def visit(name, item):
                if isinstance(item, h5py.Group):
                    copy = new.require_group(name)
                else:
                    copy = new.create_dataset(name, data=item[()].astype("f2" if item.ndim > 1 else item.dtype))
                copy.attrs.update(item.attrs)

            new.attrs.update(old.attrs)
            old.visititems(visit)

    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".") as folder:
        whole = Path(folder) / "whole.weights.h5"
        network.save_weights(whole)
        files.write_atomically(path, write)


def sources() -> str:
    """SHA-256 of the source files that a run depends on."""
    return hashlib.sha256(b"".join((FOLDER / f"{name}.py").read_bytes() for name in SOURCES)).hexdigest()


def provenance(cells: data.Cells, audit: dict) -> dict:
    """The manifest's record of code, data and versions, taken at the start of a run."""
    kept = np.setdiff1d(np.arange(len(cells)), [entry["index"] for entry in audit["removed"]]).astype("<i8")
    return {
        **files.revision(),
        "sources": sources(),
        "data": data.digest(cells),
        "kept": len(kept),
        "kept_sha256": hashlib.sha256(kept.tobytes()).hexdigest(),
        "versions": {
            "python": platform.python_version(), "keras": keras.__version__, "backend": keras.backend.backend(),
            "numpy": np.__version__, "opencv": cv2.__version__,
        },
    }  # fmt: skip


def find_checkpoint(out: Path, settings: dict, resume: bool) -> Path | None:
    """The newest checkpoint in `out`; None for a new run.

    Raises FileExistsError if `out` holds a run and `resume` is False; ValueError if `resume` is True and `out` holds
    no checkpoint, or one with other settings or other code.
    """
    found = max(out.glob("checkpoint-*"), default=None)
    if not resume:
        if found or (out / "manifest.json").exists():
            raise FileExistsError(f"{out} already contains a run: add --resume to continue it, or choose another --out")
        return None
    if found is None:
        raise ValueError(f"{out} contains no run to resume: leave out --resume, or give the run's folder")
    state = json.loads((found / "state.json").read_text(encoding="utf-8"))
    free = {"epochs"} if settings["schedule"] == "constant" else set()  # a constant rate does not depend on it
    old = state["settings"]
    changed = [f"{key} {old.get(key)!r}, not {settings[key]!r}" for key in sorted(settings) if key not in free
               and settings[key] != old.get(key)]  # fmt: skip
    if changed:
        raise ValueError(f"{out} was started with {'; '.join(changed)}: use the same, or another --out")
    if state["provenance"]["sources"] != sources():
        began = state["provenance"]["commit"]
        raise ValueError(f"{out} was started with other code (commit {began}): check that out, or choose another --out")
    return found
