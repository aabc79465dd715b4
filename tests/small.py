"""What the tests of evaluation/ share: a model in memory, 40 cells, and its card of a few conditions."""

import tempfile
from functools import cache
from pathlib import Path
from unittest import mock

import numpy as np

from evaluation import card, corruptions
from training import data

HASHES = {"model_py_sha256": "a", "weights_sha256": "b", "inference": {}}
SINGLE = (("jpeg", "medmnist_c"), ("gaussian_noise", "noise"), ("hue", "colour"), ("rotate_black", "geometry"),
          ("cutout", "occlusion"), ("grid_mask", "occlusion"))  # fmt: skip
PLAN = [("clean", "clean", 0, 40), *(("composite", "composite", s, 16) for s in corruptions.SEVERITIES),
        *((name, family, 3, 8) for name, family in SINGLE)]  # fmt: skip


class Fake:
    """Colour means against eight greys; counts its calls and stops at one of them. The first `wrong` images of
    every batch are labelled wrongly."""

    def __init__(self, stop_at: int | None = None, wrong: int = 0):
        self.calls, self.stop_at, self.wrong = 0, stop_at, wrong
        self.prototypes = 85 + 17 * np.arange(8)[:, None].repeat(3, axis=1)  # class 7 is taken for class 6

    def predict(self, X):
        return self._probabilities(X).argmax(axis=1)

    def predict_proba(self, X):
        self.calls += 1
        if self.calls == self.stop_at:
            raise KeyboardInterrupt
        return self._probabilities(X)

    def _probabilities(self, X):
        z = -np.abs(X.mean(axis=(1, 2))[:, None] - self.prototypes).mean(axis=-1) / 10
        z = np.exp(z - z.max(axis=1, keepdims=True))
        z[: self.wrong] = np.roll(z[: self.wrong], 1, axis=1)
        return z / z.sum(axis=1, keepdims=True)


@cache
def cells() -> data.Cells:
    """40 noisy images, coloured by their class, labels 0-7 five times."""
    rng = np.random.default_rng(3)
    labels = np.arange(40) % 8
    images = 90 + 15 * labels[:, None, None, None] + rng.normal(0, 25, (40, 96, 96, 3))
    return data.Cells(np.clip(images, 0, 255).astype(np.uint8), labels.astype(np.int64))


@cache
def card_of(wrong: int = 0) -> dict:
    """The card of Fake(wrong=wrong); not to be changed."""
    with tempfile.TemporaryDirectory() as folder, mock.patch.object(corruptions, "fingerprint", lambda: "one"):
        return card.evaluate(Fake(wrong=wrong), HASHES, cells(), PLAN, Path(folder) / "partial")
