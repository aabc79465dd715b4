"""Preprocessing of microscope images: illumination, contrast and segmentation, I = S(C(L(I))); and a bilateral filter.

    image = apply(image, ("illumination", "clahe", "segment"))

Each step takes one image (height, width, 3) uint8 RGB and returns a new one of the same shape and type. NumPy and
OpenCV only: a submission whose network was trained on such images must include this file.
"""

from collections.abc import Sequence

import cv2
import numpy as np


def illumination(image: np.ndarray) -> np.ndarray:
    """Divides by the background illumination (Gonzalez and Woods, Digital Image Processing, 4th ed., 9.6 and 2.6): the
    grey image, closed with a square of 65 pixels, wider than any cell, and blurred, sigma 16. The mean level stays; the
    gain is the same for the three channels."""
    grey, square = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.getStructuringElement(cv2.MORPH_RECT, (65, 65))
    field = cv2.morphologyEx(grey, cv2.MORPH_CLOSE, square, borderType=cv2.BORDER_REFLECT).astype(np.float32)
    field = np.maximum(cv2.GaussianBlur(field, (0, 0), 16, borderType=cv2.BORDER_REFLECT), 1)
    return np.rint(image * (field.mean() / field)[..., None]).clip(0, 255).astype(np.uint8)


def clahe(image: np.ndarray) -> np.ndarray:
    """Contrast-limited adaptive histogram equalisation (Zuiderveld 1994) of the lightness L* of CIELAB: 8x8 tiles, tone
    curves of slope up to 2. Hue does not change."""
    lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB)
    lab[..., 0] = cv2.createCLAHE(2.0, (8, 8)).apply(np.ascontiguousarray(lab[..., 0]))
    return cv2.cvtColor(lab, cv2.COLOR_LAB2RGB)


def segment(image: np.ndarray) -> np.ndarray:
    """Replaces the background by its mean colour; an image in which no cell is found does not change. Pale cytoplasm is
    sometimes taken for background."""
    mask = cell_mask(image)
    if not mask.any() or mask.all():
        return image.copy()
    return np.where(mask[..., None], image, np.rint(image[~mask].mean(0)).astype(np.uint8))


def cell_mask(image: np.ndarray) -> np.ndarray:
    """Mask (height, width) bool of the cell in the middle: Otsu's threshold (1979) of the slightly blurred green
    channel, which haemoglobin and the stain absorb; an opening to remove specks, a closing to fill gaps. Only regions
    that reach into the central third are kept."""
    green = cv2.GaussianBlur(np.ascontiguousarray(image[..., 1]), (0, 0), 1.5)
    _, mask = cv2.threshold(green, 0, 1, cv2.THRESH_BINARY_INV | cv2.THRESH_OTSU)
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5))
    mask = cv2.morphologyEx(cv2.morphologyEx(mask, cv2.MORPH_OPEN, disc), cv2.MORPH_CLOSE, disc)
    _, regions = cv2.connectedComponents(mask)
    height, width = mask.shape
    central = regions[height // 3 : height - height // 3, width // 3 : width - width // 3]
    return np.isin(regions, central[central > 0])


def bilateral(image: np.ndarray) -> np.ndarray:
    """Bilateral filter (Tomasi and Manduchi 1998) of 9 pixels; standard deviations 30 grey levels and 3 pixels."""
    return cv2.bilateralFilter(image, 9, 30.0, 3.0)


STEPS = {"illumination": illumination, "clahe": clahe, "segment": segment, "bilateral": bilateral}


def apply(image: np.ndarray, steps: Sequence[str]) -> np.ndarray:
    """The image after the steps of these names in STEPS, in that order; it is not modified. Raises ValueError for an
    unknown name, or an image that is not (height, width, 3) uint8."""
    if unknown := [step for step in steps if step not in STEPS]:
        raise ValueError(f"unknown step {', '.join(map(repr, unknown))}; choose from {', '.join(STEPS)}")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"the image is {image.dtype} {image.shape}, expected uint8 (height, width, 3)")
    image = image.copy()
    for step in steps:
        image = STEPS[step](image)
    return image
