"""Labelled cells: read them, split them, name them by a digest.

    from training import data
    cells = data.read("data/training_set.npz")
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

IMAGE_SIZE = 96
CLASSES = (
    "basophil",
    "eosinophil",
    "erythroblast",
    "immature granulocyte",
    "lymphocyte",
    "monocyte",
    "neutrophil",
    "platelet",
)


@dataclass(frozen=True)
class Cells:
    """images: (n, 96, 96, 3) uint8 RGB, 0-255. labels: (n,) int64, 0-7, positions in CLASSES."""

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: np.ndarray) -> Cells:
        """The cells at `indices`, in that order."""
        return Cells(self.images[indices], self.labels[indices])


def read(path: str | Path) -> Cells:
    """Reads a labelled set of cells. `path`: the challenge's npz, with `images` and `labels` (n, 1) or (n,)."""
    path = Path(path)
    if not path.exists():
        raise ValueError(f"{path} does not exist")
    with np.load(path) as file:
        images, labels = file["images"], file["labels"]
    labels = labels.reshape(len(labels), -1)
    if images.shape[1:] != (IMAGE_SIZE, IMAGE_SIZE, 3) or images.dtype != np.uint8:
        raise ValueError(f"{path}: images are {images.shape} {images.dtype}, expected (n, 96, 96, 3) uint8")
    if labels.shape != (len(images), 1):
        raise ValueError(f"{path}: labels are {labels.shape}, expected ({len(images)}, 1)")
    return Cells(images, labels[:, 0].astype(np.int64))


def split(
    labels: np.ndarray, groups: np.ndarray, fraction: float = 0.1, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Splits into training and validation, `fraction` of each class to validation, a group never torn apart.

    labels: (n,) classes. groups: (n,) group ids; copies of one picture share one. A group counts for the class of
    its first member. Returns (training indices, validation indices), each sorted, together all of 0..n-1.
    """
    labels, groups = np.asarray(labels), np.asarray(groups)
    if labels.shape != groups.shape or labels.ndim != 1:
        raise ValueError(f"labels {labels.shape} and groups {groups.shape} must both be (n,)")
    if not 0 <= fraction < 1:
        raise ValueError(f"fraction is {fraction}, expected 0 <= fraction < 1")
    rng = np.random.default_rng(seed)
    _, first, group = np.unique(groups, return_index=True, return_inverse=True)
    group_class, group_size = labels[first], np.bincount(group)
    in_validation = np.zeros(len(first), bool)
    for name in np.unique(group_class):
        members = rng.permutation(np.flatnonzero(group_class == name))
        taken = np.cumsum(group_size[members])
        in_validation[members[taken <= round(fraction * taken[-1])]] = True
    validation = in_validation[group]
    return np.flatnonzero(~validation), np.flatnonzero(validation)


def digest(cells: Cells) -> str:
    """SHA-256, in hex, of the images' and the labels' shapes and contents: the same cells in the same order."""
    sha = hashlib.sha256()
    for array, dtype in ((cells.images, np.uint8), (cells.labels, np.int64)):
        sha.update(repr(array.shape).encode())
        sha.update(np.ascontiguousarray(array, dtype))
    return sha.hexdigest()
