"""Where weights come from: the file, and what a manifest says of code, data and versions."""

import hashlib
import platform
from pathlib import Path

import cv2
import keras
import numpy as np

from training import data, files
from training.files import commit

FOLDER = Path(__file__).resolve().parent
SOURCES = (
    "../model", "augment", "batches", "clean", "data", "enhance", "files", "networks", "optimization", "provenance",
    "recipes", "scores", "settings", "train",
)  # fmt: skip


def save_half(network, path: Path) -> None:
    """Save weights as `.weights.h5` with kernels in float16, which halves the file; the rest stays float32.

    Batch norm's variances can leave float16's range, kernels do not. Loading needs nothing special: Keras casts.
    """
    import h5py

    def write(temporary: Path) -> None:
        whole = temporary.with_name(f".whole{temporary.name}")
        try:
            network.save_weights(whole)
            with h5py.File(whole) as old, h5py.File(temporary, "w") as new:

                def visit(name, item):
                    if isinstance(item, h5py.Group):
                        copy = new.require_group(name)
                    else:
                        copy = new.create_dataset(name, data=item[()].astype("f2" if item.ndim > 1 else item.dtype))
                    copy.attrs.update(item.attrs)

                new.attrs.update(old.attrs)
                old.visititems(visit)
        finally:
            whole.unlink(missing_ok=True)

    files.write_atomically(path, write)


def sources() -> str:
    """SHA-256 of the source files that a run depends on."""
    return hashlib.sha256(b"".join((FOLDER / f"{name}.py").read_bytes() for name in SOURCES)).hexdigest()


def provenance(cells: data.Cells, audit: dict) -> dict:
    """What a manifest says of the code, the data and the versions, taken when a run starts."""
    revision = commit() or ""
    removed = np.array([entry["index"] for entry in audit["removed"]], int)
    kept = np.setdiff1d(np.arange(len(cells)), removed).astype("<i8")
    return {
        "commit": revision.removesuffix("-dirty") or None,
        "clean": bool(revision) and not revision.endswith("-dirty"),
        "sources": sources(),
        "data": data.digest(cells),
        "kept": len(kept),
        "kept_sha256": hashlib.sha256(kept.tobytes()).hexdigest(),
        "versions": {
            "python": platform.python_version(),
            "keras": keras.__version__,
            "backend": keras.backend.backend(),
            "numpy": np.__version__,
            "opencv": cv2.__version__,
        },
    }
