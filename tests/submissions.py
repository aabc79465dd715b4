"""Small submissions made by code: numpy only, so that a rehearsal takes a second instead of a minute."""

import io
import zipfile
from pathlib import Path

import numpy as np

# The class of an image is written in its top left pixel, so that a submission of five lines is right everywhere.
GOOD = """
import numpy as np

class Model:
    def __init__(self):
        pass

    def predict(self, X):
        return np.asarray(X)[:, 0, 0, 0].astype(np.int64) // 30
"""


def cells(n: int = 64, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(images (n, 96, 96, 3) uint8, labels (n,)) that GOOD labels without a mistake."""
    rng = np.random.default_rng(seed)
    images, labels = rng.integers(0, 256, (n, 96, 96, 3), np.uint8), rng.integers(0, 8, n)
    images[:, 0, 0, 0] = labels * 30 + 5
    return images, labels


def model(
    predict: str = "return np.asarray(X)[:, 0, 0, 0].astype(np.int64) // 30", init: str = "pass", top: str = ""
) -> str:
    """A model.py with these bodies; lines are indented here."""

    def body(text: str) -> str:
        return "\n".join("        " + line for line in text.strip("\n").splitlines())

    return (
        f"import numpy as np\n{top}\n\nclass Model:\n    def __init__(self):\n{body(init)}\n\n"
        f"    def predict(self, X):\n{body(predict)}\n"
    )


def make_zip(path: Path, files: dict[str, str | bytes] | str, compression: int = zipfile.ZIP_DEFLATED) -> Path:
    """Write `files` ({name: contents}, or just model.py's text) as a zip."""
    files = {"model.py": files} if isinstance(files, str) else files
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, contents in files.items():
            file.writestr(name, contents)
    return path


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()
