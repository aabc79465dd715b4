"""Load the model of a submission zip, a folder with a model.py, a training run or an ensemble, and predict."""

import contextlib
import hashlib
import importlib.util
import io
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from training.data import CLASSES
from training.files import ROOT


@contextlib.contextmanager
def open_model(target: Path) -> Iterator[tuple[object, dict]]:
    """Yield the `Model()` of a submission zip, a folder with a model.py, a run or an ensemble, and its hashes.

    A zip is unpacked into a temporary folder, which is deleted when the context ends. What the model imports stays
    imported: open one in a process. Raises ValueError if there is no model, or its import or construction fails, and
    FileNotFoundError if there is no `target`.
    """
    target = target.resolve(strict=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = target if target.is_dir() else Path(temporary)
        if folder != target:
            try:
                shutil.unpack_archive(target, folder, "zip")
            except Exception as error:  # damaged zips raise many types
                raise ValueError(f"{target} cannot be unpacked: {error}") from error
        source, hashes = identify(folder)
        sys.path.insert(0, str(source.parent))
        try:
            yield construct(source, folder), hashes
        finally:
            sys.path.remove(str(source.parent))


def identify(folder: Path) -> tuple[Path, dict]:
    """Return the folder's model.py (this project's for a run or an ensemble), and the hashes of code and weights with
    the inference settings. Raises ValueError if the folder holds neither."""
    if (folder / "model.py").is_file():
        source, weights = folder / "model.py", folder / "weights"
    elif (folder / "model.weights.h5").is_file() or (folder / "manifest.json").is_file():
        source, weights = ROOT / "model.py", folder
    else:
        raise ValueError(f"{folder} holds neither a model.py nor a run: name the folder that does")
    files = [weights / "model.weights.h5"]
    if not files[0].is_file():  # an ensemble, or a submission with other file names
        files = sorted([*folder.rglob("*.h5"), *folder.rglob("*.keras")])
    return source, {
        "model_py_sha256": hashlib.sha256(source.read_bytes()).hexdigest(),
        "weights_sha256": hashlib.sha256(b"".join(p.read_bytes() for p in files)).hexdigest(),
        "inference": inference(weights),
    }


def inference(folder: Path) -> dict:
    """Return the settings in manifest.json that change predictions; {} if it is missing or invalid."""
    if not (folder / "manifest.json").is_file():  # perhaps another framework: do without Keras
        return {}
    from model import read_manifest

    try:
        manifest = read_manifest(folder)
    except ValueError:
        return {}
    if "members" in manifest:
        return {"members": [inference(folder / name) for name in manifest["members"]]}
    return {key: manifest[key] for key in ("enhance", "pixels", "views", "temperature") if manifest.get(key)}


def ask(function: Callable, *arguments):
    """Call a function on a submission; hide what it prints and its warnings. Raises ValueError if it fails."""
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return function(*arguments)
    except Exception as error:
        name = getattr(function, "__name__", "answer")
        raise ValueError(f"the model failed to {name}: {type(error).__name__}: {error}") from error


def construct(source: Path, folder: Path) -> object:
    """Import a model.py as graded_model and construct its Model, in `folder` as working directory as at the grader."""
    spec = importlib.util.spec_from_file_location("graded_model", source)
    module = sys.modules["graded_model"] = importlib.util.module_from_spec(spec)

    def load():
        spec.loader.exec_module(module)
        return module.Model() if source.parent == folder else module.Model(folder)

    with contextlib.chdir(folder):
        return ask(load)


def predict(model: object, images: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Return labels (n,) int64 and probabilities (n, 8) float64 (None if the model has no `predict_proba`).

    images: uint8 (n, 96, 96, 3). Raises ValueError if the model returns anything else.
    """
    if hasattr(model, "predict_proba"):
        probabilities = np.asarray(ask(model.predict_proba, images)).astype(np.float64)
        if probabilities.shape != (len(images), len(CLASSES)) or not np.isfinite(probabilities).all():
            raise ValueError(f"predict_proba gave {probabilities.shape}, not finite ({len(images)}, {len(CLASSES)})")
        return probabilities.argmax(axis=1), probabilities
    labels = np.asarray(ask(model.predict, images))
    integers = labels.shape == (len(images),) and labels.dtype.kind in "iu"
    if not integers or not np.isin(labels, range(len(CLASSES))).all():
        raise ValueError(f"predict gave {labels.dtype} {labels.shape}, not integers 0-7 of shape ({len(images)},)")
    return labels.astype(np.int64), None


def check_agreement(model: object, images: np.ndarray) -> None:
    """Raise ValueError if `predict`, which is graded, differs from `predict_proba`, which the card measures."""
    if not np.array_equal(ask(model.predict, images), predict(model, images)[0]):
        raise ValueError("predict and the largest of predict_proba differ: the card would not be of what is graded")
