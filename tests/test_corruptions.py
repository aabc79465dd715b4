"""The report card's corruptions: identity, growth, independence of the batch, and each family's arithmetic by hand."""

import json
from functools import partial

import cv2
import numpy as np
import pytest
from conftest import ROOT

from evaluation import corruptions
from evaluation.corruptions import BORDERS, CORRUPTIONS, FAMILIES, SEVERITIES, corrupt, corrupt_batch

NAMES = [*CORRUPTIONS, "composite"]
FUNCTIONS = {**CORRUPTIONS, "composite": corruptions.composite}


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def flat(value) -> np.ndarray:
    """An image of one colour."""
    return np.full((96, 96, 3), value, np.uint8)


def white(rows, columns) -> np.ndarray:
    """A black image, white in these rows and columns."""
    image = flat(0)
    image[rows, columns] = 255
    return image


def centre_of(mask: np.ndarray) -> np.ndarray:
    """The mean (y, x) of a mask's pixels, from the image's centre."""
    return np.argwhere(mask).mean(axis=0) - 47.5


def drawn_cells(n: int) -> np.ndarray:
    """Simple stained cells: a light field, a cell, a dark grainy nucleus."""
    random = rng(7)
    cells = []
    for _ in range(n):
        image = flat(random.integers((225, 200, 180), (250, 230, 215))).astype(float)
        centre = tuple(int(v) for v in random.integers(40, 56, 2))
        cv2.circle(image, centre, int(random.integers(24, 36)), (190, 160, 205), -1)
        cv2.circle(image, centre, int(random.integers(10, 20)), (95, 50, 140), -1)
        cells.append(np.clip(image + random.normal(0, 3, image.shape), 0, 255).astype(np.uint8))
    return np.stack(cells)


@pytest.fixture(scope="module")
def cells():
    return drawn_cells(24)


def assert_grows(distances: list[float]) -> None:
    assert all(a < b for a, b in zip([0, *distances], distances, strict=False)), distances


def test_the_families_are_complete():
    numbers = {family: len(members) for family, members in FAMILIES.items()}
    assert numbers == {"medmnist_c": 11, "noise": 4, "colour": 9, "geometry": 5 * len(BORDERS), "occlusion": 2}
    assert len(CORRUPTIONS) == 46  # no name in two families


@pytest.mark.parametrize("name", NAMES)
def test_distance_grows_with_strength_at_equal_draws(cells, name):
    def distance(strength):
        changed = [FUNCTIONS[name](image, strength, rng(k)) for k, image in enumerate(cells[:6])]
        return np.abs(np.stack(changed).astype(int) - cells[:6]).mean()

    assert_grows([distance(s / 5) for s in SEVERITIES])


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_distance_grows_with_severity_as_the_card_draws(heldout, name):
    images = heldout[0][:300]
    assert_grows([np.abs(corrupt_batch(images, name, s).astype(int) - images).mean() for s in SEVERITIES])


@pytest.mark.parametrize("name", NAMES)
def test_strength_zero_is_the_identity_and_no_strength_changes_the_original(cells, name):
    for seed, image in enumerate((*cells[:2], flat(0), flat(255), flat((255, 0, 3)))):
        before = image.copy()
        image.flags.writeable = False
        assert np.array_equal(FUNCTIONS[name](image, 0.0, rng(seed)), before)
        for severity in (1, 5):
            out = corrupt(image, name, severity)
            assert out.shape == (96, 96, 3) and out.dtype == np.uint8 and not np.shares_memory(out, image)
        assert np.array_equal(image, before)


@pytest.mark.parametrize("name", NAMES)
def test_the_batch_does_not_matter(cells, name):
    whole = corrupt_batch(cells[:4], name, 4)
    order = np.array([2, 0, 3, 1])
    assert np.array_equal(corrupt_batch(cells[:4][order], name, 4), whole[order])
    assert corrupt_batch(cells[:0], name, 4).shape == (0, 96, 96, 3)
    for image, expected in zip(cells[:2], whole, strict=False):
        assert np.array_equal(corrupt(np.asfortranarray(image), name, 4), expected)  # nor does the memory layout


