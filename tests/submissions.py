"""Small submissions made by code: numpy only, so that a rehearsal takes a second instead of a minute."""

import io
import json
import textwrap
import zipfile
from pathlib import Path

import numpy as np

import build_submission

RIGHT = "return np.asarray(X)[:, 0, 0, 0].astype(np.int64) // 32"


def submission(folder: Path, metadata: str | None = None) -> bytes:
    """The zip of a folder, as a build makes it."""
    return build_submission.pack(build_submission.collect(folder)[0] | build_submission.description(metadata))


def cells(n: int = 64, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(images (n, 96, 96, 3) uint8, labels (n,)): noise, with the class written in the top left pixel."""
    rng = np.random.default_rng(seed)
    images, labels = rng.integers(0, 256, (n, 96, 96, 3), np.uint8), rng.integers(0, 8, n)
    images[:, 0, 0, 0] = labels * 32 + 5
    return images, labels


def model(predict: str = RIGHT, init: str = "pass", top: str = "") -> str:
    """A model.py with these lines in its two methods and at its top; as it stands it labels `cells` without mistake."""
    init, predict = (textwrap.indent(textwrap.dedent(text).strip("\n"), " " * 8) for text in (init, predict))
    methods = f"    def __init__(self):\n{init}\n\n    def predict(self, X):\n{predict}\n"
    return f"import numpy as np\n{top}\n\nclass Model:\n{methods}"


GOOD = model()


def make_zip(path, files: dict[str, str | bytes] | str, compression: int = zipfile.ZIP_DEFLATED):
    """Write `files` ({name: contents}, or just model.py's text) as a zip; returns `path`, which may be a BytesIO."""
    files = {"model.py": files} if isinstance(files, str) else files
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, contents in files.items():
            file.writestr(name, contents)
    return path


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def npz(path: Path, n: int = 64) -> Path:
    images, labels = cells(n)
    np.savez(path, images=images, labels=labels[:, None].astype(np.uint8))
    return path


def hdf5(values: int = 1000) -> bytes:
    """A small, whole HDF5 file."""
    import h5py

    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file["kernel"] = np.arange(values, dtype=np.float32)
    return buffer.getvalue()


def layer(class_name: str, module: str | None = "keras.layers", registered: str | None = None, **config) -> dict:
    """One object as Keras 3 writes it into a .keras file."""
    return {"module": module, "class_name": class_name, "config": config, "registered_name": registered}


def keras_file(
    *layers: dict, version: str = "3.4.1", compiled: dict | None = None, weights: bytes | None = None
) -> bytes:
    """A .keras file with these layers: a zip of metadata.json, config.json and model.weights.h5."""
    config = layer("Functional", "keras.src.models.functional", "Functional", layers=[layer("Dense", units=8), *layers])
    config["compile_config"] = compiled or {"optimizer": layer("Adam", "keras.optimizers"), "loss": "mse"}
    metadata = {"keras_version": version, "date_saved": "2024-11-20@10:00:00"}
    files = {"metadata.json": json.dumps(metadata), "config.json": json.dumps(config)}
    files["model.weights.h5"] = hdf5() if weights is None else weights
    return make_zip(io.BytesIO(), files, zipfile.ZIP_STORED).getvalue()


def whole_h5(*layers: dict, version: str = "3.4.1", loss: str | None = None) -> bytes:
    """A whole model in an .h5 file, as Keras writes it: its layers have no module."""
    import h5py

    layers = [{key: part[key] for key in ("class_name", "config")} for part in (layer("Dense", units=8), *layers)]
    attributes = {"keras_version": version, "model_config": {"class_name": "Sequential", "config": {"layers": layers}}}
    if loss:
        optimizer = {"class_name": "Adam", "config": {"learning_rate": 0.001}}
        attributes["training_config"] = {"loss": loss, "metrics": None, "optimizer_config": optimizer}
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file.create_group("model_weights")
        for name, value in attributes.items():
            file.attrs[name] = value if isinstance(value, str) else json.dumps(value)
    return buffer.getvalue()
