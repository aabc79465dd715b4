"""The report card's corruptions: identity, growth, independence of the batch, and each family's arithmetic by hand."""

import json

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
    image = np.empty((96, 96, 3), np.uint8)
    image[:] = value
    return image


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


def distances_at_equal_draws(images: np.ndarray, name: str) -> list[float]:
    """Mean absolute distance from the originals at each severity, every image with one seed at all severities."""
    return [
        float(np.mean([np.abs(FUNCTIONS[name](x, s / 5, rng(k)).astype(int) - x).mean() for k, x in enumerate(images)]))
        for s in SEVERITIES
    ]


# --- every corruption -------------------------------------------------------------------------------------------------


def test_the_families_are_complete():
    assert {family: len(members) for family, members in FAMILIES.items()} == {
        "medmnist_c": 11,
        "noise": 4,
        "colour": 9,
        "geometry": 5 * len(BORDERS),
        "occlusion": 2,
    }
    assert len(CORRUPTIONS) == 46  # no name in two families


@pytest.mark.parametrize("name", NAMES)
def test_strength_zero_is_the_identity(cells, name):
    for seed, image in enumerate([*cells[:2], flat(0), flat(255), flat((255, 0, 3))]):
        assert np.array_equal(FUNCTIONS[name](image, 0.0, rng(seed)), image)


@pytest.mark.parametrize("name", NAMES)
def test_distance_grows_with_strength(cells, name):
    assert_grows(distances_at_equal_draws(cells[:6], name))


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_distance_grows_with_severity_as_the_card_draws(heldout, name):
    images = heldout[0][:300]
    assert_grows([np.abs(corrupt_batch(images, name, s).astype(int) - images).mean() for s in SEVERITIES])


@pytest.mark.parametrize("name", NAMES)
def test_shape_dtype_and_the_original(cells, name):
    for image in (cells[0], flat(0), flat(255)):
        before = image.copy()
        image.flags.writeable = False
        for severity in (1, 5):
            out = corrupt(image, name, severity)
            assert out.shape == (96, 96, 3) and out.dtype == np.uint8 and not np.shares_memory(out, image)
        assert np.array_equal(image, before)


@pytest.mark.parametrize("name", NAMES)
def test_the_batch_does_not_matter(cells, name):
    whole = corrupt_batch(cells[:4], name, 4)
    order = np.array([2, 0, 3, 1])
    assert np.array_equal(corrupt_batch(cells[:4][order], name, 4), whole[order])
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


def test_empty_batch():
    assert corrupt_batch(np.empty((0, 96, 96, 3), np.uint8), "jpeg", 1).shape == (0, 96, 96, 3)


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


# --- medmnist_c -------------------------------------------------------------------------------------------------------


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
    image = flat(0)
    image[48, 48] = 255
    out = corrupt(image, "defocus", 5)[..., 0].astype(int)  # radius 6 * 96 / 224 = 2.57
    assert out[48, 48] == out[48, 50] == out[46, 48] > 0  # flat within the disk
    assert out[48, 52] == 0 and abs(out.sum() - 255) < 15
    assert np.array_equal(out, out.T)


def test_motion_trails_one_way():
    image = flat(0)
    image[48, 48] = 255
    for seed in range(5):
        out = corruptions.motion(image, 1.0, rng(seed))[..., 0].astype(int)
        rows, columns = np.nonzero(out)
        width = max(np.ptp(columns), np.ptp(rows)) + 1
        assert 4 <= width <= 6  # 10 * 96 / 224 = 4.3 pixels
        assert 48 in (columns.max(), columns.min()) or abs(columns.max() - 48) == 1 or abs(columns.min() - 48) == 1
        assert np.ptp(columns) >= np.ptp(rows)  # within 45 degrees of the horizontal


def test_brightness_and_contrast_factors():
    assert (corrupt(flat(100), "brightness_up", 5) == 140).all()
    assert (corrupt(flat(100), "brightness_down", 5) == 50).all()
    assert (corrupt(flat(200), "brightness_up", 5) == 255).all()
    half = flat(100)
    half[48:] = 200
    assert set(np.unique(corrupt(half, "contrast_down", 5))) == {125, 175}  # mean 150, factor 0.5
    assert set(np.unique(corrupt(half, "contrast_up", 5))) == {85, 215}  # factor 1.3


def test_saturate_adds_to_hsv_saturation():
    image = flat((200, 150, 100))  # S = 0.5, V = 200
    assert (corrupt(image, "saturate", 5) == (200, 130, 60)).all()  # S = 0.7, hue and value kept
    assert np.array_equal(corrupt(flat(90), "saturate", 5), flat(90))
    assert (corrupt(flat((200, 20, 20)), "saturate", 5) == (200, 0, 0)).all()  # S stops at 1


def test_stain_deposit_darkens_and_bubble_lightens():
    light, dark = flat(230), flat(60)
    stained, bubbled = corrupt(light, "stain_deposit", 5), corrupt(dark, "bubble", 5)
    assert (stained <= light).all() and (bubbled >= dark).all()
    assert 0.005 < (stained != light).any(axis=-1).mean() < 0.1
    assert bubbled.max() <= np.rint(60 + 195 * 130 / 255)  # the rim's opacity
    blots = cv2.connectedComponents((corrupt(light, "stain_deposit", 1)[..., 0] < 150).astype(np.uint8))[0] - 1
    assert blots == 1


# --- noise ------------------------------------------------------------------------------------------------------------


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


# --- colour -----------------------------------------------------------------------------------------------------------


