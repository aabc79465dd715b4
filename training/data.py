"""Labelled cells: read, split, and hash them.

cells = data.read("data/training_set.npz")        # the challenge's file
cells = data.read("data/bloodmnist_224.npz")      # MedMNIST's, its training part (part="val", part="test")
cells = data.read("PBC_dataset_normal_DIB")       # a folder per class
"""

import hashlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

IMAGE_SIZE = 96
CLASSES = (
    "basophil", "eosinophil", "erythroblast", "immature granulocyte",
    "lymphocyte", "monocyte", "neutrophil", "platelet",
)  # fmt: skip
FOLDERS = {name: label for label, name in enumerate(CLASSES)} | {"ig": 3}  # as the PBC data set names it
PICTURES = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff"}


@dataclass(frozen=True)
class Cells:
    """images: (n, 96, 96, 3) uint8 RGB, 0-255. labels: (n,) int64, 0-7, positions in CLASSES."""

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: np.ndarray) -> "Cells":
        """The cells at `indices`, in that order."""
        return Cells(self.images[indices], self.labels[indices])


def resize(image: np.ndarray) -> np.ndarray:
    """(height, width, 3) uint8 -> (96, 96, 3) uint8: area averaging where it shrinks, bicubic where it grows."""
    way = cv2.INTER_AREA if min(image.shape[:2]) >= IMAGE_SIZE else cv2.INTER_CUBIC
    return cv2.resize(image, (IMAGE_SIZE, IMAGE_SIZE), interpolation=way)


