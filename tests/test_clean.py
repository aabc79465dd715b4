import cv2
import numpy as np
import pytest

from training import clean, data


@pytest.fixture(scope="session")
def cells(training_set):
    images, labels = training_set
    return data.Cells(images, labels[:, 0].astype(np.int64))


@pytest.fixture(scope="session")
def whole(cells):
    return clean.audit(cells)


def test_whole_file_by_pixels(cells, whole):
    result = whole
    by_reason = {}
    for record in result.removed:
        by_reason.setdefault(record["reason"], []).append(record["index"])
    assert by_reason["outlier"] == list(range(11959, 13759))
    assert len(by_reason["duplicate"]) == 16 and len(by_reason["near_duplicate"]) == 1
    assert set(cells.labels[by_reason["near_duplicate"]]) == {5}
    assert len(by_reason["conflicting_label"]) == 2
    assert set(cells.labels[by_reason["conflicting_label"]]) == {1, 6}
    assert len(result.kept) == 11959 - 19
    assert len(result.removed) == len({record["index"] for record in result.removed})
    assert result.report()["kept"] == len(result.kept)


def recompressed(image):
    return cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 80])[1], cv2.IMREAD_COLOR)


def shifted(image):
    return cv2.warpAffine(image, np.float32([[1, 0, 2], [0, 1, -1]]), (96, 96), borderMode=cv2.BORDER_REFLECT)


def brighter(image):
    return cv2.convertScaleAbs(image, alpha=1.05, beta=5)


def flipped(image):
    return image[:, ::-1]


def turned(image):
    return np.rot90(image)


@pytest.mark.parametrize("altered", [recompressed, shifted, brighter, flipped, turned])
def test_near_copies_are_found_and_nothing_else(cells, whole, altered):
    """Forty altered copies among 1,500 real cells, shuffled; platelets among them, which look much alike."""
    rng = np.random.default_rng(5)
    chosen = rng.choice(whole.kept[whole.kept < 11959], 1500, replace=False)
    copied = rng.choice(chosen, 40, replace=False)
    images = np.concatenate([cells.images[chosen], [altered(cells.images[i]) for i in copied]])
    source = np.concatenate([chosen, copied])
    order = rng.permutation(len(images))
    result = clean.audit(data.Cells(images[order], cells.labels[source][order]))
    found = {(record["index"], record["of"]) for record in result.removed}
    place = {}
    pairs = set()
    for position, i in enumerate(source[order]):
        if i in place:
            pairs.add((position, place[i]))
        place.setdefault(i, position)
    assert all(record["reason"] in ("near_duplicate", "duplicate") for record in result.removed)
    assert len(pairs & found) >= 39 and len(found - pairs) <= 1
    for a, b in pairs & found:
        assert result.groups[a] == result.groups[b]
