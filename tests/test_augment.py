"""Augmentations: identity at zero strength, cases by hand, one draw per image, labels mixed rightly."""

import numpy as np
import pytest

from training import augment
from training.augment import POLICIES, Layer, Policy

PAPER, KERAS, CHAIN = augment.RANDAUGMENT, augment.KERAS_RANDAUGMENT, augment.KERAS_AUGMIX
LAYERS = [layer for policy in POLICIES.values() for layer in policy.layers]
OPERATIONS = {o.__name__: o for o in (augment.flip_turn, *(o for layer in LAYERS for o in layer.operations))}
OPERATIONS |= {f"paper {name}": o for name, o in PAPER.items()} | {f"keras {name}": o for name, o in KERAS.items()}
for name in ("<lambda>", "paper identity"):
    del OPERATIONS[name]


class Fixed:
    """A generator whose every draw is the upper end (or, for choices, the first): for cases worked out by hand."""

    def uniform(self, low, high, size=None):
        return high if size is None else np.full(size, high, float)

    def random(self, size=None, dtype=float):
        return 0.999 if size is None else np.full(size, 0.999, dtype)

    def choice(self, options, size=None):
        return options[-1]


class Drawn:
    """A generator that hands out the given draws, one after the other, whatever is asked for."""

    def __init__(self, *draws):
        self.draws = list(draws)

    def draw(self, *args, **more):
        return self.draws.pop(0)

    uniform = random = choice = integers = beta = dirichlet = draw


@pytest.fixture
def image():
    rng = np.random.default_rng(7)
    y, x = np.mgrid[:96, :96]
    smooth = np.stack([120 + 100 * np.sin(x / 9 + k) * np.cos(y / 7 - k) for k in range(3)], axis=-1)
    return augment.to_uint8(smooth + rng.normal(0, 5, smooth.shape))


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)
def test_an_operation_is_pure_and_grows_with_strength(operation, image):
    """No change at strength 0, no other shape or type, the same draws the same picture; the input stays."""

    def made(strength):
        return [operation(image, strength, np.random.default_rng(seed)) for seed in range(25)]

    before = image.copy()
    outs = {strength: made(strength) for strength in (0.0, 0.15, 1.0)}
    assert np.array_equal(image, before) and all(np.array_equal(out, image) for out in outs[0.0])
    for out in (*outs[0.15], *outs[1.0]):
        assert out.shape == image.shape and out.dtype == np.uint8 and not np.shares_memory(out, image)
    assert np.array_equal(outs[1.0], made(1.0))
    low, high = (np.mean([np.abs(out.astype(float) - image) for out in outs[strength]]) for strength in (0.15, 1.0))
    if operation in (PAPER["autocontrast"], PAPER["equalize"]):
        assert 0 < low == high
    elif operation is augment.keras_augmix:  # KerasCV's solarisation inverts the more, the weaker it is
        assert 0 < min(low, high)
    else:
        assert low < high


def one_pixel(value) -> np.ndarray:
    return np.full((4, 4, 3), value, np.uint8)


@pytest.mark.parametrize(
    "operation, value, expected",
    [
        (augment.brightness, 100, [200, 200, 200]),  # the second branch adds 100
        (augment.channel_shift, (0, 100, 200), [100, 200, 255]),
        (augment.channel_gain, (10, 100, 200), [18, 182, 255]),  # e^0.6 = 1.822
        (augment.gamma, 64, [6, 6, 6]),  # 255 (64 / 255)^e = 5.95
        (augment.solarize, (10, 100, 250), [245, 155, 5]),  # threshold 0: all is inverted
        (augment.posterize, (10, 100, 250), [0, 64, 192]),  # steps of 64
        (augment.invert, (10, 100, 250), [245, 155, 5]),
        (augment.grey, (255, 0, 0), [76, 76, 76]),  # 0.299 * 255
        (augment.saturation, (255, 0, 0), [255, 0, 0]),  # the second branch, at its upper end: factor 1
        (PAPER["solarize"], (10, 100, 250), [245, 155, 5]),  # threshold 0
        (PAPER["posterize"], (10, 100, 250), [0, 96, 240]),  # steps of 16
        (PAPER["brightness"], (10, 100, 250), [1, 10, 25]),  # a tenth
        (PAPER["colour"], (255, 0, 0), [94, 69, 69]),  # 0.1 of it and 0.9 of its luma 76.2
        (PAPER["contrast"], (255, 0, 0), [94, 69, 69]),  # likewise, towards the mean luma
        (KERAS["brightness"], (10, 100, 250), [255, 255, 255]),
    ],
    ids=lambda v: getattr(v, "__name__", ""),
)
def test_colours_by_hand(operation, value, expected):
    assert operation(one_pixel(value), 1.0, Fixed())[0, 0].tolist() == expected


