"""Blood-cell classifier: 96x96 RGB images in, labels 0-7 out. This file and weights/ are what is graded.

    from model import Model
    labels = Model().predict(X)        # X (n, 96, 96, 3) in 0-255  ->  (n,) int64

    python model.py PATHS... [--csv OUT] [--html OUT] [--weights FOLDER]     # classifies your own pictures

Labels: 0 basophil, 1 eosinophil, 2 erythroblast, 3 immature granulocyte, 4 lymphocyte, 5 monocyte, 6 neutrophil,
7 platelet. Training imports `preprocess` and `build_network` from here: training and inference share this code.
"""

import hashlib
import json
import os
import re
import sys
import warnings
from pathlib import Path

if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # keeps TensorFlow's log off the terminal

import keras
import numpy as np

IMAGE_SIZE = 96
NUM_CLASSES = 8
SURE = 0.7  # test-time augmentation: an image with a lower top probability on the first view gets the other views too
BATCH_SIZE = 64  # every batch is padded to this size, so that results do not depend on the batch
FOLDER = Path(__file__).resolve().parent / "weights"
CLASSES = (
    "basophil", "eosinophil", "erythroblast", "immature granulocyte",
    "lymphocyte", "monocyte", "neutrophil", "platelet",
)  # fmt: skip


def as_images(X) -> np.ndarray:
    """X as an array (n, 96, 96, 3) of integers or floats. Raises ValueError for another shape or dtype."""
    X = np.asarray(X)
    if X.ndim != 4 or X.shape[1:] != (IMAGE_SIZE, IMAGE_SIZE, 3):
        raise ValueError(f"images have shape {X.shape}; the model takes (n, {IMAGE_SIZE}, {IMAGE_SIZE}, 3), RGB, 0-255")
    if X.dtype.kind not in "uif":
        raise ValueError(f"images have dtype {X.dtype}; the model takes uint8 or float values in 0-255")
    return X


def preprocess(X, steps: tuple[str, ...] = ()) -> np.ndarray:
    """Images as the network takes them: float32 (n, 96, 96, 3), 0-255. The network itself rescales them.

    X: (n, 96, 96, 3), integers or floats in 0-255; it is not modified. Each image is treated separately: if all its
    values are floats in [0, 1], they are multiplied by 255; NaN becomes 0; values outside 0-255 and infinities are
    clipped. Each of these gives a warning. Raises ValueError for another shape or dtype.

    steps: names in training/enhance.py, applied to each image at the end, in this order. A submission that uses any
    must include that file; ImportError if it or OpenCV is missing.
    """
    images = _clean(as_images(X))
    if steps:
        try:
            from training.enhance import apply
        except ImportError as error:
            raise ImportError(f"training/enhance.py beside {__file__}, and OpenCV, are needed: {error}") from error
        for i, image in enumerate(np.rint(images).astype(np.uint8)):
            images[i] = apply(image, steps)
    return images


def _clean(X: np.ndarray) -> np.ndarray:
    """A float32 copy with all values finite and in 0-255; see `preprocess`."""
    with np.errstate(over="ignore"):  # values too large for float32 become infinite and are clipped below
        images = np.array(X, np.float32)
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


def build_network(backbone_weights: Path | None = None, dropout: float = 0.3, pixels: int | None = None) -> keras.Model:
    """EfficientNetV2B0 (Tan & Le 2021) with average pooling and one dense layer.

    Input: (n, 96, 96, 3) in 0-255, as from `preprocess`. Output: probabilities (n, 8) float32.
    backbone_weights: a `.weights.h5` of the backbone without its top layer; None: random weights. dropout: rate before
    the dense layer. pixels: height and width to which the network resizes images (bilinear); None: no resizing.
    """
    images = x = keras.Input((IMAGE_SIZE, IMAGE_SIZE, 3))
    if pixels not in (None, IMAGE_SIZE):
        x = keras.layers.Resizing(pixels, pixels, dtype="float32")(images)
    backbone = keras.applications.EfficientNetV2B0(weights=None, include_top=False, input_tensor=x, pooling="avg")
    if backbone_weights is not None:
        backbone.load_weights(backbone_weights)
    x = keras.layers.Dropout(dropout)(backbone.output)
    x = keras.layers.Dense(NUM_CLASSES, activation="softmax", dtype="float32", name="head")(x)
    return keras.Model(images, x)