def test_hue_keeps_luma_and_greys():
    image = flat((140, 120, 110))
    out = corrupt(image, "hue", 3)
    assert abs((out @ corruptions.LUMA - image @ corruptions.LUMA).max()) < 1
    assert not np.array_equal(out, image)
    assert np.array_equal(corrupt(flat(77), "hue", 5), flat(77))


def test_channel_operations(cells):
    shifted = np.unique((corrupt(flat(128), "channel_shift", 5) - 128.0).reshape(-1, 3), axis=0)
    assert shifted.shape == (1, 3) and np.abs(shifted).max() == 90
    shuffled = corrupt(flat((10, 90, 200)), "channel_shuffle", 5)[0, 0].tolist()
    assert sorted(shuffled) == [10, 90, 200] and shuffled != [10, 90, 200]
    grey = corrupt(cells[0], "grey", 5)
    assert np.array_equal(grey[..., 0], grey[..., 1]) and np.array_equal(grey[..., 0], grey[..., 2])
    assert np.array_equal(grey[..., 0], np.rint(cells[0] @ corruptions.LUMA))


def test_solarize_posterize_invert():
    assert (corrupt(flat((128, 127, 255)), "solarize", 5) == (127, 127, 0)).all()
    assert (corrupt(flat((229, 230, 12)), "solarize", 1) == (229, 25, 12)).all()
    assert (corrupt(flat((255, 130, 63)), "posterize", 5) == (192, 128, 0)).all()
    assert (corrupt(flat((255, 130, 63)), "posterize", 1) == (252, 128, 60)).all()
    assert (corrupt(flat((255, 130, 0)), "invert", 5) == (0, 125, 255)).all()


def test_equalize_flattens_the_histogram(cells):
    dim = (cells[0] // 4 + 60).astype(np.uint8)
    out = corrupt(dim, "equalize", 5)
    assert out.min() == 0 and out.max() == 255
    assert np.array_equal(corrupt(flat(90), "equalize", 5), flat(0))  # one value only: the darkest goes to 0


def test_uneven_light_is_a_ramp():
    out = corrupt(flat(100), "uneven_light", 5)[..., 0].astype(float)
    assert abs(out.mean() - 100) < 1 and 10 < out.min() < 60 and 140 < out.max() <= 210
    centre = out[48, 48]
    assert np.abs(out + out[::-1, ::-1] - 2 * centre).max() < 8  # point-symmetric about the centre


# --- geometry ---------------------------------------------------------------------------------------------------------


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
    image = flat(0)
    image[46:50, 46:50] = 255
    rows, columns = np.nonzero(corrupt(image, "shift_wrapped", 5)[..., 0] > 0)
    assert abs(np.hypot(rows.mean() - 47.5, columns.mean() - 47.5) - 0.27 * 96) < 0.7


def test_rotate_turns_about_the_centre():
    image = flat(0)
    image[47:49, 80:84] = 255  # to the right of the centre
    rows, columns = np.nonzero(corrupt(image, "rotate_black", 5)[..., 0] > 100)
    angle = np.degrees(np.arctan2(rows.mean() - 47.5, columns.mean() - 47.5))
    assert abs(abs(angle) - 45) < 2
    assert abs(np.hypot(rows.mean() - 47.5, columns.mean() - 47.5) - 34) < 1
    assert (corrupt(flat(200), "rotate_black", 5)[0, 0] == 0).all()


def test_zoom_scales_about_the_centre():
    image = flat(0)
    image[38:58, 38:58] = 255
    zoomed = [corruptions.zoom(image, 1.0, rng(seed), "black")[..., 0] for seed in range(8)]
    small, large = sorted({round(out.sum(dtype=int) / 255) for out in zoomed})
    assert abs(small - (20 / 1.8) ** 2) < 6 and abs(large - (20 * 1.8) ** 2) < 20


def test_shear_slants_a_line():
    image = flat(0)
    image[:, 47:49] = 255
    tilts = set()
    for seed in range(8):
        out = corruptions.shear(image, 1.0, rng(seed), "black")[..., 0] > 127
        tilts.add(int(round(out[70].nonzero()[0].mean() - out[26].nonzero()[0].mean())))
    assert tilts == {-26, 0, 26}  # 44 rows * 0.6; 0 where it slants along y, which leaves a vertical line


def test_elastic_moves_at_most_its_amplitude():
    across = np.broadcast_to(np.arange(96, dtype=np.uint8)[None, :, None], (96, 96, 3)).copy()
    moved = np.abs(corrupt(across, "elastic_reflected", 5)[16:-16, 16:-16, 0].astype(int) - across[16:-16, 16:-16, 0])
    assert 2 < moved.max() <= 10


# --- occlusion --------------------------------------------------------------------------------------------------------


def test_cutout_hides_one_square():
    for value in range(20, 30):
        hidden = (corrupt(flat(value), "cutout", 5) != value).any(axis=-1)
        rows, columns = np.nonzero(hidden)
        assert hidden.sum() == 48 * 48 and np.ptp(rows) == np.ptp(columns) == 47


def test_grid_mask_hides_its_share():
    shares = [(corrupt(flat(value), "grid_mask", 5) == 0).all(axis=-1).mean() for value in range(100, 120)]
    assert abs(np.mean(shares) - 0.36) < 0.04


# --- the composite, the fingerprint -----------------------------------------------------------------------------


def test_composite_layers_several_families(cells, monkeypatch):
    applied = []

    def spy(family):
        def layer(image, strength, random):
            applied.append((family, strength))
            return image

        return {"spy": layer}

    monkeypatch.setattr(corruptions, "FAMILIES", {family: spy(family) for family in FAMILIES})
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