def test_contrast_by_hand():
    image = np.zeros((2, 2, 3), np.uint8)
    image[0], image[1] = 90, 110  # mean 100; e^1.2 = 3.32 times 10 either way
    assert augment.contrast(image, 1.0, Fixed())[:, 0, 0].tolist() == [67, 133]


def test_autocontrast_and_equalize_by_hand():
    image = np.zeros((2, 2, 3), np.uint8)
    image[0], image[1] = 100, 200
    assert augment.autocontrast(image, 1.0, None)[:, 0, 0].tolist() == [0, 255]
    assert augment.autocontrast(image, 0.5, None)[:, 0, 0].tolist() == [50, 228]
    assert augment.equalize(image, 1.0, None)[:, 0, 0].tolist() == [0, 255]


def test_warps_by_hand():
    image = np.zeros((5, 5, 3), np.uint8)
    image[2, 3] = 200  # right of the centre
    assert augment.warp(image, [[1, 0, 1], [0, 1, 0]])[2, 2, 0] == 200  # one to the left
    assert augment.warp(image, [[0, -1, 0], [1, 0, 0]])[1, 2, 0] == 200  # a quarter turn
    image[4, 3] = 100
    # A draw of 0.999 is the sign -1, and 0.3 * strength * 2 rows is a whole pixel at strength 5/3.
    assert PAPER["shear_x"](image, 5 / 3, Fixed())[4, 4, 0] == 100
    assert PAPER["translate_x"](image, 0.4 / 0.9, Fixed())[2, 4, 0] == 200  # 0.45 * 5 * 0.444 = 1 pixel
    assert PAPER["rotate"](image, 3.0, Fixed())[3, 2, 0] == 200  # 90 degrees
    assert PAPER["translate_x"](image, 2 / 2.25, Fixed())[2, :2].max() == 0  # two to the right: black moves in
    image[2, 0] = 70  # no turn, two to the right, none down; reflected
    assert augment.rotate_shift(image, 1.0, Drawn(0, -2, 0))[2, :, 0].tolist() == [0, 70, 70, 0, 0]


def test_sharpness_by_hand():
    image = np.full((5, 5, 3), 100, np.uint8)
    image[2, 2] = 139  # smoothed: (5 * 139 + 8 * 100) / 13 = 115; 0.1 of 139 and 0.9 of 115
    assert PAPER["sharpness"](image, -1.0, Fixed())[2, 2, 0] == 161
    assert PAPER["sharpness"](image, 1.0, Fixed())[2, 2, 0] == 117


def draws_of(layers) -> list:
    """(operation, strength) of each that a policy of these layers draws in 600 pictures; nothing is computed."""
    seen = []
    spied = [tuple(lambda i, s, rng, o=o: seen.append((o, s)) or i for o in layer.operations) for layer in layers]
    policy = Policy(tuple(Layer(x.odds, o, x.strength, x.low) for x, o in zip(layers, spied, strict=True)))
    for seed in range(600):
        augment.apply(policy, one_pixel(0), np.random.default_rng(seed))
    return seen


@pytest.mark.parametrize(
    "name, table, number, odds",
    [("randaugment", PAPER, 14, 1), ("randaugment_keras_cv", KERAS, 10, 10 / 11)],
)
def test_randaugment_draws_all_its_operations_at_one_magnitude(name, table, number, odds):
    seen = draws_of(POLICIES[name].layers)
    assert len(table) == number and {o for o, _ in seen} == set(table.values()) and {s for _, s in seen} == {0.3}
    assert abs(len(seen) / 600 - 2 * odds) < 0.05


