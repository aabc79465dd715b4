"""model.py as the grader meets it: from the unpacked zip, elsewhere, read-only, without a network or OpenCV."""

import hashlib
import importlib.util
import json
import os
import shutil
import socket
import sys
import warnings
from functools import partial
from unittest import mock

import numpy as np
import pytest
from conftest import ROOT
from submissions import make_zip

import model


def cells(n: int, seed: int = 0) -> np.ndarray:
    """Pictures that look a little like cells: (n, 96, 96, 3) uint8, a dark disc on a light ground."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:96, :96] - 47.5
    radius = rng.uniform(8, 40, (n, 1, 1))
    ground, disc = rng.uniform(180, 255, (n, 1, 1, 3)), rng.uniform(30, 160, (n, 1, 1, 3))
    images = np.where((np.hypot(x, y) < radius)[..., None], disc, ground) + rng.normal(0, 8, (n, 96, 96, 3))
    return np.clip(images, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def submitted(tmp_path_factory):
    """An instance of the zip's own Model, imported in another folder, without OpenCV, every connection refused.

    Its batches are of 8 images in place of 64: the same filling up and cutting, at an eighth of the time.
    """
    folder = tmp_path_factory.mktemp("submission")
    names = ("model.py", "weights/model.weights.h5", "weights/manifest.json")
    made = make_zip(folder / "made.zip", {name: (ROOT / name).read_bytes() for name in names})
    shutil.unpack_archive(made, folder / "unpacked")
    for path in [*(folder / "unpacked").rglob("*"), folder / "unpacked"]:
        path.chmod(0o555 if path.is_dir() else 0o444)

    def refuse(*args, **kwargs):
        raise OSError("no network here")

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("elsewhere"))
        patch.setattr(socket.socket, "connect", refuse)
        patch.setattr(sys, "dont_write_bytecode", True)
        patch.setitem(sys.modules, "cv2", None)
        spec = importlib.util.spec_from_file_location("submitted_model", folder / "unpacked" / "model.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        patch.setattr(module, "BATCH_SIZE", 8)
        before = {p: p.stat().st_mtime_ns for p in (folder / "unpacked").rglob("*")}
        yield module.Model()
        assert {p: p.stat().st_mtime_ns for p in (folder / "unpacked").rglob("*")} == before


@pytest.fixture(scope="module")
def images():
    return cells(20)


@pytest.fixture(scope="module")
def labels(submitted, images):
    return submitted.predict(images)


@pytest.mark.parametrize("n", [0, 1, 7, 8, 9])
def test_returns_one_integer_label_an_image(submitted, images, labels, n):
    found = submitted.predict(images[:n])
    assert isinstance(found, np.ndarray) and found.shape == (n,) and np.issubdtype(found.dtype, np.integer)
    assert np.array_equal(found, labels[:n]) and set(labels) <= set(range(8))


def locked(array: np.ndarray) -> np.ndarray:
    array = array.copy()
    array.setflags(write=False)
    return array


@pytest.mark.parametrize(
    "form",
    [
        *(partial(np.asarray, dtype=dtype) for dtype in (np.float16, np.float32, np.float64, np.int64)),
        lambda images: images.repeat(2, axis=2)[:, :, ::2],
        np.asfortranarray,
        locked,
    ],
)
def test_same_labels_for_every_number_type_and_memory_layout(submitted, images, labels, form):
    X = form(images)
    before = X.copy()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert (submitted.predict(X) == labels).all()
    assert np.array_equal(X, before)


def test_an_answer_depends_on_its_own_image_alone(submitted, images, labels):
    together = submitted.predict_proba(images)
    assert np.array_equal(submitted.predict_proba(images), together) and np.array_equal(together.argmax(axis=1), labels)
    assert np.allclose(together.sum(axis=1), 1, atol=1e-5)
    alone = np.concatenate([submitted.predict_proba(image[None]) for image in images[:5]])
    assert np.abs(alone - together[:5]).max() < 1e-5
    order = np.random.default_rng(1).permutation(len(images))
    company = np.concatenate([np.zeros_like(images[:5]), images[order], np.full_like(images[:9], 255)])
    assert np.abs(submitted.predict_proba(company)[5:-9] - together[order]).max() < 1e-5


class FirstPixel:
    """A network that gives class 0 1/400 for each level of the first pixel, class 1 the rest; counts calls."""

    seen = 0

    def predict_on_batch(self, images):
        self.seen += 1
        first = images[:, 0, 0, 0] / 400
        return np.column_stack([first, 1 - first, *[np.zeros(len(images))] * 6]).astype(np.float32)


def first_pixel_model(views: int) -> model.Model:
    made = object.__new__(model.Model)
    made.members, made.steps, made.views, made.temperature = [], (), model.VIEWS[:views], 1.0
    made.network = FirstPixel()
    return made


@pytest.mark.parametrize("views", [1, 2, 4])
def test_unsure_images_get_all_views_and_sure_ones_the_first(views):
    corners = np.array([[40, 240, 90, 60], [140, 10, 20, 30]], np.uint8)  # in the order of VIEWS: 0.9 and 0.65 sure
    images = np.zeros((2, 96, 96, 3), np.uint8)
    images[:, 0, 0], images[:, -1, -1], images[:, 0, -1], images[:, -1, 0] = corners.T[..., None]
    made = first_pixel_model(views)
    expected = [0.1, corners[1, :views].mean() / 400]
    assert made.predict_proba(images)[:, 0] == pytest.approx(expected, abs=1e-6)
    assert made.network.seen == views
    made.predict_proba(images[:1])
    assert made.network.seen == views + 1  # none is unsure: one look
    assert made.predict_proba(images[:0]).shape == (0, 8)


def test_images_in_0_1_are_scaled_and_warned_about(submitted, images, labels):
    mixed = images.astype(np.float32)
    mixed[::2] /= 255
    for X in ((images / 255).astype(np.float32), images / 255, mixed):
        before = X.copy()
        with pytest.warns(UserWarning, match=r"\[0, 1\].*scaled"):
            assert (submitted.predict(X) == labels).all()
        assert np.array_equal(X, before)


@pytest.mark.parametrize(
    "shape", [(96, 96, 3), (2, 96, 96), (2, 96, 96, 1), (2, 96, 96, 4), (2, 3, 96, 96), (0, 96, 96), (2, 64, 64, 3), ()]
)
def test_another_shape_is_an_error_that_states_both(submitted, shape):
    with pytest.raises(ValueError) as error:
        submitted.predict(np.zeros(shape, np.uint8))
    assert str(shape) in str(error.value) and "(n, 96, 96, 3)" in str(error.value)


def test_values_that_are_no_numbers_are_an_error(submitted):
    with pytest.raises(ValueError, match="dtype"):
        submitted.predict(np.full((1, 96, 96, 3), "cell"))


def test_a_forked_process_is_told_so_instead_of_waiting_for_ever(monkeypatch):
    made = first_pixel_model(1)
    monkeypatch.setattr(model.Model, "process", os.getpid())
    assert made.predict(cells(1)).shape == (1,)
    child = os.fork()
    if not child:
        for use in (lambda: made.predict(cells(1)), model.Model):
            with pytest.raises(RuntimeError, match="spawn"):
                use()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0


def test_preprocess_by_hand():
    X = np.zeros((5, 96, 96, 3), np.float64)
    X[0], X[1], X[2], X[3], X[4] = 0.5, 300, -3, 200, np.nan
    X[3, 0, :2] = (np.nan, np.inf, -np.inf), (1e300, -1e300, 7)  # float32 holds no 1e300
    with pytest.warns(UserWarning) as caught:
        out = model.preprocess(X)
    assert [w.category for w in caught] == [UserWarning] * 3 and out.dtype == np.float32
    assert (out[0] == 127.5).all() and (out[1] == 255).all() and (out[2] == 0).all() and (out[4] == 0).all()
    assert out[3, 0, :2].tolist() == [[0, 255, 0], [255, 0, 7]] and (out[3, 1:] == 200).all()


def test_trained_weights_name_real_cells(heldout, submitted):
    images, labels = heldout[0][:100], heldout[1][:100, 0]
    assert (submitted.predict(images) == labels).mean() > 0.95


class TestDamagedWeights:
    """Each fault stops with an error that names the file and says what to do."""

    MANIFEST = {"sha256": hashlib.sha256(bytes(100)).hexdigest(), "views": 4, "temperature": 0.9, "pixels": 112}

    @pytest.fixture
    def folder(self, tmp_path, monkeypatch):
        """Weights and their manifest; the network is not built, as what is damaged is seen before it is read."""
        monkeypatch.setattr(model, "build_network", mock.Mock())
        (tmp_path / "model.weights.h5").write_bytes(bytes(100))
        (tmp_path / "manifest.json").write_text(json.dumps(self.MANIFEST))
        return tmp_path

    def refused(self, folder, error, name):
        with pytest.raises(error) as caught:
            model.Model(folder)
        assert str(folder / name) in str(caught.value) and "unzip the submission again" in str(caught.value)

    @pytest.mark.parametrize("name", ["model.weights.h5", "manifest.json"])
    def test_missing(self, folder, name):
        (folder / name).unlink()
        self.refused(folder, FileNotFoundError, name)

    @pytest.mark.parametrize(
        "name, content",
        [("model.weights.h5", bytes(50)), ("model.weights.h5", bytes(99) + b"1"),
         *(("manifest.json", text) for text in (b"", b"{", b"[]", b"{}", b"7"))],
    )  # fmt: skip
    def test_truncated_or_altered(self, folder, name, content):
        (folder / name).write_bytes(content)
        self.refused(folder, ValueError, name)

    @pytest.mark.parametrize(
        "key, value",
        [("views", 0), ("views", 5), ("views", True), ("views", 1.5), ("temperature", 1e-9), ("temperature", "1"),
         ("temperature", float("nan")), ("temperature", 10**400), ("sha256", "abc"), ("sha256", None), ("pixels", 8),
         ("pixels", "96"), ("network", 3), ("enhance", "clahe"), ("members", []), ("members", ["../other"]),
         ("members", [".."]), ("next", 7)],
    )  # fmt: skip
    def test_a_value_that_cannot_be_used(self, folder, key, value):
        (folder / "manifest.json").write_text(json.dumps({**self.MANIFEST, key: value}))
        self.refused(folder, ValueError, "manifest.json")

    def test_weights_of_another_network(self, folder):
        model.build_network().load_weights.side_effect = ValueError("no layer\nof that name")
        with pytest.raises(ValueError, match="does not fit the network of its manifest .*unzip") as caught:
            model.Model(folder)
        assert "\n" not in str(caught.value)

    def test_a_kill_while_weights_changed_leaves_the_manifest_of_both(self, folder):
        newer = {**self.MANIFEST, "views": 1, "sha256": hashlib.sha256(b"newer").hexdigest()}
        (folder / "manifest.json").write_text(json.dumps({**self.MANIFEST, "next": newer}))
        assert model.read_manifest(folder) == self.MANIFEST
        (folder / "model.weights.h5").write_bytes(b"newer")
        assert model.read_manifest(folder) == newer
        (folder / "model.weights.h5").write_bytes(b"other")
        assert model.read_manifest(folder) == self.MANIFEST  # not of these weights, as load_weights says

    def test_intact_is_not_refused(self, folder):
        model.Model(folder).network.load_weights.assert_called_once_with(folder / "model.weights.h5")
