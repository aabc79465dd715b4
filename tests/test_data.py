"""Cells: read whatever their form, split without tearing copies apart."""

import cv2
import numpy as np
import pytest
from submissions import npy

import model
from training import data


def test_split_is_stratified_seeded_and_keeps_groups_together():
    rng = np.random.default_rng(0)
    labels, groups = rng.integers(0, 8, 4000), rng.integers(0, 3000, 4000)
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


def save(path, **arrays):
    np.savez(path, **arrays)
    return path


@pytest.fixture
def few():
    """Twelve pictures (12, 96, 96, 3) uint8 and labels (12,)."""
    return np.random.default_rng(1).integers(0, 256, (12, 96, 96, 3), np.uint8), np.arange(12) % 8


@pytest.mark.parametrize("size", [28, 64, 96, 128])
def test_read_medmnist_at_any_size(tmp_path, size):
    flat = np.full((3, size, size, 3), (10, 100, 200), np.uint8)
    path = save(tmp_path / "b.npz", train_images=flat, train_labels=[[1], [2], [3]], val_images=flat[:1],
                val_labels=[[7]])  # fmt: skip
    cells = data.read(path)
    assert cells.images.shape == (3, 96, 96, 3) and cells.labels.tolist() == [1, 2, 3]
    assert (cells.images == (10, 100, 200)).all()
    assert data.read(path, part="val").labels.tolist() == [7]


def test_read_states_its_conversions_and_has_none_of_the_challenges_own_form(tmp_path, few, recwarn):
    images, labels = few
    cells = data.read(save(tmp_path / "c.npz", images=images, labels=labels.astype(np.uint8)[:, None]))
    assert (cells.images == images).all() and (cells.labels == labels).all() and cells.labels.dtype == np.int64
    assert not recwarn.list
    assert len(data.read(save(tmp_path / "c.npz", images=images, labels=labels, classes=data.CLASSES))) == len(labels)
    with pytest.warns(UserWarning, match="one-hot"):
        assert (data.read(save(tmp_path / "a.npz", images=images, labels=np.eye(8)[labels])).labels == labels).all()
    with pytest.warns(UserWarning, match=r"\[0, 1\]"):
        assert (data.read(save(tmp_path / "b.npz", images=images / 255, labels=labels)).images == images).all()


@pytest.mark.parametrize(
    "change, message",
    [
        ({"labels": None}, "has no labels"),
        ({"images": None}, "Expected images and labels"),
        ({"labels": np.arange(5)}, "one for each of 12 images"),
        ({"labels": np.full(12, 8)}, "found 8"),
        ({"labels": np.full(12, -1)}, "found -1"),
        ({"classes": np.array(["red", "white"])}, "has the classes red, white; expected basophil"),
        ({"images": np.zeros((12, 96, 96), np.uint8)}, "square, RGB"),
        ({"images": np.full((12, 96, 96, 3), 300.0)}, "expected 0-255"),
        ({"images": np.full((12, 96, 96, 3), np.nan)}, "expected 0-255"),
        ({"images": np.zeros((0, 96, 96, 3), np.uint8), "labels": np.zeros(0, int)}, "contains no images"),
    ],
)
def test_read_says_what_is_wrong(tmp_path, few, change, message):
    arrays = {"images": few[0], "labels": few[1], **change}
    path = save(tmp_path / "a.npz", **{key: value for key, value in arrays.items() if value is not None})
    with pytest.raises(ValueError, match=message) as error:
        data.read(path)
    assert str(path) in str(error.value)


def test_read_refuses_what_is_no_npz(tmp_path, few):
    whole = save(tmp_path / "a.npz", images=few[0], labels=few[1]).read_bytes()
    objects = save(tmp_path / "a.npz", images=np.array([{}]), labels=few[1]).read_bytes()
    for content in (b"", b"hello", whole[:-200], whole[: len(whole) // 2], objects, npy(few[0])):
        (tmp_path / "b.npz").write_bytes(content)
        with pytest.raises(ValueError, match="b.npz is not an npz file, or is truncated"):
            data.read(tmp_path / "b.npz")
    with pytest.raises(ValueError, match="does not exist"):
        data.read(tmp_path / "c.npz")


def test_read_a_folder_per_class(tmp_path):
    for name, colour in (("basophil", 50), ("ig", 150)):
        (tmp_path / name).mkdir()
        picture = np.zeros((363, 360, 3), np.uint8)
        picture[81:281, 80:280] = colour  # the central 200x200
        assert cv2.imwrite(str(tmp_path / name / "1.png"), picture)
    cells = data.read(tmp_path)
    assert cells.labels.tolist() == [0, 3] and cells.images.shape == (2, 96, 96, 3)
    assert (cells.images[0] == 50).all() and (cells.images[1] == 150).all()
    assert (data.read(tmp_path, picture=model.read_picture).images[0][0] == 0).all()  # of the whole picture
    (tmp_path / "Immature_Granulocyte").mkdir()
    (tmp_path / "Immature_Granulocyte" / "._a.png").touch()  # hidden: what some systems leave beside a picture
    assert len(data.read(tmp_path)) == 2
    (tmp_path / "Immature_Granulocyte" / "a.png").write_bytes(b"torn")
    for picture in (data.central, model.read_picture):
        with pytest.raises(ValueError, match=r"a\.png: no picture that can be read; remove it"):
            data.read(tmp_path, picture=picture)
    (tmp_path / "dogs").mkdir()
    with pytest.raises(ValueError, match="expected one folder per class: basophil, .*found dogs"):
        data.read(tmp_path)
    (tmp_path / "empty" / "basophil").mkdir(parents=True)
    with pytest.raises(ValueError, match="empty contains no pictures"):
        data.read(tmp_path / "empty")