class Normal:
    """A generator of given normal draws, in deviations; signs are plus, uniform draws the upper end."""

    def __init__(self, *normal):
        self.draws = list(normal)

    def normal(self, mean, deviation):
        return mean + deviation * self.draws.pop(0)

    def uniform(self, low, high):
        return high

    def random(self):
        return 0.0


def test_keras_cv_magnitude_is_normal_about_the_given_one_and_cut_off():
    draws = np.array([augment.near(0.3, np.random.default_rng(seed)) for seed in range(4000)])
    assert abs(np.median(draws) - 0.3) < 0.01 and abs(np.quantile(draws, 0.8413) - 0.45) < 0.015
    assert draws.min() == 0 and 0.6 < draws.max() <= 1
    assert augment.near(0.3, Normal(-3)) == 0 and augment.near(0.3, Normal(9)) == 1 and augment.near(0, None) == 0


def test_keras_cv_colours_by_hand():
    def values(operation, value, strength, *normal):
        return operation(one_pixel(value), strength, Normal(*normal))[0, 0].tolist()

    # plus 110 * 0.3 = 33; what then reaches 255 * 0.7 = 178.5 is inverted
    assert values(augment.keras_solarize, (100, 145, 146), 0.3, 0, 0) == [133, 178, 76]
    assert values(augment.keras_solarize, (100, 145, 250), 0.3, -2, 2) == [100, 110, 5]  # plus 0; 255 * 0.4 = 102
    assert values(KERAS["colour"], (255, 0, 0), 0.3, 0) == [201, 23, 23]  # 0.7 of it and 0.3 of its luma 76.2
    assert values(KERAS["brightness"], (10, 100, 250), 0.2) == [61, 151, 255]
    image = np.zeros((2, 2, 3), np.uint8)
    image[0], image[1] = (90, 10, 0), (110, 30, 0)  # means 100, 20 and 0; distances times 1.3
    assert KERAS["contrast"](image, 0.3, Normal())[:, 0].tolist() == [[87, 7, 0], [113, 33, 0]]


def test_keras_cv_warps_by_hand():
    image = np.zeros((5, 5, 3), np.uint8)
    image[0, 1], image[4, 1] = 50, 200
    sheared = KERAS["shear_x"](image, 0.25, Normal(0))[..., 0]  # the last row: a quarter of four
    assert sheared[0].tolist() == [0, 50, 0, 0, 0] and sheared[4].tolist() == [200, 0, 0, 0, 0]
    along_y = KERAS["shear_y"](image.transpose(1, 0, 2).copy(), 0.25, Normal(0))[..., 0]
    assert np.array_equal(along_y, sheared.T)
    assert np.array_equal(KERAS["shear_x"](image, 0.1, Normal(1))[..., 0], sheared)  # 0.1 and a deviation of 0.15
    moved = KERAS["translate_x"](image, 0.4, Normal())[..., 0]  # two of five columns to the right, reflected
    assert moved[4].tolist() == [200, 0, 0, 200, 0]
    image = image.transpose(1, 0, 2).copy()
    assert KERAS["translate_y"](image, 0.4, Normal())[:, 4, 0].tolist() == [200, 0, 0, 200, 0]


def test_keras_cv_augmix_by_hand(image):
    low = [CHAIN["posterize"](one_pixel((0, 100, 255)), s, None)[0, 0].tolist() for s in (0.2, 0.4, 1.0)]
    assert low == [[0, 96, 224], [0, 96, 240], [0, 100, 252]]  # 3, 4 and 6 bits
    assert CHAIN["solarize"](one_pixel((0, 50, 51)), 0.2, None)[0, 0].tolist() == [0, 50, 204]  # threshold 51
    turned = CHAIN["rotate"](image, np.pi / 60, None)  # half of pi radians: a quarter turn
    assert np.array_equal(turned, np.rot90(image))
    dot = np.zeros((9, 9, 3), np.uint8)
    dot[4, 4] = 200
    assert CHAIN["translate_x"](dot, 0.7, Normal())[4, 6, 0] == 200  # 0.7 * 9 / 3 = 2.1: two pixels
    assert CHAIN["shear_x"](dot, 5 / 6, Normal())[4, 3, 0] == 200  # 0.3 * 5 / 6 of four rows: one
    assert CHAIN["shear_y"](dot, 5 / 6, Normal())[3, 4, 0] == 200
    assert len(CHAIN) == 8


