"""Blood-cell classifier: 96x96 RGB images in, labels 0-7 out. This file and weights/ are what is graded.

    from model import Model
    labels = Model().predict(X)        # X (n, 96, 96, 3) in 0-255  ->  (n,) int64

Labels: 0 basophil, 1 eosinophil, 2 erythroblast, 3 immature granulocyte, 4 lymphocyte, 5 monocyte, 6 neutrophil,
7 platelet. Training imports `preprocess` and `build_network` from here, so that both sides are one piece of code.
"""

import hashlib
import json
import warnings
from pathlib import Path

import keras
import numpy as np

IMAGE_SIZE = 96
NUM_CLASSES = 8
BATCH_SIZE = 64  # every batch is filled up to this size, so that an image meets the same arithmetic in any company
FOLDER = Path(__file__).resolve().parent / "weights"


def as_images(X) -> np.ndarray:
    """X as an array (n, 96, 96, 3) of integers or floats; ValueError where it is none."""
    X = np.asarray(X)
    if X.ndim != 4 or X.shape[1:] != (IMAGE_SIZE, IMAGE_SIZE, 3):
        raise ValueError(f"images have shape {X.shape}; the model takes (n, {IMAGE_SIZE}, {IMAGE_SIZE}, 3), RGB, 0-255")
    if X.dtype.kind not in "uif":
        raise ValueError(f"images have dtype {X.dtype}; the model takes uint8 or float values in 0-255")
    return X


def preprocess(X) -> np.ndarray:
    """Images as the network takes them: float32 (n, 96, 96, 3), 0-255 (the network rescales inside).

    X: (n, 96, 96, 3), integers or floats in 0-255. Each image is judged by itself: one of floats that are all in
    [0, 1] is scaled by 255; NaN becomes 0; what lies outside 0-255 is clipped (infinities too). Each of these
    warns. X is not modified. Raises ValueError for another shape or for values that are no real numbers.
    """
    X = as_images(X)
    images = np.array(X, np.float32)  # a copy, always
    if X.dtype == np.uint8 or not len(images):
        return images
    finite = np.isfinite(images)
    if not finite.all():
        warnings.warn("some images hold NaN or infinite values: read as 0, or clipped to 0-255", stacklevel=2)
    known = np.where(finite, images, 0)
    low, high = known.min(axis=(1, 2, 3)), known.max(axis=(1, 2, 3))
    unit = (low >= 0) & (high <= 1) & (high > 0) & (X.dtype.kind == "f")
    if unit.any():
        warnings.warn("some images are in [0, 1], not in 0-255: they are scaled by 255", stacklevel=2)
    if ((low < 0) | (high > 255)).any():
        warnings.warn("some images hold values outside 0-255: they are clipped", stacklevel=2)
    images[unit] *= 255
    return np.clip(np.nan_to_num(images, copy=False, nan=0, posinf=255, neginf=0), 0, 255)


def build_network(size: int | None = IMAGE_SIZE, backbone_weights: str | Path | None = None) -> keras.Model:
    """EfficientNetV2B0 (Tan & Le 2021) with average pooling and one dense layer: float images to probabilities.

    size: height and width in pixels, None for any. backbone_weights: a headless `.weights.h5` for the backbone,
    None for random ones. Takes (n, size, size, 3) in 0-255 as `preprocess` gives it, returns (n, 8) float32.
    """
    backbone = keras.applications.EfficientNetV2B0(
        weights=None, include_top=False, input_shape=(size, size, 3), pooling="avg"
    )
    if backbone_weights is not None:
        backbone.load_weights(backbone_weights)
    x = keras.layers.Dropout(0.3)(backbone.output)
    x = keras.layers.Dense(NUM_CLASSES, activation="softmax", dtype="float32", name="head")(x)
    return keras.Model(backbone.input, x)


def load_weights(network: keras.Model, folder: Path) -> dict:
    """Load folder/model.weights.h5 into the network after checking it against folder/manifest.json, returned.

    Raises FileNotFoundError where either is missing, ValueError where the weights are not the manifest's.
    """
    remedy = "unzip the submission again, or put a trained run's model.weights.h5 and manifest.json there"
    path, manifest_path = folder / "model.weights.h5", folder / "manifest.json"
    for file in (path, manifest_path):
        if not file.is_file():
            raise FileNotFoundError(f"{file} is missing: {remedy}")
    try:
        manifest = json.loads(manifest_path.read_text(encoding="utf-8"))
        expected = manifest["sha256"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{manifest_path} is damaged ({error!r}): {remedy}") from error
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != expected:
        raise ValueError(
            f"{path} is truncated or altered (SHA-256 {found[:12]}, the manifest says {expected[:12]}): {remedy}"
        )
    network.load_weights(path)
    return manifest


class Model:
    """The graded interface. One network, no state between calls, no randomness."""

    def __init__(self, folder: str | Path | None = None):
        """Load the weights of `folder`; None, the graded case, means the `weights` folder beside this file."""
        self.network = build_network()
        self.manifest = load_weights(self.network, Path(folder or FOLDER))

    def predict(self, X) -> np.ndarray:
        """Labels (n,) int64 in 0-7 of images (n, 96, 96, 3) in 0-255; see `preprocess` for what is accepted."""
        return self.predict_proba(X).argmax(axis=1)

    def predict_proba(self, X) -> np.ndarray:
        """Class probabilities (n, 8) float32; every row depends on its own image alone."""
        X = as_images(X)
        probabilities = np.empty((len(X), NUM_CLASSES), np.float32)
        for start in range(0, len(X), BATCH_SIZE):
            images = preprocess(X[start : start + BATCH_SIZE])
            n = len(images)
            images = np.pad(images, ((0, BATCH_SIZE - n), (0, 0), (0, 0), (0, 0)))
            probabilities[start : start + n] = np.asarray(self.network.predict_on_batch(images))[:n]
        return probabilities
