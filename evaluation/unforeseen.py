"""Score weights on image changes that neither training nor the report card uses: a test of generalisation.

    python -m evaluation unforeseen runs/ours

training.augment has none of these changes, and they must stay out of training. Some resemble an operation there: `webp`
(JPEG), `halftone` (dither), `palette` (posterize), `painting` (flatten and outline), `double_exposure` (MixUp), and
`other_laboratory` (several kinds at once: stain, lamp, focus, sampling, noise). Each function takes (image uint8
(96, 96, 3) RGB, rng) and returns the same shape.
"""

import argparse
import zlib
from pathlib import Path

import cv2
import numpy as np

from evaluation import cards, markdown, submissions
from training import data, shell
from training.augment import pixel_grid, to_uint8
from training.files import write_json

X, Y = pixel_grid((96, 96))  # coordinates of every pixel


def sample(image: np.ndarray, x: np.ndarray, y: np.ndarray, border: int = cv2.BORDER_REFLECT_101) -> np.ndarray:
    """Sample the image bilinearly at (x, y), each (96, 96) in pixels."""
    return cv2.remap(image, x.astype(np.float32), y.astype(np.float32), cv2.INTER_LINEAR, borderMode=border)


def swirl(image, rng):
    """Rotate by 92 degrees at the centre, and by less the further out."""
    x, y = X - 47.5, Y - 47.5
    angle = rng.choice([-1, 1]) * 1.6 * np.exp(-np.hypot(x, y) / 30)
    return sample(image, np.cos(angle) * x - np.sin(angle) * y + 47.5, np.sin(angle) * x + np.cos(angle) * y + 47.5)


def fisheye(image, rng):
    """Barrel or pincushion distortion, black outside."""
    x, y = X - 47.5, Y - 47.5
    scale = 1 + rng.choice([0.5, -0.3]) * (x**2 + y**2) / 48**2
    return sample(image, scale * x + 47.5, scale * y + 47.5, cv2.BORDER_CONSTANT)


def wavy_rows(image, rng):
    """Shift rows by up to 5 pixels, along a sine with a period of 8 to 30 rows, like a damaged video tape."""
    return sample(image, X + 5 * np.sin(2 * np.pi * Y / rng.uniform(8, 30)), Y)


def tiles(image, rng):
    """Swap six pairs of 16x16 squares."""
    image = image.copy()
    for top, left, other_top, other_left in rng.integers(0, 81, (6, 4)):
        one, other = (np.s_[y : y + 16, x : x + 16] for y, x in ((top, left), (other_top, other_left)))
        image[one], image[other] = image[other].copy(), image[one].copy()
    return image


def halftone(image, rng):
    """Newsprint: black dots on white, 6 pixels apart at 45 degrees, larger where the image is darker."""
    grey = cv2.normalize(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), None, 0, 1, cv2.NORM_MINMAX, cv2.CV_32F)
    screen = 0.5 + 0.25 * (np.cos(np.pi * (X + Y) / 3) + np.cos(np.pi * (X - Y) / 3))
    return to_uint8(255 * (grey > screen))[..., None].repeat(3, axis=2)


def palette(image, rng):
    """Reduce the image to four colours, chosen by k-means."""
    criteria = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_MAX_ITER, 10, 1.0)
    cv2.setRNGSeed(int(rng.integers(2**31)))
    pixels = image.reshape(-1, 3).astype(np.float32)
    _, nearest, colours = cv2.kmeans(pixels, 4, None, criteria, 1, cv2.KMEANS_PP_CENTERS)
    return to_uint8(colours[nearest.ravel()].reshape(image.shape))


def webp(image, rng):
    """WebP at quality 3."""
    return cv2.imdecode(cv2.imencode(".webp", image, [cv2.IMWRITE_WEBP_QUALITY, 3])[1], cv2.IMREAD_COLOR)


def false_colour(image, rng):
    """Show the grey levels in one of four colour maps."""
    maps = [cv2.COLORMAP_JET, cv2.COLORMAP_VIRIDIS, cv2.COLORMAP_HOT, cv2.COLORMAP_OCEAN]
    return cv2.applyColorMap(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), maps[rng.integers(4)])


def words(image, rng):
    """Write three random words over the image."""
    image = image.copy()
    for _ in range(3):
        word = "".join(map(chr, rng.integers(65, 91, 6)))
        place = int(rng.integers(-10, 40)), int(rng.integers(10, 95))
        cv2.putText(image, word, place, cv2.FONT_HERSHEY_SIMPLEX, 0.7, rng.integers(0, 256, 3).tolist(), 2)
    return image


