"""model.py as the grader meets it: from the unpacked zip, elsewhere, read-only, without a network or OpenCV."""

import hashlib
import importlib.util
import json
import os
import socket
import sys
import warnings
import zipfile

import numpy as np
import pytest
from conftest import ROOT

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
    if not (ROOT / "weights" / "model.weights.h5").exists():
        pytest.fail("weights/model.weights.h5 is missing: the package does not work without it")
    with zipfile.ZipFile(folder / "made.zip", "w") as archive:
        for name in ("model.py", "weights/model.weights.h5", "weights/manifest.json"):
            archive.write(ROOT / name, name)
    with zipfile.ZipFile(folder / "made.zip") as archive:
        archive.extractall(folder / "unpacked")
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
def test_returns_one_integer_label_an_image(submitted, n):
    found = submitted.predict(cells(n))
    assert isinstance(found, np.ndarray) and found.shape == (n,) and np.issubdtype(found.dtype, np.integer)
    assert ((found >= 0) & (found < 8)).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.float32, np.float64, np.int64])
def test_same_labels_for_every_number_type(submitted, images, labels, dtype):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert (submitted.predict(images.astype(dtype)) == labels).all()


def test_non_contiguous_and_read_only_arrays(submitted, images, labels):
    apart = np.zeros((len(images), 96, 192, 3), np.uint8)
    apart[:, :, ::2] = images
    assert (submitted.predict(apart[:, :, ::2]) == labels).all()
    assert (submitted.predict(np.asfortranarray(images)) == labels).all()
    locked = images.copy()
    locked.setflags(write=False)
    assert (submitted.predict(locked) == labels).all()


def test_a_label_depends_on_its_own_image_alone(submitted, images, labels):
    alone = np.concatenate([submitted.predict(image[None]) for image in images[:5]])
    assert (alone == labels[:5]).all()
    order = np.random.default_rng(1).permutation(len(images))
    assert (submitted.predict(images[order]) == labels[order]).all()
    for size in (3, 8, 9):
        assert (submitted.predict(images[:size]) == labels[:size]).all()
    company = np.concatenate([np.zeros_like(images[:5]), images, np.full_like(images[:9], 255)])
    assert (submitted.predict(company)[5:-9] == labels).all()


def test_probabilities_are_bit_identical_in_any_company(submitted, images):
    together = submitted.predict_proba(images)
    assert np.allclose(together.sum(axis=1), 1, atol=1e-5)
    assert np.array_equal(submitted.predict_proba(images), together)
    shuffled = np.random.default_rng(2).permutation(len(images))
    assert np.abs(submitted.predict_proba(images[shuffled]) - together[shuffled]).max() < 1e-5


class FirstPixel:
    """A network that gives class 0 1/400 for each level of the first pixel, class 1 the rest; counts calls."""

    def __init__(self):
        self.seen = 0

    def predict_on_batch(self, images):
        self.seen += 1
        first = images[:, 0, 0, 0] / 400
        return np.column_stack([first, 1 - first, *[np.zeros(len(images))] * 6]).astype(np.float32)


@pytest.mark.parametrize("views", [1, 2, 4])
def test_unsure_images_get_all_views_and_sure_ones_the_first(views):
    corners = np.array([[40, 240, 90, 60], [140, 10, 20, 30]], np.uint8)  # in the order of VIEWS: 0.9 and 0.65 sure
    images = np.zeros((2, 96, 96, 3), np.uint8)
    images[:, 0, 0], images[:, -1, -1], images[:, 0, -1], images[:, -1, 0] = corners.T[..., None]
    made = object.__new__(model.Model)
    made.members, made.steps, made.views, made.temperature = [], (), model.VIEWS[:views], 1.0
    made.network = FirstPixel()
    expected = [0.1, corners[1, :views].mean() / 400]
    assert made.predict_proba(images)[:, 0] == pytest.approx(expected, abs=1e-6)
    assert made.network.seen == views
    made.predict_proba(images[:1])
    assert made.network.seen == views + 1  # none is unsure: one look
    assert made.predict_proba(images[:0]).shape == (0, 8)


def test_input_is_not_modified(submitted, images):
    for X in (images.copy(), images.astype(np.float32), images / 255):
        before = X.copy()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            submitted.predict(X)
        assert np.array_equal(X, before) and X.dtype == before.dtype


def test_images_in_0_1_are_scaled_and_warned_about(submitted, images, labels):
    for dtype in (np.float32, np.float64):
        with pytest.warns(UserWarning, match=r"\[0, 1\].*scaled"):
            assert (submitted.predict((images / 255).astype(dtype)) == labels).all()
    mixed = images.astype(np.float32)
    mixed[::2] /= 255
    with pytest.warns(UserWarning, match="scaled"):
        assert (submitted.predict(mixed) == labels).all()


def test_nan_and_infinities_give_a_label_and_a_warning(submitted, images):
    broken = images[:4].astype(np.float32)
    broken[0, 10:20], broken[1, 5] = np.nan, np.inf
    broken[2, 7], broken[3] = -np.inf, np.nan
    with pytest.warns(UserWarning, match="NaN or infinite"):
        found = submitted.predict(broken)
    assert found.shape == (4,) and ((found >= 0) & (found < 8)).all()


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