def test_keras_cv_augmix_averages_chains(image, monkeypatch):
    strengths, one = [], (1, 0, 0.0)  # one operation in a chain, the first, at full strength
    draws = 0.25, np.array([0.5, 0.3, 0.2]), *one, *one, *one
    monkeypatch.setattr(augment, "KERAS_AUGMIX", {"invert": lambda i, s, rng: strengths.append(s) or 255 - i})

    expected = augment.to_uint8(0.25 * image.astype(float) + 0.75 * (255.0 - image))
    assert np.abs(augment.keras_augmix(image, 1.0, Drawn(*draws)).astype(int) - expected).max() <= 1
    strengths.clear()
    for seed in range(200):
        augment.apply(POLICIES["augmix_keras_cv"], image, np.random.default_rng(seed))
    assert 0 < min(strengths) < 0.01 and 0.19 < max(strengths) <= 0.2
    assert abs(len(strengths) / 200 - 6) < 0.3  # three chains of two on average


def test_augmix_and_randaugment_together():
    one, *two = POLICIES["augmix_randaugment_keras_cv"].layers
    assert (one,) == POLICIES["augmix_keras_cv"].layers and tuple(two) == POLICIES["randaugment_keras_cv"].layers


def test_autoaugment_by_hand(image):
    """The draws: one of the pairs, then each operation's odds and its sign."""
    assert len(augment.AUTOAUGMENT) == 25
    value = one_pixel((10, 100, 250))
    # the 4th: posterise by 7 / 9 of four bits, rounded 3, then by 6 / 9, also 3; odds 0.6 each
    assert augment.autoaugment(value, 1.0, Drawn(3, 0.59, 0.61))[0, 0].tolist() == [8, 96, 248]
    assert augment.autoaugment(value, 1.0, Drawn(3, 0.61, 0.61))[0, 0].tolist() == [10, 100, 250]
    # the 18th: sharpen with odds 0.4, invert with 0.6
    assert augment.autoaugment(value, 1.0, Drawn(17, 0.4, 0.59))[0, 0].tolist() == [245, 155, 5]
    # the 9th: not turned, odds 0.2; inverted from 256 / 9 = 28.4
    assert augment.autoaugment(value, 1.0, Drawn(8, 0.2, 0.0))[0, 0].tolist() == [10, 155, 5]
    # the 1st: not posterised; turned by 30 degrees, the whole of it
    turned = PAPER["rotate"](image, 1.0, Drawn(0.0))
    assert np.array_equal(augment.autoaugment(image, 1.0, Drawn(0, 0.4, 0.0, 0.0)), turned)


def test_hue_turns_red_into_its_opposite():
    # Half a turn about the grey axis maps (1, 0, 0) to (-1/3, 2/3, 2/3).
    assert augment.hue(one_pixel((255, 0, 0)), 1.0, Fixed())[0, 0].tolist() == [0, 170, 170]


def test_random_convolution_keeps_mean_and_spread():
    class Negative:
        """Draws one pixel's filter that turns every channel's sign, blended in wholly."""

        def choice(self, sizes):
            return sizes[0]

        def standard_normal(self, shape, dtype=float):
            return -np.eye(3) if shape == (3, 3) else np.ones(shape, dtype)

        def uniform(self, low, high):
            return high

    image = np.full((96, 96, 3), (100, 10, 0), np.uint8)
    image[:, 48:] = (200, 30, 0)
    assert np.array_equal(augment.random_convolution(image, 1.0, Negative()), image[:, ::-1])  # about the mean
    plain = np.full((96, 96, 3), (7, 80, 250), np.uint8)
    assert np.array_equal(augment.random_convolution(plain, 1.0, np.random.default_rng(0)), plain)