def test_the_draw_follows_image_name_and_severity(cells):
    def holes(image, name, severity):
        return (corrupt(image, name, severity) != image).any(axis=-1)

    nearly = cells[0].copy()
    nearly[0, 0, 0] ^= 1
    assert not np.array_equal(holes(cells[0], "impulse_noise", 5), holes(nearly, "impulse_noise", 5))
    assert not np.array_equal(corrupt(flat(128), "gaussian_noise", 1), corrupt(flat(128), "gaussian_noise", 2))
    assert len({corrupt(image, "cutout", 5).tobytes() for image in (flat(v) for v in range(60, 70))}) == 10


@pytest.mark.parametrize(
    ("image", "name", "severity", "message"),
    [
        (flat(9), "snow", 1, "there is no 'snow' of severity 1"),
        (flat(9), "jpeg", 0, "severity"),
        (flat(9), "jpeg", 6, "severity"),
        (flat(9).astype(np.float32), "jpeg", 1, "float32"),
        (flat(9)[:95], "jpeg", 1, r"\(95, 96, 3\)"),
    ],
)
def test_refusals(image, name, severity, message):
    with pytest.raises(ValueError, match=message):
        corrupt(image, name, severity)


# --- the arithmetic of each -------------------------------------------------------------------------------------------


def test_pixelate_averages_blocks(cells):
    out = corrupt(cells[0], "pixelate", 2)  # half the pixels: blocks of 2x2
    means = cells[0].reshape(48, 2, 48, 2, 3).mean(axis=(1, 3))
    assert np.array_equal(out, np.rint(means).astype(np.uint8).repeat(2, 0).repeat(2, 1))
    assert len(np.unique(corrupt(cells[0], "pixelate", 5).reshape(-1, 3), axis=0)) <= 24 * 24


