import numpy as np
import pytest

from training import data


def test_read_challenge_file(training_set, tmp_path):
    images, labels = training_set
    np.savez(tmp_path / "small.npz", images=images[:5], labels=labels[:5])
    cells = data.read(tmp_path / "small.npz")
    assert cells.images.dtype == np.uint8 and cells.labels.dtype == np.int64
    assert cells.labels.shape == (5,) and (cells.labels == labels[:5, 0]).all()


def test_split_is_stratified_seeded_and_keeps_groups_together():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 8, 4000)
    groups = rng.integers(0, 3000, 4000)
    train, validation = data.split(labels, groups, 0.1, seed=3)
    assert not set(groups[train]) & set(groups[validation])
    assert np.array_equal(np.sort(np.concatenate([train, validation])), np.arange(4000))
    share = np.bincount(labels[validation], minlength=8) / np.bincount(labels, minlength=8)
    assert (abs(share - 0.1) < 0.05).all()
    again = data.split(labels, groups, 0.1, seed=3)
    assert np.array_equal(train, again[0]) and np.array_equal(validation, again[1])
    assert not np.array_equal(validation, data.split(labels, groups, 0.1, seed=4)[1])


def test_split_exact_fraction_without_groups():
    labels = np.repeat([0, 1], [100, 50])
    _, validation = data.split(labels, np.arange(150), 0.2)
    assert np.array_equal(np.bincount(labels[validation]), [20, 10])


def test_digest_depends_on_pixels_labels_and_order():
    images = np.random.default_rng(0).integers(0, 256, (4, 96, 96, 3), dtype=np.uint8)
    cells = data.Cells(images, np.arange(4))
    assert data.digest(cells) == data.digest(cells.take(np.arange(4)))
    assert data.digest(cells) != data.digest(cells.take(np.array([1, 0, 2, 3])))
    assert data.digest(cells) != data.digest(data.Cells(images, np.array([0, 1, 2, 2])))


def test_split_rejects_bad_arguments():
    with pytest.raises(ValueError, match="must both be"):
        data.split(np.zeros(3), np.zeros(4))