def central(file: Path) -> np.ndarray:
    """A picture as (96, 96, 3) uint8 RGB. If both sides are 200 pixels or more, its central 200x200, as in BloodMNIST.

    Raises ValueError if the file is not a readable picture.
    """
    pixels = cv2.imdecode(np.fromfile(file, np.uint8), cv2.IMREAD_COLOR) if file.stat().st_size else None
    if pixels is None:
        raise ValueError("no picture that can be read")
    y, x = ((side - 200) // 2 for side in pixels.shape[:2])
    if x >= 0 and y >= 0:
        pixels = pixels[y : y + 200, x : x + 200]
    return resize(pixels[..., ::-1])


def read(path: str | Path, part: str = "train", picture: Callable[[Path], np.ndarray] = central) -> Cells:
    """Reads a labelled set of cells. Raises ValueError, saying what is wrong, if it cannot be used.

    path: the challenge's npz (`images`, `labels`), MedMNIST's `bloodmnist*.npz` at any of its sizes (`part` is train,
    val or test), or a folder with one subfolder of pictures per class (PBC's names), read by `picture`. One-hot labels
    and float images, in 0-255 or [0, 1], are converted with a warning. Other sizes are resized to 96x96 as in the
    challenge's file: area averaging down, bicubic up.
    """
    path = Path(path)
    if path.is_dir():
        return _read_folder(path, picture)
    if not path.exists():
        raise ValueError(f"{path} does not exist: docs/DATA.md says where cells come from")
    try:
        with np.load(path) as file:
            names = file.files
            keys = ("images", "labels") if "images" in names else (f"{part}_images", f"{part}_labels")
            images, labels, classes = map(file.get, (*keys, "classes"))
    except Exception as error:  # a truncated file raises many types
        raise ValueError(f"{path} is not an npz file, or is truncated: {error}") from error
    if missing := [key for key in keys if key not in names]:
        raise ValueError(
            f"{path} has no {' and no '.join(missing)}; it holds {', '.join(sorted(names)) or 'nothing'}. "
            "Expected images and labels, or MedMNIST's train_images and train_labels"
        )
    if classes is not None and classes.astype(str).ravel().tolist() != list(CLASSES):
        raise ValueError(f"{path} has the classes {', '.join(map(str, classes))}; expected {', '.join(CLASSES)}")
    return Cells(_as_images(images, path), _as_labels(labels, len(images), path))


def _as_labels(labels: np.ndarray, n: int, path: Path) -> np.ndarray:
    """(n,), (n, 1) or one-hot (n, 8) -> (n,) int64 in 0-7."""
    if labels.shape == (n, len(CLASSES)) and np.isin(labels, (0, 1)).all() and (labels.sum(1) == 1).all():
        warnings.warn(f"{path}: labels are one-hot; taken as the position of the 1", stacklevel=3)
        return labels.argmax(1).astype(np.int64)
    if labels.shape not in ((n,), (n, 1)):
        raise ValueError(f"{path}: labels are {labels.shape}, expected ({n},) or ({n}, 1), one for each of {n} images")
    wrong = np.setdiff1d(labels, range(len(CLASSES)))
    if labels.dtype.kind not in "iuf" or len(wrong):
        raise ValueError(f"{path}: labels must be integers in 0-7; found {', '.join(map(str, wrong[:5]))}")
    return labels.reshape(n).astype(np.int64)


def _as_images(images: np.ndarray, path: Path) -> np.ndarray:
    """(n, size, size, 3) of numbers in 0-255 or [0, 1] -> (n, 96, 96, 3) uint8."""
    if images.ndim != 4 or images.shape[3] != 3 or images.shape[1] != images.shape[2] or images.shape[1] < 1:
        raise ValueError(f"{path}: images are {images.shape}, expected (n, size, size, 3): square, RGB")
    if len(images) == 0:
        raise ValueError(f"{path} contains no images")
    if images.dtype != np.uint8:
        if images.dtype.kind not in "iuf":
            raise ValueError(f"{path}: images are {images.dtype}, expected uint8 or numbers in 0-255")
        low, high = images.min(), images.max()
        if not 0 <= low <= high <= 255:  # also true with NaN
            raise ValueError(f"{path}: images range from {low} to {high}, expected 0-255")
        scale = 255 if images.dtype.kind == "f" and high <= 1 else 1
        how = "in [0, 1]; multiplied by 255 and rounded" if scale == 255 else "in 0-255; rounded"
        warnings.warn(f"{path}: images are {images.dtype} {how} to uint8", stacklevel=3)
        images = np.stack([np.rint(image * scale).astype(np.uint8) for image in images])  # one by one, to save memory
    if images.shape[1] != IMAGE_SIZE:
        images = np.stack([resize(image) for image in images])
    return images


def _read_folder(path: Path, picture: Callable[[Path], np.ndarray]) -> Cells:
    folders = sorted(folder for folder in path.iterdir() if folder.is_dir() and folder.name[0] != ".")
    classes = {folder: FOLDERS.get(folder.name.lower().replace("_", " ")) for folder in folders}
    if None in classes.values() or not folders:
        found = ", ".join(folder.name for folder in folders if classes[folder] is None) or "none"
        raise ValueError(f"{path}: expected one folder per class: {', '.join(CLASSES)} (or ig); found {found}")
    images, labels = [], []
    for folder in folders:
        for file in sorted(f for f in folder.iterdir() if f.suffix.lower() in PICTURES and f.name[0] != "."):
            try:
                images.append(picture(file))
            except (ValueError, OSError) as error:
                raise ValueError(f"{file}: {error}; remove it or fetch it again") from error
            labels.append(classes[folder])
    if not images:
        raise ValueError(f"{path} contains no pictures ({', '.join(sorted(PICTURES))})")
    return Cells(np.stack(images), np.array(labels, np.int64))


def split(labels: np.ndarray, groups: np.ndarray, fraction: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Splits into training and validation, `fraction` of each class for validation; groups stay together.

    labels: (n,) classes. groups: (n,) group ids; copies of one picture share one. A group counts for the class of
    its first member. Returns (training indices, validation indices), each sorted, together all of 0..n-1.
    """
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


def stratified_order(labels: np.ndarray, seed: int = 0) -> np.ndarray:
    """All indices (n,), in an order whose every prefix is stratified by class. The seed fixes the order."""
    rng = np.random.default_rng(seed)
    place = np.empty(len(labels))
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        place[members] = (np.arange(len(members)) + 0.5) / len(members)
    return np.argsort(place, kind="stable")


def digest(cells: Cells) -> str:
    """SHA-256, in hex, of shapes and contents of images and labels. It depends on the order of the cells."""
    sha = hashlib.sha256()
    for array, dtype in ((cells.images, np.uint8), (cells.labels, np.int64)):
        sha.update(repr(array.shape).encode())
        sha.update(np.ascontiguousarray(array, dtype))
    return sha.hexdigest()
