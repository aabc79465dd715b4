"""Draw one held-out cell under some of the card's corruptions, with the label that the weights give each picture.

python -m evaluation.strip --out results/strip.png
"""

from pathlib import Path

import cv2
import numpy as np

import model
from evaluation.corruptions import corrupt_batch
from training import data, shell
from training.files import ROOT

SHOWN = ("clean", "hue", "motion", "grid_mask", "gaussian_noise", "jpeg", "invert", "composite")
SEVERITY, SIDE = 4, 96


def strip(image: np.ndarray, predictor: model.Model) -> np.ndarray:
    """The pictures side by side, above each its corruption, below it the label and its probability: RGB uint8."""
    pictures = [image if name == "clean" else corrupt_batch(image[None], name, SEVERITY)[0] for name in SHOWN]
    columns = []
    for name, picture, row in zip(SHOWN, pictures, predictor.predict_proba(np.stack(pictures)), strict=True):
        column = np.full((SIDE + 44, SIDE + 10, 3), 255, np.uint8)
        column[22:-22, 5:-5] = cv2.resize(picture, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
        below = f"{data.CLASSES[row.argmax()]} {row.max():.0%}"
        for text, y in ((name.replace("_", " "), 15), (below, SIDE + 37)):
            cv2.putText(column, text, (5, y), cv2.FONT_HERSHEY_SIMPLEX, 0.36, (40, 40, 40), 1, cv2.LINE_AA)
        columns.append(column)
    return np.hstack(columns)


def main() -> None:
    parser = shell.parser("evaluation.strip", __doc__)
    parser.add_argument("--data", type=Path, default=ROOT / "data" / "heldout.npz", help="default: data/heldout.npz")
    parser.add_argument("--cell", type=int, default=0, help="row of the file; default: 0")
    parser.add_argument("--out", type=shell.new_file, default=ROOT / "results/strip.png", help="default: %(default)s")
    args = parser.parse_args()
    with shell.plain_errors():
        cells = data.read(args.data)
        if not 0 <= args.cell < len(cells):
            raise ValueError(f"--cell {args.cell}: {args.data} holds cells 0 to {len(cells) - 1}")
        picture = strip(cells.images[args.cell], model.Model())
    args.out.write_bytes(cv2.imencode(".png", picture[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 9])[1].tobytes())
    print(f"{args.out}: a cell of class {data.CLASSES[cells.labels[args.cell]]}")


if __name__ == "__main__":
    main()