def test_stain_scales_optical_density():
    class Gain(Fixed):  # every channel's density times e^0.5, no mixing, no shift
        def uniform(self, low, high, size=None):
            return np.full(size, high) if size == 3 else np.zeros(size)

    assert augment.stain(one_pixel(127), 1.0, Gain())[0, 0].tolist() == [81] * 3  # 256 * 0.5^1.6487 - 1 = 80.6


def test_dither_by_hand():
    image = np.full((8, 8, 3), 102, np.uint8)  # 0.4 of white: of 16 thresholds, 6 let it through to white
    out = augment.dither(image, 1.0, Drawn(1.0, 0))  # two levels, Bayer's pattern
    assert set(out.ravel().tolist()) == {0, 255} and (out == 255).mean() == 6 / 16
    assert np.array_equal(out[:4, :4], out[4:, 4:])
    assert augment.dither(image, 1.0, Drawn(0.5, 2))[0, 0, 0] == 96  # 17 levels, 15.94 apart: 6.4 rounds to 6
    assert augment.dither(image, 1.0, Drawn(1.0, 1, np.full((8, 8, 1), 0.7, np.float32))).min() == 255  # 0.4 + 0.7 > 1


def test_scatter_moves_pixels_no_farther_than_its_reach():
    x = np.tile(np.arange(0, 192, 2, dtype=np.uint8)[:, None], (96, 1, 3))  # two levels a column
    moved = [np.abs(augment.scatter(x, 1.0, np.random.default_rng(k)).astype(int) - x)[:, 4:-4].max() for k in range(9)]
    assert 6 < max(moved) <= 8  # at most four columns


def test_misregister_shifts_each_channel_by_itself():
    image = np.zeros((9, 9, 3), np.uint8)
    image[4, 4] = 200
    shifts = np.array([[0.25, 0], [0, -0.5], [0, 0]])  # in units of four pixels, where to look
    out = augment.misregister(image, 1.0, Drawn(shifts, np.zeros(3)))
    assert [tuple(int(v) for v in np.argwhere(out[..., c])[0]) for c in range(3)] == [(4, 3), (6, 4), (4, 4)]


def test_plane_wave_by_hand():
    image = np.full((96, 96, 3), 100, np.uint8)
    out = augment.plane_wave(image, 1.0, Drawn(np.log(2), 0.0, 0.0, np.array([1.0, 0.5, 0.0])))
    column = out[0].astype(int)
    assert (column[12].tolist(), column[36].tolist()) == ([160, 130, 100], [40, 70, 100])  # two cycles across
    assert np.array_equal(out[0], out[95])


def test_a_pattern_repeats_and_has_the_detail_of_the_picture():
    image = np.random.default_rng(0).integers(120, 137, (96, 96, 3), np.uint8)
    for seed in range(20):
        added = augment.pattern(image, 0.5, np.random.default_rng(seed)).astype(float) - image
        assert 0 < added.std() < 26  # of at most 50 at full strength
        inner = added[17:-17]  # the rest is changed by the picture's edge
        assert min(np.abs(inner[k:] - inner[:-k]).mean() for k in range(4, 49)) < inner.std() / 10 + 0.5
    plain = np.full((96, 96, 3), 100, np.uint8)  # no detail, no pattern
    assert np.array_equal(augment.pattern(plain, 1.0, np.random.default_rng(0)), plain)


def test_drop_lines_fills_whole_lines():
    image = np.random.default_rng(0).integers(1, 255, (96, 96, 3), np.uint8)
    for seed in range(20):
        out = augment.drop_lines(image, 1.0, np.random.default_rng(seed))
        changed = (out != image).any(axis=2)
        rows, columns = changed.mean(axis=1), changed.mean(axis=0)
        assert min((rows > 0).mean(), (columns > 0).mean()) < 0.6  # lines of one direction only, under half of them