def double_exposure(image, rng):
    """Blend in the mirrored image, shifted by a third of the side, with share 0.38."""
    ghost = np.roll(image[:, ::-1], 32 * rng.choice([-1, 1]), axis=int(rng.integers(2)))
    return cv2.addWeighted(image, 0.62, ghost, 0.38, 0)


def background(image, rng):
    """Keep the stained part and replace the background by random patches of colour."""
    stained = cv2.GaussianBlur(cv2.cvtColor(image, cv2.COLOR_RGB2HSV)[..., 1], (0, 0), 1.5)
    mask = cv2.threshold(stained, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)[1]
    mask = cv2.GaussianBlur(cv2.dilate(mask, np.ones((7, 7), np.uint8)), (0, 0), 1)[..., None] / np.float32(255)
    patches = cv2.resize(rng.uniform(0, 255, (6, 6, 3)), image.shape[1::-1], interpolation=cv2.INTER_CUBIC)
    return to_uint8(mask * image + (1 - mask) * patches)


def painting(image, rng):
    """Smooth surfaces with black outlines (OpenCV's stylization)."""
    return cv2.stylization(image, sigma_s=30, sigma_r=0.6)


def rain(image, rng):
    """Draw forty bright slanting streaks."""
    streaks = np.zeros(image.shape[:2], np.float32)
    for x, y in rng.integers(0, 96, (40, 2)).tolist():
        cv2.line(streaks, (x, y), (x + 4, y + 12), 180.0, 1)
    return to_uint8(image + cv2.GaussianBlur(streaks, (0, 0), 0.6)[..., None])


def other_laboratory(image, rng):
    """Another stain (optical densities mixed and scaled), yellow light, blur, half the resolution, noise and JPEG."""
    stain = [[0.7, 0.25, 0.1], [0.05, 0.9, 0.15], [0.3, 0.1, 0.5]]
    density = -np.log((image.astype(np.float32) + 1) / 256) @ np.array(stain)
    image = 256 * np.exp(-density * rng.uniform(0.5, 1.6)) * (1.0, 0.93, 0.72) * rng.uniform(0.6, 1.1)
    image = cv2.resize(cv2.GaussianBlur(image, (0, 0), rng.uniform(0.3, 1.5)), (48, 48), interpolation=cv2.INTER_AREA)
    image += rng.normal(0, 6, image.shape) + cv2.GaussianBlur(rng.normal(0, 20, image.shape), (0, 0), 1)
    image = to_uint8(cv2.resize(image, (96, 96), interpolation=cv2.INTER_CUBIC))
    return cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 40])[1], cv2.IMREAD_COLOR)


KINDS = {kind.__name__: kind for kind in (
    swirl, fisheye, wavy_rows, tiles, halftone, palette, webp, false_colour, words, double_exposure, background,
    painting, rain, other_laboratory,
)}  # fmt: skip


def change(images: np.ndarray, kind: str) -> np.ndarray:
    """Apply a kind in KINDS to each of images uint8 (n, 96, 96, 3), with a fixed seed by kind and index."""
    seed = zlib.crc32(kind.encode())
    return np.stack([KINDS[kind](image, np.random.default_rng((seed, i))) for i, image in enumerate(images)])


def measure(target: Path, cells: data.Cells) -> dict:
    """Return the hashes of what `open_model` opens, its accuracy by kind and their mean (0-1)."""
    with submissions.open_model(target) as (model, hashes):
        said = {kind: submissions.predict(model, change(cells.images, kind))[0] for kind in KINDS}
    kinds = {kind: round(float(np.mean(labels == cells.labels)), 5) for kind, labels in said.items()}
    return {**hashes, "kinds": kinds, "mean": round(float(np.mean(list(kinds.values()))), 5)}


def text(found: dict) -> str:
    """Table of accuracy by kind."""
    rows = [[kind.replace("_", " "), markdown.percent(share)] for kind, share in found["kinds"].items()]
    table = markdown.table(["change", "accuracy %"], [*rows, ["mean", markdown.percent(found["mean"])]])
    return f"{table}\n\nOver {found['cells']} held-out cells."


def options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("target", type=Path, help="submission zip, folder with model.py, training run, or ensemble")
    add("--heldout", type=Path, default=Path("data/heldout.npz"), help="NPZ of cells (default: %(default)s)")
    add("--images", type=shell.positive, default=400, help="cells of each kind (default: %(default)s)")
    add("--json", type=shell.new_file, metavar="OUT", help="write the figures there")


def run(args: argparse.Namespace) -> None:
    cells = data.read(args.heldout, part="val")
    cells = cells.take(data.stratified_order(cells.labels)[: args.images])
    origin = {"cells": len(cells), "heldout": data.digest(cells), "commit": cards.commit()}
    found = origin | measure(args.target, cells)
    if args.json:
        write_json(args.json, found)
    markdown.show(text(found))