def test_numbers_that_float32_cannot_hold_are_clipped_and_warned_about_once():
    X = np.full((1, 96, 96, 3), 100.0)
    X[0, 0, 0] = 1e300, -1e300, 7
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert model.preprocess(X)[0, 0, 0].tolist() == [255, 0, 7]
    assert [w.category for w in said] == [UserWarning]


def test_a_forked_process_is_told_so_instead_of_waiting_for_ever(monkeypatch):
    made = object.__new__(model.Model)
    made.members, made.steps, made.views, made.temperature, made.network = [], (), model.VIEWS[:1], 1.0, FirstPixel()
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
    X = np.zeros((4, 96, 96, 3), np.float64)
    X[0], X[1], X[2], X[3] = 0.5, 300, -3, 200
    X[3, 0, 0] = np.nan, np.inf, -np.inf
    with pytest.warns(UserWarning) as caught:
        out = model.preprocess(X)
    assert len(caught) == 3 and out.dtype == np.float32
    assert (out[0] == 127.5).all() and (out[1] == 255).all() and (out[2] == 0).all()
    assert out[3, 0, 0].tolist() == [0, 255, 0] and (out[3, 1:] == 200).all()


def test_trained_weights_name_real_cells(heldout, submitted):
    images, labels = heldout[0][:100], heldout[1][:100, 0]
    assert (submitted.predict(images) == labels).mean() > 0.95


class Loaded:
    """A network that takes any file of weights."""

    def load_weights(self, path):
        self.path = path


class TestDamagedWeights:
    """Each fault stops with an error that names the file and says what to do."""

    @pytest.fixture
    def folder(self, tmp_path, monkeypatch):
        """Weights and their manifest; the network is not built, as what is damaged is seen before it is read."""
        monkeypatch.setattr(model, "build_network", lambda **_: Loaded())
        (tmp_path / "model.weights.h5").write_bytes(bytes(100))
        manifest = {"sha256": hashlib.sha256(bytes(100)).hexdigest(), "views": 4, "temperature": 0.9, "pixels": 112}
        (tmp_path / "manifest.json").write_text(json.dumps(manifest))
        return tmp_path

    def refused(self, folder, error, name):
        with pytest.raises(error) as caught:
            model.Model(folder)
        assert str(folder / name) in str(caught.value) and "unzip the submission again" in str(caught.value)

    @pytest.mark.parametrize("name", ["model.weights.h5", "manifest.json"])
    def test_missing(self, folder, name):
        (folder / name).unlink()
        self.refused(folder, FileNotFoundError, name)

    def test_truncated(self, folder):
        path = folder / "model.weights.h5"
        path.write_bytes(path.read_bytes()[:50])
        self.refused(folder, ValueError, path.name)

    def test_one_byte_altered(self, folder):
        path = folder / "model.weights.h5"
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
        self.refused(folder, ValueError, path.name)

    @pytest.mark.parametrize("text", ["", "{", "[]", "{}", "7"])
    def test_damaged_manifest(self, folder, text):
        (folder / "manifest.json").write_text(text)
        self.refused(folder, ValueError, "manifest.json")

    @pytest.mark.parametrize(
        "key, value",
        [("views", 0), ("views", 5), ("views", True), ("views", 1.5), ("temperature", 1e-9),
         ("temperature", float("nan")),
         ("temperature", 10**400), ("temperature", "1"), ("sha256", "abc"), ("sha256", None), ("pixels", 8),
         ("pixels", "96"), ("network", 3), ("enhance", "clahe"), ("members", []), ("members", ["../other"]),
         ("members", [".."]), ("next", 7)],
    )  # fmt: skip
    def test_a_value_that_cannot_be_used(self, folder, key, value):
        manifest = json.loads((folder / "manifest.json").read_text())
        (folder / "manifest.json").write_text(json.dumps({**manifest, key: value}))
        self.refused(folder, ValueError, "manifest.json")

    def test_a_network_that_is_not_known(self, folder):
        manifest = json.loads((folder / "manifest.json").read_text())
        (folder / "manifest.json").write_text(json.dumps({**manifest, "network": "AlexNet"}))
        with pytest.raises(ValueError, match="there is no network 'AlexNet'; choose one of "):
            model.Model(folder)

    def test_weights_of_another_network(self, folder):
        class Other:
            def load_weights(self, path):
                raise KeyError("no layer\nof that name")

        path = folder / "model.weights.h5"
        with pytest.raises(ValueError, match="does not fit the network of its manifest .*unzip") as caught:
            model.load_weights(Other(), path, model.sha256(path))
        assert "\n" not in str(caught.value)

    def test_a_kill_while_weights_changed_leaves_the_manifest_of_both(self, folder):
        older, path = json.loads((folder / "manifest.json").read_text()), folder / "model.weights.h5"
        newer = {**older, "views": 1, "sha256": hashlib.sha256(b"newer").hexdigest()}
        (folder / "manifest.json").write_text(json.dumps({**older, "next": newer}))
        assert model.read_manifest(folder) == older
        path.write_bytes(b"newer")
        assert model.read_manifest(folder) == newer
        path.write_bytes(b"other")
        assert model.read_manifest(folder) == older  # whose weights these are not, as load_weights says

    def test_intact_is_not_refused(self, folder):
        assert model.Model(folder).network.path == folder / "model.weights.h5"