def test_jpeg_is_the_codec_on_rgb(cells):
    code = cv2.imencode(".jpg", cv2.cvtColor(cells[0], cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 7])[1]
    expected = cv2.cvtColor(cv2.imdecode(code, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    assert np.array_equal(corrupt(cells[0], "jpeg", 5), expected)


def test_defocus_spreads_a_point_over_its_disk():
    out = corrupt(white(48, 48), "defocus", 5)[..., 0].astype(int)  # radius 6 * 96 / 224 = 2.57
    assert out[48, 48] == out[48, 50] == out[46, 48] > 0  # flat within the disk
    assert out[48, 52] == 0 and abs(out.sum() - 255) < 15
    assert np.array_equal(out, out.T)


def test_motion_trails_one_way():
    for seed in range(5):
        rows, columns = np.nonzero(corruptions.motion(white(48, 48), 1.0, rng(seed))[..., 0])
        width = max(np.ptp(columns), np.ptp(rows)) + 1
        assert 4 <= width <= 6  # 10 * 96 / 224 = 4.3 pixels
        assert min(abs(columns.max() - 48), abs(columns.min() - 48)) <= 1
        assert np.ptp(columns) >= np.ptp(rows)  # within 45 degrees of the horizontal


@pytest.mark.parametrize(
    ("name", "severity", "before", "after"),
    [("brightness_up", 5, 100, 140), ("brightness_up", 5, 200, 255), ("brightness_down", 5, 100, 50),
     ("saturate", 5, (200, 150, 100), (200, 130, 60)),  # S = 0.5, V = 200 become S = 0.7, hue and value kept
     ("saturate", 5, (200, 20, 20), (200, 0, 0)), ("saturate", 5, 90, 90),  # S stops at 1; greys stay grey
     ("hue", 5, 77, 77), ("equalize", 5, 90, 0),  # one value only: the darkest goes to 0
     ("solarize", 5, (128, 127, 255), (127, 127, 0)), ("solarize", 1, (229, 230, 12), (229, 25, 12)),
     ("posterize", 5, (255, 130, 63), (192, 128, 0)), ("posterize", 1, (255, 130, 63), (252, 128, 60)),
     ("invert", 5, (255, 130, 0), (0, 125, 255))],
)  # fmt: skip
def test_one_colour_becomes_another(name, severity, before, after):
    assert (corrupt(flat(before), name, severity) == after).all()


def test_contrast_factors():
    half = flat(100)
    half[48:] = 200
    assert set(np.unique(corrupt(half, "contrast_down", 5))) == {125, 175}  # mean 150, factor 0.5
    assert set(np.unique(corrupt(half, "contrast_up", 5))) == {85, 215}  # factor 1.3


def test_stain_deposit_darkens_and_bubble_lightens():
    light, dark = flat(230), flat(60)
    stained, bubbled = corrupt(light, "stain_deposit", 5), corrupt(dark, "bubble", 5)
    assert (stained <= light).all() and (bubbled >= dark).all()
    assert 0.005 < (stained != light).any(axis=-1).mean() < 0.1
    assert bubbled.max() <= np.rint(60 + 195 * 130 / 255)  # the rim's opacity
    blots = cv2.connectedComponents((corrupt(light, "stain_deposit", 1)[..., 0] < 150).astype(np.uint8))[0] - 1
    assert blots == 1


def test_noise_statistics():
    grey = flat(128)
    difference = corrupt(grey, "gaussian_noise", 3) - 128.0
    assert abs(difference.std() - 0.12 * 255) < 1 and abs(difference.mean()) < 1
    assert abs((corrupt(grey, "speckle_noise", 2) - 128.0).std() - 0.15 * 128) < 1
    shot = corrupt(grey, "shot_noise", 1).astype(float)  # 60 photons are white: variance 128 * 255 / 60
    assert abs(shot.mean() - 128) < 1 and abs(shot.std() - np.sqrt(128 * 255 / 60)) < 1
    impulse = corrupt(grey, "impulse_noise", 5)
    assert set(np.unique(impulse)) == {0, 128, 255}
    assert abs((impulse == 0).mean() - 0.085) < 0.01 and abs((impulse == 255).mean() - 0.085) < 0.01


def test_hue_keeps_luma():
    image = flat((140, 120, 110))
    out = corrupt(image, "hue", 3)
    assert np.abs((out - image.astype(int)) @ corruptions.LUMA).max() < 1 and not np.array_equal(out, image)


def test_channel_operations(cells):
    shifted = np.unique((corrupt(flat(128), "channel_shift", 5) - 128.0).reshape(-1, 3), axis=0)
    assert shifted.shape == (1, 3) and np.abs(shifted).max() == 90
    shuffled = corrupt(flat((10, 90, 200)), "channel_shuffle", 5)[0, 0].tolist()
    assert sorted(shuffled) == [10, 90, 200] and shuffled != [10, 90, 200]
    grey = corrupt(cells[0], "grey", 5)
    assert np.array_equal(grey[..., 0], grey[..., 1]) and np.array_equal(grey[..., 0], grey[..., 2])
    assert np.array_equal(grey[..., 0], np.rint(cells[0] @ corruptions.LUMA))


def test_equalize_flattens_the_histogram(cells):
    dim = (cells[0] // 4 + 60).astype(np.uint8)
    out = corrupt(dim, "equalize", 5)
    assert out.min() == 0 and out.max() == 255


def test_uneven_light_is_a_ramp():
    out = corrupt(flat(100), "uneven_light", 5)[..., 0].astype(float)
    assert abs(out.mean() - 100) < 1 and 10 < out.min() < 60 and 140 < out.max() <= 210
    centre = out[48, 48]
    assert np.abs(out + out[::-1, ::-1] - 2 * centre).max() < 8  # point-symmetric about the centre


@pytest.mark.parametrize("operation", ["rotate", "shift", "shear", "zoom", "elastic"])
def test_borders(operation):
    image, colours = flat(200), set()
    for seed in range(6):
        black, coloured, reflected, wrapped = (
            CORRUPTIONS[f"{operation}_{border}"](image, 1.0, rng(seed)) for border in BORDERS
        )
        assert np.array_equal(reflected, image) and np.array_equal(wrapped, image)  # they show only the image
        corners = {tuple(black[y, x]) for y in (0, -1) for x in (0, -1)} | {(200, 200, 200), (0, 0, 0)}
        assert len(corners) == 2 or operation == "elastic"
        outside = (coloured != 200).any(axis=-1)
        if outside.any():
            values, counts = np.unique(coloured[outside], axis=0, return_counts=True)
            colours.add(tuple(values[counts.argmax()]))  # the others are the edge's interpolation
    assert len(colours) > 2


def test_shift_moves_by_its_distance():
    y, x = centre_of(corrupt(white(slice(46, 50), slice(46, 50)), "shift_wrapped", 5)[..., 0] > 0)
    assert abs(np.hypot(y, x) - 0.27 * 96) < 0.7


def test_rotate_turns_about_the_centre():
    to_the_right = white(slice(47, 49), slice(80, 84))
    y, x = centre_of(corrupt(to_the_right, "rotate_black", 5)[..., 0] > 100)
    assert abs(abs(np.degrees(np.arctan2(y, x))) - 45) < 2 and abs(np.hypot(y, x) - 34) < 1


def test_zoom_scales_about_the_centre():
    image = white(slice(38, 58), slice(38, 58))
    zoomed = [corruptions.zoom(image, 1.0, rng(seed), "black")[..., 0] for seed in range(8)]
    small, large = sorted({round(out.sum(dtype=int) / 255) for out in zoomed})
    assert abs(small - (20 / 1.8) ** 2) < 6 and abs(large - (20 * 1.8) ** 2) < 20


def test_shear_slants_a_line():
    tilts = set()
    for seed in range(8):
        out = corruptions.shear(white(slice(None), slice(47, 49)), 1.0, rng(seed), "black")[..., 0] > 127
        tilts.add(int(round(out[70].nonzero()[0].mean() - out[26].nonzero()[0].mean())))
    assert tilts == {-26, 0, 26}  # 44 rows * 0.6; 0 where it slants along y, which leaves a vertical line


def test_elastic_moves_at_most_its_amplitude():
    across = np.broadcast_to(np.arange(96, dtype=np.uint8)[None, :, None], (96, 96, 3)).copy()
    moved = np.abs(corrupt(across, "elastic_reflected", 5)[16:-16, 16:-16, 0].astype(int) - across[16:-16, 16:-16, 0])
    assert 2 < moved.max() <= 10


def test_cutout_hides_one_square():
    for value in range(20, 30):
        hidden = (corrupt(flat(value), "cutout", 5) != value).any(axis=-1)
        rows, columns = np.nonzero(hidden)
        assert hidden.sum() == 48 * 48 and np.ptp(rows) == np.ptp(columns) == 47


def test_grid_mask_hides_its_share():
    shares = [(corrupt(flat(value), "grid_mask", 5) == 0).all(axis=-1).mean() for value in range(100, 120)]
    assert abs(np.mean(shares) - 0.36) < 0.04


# --- the composite, the fingerprint -----------------------------------------------------------------------------------


def test_composite_layers_several_families(cells, monkeypatch):
    applied = []

    def layer(family, image, strength, random):
        applied.append((family, strength))
        return image

    monkeypatch.setattr(corruptions, "FAMILIES", {family: {"spy": partial(layer, family)} for family in FAMILIES})
    for seed in range(200):
        corruptions.composite(cells[0], 0.5, rng(seed))
    assert abs(len(applied) / 200 - sum(odds for _, odds in corruptions.LAYERS)) < 0.4
    assert {family for family, _ in applied} == set(FAMILIES)
    assert all(0.2 <= strength <= 0.5 for _, strength in applied)


def test_fingerprint_is_that_of_the_committed_cards():
    card = json.loads((ROOT / "results" / "card.json").read_text())
    assert corruptions.fingerprint() == card["provenance"]["corruptions_sha256"]


def test_fingerprint_follows_what_matters(monkeypatch):
    before, invert = corruptions.fingerprint(), CORRUPTIONS["invert"]

    def changed(by):
        def corruption(image, strength, random):
            return np.clip(invert(image, strength, random).astype(int) + by, 0, 255).astype(np.uint8)

        monkeypatch.setitem(CORRUPTIONS, "invert", corruption)
        return corruptions.fingerprint()

    assert changed(1) == before  # a last bit, as another processor may give it
    assert len(changed(4)) == 64 and changed(4) != before
