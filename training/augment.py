"""Augmentation: small pure functions on one image, composed into named policies; MixUp and CutMix on a batch.

    image = apply(POLICIES["ours"], image, rng)                                 # one image
    images, targets = mix(images, targets, rng, mixup=0.15, cutmix=0.25)        # a batch; drawn per image

Every operation takes (image (h, w, 3) uint8 RGB, strength in [0, 1], rng) and returns a new uint8 image of the same
shape; at strength 0 it returns the same pixels. All randomness comes from the generator that is passed in. NumPy and
OpenCV only, so that worker processes need no deep-learning framework.
"""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np


def to_uint8(values: np.ndarray) -> np.ndarray:
    """Round to the nearest integer and clip to 0-255."""
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def blend(image: np.ndarray, other: np.ndarray, weight: float) -> np.ndarray:
    """(1 - weight) * image + weight * other; weights outside [0, 1] extrapolate, as in PIL's enhancers."""
    return cv2.addWeighted(image, 1 - weight, other, weight, 0)


def look_up(image: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Map each value through a table: (256, 1) for all channels, or (256, 3) with one column per channel."""
    return cv2.LUT(image, to_uint8(table)[None])


def signed(strength: float, rng: np.random.Generator) -> float:
    """Uniform in [-strength, strength]."""
    return rng.uniform(-strength, strength)


def any_colour(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A random fill colour, (3,) float in 0-255: black, white, the image's mean, one of its pixels, or any other."""
    kind = rng.integers(5)
    if kind == 2:
        return np.array(cv2.mean(image)[:3])
    if kind == 3:
        return image[rng.integers(image.shape[0]), rng.integers(image.shape[1])].astype(float)
    return rng.uniform(0, 255, 3) if kind == 4 else np.full(3, 255.0 * kind)


def any_border(image: np.ndarray, rng: np.random.Generator) -> dict:
    """Random border arguments for OpenCV: a fill colour, reflection, edge replication or wrap-around."""
    modes = [cv2.BORDER_CONSTANT] * 2 + [cv2.BORDER_REFLECT_101, cv2.BORDER_REPLICATE, cv2.BORDER_WRAP]
    return {"borderValue": any_colour(image, rng).tolist(), "borderMode": modes[rng.integers(5)]}


def warp(image: np.ndarray, matrix, **border) -> np.ndarray:
    """Sample at matrix @ (x, y, 1), in pixels from the centre. Black outside, unless OpenCV's border... are given."""
    matrix = np.array(matrix, float)
    centre = (np.array(image.shape[1::-1]) - 1) / 2
    matrix[:, 2] += centre - matrix[:, :2] @ centre
    return cv2.warpAffine(image, matrix, image.shape[1::-1], flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, **border)


def turn(angle: float, dx: float = 0.0, dy: float = 0.0) -> list:
    """The matrix for `warp` of a rotation in radians and a shift in pixels."""
    return [[np.cos(angle), -np.sin(angle), dx], [np.sin(angle), np.cos(angle), dy]]


def pixel_grid(shape: tuple[int, ...]) -> list[np.ndarray]:
    """Coordinates of every pixel of an image of this shape (h, w, ...): x and y, each (h, w) float32."""
    return np.meshgrid(*(np.arange(side, dtype=np.float32) for side in shape[1::-1]))


def smooth_field(image: np.ndarray, knots: int, rng: np.random.Generator) -> np.ndarray:
    """A smooth random field (h, w) float32 in about [-1, 1]: uniform noise on a knots x knots grid, interpolated."""
    grid = rng.uniform(-1, 1, (knots, knots)).astype(np.float32)
    return cv2.resize(grid, image.shape[1::-1], interpolation=cv2.INTER_CUBIC)


# --- geometry


def flip_turn(image, strength, rng):
    """With probability `strength`, one of the eight combinations of flips and quarter turns."""
    if rng.random() >= strength:
        return image.copy()
    image = np.rot90(image, rng.integers(4))
    return (image[:, ::-1] if rng.random() < 0.5 else image).copy()


def affine(image, strength, rng):
    """Rotation up to 180 degrees, zoom from e^-1 to e^0.5, shear up to 0.35, shift up to a quarter of the side."""
    angle, zoom = signed(strength, rng) * np.pi, np.exp(strength * rng.uniform(-1, 0.5))
    shear = np.array([[1, signed(0.35 * strength, rng)], [signed(0.35 * strength, rng), 1]])
    matrix = np.array(turn(angle))[:, :2] @ shear / zoom  # from the result's coordinates to the image's
    shift = rng.uniform(-0.25, 0.25, 2) * strength * image.shape[0]
    return warp(image, np.column_stack([matrix, -matrix @ shift]), **any_border(image, rng))


def perspective(image, strength, rng):
    """Move each corner by up to a quarter of the side."""
    h, w = image.shape[:2]
    corners = np.array([[0, 0], [w, 0], [w, h], [0, h]], np.float32)
    moved = corners + rng.uniform(-0.25, 0.25, (4, 2)).astype(np.float32) * strength * min(h, w)
    points = cv2.perspectiveTransform(np.dstack(pixel_grid(image.shape)), cv2.getPerspectiveTransform(corners, moved))
    return cv2.remap(image, points, None, cv2.INTER_LINEAR, **any_border(image, rng))


def elastic(image, strength, rng):
    """Smooth random displacement of up to about a tenth of the side (Simard et al. 2003)."""
    knots, reach = int(rng.integers(3, 9)), 0.1 * strength * image.shape[0]
    reach *= 3 / knots  # finer fields get smaller shifts, so that the picture does not fold over itself
    x, y = (grid + reach * smooth_field(image, knots, rng) for grid in pixel_grid(image.shape))
    return cv2.remap(image, x, y, cv2.INTER_LINEAR, **any_border(image, rng))


# --- tone and colour

LEVELS = np.arange(256, dtype=np.float32)[:, None]  # a column, as `look_up` takes it
LUMA = np.tile([0.299, 0.587, 0.114], (3, 1))  # ITU-R BT.601


def stretch(image: np.ndarray, mean: float | np.ndarray, factor: float) -> np.ndarray:
    """Multiply the distance to a mean, a number or each channel's own, by a factor."""
    return look_up(image, mean + (LEVELS - mean) * factor)


def without_bits(image: np.ndarray, bits: int) -> np.ndarray:
    """Set the `bits` lowest bits to 0."""
    return look_up(image, LEVELS // 2**bits * 2**bits)


def recolour(image: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Multiply each pixel's (r, g, b) by a 3x3 matrix."""
    return to_uint8(cv2.transform(image.astype(np.float32), matrix))


def saturate(image: np.ndarray, factor: float) -> np.ndarray:
    """Multiply each colour's distance to its luma by a factor."""
    return recolour(image, factor * np.eye(3) + (1 - factor) * LUMA)


def brightness(image, strength, rng):
    """Multiply by up to e^+-0.9, or add up to +-100."""
    if rng.random() < 0.5:
        return look_up(image, LEVELS * np.exp(signed(0.9 * strength, rng)))
    return look_up(image, LEVELS + 100 * signed(strength, rng))


def contrast(image, strength, rng):
    """Stretch the distance to the mean level by e^+-1.2."""
    return stretch(image, image.mean(), np.exp(signed(1.2 * strength, rng)))


def gamma(image, strength, rng):
    """255 (v / 255)^g, with g between e^-1 and e^1."""
    return look_up(image, 255 * (LEVELS / 255) ** np.exp(signed(strength, rng)))


def tone_curve(image, strength, rng):
    """Map the levels through a smooth random curve, common or per channel (after Models Genesis, Zhou et al. 2019)."""
    channels = int(rng.choice([1, 3]))
    knots = rng.uniform(-1, 1, (int(rng.integers(3, 7)), channels))
    return look_up(image, LEVELS + 110 * strength * cv2.resize(knots, (channels, 256), interpolation=cv2.INTER_CUBIC))


def autocontrast(image, strength, rng):
    """Stretch each channel to the full range; blended in by strength."""
    low, high = image.min((0, 1)).astype(np.float32), image.max((0, 1)).astype(np.float32)
    return blend(image, look_up(image, (LEVELS - low) * 255 / np.maximum(high - low, 1)), strength)


def equalize(image, strength, rng):
    """Histogram equalisation of each channel; blended in by strength."""
    return blend(image, cv2.merge([cv2.equalizeHist(c) for c in cv2.split(image)]), strength)


def solarize(image, strength, rng):
    """Invert values above a threshold drawn between 255 (1 - strength) and 255."""
    threshold = 255 * (1 - rng.uniform(0, strength))
    return look_up(image, np.where(threshold < LEVELS, 255 - LEVELS, LEVELS))


def posterize(image, strength, rng):
    """Keep the 8 to 2 highest bits."""
    return without_bits(image, round(rng.uniform(0, 6 * strength)))


BAYER = np.array([[0, 8, 2, 10], [12, 4, 14, 6], [3, 11, 1, 9], [15, 7, 13, 5]], np.float32)[..., None] / 16 + 1 / 32


def dither(image, strength, rng):
    """Quantise to few levels, at least 2, with ordered (Bayer 1973), random or no dithering: print, palettes."""
    levels = round(255 ** (1 - strength * rng.uniform(0.5, 1))) + 1
    if levels >= 256:
        return image.copy()
    (h, w), kind = image.shape[:2], rng.integers(3)
    if kind == 1:
        threshold = rng.random((h, w, 1), np.float32)
    else:
        threshold = np.float32(0.5) if kind else np.tile(BAYER, (-(-h // 4), -(-w // 4), 1))[:h, :w]
    return to_uint8(np.floor(image * np.float32((levels - 1) / 255) + threshold) * (255 / (levels - 1)))


def invert(image, strength, rng):
    """Blend in the negative, by strength. Weights near one half are left out, as the picture would vanish."""
    weight = strength * rng.choice([rng.uniform(0, 0.3), rng.uniform(0.8, 1)])
    return blend(image, 255 - image, weight)


def saturation(image, strength, rng):
    """Move colours away from (up to 3-fold) or towards their grey."""
    return saturate(image, 1 + strength * (rng.uniform(0, 2) if rng.random() < 0.5 else rng.uniform(-1, 0)))


def hue(image, strength, rng):
    """Rotate colours about the grey axis by up to 180 degrees (Rodrigues' formula)."""
    angle = np.pi * signed(strength, rng)
    cross = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / np.sqrt(3)
    return recolour(image, np.cos(angle) * np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) / 3)


def grey(image, strength, rng):
    """Desaturate: blend in the luma, by strength."""
    return recolour(image, (1 - strength) * np.eye(3) + strength * LUMA)


def channel_shift(image, strength, rng):
    """Add up to +-100 to each channel."""
    return look_up(image, LEVELS + 100 * rng.uniform(-strength, strength, 3))


def channel_gain(image, strength, rng):
    """Multiply each channel by e^+-0.6: white balance, lamp colour."""
    return look_up(image, LEVELS * np.exp(0.6 * rng.uniform(-strength, strength, 3)))


def channel_shuffle(image, strength, rng):
    """Permute the channels; blended in by strength."""
    return blend(image, np.ascontiguousarray(image[..., rng.permutation(3)]), strength)


def stain(image, strength, rng):
    """Stain jitter: mix, scale and shift the channels' optical density, for any dye (after Tellez et al. 2018)."""
    density = cv2.LUT(image, -np.log((LEVELS[None] + 1) / 256))  # natural log: the base does not matter here
    matrix = np.diag(np.exp(0.5 * rng.uniform(-strength, strength, 3))) + 0.2 * rng.uniform(-strength, strength, (3, 3))
    shift = 0.15 * np.log(10) * rng.uniform(-strength, strength, (3, 1))
    return to_uint8(256 * cv2.exp(cv2.transform(density, -np.hstack([matrix, shift]))) - 1)


def restain(image, strength, rng):
    """Another stain, lamp and camera: each channel becomes a random increasing curve of the luma, with its own darkest
    and lightest value. The differences between the colours and the luma are added back, times 0 to 1.5."""
    low, light = 110 * strength * rng.random(3), 255 - 110 * strength * rng.random(3)
    bend, keep = np.exp(0.7 * rng.uniform(-strength, strength, 3)), 1 + strength * rng.uniform(-1, 0.5)
    luma = cv2.transform(image, LUMA[:1])
    mapped = cv2.LUT(cv2.merge([luma] * 3), (low + (light - low) * (LEVELS / 255) ** bend)[None])
    return to_uint8(mapped + keep * (image - luma[..., None].astype(np.float32)))


def random_convolution(image, strength, rng):
    """Blend in a random mix of the channels, each through a random filter of 1 to 5 pixels; each channel keeps its mean
    and deviation. Textures and colours change, shapes do not (after RandConv, Xu et al. 2021, arXiv:2007.13003)."""
    size = int(rng.choice([1, 3, 5]))
    mean, spread = cv2.meanStdDev(image)
    filtered = cv2.transform(image.astype(np.float32) - mean.ravel().astype(np.float32), rng.standard_normal((3, 3)))
    kernels = rng.standard_normal((3, size, size), np.float32)
    filtered = cv2.merge([cv2.filter2D(c, -1, k) for c, k in zip(cv2.split(filtered), kernels, strict=True)])
    middle, width = cv2.meanStdDev(filtered)
    scale = (spread / np.maximum(width, 1e-3)).ravel()
    matrix = np.hstack([np.diag(scale), mean - scale[:, None] * middle])  # back to the image's mean and spread
    return blend(image, to_uint8(cv2.transform(filtered, matrix)), rng.uniform(0, strength))


def illumination(image, strength, rng):
    """Uneven light: multiply by the exponential of a smooth field, common or (one in three) per channel."""
    channels = 3 if rng.random() < 1 / 3 else 1
    field = np.stack([smooth_field(image, int(rng.integers(2, 5)), rng) for _ in range(channels)], axis=-1)
    return to_uint8(image * np.exp(0.7 * strength * field))


def veil(image, strength, rng):
    """Haze: blend with a random colour by up to 0.8, evenly or weighted by a smooth field."""
    share = rng.uniform(0, 0.8 * strength)
    if rng.random() < 0.5:
        share = share * (0.5 + 0.5 * smooth_field(image, int(rng.integers(2, 7)), rng)).clip(0, 1)[..., None]
    return to_uint8(image + share * (any_colour(image, rng).astype(np.float32) - image))


# --- focus, sampling, noise, occlusion


def convolve(image: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Correlate with a kernel that is first scaled to sum to 1; reflected at the border."""
    return cv2.filter2D(image, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REFLECT_101)


def gaussian_blur(image, strength, rng):
    """Gaussian blur, sigma up to 3 pixels."""
    return cv2.GaussianBlur(image, (0, 0), max(0.1, rng.uniform(0, 3 * strength)))


def motion_blur(image, strength, rng):
    """Average along a line of up to 15 pixels in any direction."""
    length = rng.uniform(0, 15 * strength)
    if length < 1:
        return image.copy()
    radius, angle = int(np.ceil(length / 2)), rng.uniform(0, np.pi)
    end = np.array([np.cos(angle), np.sin(angle)]) * length / 2
    kernel = np.zeros((2 * radius + 1,) * 2, np.float32)
    points = [np.rint((radius + sign * end) * 16).astype(int).tolist() for sign in (-1, 1)]
    cv2.line(kernel, *points, 1.0, 1, cv2.LINE_8, 4)
    return convolve(image, kernel)


def defocus(image, strength, rng):
    """Convolve with a disc of radius up to 4 pixels, softened at its edge."""
    radius = rng.uniform(0, 4 * strength)
    return convolve(image, np.clip(radius + 0.5 - np.hypot(*np.mgrid[-5:6, -5:6]), 0, 1))


def sharpen(image, strength, rng):
    """Unsharp mask: add up to 3 times the difference from the blurred image."""
    return blend(image, cv2.GaussianBlur(image, (0, 0), 1.5), -rng.uniform(0, 3 * strength))


def rank_filter(image, strength, rng):
    """Blend in the minimum, maximum or median of 3x3 or 5x5 pixels: thicker or thinner outlines, denoising."""
    size, kind = int(rng.choice([3, 5])), rng.integers(3)
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))
    other = (cv2.erode(image, disc), cv2.dilate(image, disc), cv2.medianBlur(image, size))[kind]
    return blend(image, other, rng.uniform(0, strength))


def flatten(image, strength, rng):
    """Remove texture but keep outlines: a bilateral filter, one to three times, as by denoising or compression."""
    if strength == 0:
        return image.copy()
    colour, space = rng.uniform(0, 120 * strength), rng.uniform(1, 5)
    for _ in range(int(rng.integers(1, 4))):
        image = cv2.bilateralFilter(image, 5, colour, space)
    return image


def outline(image, strength, rng):
    """Darken, lighten or emboss edges (drawing, interference contrast); half of the images fade to grey, up to 0.9."""
    fine = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.5, 2)).astype(np.float32)
    dx, dy = cv2.Sobel(fine, -1, 1, 0, scale=0.25), cv2.Sobel(fine, -1, 0, 1, scale=0.25)
    kind, angle = rng.integers(3), rng.uniform(0, 2 * np.pi)
    relief = np.cos(angle) * dx + np.sin(angle) * dy if kind == 2 else cv2.magnitude(dx, dy) * (1 - 2 * kind)
    if rng.random() < 0.5:
        relief = cv2.transform(relief, LUMA)
    share = rng.uniform(0, 0.9 * strength) * (rng.random() < 0.5)
    return to_uint8(image + share * (128.0 - image) + rng.uniform(0, 6 * strength) * relief)


def scatter(image, strength, rng):
    """Frosted glass: each pixel is sampled at a random offset of up to 4 pixels."""
    reach = rng.uniform(0, 4 * strength)
    x, y = pixel_grid(image.shape) + rng.uniform(-reach, reach, (2, *image.shape[:2])).astype(np.float32)
    return cv2.remap(image, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)


def misregister(image, strength, rng):
    """Shift each channel by up to 4 pixels and zoom it by up to 6%: chromatic aberration, colours taken in turn."""
    shifts, zooms = 4 * rng.uniform(-strength, strength, (3, 2)), np.exp(0.06 * rng.uniform(-strength, strength, 3))
    return cv2.merge([
        warp(channel, [[zoom, 0, dx], [0, zoom, dy]], borderMode=cv2.BORDER_REFLECT_101)
        for channel, zoom, (dx, dy) in zip(cv2.split(image), zooms, shifts, strict=True)
    ])  # fmt: skip


def pixelate(image, strength, rng):
    """Shrink by a factor of up to 4 and enlarge again, each with a random interpolation."""
    size, factor = image.shape[1::-1], 1 + rng.uniform(0, 3 * strength)
    down, up = rng.choice([cv2.INTER_NEAREST, cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_AREA], 2)
    small = cv2.resize(image, [round(side / factor) for side in size], interpolation=int(down))
    return cv2.resize(small, size, interpolation=int(up))


def jpeg(image, strength, rng):
    """JPEG at quality 75 down to 5."""
    if strength == 0:
        return image.copy()
    quality = [cv2.IMWRITE_JPEG_QUALITY, int(75 - rng.uniform(0, 70 * strength))]
    code = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), quality)[1]
    return cv2.cvtColor(cv2.imdecode(code, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def normal(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Standard normal noise, float32: for each value, or (one in three) the same for the three channels."""
    shape = (*image.shape[:2], 1) if rng.random() < 1 / 3 else image.shape
    return rng.standard_normal(shape, np.float32)


def gaussian_noise(image, strength, rng):
    """Add normal noise, sigma up to 50."""
    return to_uint8(image + rng.uniform(0, 50 * strength) * normal(image, rng))


def shot_noise(image, strength, rng):
    """Photon noise: Poisson with at least 10 photons at white, in its normal approximation."""
    photons = rng.uniform(0, strength) ** 2 / 10
    return to_uint8(image + np.sqrt(255 * photons * image.astype(np.float32)) * normal(image, rng))


def speckle_noise(image, strength, rng):
    """Multiply by 1 + normal noise, sigma up to 0.5."""
    return to_uint8(image * (1 + rng.uniform(0, 0.5 * strength) * normal(image, rng)))


def impulse_noise(image, strength, rng):
    """Set up to 15% of the pixels, or of the single values, to black or white."""
    shape = (*image.shape[:2], 1) if rng.random() < 0.5 else image.shape
    share, draw = rng.uniform(0, 0.15 * strength), rng.random(shape, np.float32)
    return np.where(draw < share / 2, np.uint8(0), np.where(draw > 1 - share / 2, np.uint8(255), image))


def plane_wave(image, strength, rng):
    """Add a wave in any direction, 1 to 48 cycles a picture, up to 60 high (Vaish et al. 2024, arXiv:2403.01944)."""
    x, y = (grid * (2 * np.pi / side) for grid, side in zip(pixel_grid(image.shape), image.shape[1::-1], strict=True))
    cycles, angle = np.exp(rng.uniform(0, np.log(48))), rng.uniform(0, 2 * np.pi)
    wave = np.sin(cycles * np.sin(angle) * y + rng.uniform(0, 2 * np.pi) + cycles * np.cos(angle) * x)[..., None]
    return to_uint8(image + wave * (60 * rng.uniform(-strength, strength, 3)).astype(np.float32))


def texture(image, strength, rng):
    """Add noise of six octaves, grey or coloured, deviation up to 50: dirt (cf. PixMix, Hendrycks et al. 2022)."""
    channels, slope = int(rng.choice([1, 3])), rng.uniform(-1, 0.5)
    field = np.zeros((*image.shape[:2], channels), np.float32)
    for knots in 3 * 2 ** np.arange(6):
        grid = rng.standard_normal((knots, knots, channels), np.float32) * np.float32(knots**slope)
        field += cv2.resize(grid, image.shape[1::-1], interpolation=cv2.INTER_CUBIC).reshape(field.shape)
    return to_uint8(image + field * np.float32(rng.uniform(0, 50 * strength) / field.std()))


def pattern(image, strength, rng):
    """Add a repeating pattern: a piece of the picture, resized, recoloured, tiled and high-pass filtered; deviation up
    to 50, even or (one in two) times the brightness. Fabric, print, moire (after PixMix, Hendrycks et al. 2022, which
    takes patterns from other pictures)."""
    h, w = image.shape[:2]
    side = int(np.exp(rng.uniform(np.log(4), np.log(48))))
    crop = int(rng.integers(side, min(h, w) + 1)) if side < min(h, w) else min(h, w)
    top, left = rng.integers(0, h - crop + 1), rng.integers(0, w - crop + 1)
    tile = cv2.resize(image[top : top + crop, left : left + crop], (side, side), interpolation=cv2.INTER_AREA)
    tile = flip_turn(tile, 1.0, rng)
    field = np.tile(tile, (-(-h // side), -(-w // side), 1))[:h, :w].astype(np.float32)
    field = cv2.transform(field, rng.standard_normal((3, 3)).astype(np.float32))
    size = int(rng.choice([3, 5, 9, 33]))
    field -= cv2.blur(field, (size, size))
    if rng.random() < 0.5:
        field *= image / np.float32(255)
    return to_uint8(image + field * np.float32(rng.uniform(0, 50 * strength) / max(field.std(), 1e-3)))


def cutout(image, strength, rng):
    """Fill one to three rectangles, each up to 0.6 of the side, with a colour or noise (DeVries & Taylor 2017)."""
    image, (h, w) = image.copy(), image.shape[:2]
    count = int(rng.integers(1, 4)) if strength else 0
    for _ in range(count):
        dy, dx = (rng.uniform(0.05, 0.6, 2) * strength * (h, w) / np.sqrt(count)).astype(int) + 1
        top, left = rng.integers(0, h - dy + 1), rng.integers(0, w - dx + 1)
        fill = rng.integers(0, 256, (dy, dx, 3)) if rng.random() < 0.2 else to_uint8(any_colour(image, rng))
        image[top : top + dy, left : left + dx] = fill
    return image


def grid_mask(image, strength, rng):
    """Fill a rotated grid of squares, up to 0.7 of the period wide, with a colour (GridMask, Chen et al. 2020)."""
    period, angle = rng.uniform(8, 40), rng.uniform(0, np.pi)
    width = rng.uniform(0.2, 0.7) * strength
    x, y = (grid / period for grid in pixel_grid(image.shape))
    hidden = np.ones((*image.shape[:2], 1), bool)
    for turned in (angle, angle + np.pi / 2):  # the two directions, in periods
        along = (np.sin(turned) * y + rng.random() + np.cos(turned) * x)[..., None]
        hidden &= along - np.floor(along) < np.float32(width)
    return np.where(hidden, to_uint8(any_colour(image, rng)), image)


def blots(image, strength, rng):
    """Draw one to five soft-edged ellipses, filled or not, in one colour: dirt, dye, drops, dust, glare."""
    side, mask = image.shape[0], np.zeros(image.shape[:2], np.float32)
    count = int(rng.integers(1, 6)) if strength else 0
    for _ in range(count):
        centre = rng.integers(0, side, 2).tolist()
        axes = [1 + int(v) for v in rng.uniform(0.02, 0.3, 2) * strength * side / np.sqrt(count)]
        filled = -1 if rng.random() < 0.7 else int(rng.integers(1, 4))
        cv2.ellipse(mask, centre, axes, rng.uniform(0, 180), 0, 360, rng.uniform(0.3, 1), filled, cv2.LINE_AA)
    mask = cv2.GaussianBlur(mask, (0, 0), rng.uniform(0.3, 3))[..., None]
    return to_uint8(image + (any_colour(image, rng).astype(np.float32) - image) * mask)


def scratches(image, strength, rng):
    """Draw one to six lines, straight or kinked, of any colour, 1 to 4 pixels wide: hairs, scratches, grids."""
    image, (h, w) = image.copy(), image.shape[:2]
    count = int(rng.integers(1, 2 + round(5 * strength))) if strength else 0
    for _ in range(count):
        points = np.rint(rng.uniform(-0.2, 1.2, (int(rng.integers(2, 5)), 2)) * (w, h)).astype(np.int32)
        width = 1 + int(rng.uniform(0, 4 * strength))
        cv2.polylines(image, [points], False, any_colour(image, rng).tolist(), width, cv2.LINE_AA)
    return image


def drop_lines(image, strength, rng):
    """Fill up to 45% of the rows, or of the columns, with a colour or shift them: a bad sensor, interlacing."""
    image = image.copy()
    lines = image.transpose(1, 0, 2) if rng.random() < 0.5 else image
    gone = rng.random(len(lines)) < rng.uniform(0, 0.45 * strength)
    if rng.random() < 0.5:
        lines[gone] = to_uint8(any_colour(lines, rng))
    else:
        lines[gone] = np.roll(lines[gone], 1 + int(rng.uniform(0, 8 * strength)), axis=1)
    return image


# --- RandAugment and AutoAugment as in their papers
# Cubuk et al. 2020 (arXiv:1909.13719), with its ranges: strength s = 1 is the paper's magnitude 10. Unlike those
# above, these operations use the strength as given and draw only its sign; pixels from outside the image are black.


def sign(rng: np.random.Generator) -> float:
    """1 or -1."""
    return 1.0 if rng.random() < 0.5 else -1.0


SMOOTH = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]], np.float32)  # PIL's kernel
RANDAUGMENT = {
    "autocontrast": lambda image, s, rng: autocontrast(image, float(s > 0), rng),  # full effect at any strength
    "equalize": lambda image, s, rng: equalize(image, float(s > 0), rng),  # likewise
    "posterize": lambda image, s, rng: without_bits(image, round(4 * s)),
    "rotate": lambda image, s, rng: warp(image, turn(np.deg2rad(30) * s * sign(rng))),
    "solarize": lambda image, s, rng: look_up(image, np.where(LEVELS >= 256 * (1 - s), 255 - LEVELS, LEVELS)),
    "shear_x": lambda image, s, rng: warp(image, [[1, 0.3 * s * sign(rng), 0], [0, 1, 0]]),
    "shear_y": lambda image, s, rng: warp(image, [[1, 0, 0], [0.3 * s * sign(rng), 1, 0]]),
    "translate_x": lambda image, s, rng: warp(image, [[1, 0, 0.45 * image.shape[1] * s * sign(rng)], [0, 1, 0]]),
    "translate_y": lambda image, s, rng: warp(image, [[1, 0, 0], [0, 1, 0.45 * image.shape[0] * s * sign(rng)]]),
    "identity": lambda image, s, rng: image.copy(),
    "colour": lambda image, s, rng: saturate(image, 1 + 0.9 * s * sign(rng)),
    "contrast": lambda image, s, rng: stretch(image, image.mean((0, 1)) @ LUMA[0], 1 + 0.9 * s * sign(rng)),
    "brightness": lambda image, s, rng: look_up(image, LEVELS * (1 + 0.9 * s * sign(rng))),
    "sharpness": lambda image, s, rng: blend(image, convolve(image, SMOOTH), -0.9 * s * sign(rng)),
}
AUTOAUGMENT = (  # pairs of (operation, probability, magnitude 0-9): the ImageNet policy of the paper's appendix
    (("posterize", 0.4, 8), ("rotate", 0.6, 9)), (("solarize", 0.6, 5), ("autocontrast", 0.6, 5)),
    (("equalize", 0.8, 8), ("equalize", 0.6, 3)), (("posterize", 0.6, 7), ("posterize", 0.6, 6)),
    (("equalize", 0.4, 7), ("solarize", 0.2, 4)), (("equalize", 0.4, 4), ("rotate", 0.8, 8)),
    (("solarize", 0.6, 3), ("equalize", 0.6, 7)), (("posterize", 0.8, 5), ("equalize", 1.0, 2)),
    (("rotate", 0.2, 3), ("solarize", 0.6, 8)), (("equalize", 0.6, 8), ("posterize", 0.4, 6)),
    (("rotate", 0.8, 8), ("colour", 0.4, 0)), (("rotate", 0.4, 9), ("equalize", 0.6, 2)),
    (("equalize", 0.0, 7), ("equalize", 0.8, 8)), (("invert", 0.6, 4), ("equalize", 1.0, 8)),
    (("colour", 0.6, 4), ("contrast", 1.0, 8)), (("rotate", 0.8, 8), ("colour", 1.0, 2)),
    (("colour", 0.8, 8), ("solarize", 0.8, 7)), (("sharpness", 0.4, 7), ("invert", 0.6, 8)),
    (("shear_x", 0.6, 5), ("equalize", 1.0, 9)), (("colour", 0.4, 0), ("equalize", 0.6, 3)),
    (("equalize", 0.4, 7), ("solarize", 0.2, 4)), (("solarize", 0.6, 5), ("autocontrast", 0.6, 5)),
    (("invert", 0.6, 4), ("equalize", 1.0, 8)), (("colour", 0.6, 4), ("contrast", 1.0, 8)),
    (("equalize", 0.8, 8), ("equalize", 0.6, 3)),
)  # fmt: skip


def autoaugment(image, strength, rng):
    """AutoAugment (Cubuk et al. 2019, arXiv:1805.09501): a random pair of operations, each with its probability."""
    operations = RANDAUGMENT | {"invert": lambda image, s, rng: 255 - image if s > 0 else image}
    image = image.copy()
    for name, odds, magnitude in AUTOAUGMENT[rng.integers(len(AUTOAUGMENT))]:
        if rng.random() < odds:
            image = operations[name](image, strength * magnitude / 9, rng)
    return image


# --- what the reports used: Keras's rotations and shifts, RandAugment and AugMix as in KerasCV 0.9
# KerasCV's magnitude 0.3 is not the paper's 3 of 10. Pixels from outside the image are reflected.

REFLECT = {"borderMode": cv2.BORDER_REFLECT}


def rotate_shift(image, strength, rng):
    """Rotate by up to 30 degrees and shift by up to a fifth of the sides; reflected outside, as Keras's layers do."""
    angle = np.deg2rad(30) * signed(strength, rng)
    return warp(image, turn(angle, *(0.2 * side * signed(strength, rng) for side in image.shape[1::-1])), **REFLECT)


def near(strength: float, rng: np.random.Generator) -> float:
    """KerasCV's magnitude: normal around the strength with deviation 0.15, clipped to [0, 1]; 0 at strength 0."""
    return strength and min(max(rng.normal(strength, 0.15), 0.0), 1.0)


def shear(image: np.ndarray, x: float = 0.0, y: float = 0.0) -> np.ndarray:
    """Sample at (column + x row, row + y column), counted from the top left corner; reflected outside."""
    down, right = (np.array(image.shape[:2]) - 1) / 2
    return warp(image, [[1, x, x * down], [y, 1, y * right]], **REFLECT)


def keras_solarize(image, strength, rng):
    """Add 110 m, then invert values of at least 255 (1 - m); the two magnitudes m are drawn separately."""
    if strength == 0:
        return image.copy()
    lighter = np.minimum(LEVELS + 110 * near(strength, rng), 255)
    return look_up(image, np.where(lighter < 255 * (1 - near(strength, rng)), lighter, 255 - lighter))


KERAS_RANDAUGMENT = {
    "autocontrast": RANDAUGMENT["autocontrast"],
    "equalize": RANDAUGMENT["equalize"],
    "solarize": keras_solarize,
    "colour": lambda image, s, rng: grey(image, near(s, rng), rng),
    "contrast": lambda image, s, rng: stretch(image, image.mean((0, 1), np.float32), 1 + signed(s, rng)),
    "brightness": lambda image, s, rng: look_up(image, LEVELS + 255 * signed(s, rng)),
    "shear_x": lambda image, s, rng: shear(image, x=near(s, rng) * sign(rng)),
    "shear_y": lambda image, s, rng: shear(image, y=near(s, rng) * sign(rng)),
    "translate_x": lambda image, s, rng: warp(image, turn(0, dx=-signed(s, rng) * image.shape[1]), **REFLECT),
    "translate_y": lambda image, s, rng: warp(image, turn(0, dy=-signed(s, rng) * image.shape[0]), **REFLECT),
}
KERAS_AUGMIX = {  # KerasCV never draws its ninth operation, a shift along y
    "autocontrast": RANDAUGMENT["autocontrast"],
    "equalize": RANDAUGMENT["equalize"],
    "posterize": lambda image, s, rng: without_bits(image, 5 - int(3 * s)),
    "rotate": lambda image, s, rng: warp(image, turn(30 * s), **REFLECT),  # radians: a mistake in KerasCV
    "solarize": lambda image, s, rng: look_up(image, np.where(int(255 * s) > LEVELS, LEVELS, 255 - LEVELS)),
    "shear_x": lambda image, s, rng: shear(image, x=0.3 * s * sign(rng)),
    "shear_y": lambda image, s, rng: shear(image, y=0.3 * s * sign(rng)),
    "translate_x": lambda image, s, rng: warp(image, turn(0, -int(s * image.shape[1] / 3) * sign(rng)), **REFLECT),
}


def keras_augmix(image, strength, rng):
    """KerasCV's AugMix (Hendrycks et al. 2020, arXiv:1912.02781): three chains of one to three operations, each up to
    `strength`, are averaged with Dirichlet(1) weights; the result is mixed with the image by a Beta(1, 1) weight."""
    if strength == 0:
        return image.copy()
    operations = tuple(KERAS_AUGMIX.values())
    mixture, keep = np.zeros(image.shape, np.float32), rng.beta(1, 1)
    for weight in rng.dirichlet((1, 1, 1)):
        chain = image
        for _ in range(rng.integers(1, 4)):
            chain = operations[rng.integers(len(operations))](chain, strength * (1 - rng.random()), rng)
        mixture = cv2.addWeighted(mixture, 1, chain, weight, 0, dtype=cv2.CV_32F)
    return cv2.addWeighted(image, keep, mixture, 1 - keep, 0, dtype=cv2.CV_8U)


@dataclass(frozen=True)
class Layer:
    """With probability `odds`, one of `operations` at a strength drawn uniformly from (`low`, `strength`]."""

    odds: float
    operations: tuple[Callable, ...]
    strength: float = 1.0
    low: float = 0.0


@dataclass(frozen=True)
class Policy:
    """`always`, then `layers` in a random order per image, each with its own odds; a share `plain` skips `layers`."""

    layers: tuple[Layer, ...] = ()
    always: tuple[Callable, ...] = ()
    plain: float = 0.0


# The best teams used a long sequence of varied layers, each with its own probability. The order is random, so that
# borders and patches are recoloured about half the time. On average an image passes four or five layers.
OURS = (
    Layer(0.8, (affine,)),
    Layer(0.2, (perspective, elastic)),
    Layer(0.4, (brightness, contrast, gamma, tone_curve, autocontrast, equalize)),
    Layer(0.4, (saturation, hue, grey, channel_shift, channel_gain, channel_shuffle)),
    Layer(0.5, (stain, restain)),
    Layer(0.25, (illumination, veil)),
    Layer(0.3, (solarize, posterize, dither, invert)),
    Layer(0.25, (random_convolution,)),
    Layer(0.35, (gaussian_blur, motion_blur, defocus, sharpen, rank_filter, flatten, outline)),
    Layer(0.3, (pixelate, jpeg, scatter, misregister)),
    Layer(0.35, (gaussian_noise, shot_noise, speckle_noise, impulse_noise)),
    Layer(0.3, (plane_wave, texture, pattern)),
    Layer(0.5, (cutout, grid_mask, blots, scratches, drop_lines)),
)
RANDAUGMENT_TWICE = (Layer(1.0, tuple(RANDAUGMENT.values()), 0.3, low=0.3),) * 2
RANDAUGMENT_KERAS_CV = (Layer(10 / 11, tuple(KERAS_RANDAUGMENT.values()), 0.3, low=0.3),) * 2  # its default rate
AUGMIX_KERAS_CV = (Layer(1.0, (keras_augmix,), 0.2, low=0.2),)
SHIFTS, CUTOUT = Layer(1.0, (rotate_shift,), low=1.0), Layer(1.0, (cutout,), 0.5)
POLICIES = {
    "none": Policy(),
    "flips": Policy(always=(flip_turn,)),
    "shifts": Policy((SHIFTS,)),
    "flips_shifts": Policy((SHIFTS,), always=(flip_turn,)),
    "randaugment": Policy(RANDAUGMENT_TWICE, always=(flip_turn,)),
    "randaugment_cutout": Policy((*RANDAUGMENT_TWICE, CUTOUT), always=(flip_turn,)),
    "autoaugment": Policy((Layer(1.0, (autoaugment,), low=1.0),)),
    "randaugment_keras_cv": Policy(RANDAUGMENT_KERAS_CV),
    "randaugment_cutout_keras_cv": Policy((*RANDAUGMENT_KERAS_CV, CUTOUT)),
    "augmix_keras_cv": Policy(AUGMIX_KERAS_CV),
    "augmix_randaugment_keras_cv": Policy((*AUGMIX_KERAS_CV, *RANDAUGMENT_KERAS_CV)),
    "ours": Policy(OURS, always=(flip_turn,), plain=0.08),
}


def apply(policy: Policy, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Apply a policy to one image (h, w, 3) uint8, which is not modified."""
    for operation in policy.always:
        image = operation(image, 1.0, rng)
    if rng.random() < policy.plain:
        return image
    for index in rng.permutation(len(policy.layers)):
        layer = policy.layers[index]
        if rng.random() < layer.odds:
            operation = layer.operations[rng.integers(len(layer.operations))]
            image = operation(image, layer.strength - (layer.strength - layer.low) * rng.random(), rng)
    return image


def mix(images: np.ndarray, targets: np.ndarray, rng: np.random.Generator, mixup: float = 0.0, cutmix: float = 0.0):
    """RandMix: for each image of a batch, draw MixUp, CutMix or neither, with another random image of the batch.

    images: (n, h, w, 3) uint8; targets: (n, k) float32 class weights; mixup, cutmix: their probabilities, at most 1
    together. MixUp (Zhang et al. 2018) averages with weights from Beta(0.4, 0.4); CutMix (Yun et al. 2019) pastes a
    rectangle whose area is drawn uniformly. Targets are mixed by weight or area. Returns new arrays.
    """
    mixed, weights = images.copy(), targets.astype(np.float32)
    partners = rng.permutation(len(images))
    h, w = images.shape[1:3]
    for i, j in enumerate(partners):
        draw, keep = rng.random(), 1.0
        if draw < mixup:
            keep = rng.beta(0.4, 0.4)
            mixed[i] = blend(images[i], images[j], 1 - keep)
        elif draw < mixup + cutmix:
            side = np.sqrt(rng.random())
            dy, dx = round(h * side), round(w * side)
            top, left = rng.integers(0, h - dy + 1), rng.integers(0, w - dx + 1)
            mixed[i, top : top + dy, left : left + dx] = images[j, top : top + dy, left : left + dx]
            keep = 1 - dy * dx / (h * w)
        weights[i] = keep * targets[i] + (1 - keep) * targets[j]
    return mixed, weights
