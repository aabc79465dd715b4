"""The strip of pictures on the front page."""

import cv2
import numpy as np
from conftest import ROOT

from evaluation import strip


class Constant:
    """Names every picture class 2 with 0.9, and keeps what it was given."""

    def predict_proba(self, X):
        self.given = X
        return np.tile(np.eye(8, dtype=np.float32)[2] * 0.9, (len(X), 1))


def test_the_cell_stands_in_the_first_column_and_each_corruption_in_one():
    image, predictor = np.random.default_rng(0).integers(0, 256, (96, 96, 3), np.uint8), Constant()
    picture = strip.strip(image, predictor)
    assert picture.dtype == np.uint8 and picture.shape[1] % len(strip.SHOWN) == 0
    assert np.array_equal(picture[22:118, 5:101], image)  # RGB, at its own size
    assert np.array_equal(predictor.given[0], image) and len(predictor.given) == len(strip.SHOWN)
    assert all(not np.array_equal(other, image) for other in predictor.given[1:])
    width = picture.shape[1] // len(strip.SHOWN)
    for k in range(len(strip.SHOWN)):
        column = picture[:, k * width : (k + 1) * width]
        assert column[:22].min() < 100 and column[118:].min() < 100, "a text above and one below"
        assert column[118:, -2:].min() == 255, "the label fits"


def test_the_picture_in_the_repository_is_small():
    path = ROOT / "results" / "strip.png"
    assert path.stat().st_size < 150_000 and cv2.imread(str(path)) is not None