def described(manifest: dict) -> keras.Model:
    """The network that a manifest describes, for 96 x 96 images, with random weights.

    EfficientNetV2B0 is built here, any other network by training/networks.py, which the submission must then include.
    """
    name, pixels = manifest.get("network", "EfficientNetV2B0"), manifest.get("pixels")
    if name == "EfficientNetV2B0":
        return build_network(pixels=pixels)
    try:
        from training import networks
    except ImportError as error:
        raise ImportError(f"training/networks.py is needed beside {__file__} for {name}: {error}") from error
    return networks.build(name, pixels=pixels)


REMEDY = "unzip the submission again, or put a trained run's model.weights.h5 and manifest.json there"


def read_manifest(folder: Path) -> dict:
    """Read folder/manifest.json. Raises FileNotFoundError if it is missing, ValueError for a damaged or invalid one.

    Keys: `sha256` of model.weights.h5; `network`, a name in training/networks.py; `pixels`, see `build_network`;
    `enhance`, see `preprocess`; `views`, the number of VIEWS for an unsure image; `temperature`, see `predict_proba`.
    `next`, left by a training that was killed while writing weights, is the manifest of the new weights; it is used if
    its hash matches the file. An ensemble has `members` instead: names of subfolders, each with weights and manifest.
    """
    path, weights = folder / "manifest.json", folder / "model.weights.h5"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: {REMEDY}")
    try:
        manifest = dict(json.loads(path.read_text(encoding="utf-8")))
        later = dict(manifest.pop("next", {}))
        manifest = later if later and weights.is_file() and later.get("sha256") == sha256(weights) else manifest
        wrong = [key for key, usable in CHECKS.items() if key in manifest and not usable(manifest[key])]
        wrong += [] if "members" in manifest or "sha256" in manifest else ["sha256"]
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"{path} is damaged ({error!r}): {REMEDY}") from error
    if wrong:
        found = ", ".join(f"{key} is {manifest.get(key)!r:.80}" for key in wrong)
        raise ValueError(f"{path} cannot be used, {found}: {REMEDY}")
    return manifest


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _is_number(value, low: float, high: float, kinds: tuple = (int, float)) -> bool:
    return isinstance(value, kinds) and not isinstance(value, bool) and low <= value <= high


CHECKS = {
    "sha256": lambda v: isinstance(v, str) and re.fullmatch("[0-9a-f]{64}", v) is not None,
    "network": lambda v: isinstance(v, str),
    "pixels": lambda v: v is None or _is_number(v, 32, 1024, (int,)),
    "enhance": lambda v: isinstance(v, list) and all(isinstance(step, str) for step in v),
    "views": lambda v: _is_number(v, 1, len(VIEWS), (int,)),
    "temperature": lambda v: _is_number(v, 0.05, 20.0),
    "members": lambda v: isinstance(v, list) and v and all(isinstance(m, str) and m == Path(m).name != ".." for m in v),
}