def test_veil_keeps_what_lies_between_image_and_colour():
    image = one_pixel((0, 100, 200))
    out = augment.veil(image, 1.0, Drawn(0.5, 0.9, 1))  # half a veil, even, white
    assert np.abs(out[0, 0].astype(int) - (127.5, 177.5, 227.5)).max() <= 0.5


def test_flatten_keeps_an_edge_and_takes_the_texture():
    rng = np.random.default_rng(0)
    image = np.full((96, 96, 3), 50, np.uint8)
    image[:, 48:] = 200
    rough = augment.to_uint8(image + rng.normal(0, 8, image.shape))
    out = augment.flatten(rough, 1.0, Drawn(60.0, 3.0, 3)).astype(float)
    assert out[:, :48].std() < rough[:, :48].std() / 2 and abs(out[:, 49:].mean() - out[:, :47].mean() - 150) < 3
    assert out[:, 48].mean() - out[:, 47].mean() > 140


def test_flip_turn_draws_each_of_the_eight(image):
    outs = {augment.flip_turn(image, 1.0, np.random.default_rng(seed)).tobytes() for seed in range(100)}
    wanted = [np.rot90(i, k) for i in (image, image[:, ::-1]) for k in range(4)]
    assert outs == {np.ascontiguousarray(i).tobytes() for i in wanted}


def test_jpeg_keeps_the_channels_in_place():
    out = augment.jpeg(np.full((96, 96, 3), (200, 100, 50), np.uint8), 0.01, np.random.default_rng(0))
    assert np.abs(out.astype(int) - (200, 100, 50)).max() <= 3


def test_images_of_one_batch_are_drawn_apart(image):
    rng = np.random.default_rng(0)
    outs = [augment.apply(POLICIES["ours"], image, rng) for _ in range(8)]
    assert len({out.tobytes() for out in outs}) == 8


def test_policy_applies_layers_by_their_odds(image):
    calls = []

    def spy(image, strength, rng):
        calls.append(strength)
        return image

    policy = Policy(layers=(Layer(0.5, (spy,), strength=0.4),), plain=0.2)
    rng = np.random.default_rng(0)
    for _ in range(2000):
        augment.apply(policy, image, rng)
    assert abs(len(calls) / 2000 - 0.8 * 0.5) < 0.04
    assert 0 < min(calls) and max(calls) <= 0.4


def test_policy_none_changes_nothing(image):
    assert np.array_equal(augment.apply(POLICIES["none"], image, np.random.default_rng(0)), image)


class TestMix:
    images = np.stack([np.full((10, 10, 3), 20 * k, np.uint8) for k in range(8)])
    targets = np.eye(8, dtype=np.float32)

    def test_without_odds_nothing_changes(self):
        images, targets = augment.mix(self.images, self.targets, np.random.default_rng(0))
        assert np.array_equal(images, self.images) and np.array_equal(targets, self.targets)

    @pytest.mark.parametrize("odds", [{"mixup": 1.0}, {"cutmix": 1.0}, {"mixup": 0.5, "cutmix": 0.5}])
    def test_targets_state_what_the_picture_holds(self, odds):
        # Image k is 20 k throughout, so that its mean level is 20 times the mean of the labels by their weights.
        changed = 0
        for seed in range(30):
            images, targets = augment.mix(self.images, self.targets, np.random.default_rng(seed), **odds)
            assert images.dtype == np.uint8 and targets.dtype == np.float32
            assert np.allclose(targets.sum(axis=1), 1, atol=1e-6)
            assert np.allclose(images.mean(axis=(1, 2, 3)), 20 * targets @ np.arange(8), atol=0.51)
            changed += (targets.max(axis=1) < 1).sum()
        assert changed > 100
        assert np.array_equal(self.images[3], np.full((10, 10, 3), 60)) and self.targets[3, 3] == 1

    def test_pairs_have_weights_of_their_own(self):
        _, targets = augment.mix(self.images, self.targets, np.random.default_rng(0), mixup=1.0)
        weights = np.round(targets.max(axis=1), 4)
        assert len(set(weights[weights < 1])) > 3