def load_weights(network: keras.Model, path: Path, expected: str) -> None:
    """Load a weights file into `network`.

    Raises FileNotFoundError if it is missing, ValueError if its SHA-256 is not `expected` or it does not fit.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: {REMEDY}")
    found = sha256(path)
    if found != expected:
        raise ValueError(
            f"{path} is truncated or altered (SHA-256 {found[:12]}, the manifest says {expected[:12]}): {REMEDY}"
        )
    try:
        network.load_weights(path)
    except Exception as error:  # Keras and h5py raise many types
        why = str(error).split("\n")[0]
        raise ValueError(f"{path} does not fit the network of its manifest ({why:.200}): {REMEDY}") from error


VIEWS = (  # test-time augmentation of (n, h, w, 3): the image, a half turn, a horizontal and a vertical flip
    lambda x: x,
    lambda x: x[:, ::-1, ::-1],
    lambda x: x[:, :, ::-1],
    lambda x: x[:, ::-1],
)


class Model:
    """The graded interface. Stateless and deterministic. Threads may share an instance; forked processes may not."""

    process: int | None = None  # id of the process that loaded weights

    def __init__(self, folder: str | Path | None = None):
        """Load the weights in `folder`; None, as in grading, means the `weights` folder beside this file."""
        folder = Path(folder or FOLDER)
        _refuse_fork()
        self.manifest = read_manifest(folder)
        self.members = [Model(folder / name) for name in self.manifest.get("members", ())]
        if self.members:
            return
        self.steps = tuple(self.manifest.get("enhance", ()))
        self.views = VIEWS[: self.manifest.get("views", 1)]
        self.temperature = self.manifest.get("temperature", 1.0)
        self.network = described(self.manifest)
        load_weights(self.network, folder / "model.weights.h5", self.manifest["sha256"])
        Model.process = os.getpid()

    def predict(self, X) -> np.ndarray:
        """Labels (n,) int64 in 0-7 of images (n, 96, 96, 3) in 0-255; see `preprocess` for what is accepted."""
        return self.predict_proba(X).argmax(axis=1)

    def predict_proba(self, X) -> np.ndarray:
        """Class probabilities (n, 8) float32; each row depends only on its own image.

        If no class reaches SURE on the first view, all views are averaged. Temperature scaling (Guo et al. 2017) then
        gives p^(1/T), normalised to sum to 1; it changes no label. An ensemble returns the mean over its members.
        """
        if self.members:
            return np.mean([member.predict_proba(X) for member in self.members], axis=0)
        _refuse_fork()
        X = as_images(X)
        probabilities = self._average(X, self.views[:1])
        unsure = probabilities.max(axis=1) < SURE
        if self.views[1:] and unsure.any():
            others = self._average(X[unsure], self.views[1:])
            probabilities[unsure] += (others - probabilities[unsure]) * np.float32(1 - 1 / len(self.views))
        probabilities = np.clip(probabilities, 1e-30, None) ** np.float32(1 / self.temperature)
        return probabilities / probabilities.sum(axis=1, keepdims=True)

    def _average(self, X: np.ndarray, views: tuple) -> np.ndarray:
        """Probabilities (n, 8) float32 of images from `as_images`, averaged over `views`."""
        probabilities = np.zeros((len(X), NUM_CLASSES), np.float32)
        for start in range(0, len(X), BATCH_SIZE):
            images = preprocess(X[start : start + BATCH_SIZE], self.steps)
            n = len(images)
            images = np.pad(images, ((0, BATCH_SIZE - n), (0, 0), (0, 0), (0, 0)))
            for view in views:
                turned = np.ascontiguousarray(view(images))
                probabilities[start : start + n] += np.asarray(self.network.predict_on_batch(turned))[:n]
        return probabilities / np.float32(len(views))


def _refuse_fork() -> None:
    """Raises RuntimeError in a process forked from one that has loaded weights: TensorFlow would hang there."""
    if Model.process not in (None, os.getpid()):
        raise RuntimeError("this process was forked after a Model was made: start it with multiprocessing's 'spawn'")


# Command line: classify picture files. Nothing below runs in the grader; only this part imports OpenCV.

READABLE = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".npz")
COLUMNS = ("file", "class", "confidence", "second", "second_confidence", "unsure")
STYLE = """
:root { color-scheme: light dark; --line: #d4d4d4; --soft: #595959; --mark: #c5221f }
@media (prefers-color-scheme: dark) { :root { --line: #444; --soft: #aaa; --mark: #ff7b75 } }
body { font: 15px/1.5 system-ui, sans-serif; margin: 1.5em auto; max-width: 72em; padding: 0 1em }
.cells { display: grid; grid-template-columns: repeat(auto-fill, minmax(128px, 1fr)); gap: 14px }
figure { margin: 0; font-size: 13px; line-height: 1.35; overflow-wrap: anywhere } img { width: 96px; height: 96px }
.unsure { outline: 2px solid var(--mark); outline-offset: 3px } .soft { color: var(--soft) }
"""
PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Cells, named</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><style>%s</style>
<h1>%d cells, %d unsure</h1><p class="soft">The least sure come first; a frame marks those below %.0f%%.</p>
<div class="cells">%s</div></html>
"""
FIGURE = """<figure class="%s"><img src="data:image/png;base64,%s" alt=""><figcaption>
<b>%s</b> %.0f%%<br>or %s %.0f%%<br><span class="soft">%s</span></figcaption></figure>"""


def read_picture(source: Path | np.ndarray) -> np.ndarray:
    """The central square of a picture of any size, resized to (96, 96, 3) uint8 RGB.

    source: a file that OpenCV can read, or an array (height, width, 3), RGB, in 0-255 or [0, 1]. Raises ValueError or
    OSError if it cannot be read.
    """
    import cv2

    if isinstance(source, Path):
        content = np.frombuffer(source.read_bytes(), np.uint8)  # on Windows, imread cannot open every file name
        pixels = cv2.imdecode(content, cv2.IMREAD_COLOR) if len(content) else None
        if pixels is None:
            raise ValueError("no picture that can be read")
        source = pixels[..., ::-1]
    side = min(source.shape[:2])
    top, left = ((length - side) // 2 for length in source.shape[:2])
    square = np.rint(_clean(source[None, top : top + side, left : left + side])[0]).astype(np.uint8)
    way = cv2.INTER_AREA if side > IMAGE_SIZE else cv2.INTER_CUBIC
    return square if side == IMAGE_SIZE else cv2.resize(square, (IMAGE_SIZE, IMAGE_SIZE), interpolation=way)


def _opened(file: Path) -> dict[str, Path | np.ndarray]:
    """{name: source for `read_picture`}, one for a picture file, one per picture for an .npz file."""
    if file.is_dir():
        raise ValueError("a folder without pictures")
    if file.suffix.lower() != ".npz":
        return {str(file): file}
    with np.load(file) as archive:
        arrays = {name: archive[name] for name in archive.files}
    stacks = {name: a for name, a in arrays.items() if a.ndim == 4 and a.shape[3] == 3 and a.dtype.kind in "uif"}
    if not stacks:
        raise ValueError("holds no array of pictures (n, height, width, 3)")
    return {f"{file}:{name}[{i}]": image for name, stack in stacks.items() for i, image in enumerate(stack)}


def _each(function, named: dict, failed: dict) -> dict:
    """{name: function(value)}. If the function raises an error, `failed` gets {name: reason} instead."""
    made = {}
    for name, value in named.items():
        try:
            made[name] = function(value)
        except Exception as error:  # unreadable files raise many types
            failed[name] = getattr(error, "strerror", None) or str(error)
    return made


def name_pictures(model: Model, paths: list[Path], failed: dict[str, str]):
    """Classify pictures, files or folders. Yields a dictionary for each: COLUMNS, and `picture` (96, 96, 3) uint8.

    For unreadable files, `failed` gets {name: reason}. On a terminal, more than one batch shows a progress bar.
    """
    files = {}
    for path in paths:
        inside = path.rglob("*") if path.is_dir() else ()
        inside = sorted(f for f in inside if f.suffix.lower() in READABLE and not f.name.startswith("."))
        files |= {str(file): file for file in inside or [path]}
    found = [item for opened in _each(_opened, files, failed).values() for item in opened.items()]
    for start in range(0, len(found), BATCH_SIZE):
        pictures = _each(read_picture, dict(found[start : start + BATCH_SIZE]), failed)
        chances = model.predict_proba(np.stack(list(pictures.values()))) if pictures else ()
        for (name, picture), chance in zip(pictures.items(), chances, strict=True):
            second, first = np.argsort(chance, kind="stable")[-2:]
            sure = chance[[first, second]].astype(float).round(4).tolist()
            values = (name, CLASSES[first], sure[0], CLASSES[second], sure[1], "unsure" if chance[first] < SURE else "")
            yield {**dict(zip(COLUMNS, values, strict=True)), "picture": picture}
        if len(found) > BATCH_SIZE and sys.stderr.isatty():
            done = min(start + BATCH_SIZE, len(found))
            end = "\n" if done == len(found) else ""
            print(f"\r[{'#' * (30 * done // len(found)):30}] {done} of {len(found)}", end=end, file=sys.stderr)


def as_csv(rows: list[dict]) -> str:
    """The rows as CSV text; the header is COLUMNS."""
    import csv
    import io

    text = io.StringIO()
    table = csv.DictWriter(text, COLUMNS, lineterminator="\n", extrasaction="ignore")
    table.writeheader()
    table.writerows(rows)
    return text.getvalue()


def as_html(rows: list[dict]) -> str:
    """The rows as an HTML page with the pictures and their classes, lowest confidence first."""
    import base64
    from html import escape

    import cv2

    figures = []
    for row in sorted(rows, key=lambda row: row["confidence"]):
        picture = base64.b64encode(cv2.imencode(".png", row["picture"][..., ::-1])[1]).decode()
        sure = row["class"], 100 * row["confidence"], row["second"], 100 * row["second_confidence"]
        figures.append(FIGURE % (row["unsure"], picture, *sure, escape(row["file"])))
    return PAGE % (STYLE, len(rows), sum(bool(row["unsure"]) for row in rows), 100 * SURE, "\n".join(figures))


def _write(path: Path, text: str) -> None:
    """Write a file atomically: a temporary file, then a rename."""
    temporary = path.with_name(f".{os.getpid()}-{path.name}")
    try:
        temporary.write_bytes(text.encode("utf-8", "backslashreplace"))
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _options():
    """Parse and check the options. Exits with status 2 if they are invalid."""
    import argparse
    from importlib.util import find_spec

    said = "Name the cells in pictures: one cell a picture, of any size."
    parser = argparse.ArgumentParser("python model.py", description=said)
    parser.add_argument("paths", nargs="+", type=Path, help="pictures, folders of them, or .npz files")
    parser.add_argument("--csv", type=Path, help="table to write")
    parser.add_argument("--html", type=Path, help="page to write, with the pictures on it")
    parser.add_argument("--weights", type=Path, default=FOLDER, help="folder of weights; default: weights")
    args = parser.parse_args()
    if not args.weights.is_dir():
        parser.error(f"--weights {args.weights} is no folder: name one with model.weights.h5 and manifest.json")
    if not find_spec("cv2"):
        parser.error("OpenCV reads the pictures and is missing: python -m pip install opencv-python")
    for out in filter(None, (args.csv, args.html)):
        if not out.resolve().parent.is_dir():
            parser.error(f"{out.parent} is no folder: make it first, or write elsewhere")
        if out.is_dir() or out.suffix.lower() in READABLE:
            parser.error(f"{out} is a folder, or named like a picture: write elsewhere")
    return args


def main() -> int:
    """Classify the pictures. Returns the exit status: 0; 1 if some could not be read; 2 after any other error."""
    args, rows, failed = _options(), [], {}
    sys.stdout.reconfigure(errors="backslashreplace")
    try:
        for row in name_pictures(Model(args.weights), args.paths, failed):
            rows.append(row)
            second = f"or {row['second']} {row['second_confidence']:.0%}"
            print(f"{row['class']:21} {row['confidence']:4.0%}  {second:28}{row['unsure']:8}{row['file']}")
        for path, written in ((args.csv, as_csv), (args.html, as_html)):
            if rows and path:
                _write(path, written(rows))
                print(f"{path} is written")
    except (ImportError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for name, reason in failed.items():
        print(f"skipped: {name}: {reason}", file=sys.stderr)
    unsure = sum(bool(row["unsure"]) for row in rows)
    print(f"{len(rows)} named, {unsure} of them unsure (below {SURE:.0%}); {len(failed)} could not be read")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
