"""The networks: shapes, sizes by the literature, the scaling in front, weights files and their errors."""

import shutil
import subprocess
import sys

import cv2
import keras
import numpy as np
import pytest
from conftest import ROOT

import model
from training import networks

VGG = (3, 32, 32, 64, 64, 128, 128, 128, 256, 256, 256, 256, 256, 256)  # channels, half of VGG16's
HEADLESS = {  # parameters without a classifier, as keras.applications documents or counts them
    "MobileNetV3Small": 939_120,
    "ResNet50V2": 23_564_800,
    "ResNet101": 42_658_176,
    "DenseNet169": 12_642_880,
    "ConvNeXtBase": 87_566_464,
    "EfficientNetB4": 17_673_823,
    "EfficientNetV2B0": 5_919_312,
    # by hand: kernels and biases of the convolutions, then of the dense layers
    "BasicCNN": (27 + 1) * 32 + (288 + 1) * 64 + (576 + 1) * 128 + (12 * 12 * 128 + 1) * 128,
    "SimpleCNN": (27 + 1) * 32 + (288 + 1) * 64 + (576 + 1) * 128 + (1152 + 1) * 256,
    "HalfVGG": sum((9 * a + 1) * b for a, b in zip(VGG, VGG[1:], strict=False)) + (2304 + 1) * 512 + (512 + 1) * 512,
    "Linear": 0,
    "ViT": (192 + 1) * 192 + 144 * 192 + 6 * (4 * 192 + 4 * 193 * 192 + 193 * 768 + 769 * 192) + 2 * 192,
    # the stem has no biases but four numbers of batch norm a filter; then a block less than ViT
    "Hybrid": 27 * 48
    + 9 * 48 * 96
    + 9 * 96 * 192
    + 4 * (48 + 96 + 192)
    + 193 * 192
    + 144 * 192
    + 2 * 192
    + 5 * (4 * 192 + 4 * 193 * 192 + 193 * 768 + 769 * 192),
}
ADDED = {"ConvNeXtBase": 256}  # units of a dense layer behind the backbone
FEATURES = {"BasicCNN": 128, "SimpleCNN": 256, "HalfVGG": 512, "ViT": 192, "MobileNetV3Small": 576}
FEATURES |= {"Linear": 96 * 96 * 3, "Hybrid": 192}
FEATURES |= {"ResNet50V2": 2048, "ResNet101": 2048, "DenseNet169": 1664, "ConvNeXtBase": 1024}
FEATURES |= {"EfficientNetB4": 1792, "EfficientNetV2B0": 1280}
QUICK = ("Linear", "BasicCNN", "SimpleCNN")
ALL = [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in networks.NETWORKS]


def photos(n: int = 2, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0, 255, (n, 96, 96, 3)).astype(np.float32)


def run(network, images) -> np.ndarray:
    return keras.ops.convert_to_numpy(network(images, training=False))


def scramble(network, seed: int = 1) -> None:
    """Other weights everywhere, batch norm's included; kernels keep their mean, or a deep network would overflow."""
    rng = np.random.default_rng(seed)
    weights = network.get_weights()
    network.set_weights([w * rng.uniform(0.9, 1.1, w.shape) + 0.01 * (w.ndim == 1) for w in weights])


@pytest.fixture(autouse=True)
def forget(request):
    """Large networks make room for one another."""
    yield
    if request.node.get_closest_marker("slow"):
        keras.backend.clear_session()


@pytest.fixture(scope="module")
def vit():
    return networks.build("ViT")


ALONE = """
import sys
from training import networks
print(networks.build("SimpleCNN").output_shape, sorted(name for name in sys.modules if name.startswith("training")))
"""


@pytest.mark.slow
def test_alone_beside_model_py_as_in_a_zip(tmp_path):
    (tmp_path / "training").mkdir()
    for name in ("model.py", "training/networks.py"):
        shutil.copy(ROOT / name, tmp_path / name)
    done = subprocess.run([sys.executable, "-c", ALONE], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.strip() == "(None, 8) ['training', 'training.networks']", done.stderr


@pytest.mark.parametrize("name", ALL)
def test_builds_counts_and_survives_a_file(name, tmp_path):
    network = networks.build(name)
    assert network.input_shape == (None, 96, 96, 3)
    features, added = FEATURES[name], ADDED.get(name)
    dense = (features + 1) * added + 8 * (added + 1) if added else 8 * (features + 1)
    assert network.count_params() == HEADLESS[name] + dense
    head, dropout = network.layers[-1], network.layers[-2]
    assert head.name == "head" and head.dtype_policy.compute_dtype == "float32" and dropout.rate == 0.3
    scramble(network)
    before = run(network, photos())
    assert before.shape == (2, 8) and before.dtype == np.float32
    np.testing.assert_allclose(before.sum(axis=1), 1, atol=1e-5)
    network.save_weights(tmp_path / "all.weights.h5")
    again = networks.build(name)
    again.load_weights(tmp_path / "all.weights.h5")
    np.testing.assert_allclose(run(again, photos()), before, atol=1e-5)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n == "SimpleCNN" else pytest.mark.slow) for n in networks.NETWORKS]
)
def test_headless_weights_reach_every_layer(name, tmp_path):
    """A file written by the bare backbone, as a download is, fills the backbone of ours."""
    path = tmp_path / "bare.weights.h5"
    if not networks.NETWORKS[name].backbone:
        bare = getattr(keras.applications, name)(weights=None, include_top=False)
    else:
        whole = networks.build(name)
        bare = keras.Model(whole.input, whole.layers[-3].output)
    scramble(bare)
    bare.save_weights(path)
    expected = bare.get_weights()
    loaded = networks.build(name, weights=path).get_weights()[: -4 if name in ADDED else -2]
    assert len(loaded) == len(expected)
    for one, other in zip(loaded, expected, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", [pytest.param("EfficientNetV2B0", marks=pytest.mark.slow), "SimpleCNN", "BasicCNN"])
def test_whole_weights_bring_their_head(name, tmp_path):
    """A file as a run leaves it: the network that goes on from it names cells as that run did."""
    path = tmp_path / "model.weights.h5"
    network = networks.build(name)
    scramble(network)
    network.save_weights(path)
    np.testing.assert_array_equal(run(networks.build(name, weights=path), photos()), run(network, photos()))


def reaching_backbone(name: str) -> np.ndarray:
    """What arrives at the keras.applications network when it is fed photos()."""
    x, seen = keras.Input((96, 96, 3)), {}

    def backbone(weights, include_top, input_tensor, pooling):
        seen["input"] = input_tensor
        return keras.Model(x, keras.layers.Flatten()(input_tensor))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keras.applications, name, backbone)
        networks.application(name, x)
    return photos() if seen["input"] is x else run(keras.Model(x, seen["input"]), photos())


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("MobileNetV3Small", "mobilenet_v3"),
        ("ResNet50V2", "resnet_v2"),
        ("ResNet101", "resnet"),
        ("DenseNet169", "densenet"),
        ("ConvNeXtBase", "convnext"),
    ],
)
def test_scaling_is_the_one_of_the_pretrained_weights(name, module):
    expected = getattr(keras.applications, module).preprocess_input(photos().astype(np.float64))
    np.testing.assert_allclose(reaching_backbone(name), expected, rtol=1e-5, atol=1e-4)


def test_efficientnet_b4_is_scaled_once_more():
    """Keras normalises inside by mean and deviation, and with ImageNet weights once more by 1 / sqrt(deviation)."""
    mean, deviation = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    normalised = (reaching_backbone("EfficientNetB4") / 255 - mean) / deviation
    expected = (photos() / 255 - mean) / deviation / np.sqrt(deviation)
    np.testing.assert_allclose(normalised, expected, atol=1e-4)


@pytest.mark.slow
def test_efficientnet_b4_is_the_graph_that_keras_builds_for_imagenet(tmp_path):
    """Keras's own graph for ImageNet weights, its download replaced by a file of made-up ones, gives our features."""
    from keras.src.applications import efficientnet

    x = keras.Input((96, 96, 3))
    ours = keras.Model(x, networks.application("EfficientNetB4", x))
    scramble(ours)
    normalise = next(layer for layer in ours.layers if isinstance(layer, keras.layers.Normalization))
    normalise.set_weights([np.array([0.485, 0.456, 0.406]), np.square([0.229, 0.224, 0.225]), np.array(1)])
    ours.save_weights(tmp_path / "made_up.weights.h5")
    ours.load_weights(tmp_path / "made_up.weights.h5")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(efficientnet.file_utils, "get_file", lambda *_, **__: str(tmp_path / "made_up.weights.h5"))
        theirs = keras.applications.EfficientNetB4(
            weights="imagenet", include_top=False, input_shape=(96, 96, 3), pooling="avg"
        )
    np.testing.assert_allclose(run(ours, photos()), run(theirs, photos()), rtol=1e-3, atol=1e-4)


def test_efficientnetv2b0_is_built_by_model_py(monkeypatch):
    asked = []
    monkeypatch.setattr(model, "build_network", lambda *arguments: asked.append(arguments) or "it")
    assert networks.build("EfficientNetV2B0", None, 0.1, 112) == "it" and asked == [(None, 0.1, 112)]


@pytest.mark.slow
def test_efficientnetv2b0_is_the_submitted_network():
    ours, submitted = networks.build("EfficientNetV2B0", dropout=0.1), model.build_network()
    assert [(w.shape, w.name) for w in ours.weights] == [(w.shape, w.name) for w in submitted.weights]
    assert ours.count_params() == submitted.count_params()
    assert ours.layers[-2].rate == 0.1
    assert networks.backbone_layers(ours) == ours.layers[:-2]  # dropout and head are not the backbone's
    ours.set_weights(submitted.get_weights())
    np.testing.assert_array_equal(run(ours, photos()), run(submitted, photos()))


@pytest.mark.slow
def test_the_network_resizes_what_it_sees():
    whole, larger = networks.build("EfficientNetV2B0"), networks.build("EfficientNetV2B0", pixels=112)
    assert [layer.name for layer in networks.backbone_layers(larger)][3:] == [
        layer.name for layer in networks.backbone_layers(whole)
    ][3:]  # behind input, rescaling, normalisation; resizing does not count
    assert networks.flops(larger) > 1.3 * networks.flops(whole) and larger.input_shape == whole.input_shape
    resizing = next(place for place, layer in enumerate(larger.layers) if type(layer).__name__ == "Resizing")
    resized = keras.Model(larger.input, larger.layers[resizing].output)
    by_hand = np.stack([cv2.resize(image, (112, 112), interpolation=cv2.INTER_LINEAR) for image in photos()])
    np.testing.assert_allclose(run(resized, photos()), by_hand, rtol=1e-3, atol=1e-2)


def test_dropout_drops_in_training_only():
    network = networks.build("SimpleCNN", dropout=0.9)
    first, second = (keras.ops.convert_to_numpy(network(photos(), training=True)) for _ in range(2))
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(run(network, photos()), run(network, photos()))


def test_images_are_resized_where_a_network_has_another_size(monkeypatch):
    monkeypatch.setitem(networks.NETWORKS, "Small", networks.Network(networks.NETWORKS["SimpleCNN"].backbone, 48))
    for network, resized in ((networks.build("Small"), True), (networks.build("SimpleCNN"), False)):
        assert network.input_shape == (None, 96, 96, 3)
        assert ("Resizing" in {type(layer).__name__ for layer in network.layers}) is resized


def test_vit_knows_where_a_patch_is(vit):
    images = photos()
    moved = np.roll(images, 8, axis=2)  # whole patches: without positions nothing would change
    assert np.abs(run(vit, images) - run(vit, moved)).max() > 1e-4


def test_backbone_layers(vit):
    names = [type(layer).__name__ for layer in networks.backbone_layers(vit)]
    assert names[:4] == ["InputLayer", "Rescaling", "Conv2D", "Reshape"]
    assert names.count("MultiHeadAttention") == 6 and names[-1] == "GlobalAveragePooling1D"


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name == "MobileNetV3Small" else pytest.mark.slow)
        for name, network in networks.NETWORKS.items()
        if not network.backbone
    ],
)
def test_backbone_layers_are_counted_as_keras_counts(name):
    """`frozen` of a report is a slice of Keras's own `base_model.layers`."""
    theirs = getattr(keras.applications, name)(weights=None, include_top=False, pooling="avg").layers
    theirs = [type(layer).__name__ for layer in theirs]
    if name == "EfficientNetB4":  # Keras adds a rescaling where it loads ImageNet weights
        theirs[1:3] = ["Rescaling", "Rescaling", "Normalization"]
    assert [type(layer).__name__ for layer in networks.backbone_layers(networks.build(name))] == theirs


def test_a_model_inside_is_one_layer_and_counts_with_its_products():
    x = keras.Input((8, 8, 3))
    inner = keras.Sequential([keras.layers.Conv2D(2, 3), keras.layers.ReLU()])
    y = keras.layers.Flatten()(inner(keras.layers.Rescaling(2.0)(x)))
    network = keras.Model(x, keras.layers.Dense(8, name="head")(keras.layers.Dropout(0.1)(y)))
    kinds = [type(layer).__name__ for layer in networks.backbone_layers(network)]
    assert kinds == ["InputLayer", "Rescaling", "Sequential", "Flatten"]
    assert networks.flops(network) == 2 * (6 * 6 * 27 * 2 + 72 * 8)


def test_flops_by_hand():
    x = keras.Input((10, 10, 3))
    y = keras.layers.Conv2D(4, 3, strides=2, padding="same")(x)  # 5x5 places, 27 products for each of 4 channels
    y = keras.layers.DepthwiseConv2D(3, padding="same")(y)  # 5x5 places, 9 products for each of 4 channels
    y = keras.layers.Conv2D(6, 1, groups=2)(y)  # 5x5 places, 2 products for each of 6 channels
    y = keras.layers.Dense(8)(keras.layers.GlobalAveragePooling2D()(y))  # 6 products for each of 8
    by_hand = 2 * (25 * 27 * 4 + 25 * 9 * 4 + 25 * 2 * 6 + 6 * 8)
    assert networks.flops(keras.Model(x, y)) == by_hand


def test_flops_of_attention_by_hand(vit):
    tokens, width = 144, 192
    block = 4 * tokens * width**2 + 2 * tokens**2 * width + 2 * tokens * width * 4 * width
    expected = 2 * (tokens * 8 * 8 * 3 * width + 6 * block + width * 8)
    assert networks.flops(vit) == expected


@pytest.mark.slow
def test_flops_by_the_literature():
    """Multiply-adds as published: ResNet50V2's 3.48 G, ConvNeXt-B's 15.4 G at 224 (its paper's table 9)."""
    for name, billions in (("ResNet50V2", 3.48), ("ConvNeXtBase", 15.4)):
        x = keras.Input((224, 224, 3))
        assert networks.flops(keras.Model(x, networks.application(name, x))) == pytest.approx(2e9 * billions, rel=0.01)


def test_weights_none_path_and_unknown(tmp_path):
    assert networks.resolve_weights("ViT", "none", tmp_path) is None
    file = tmp_path / "mine.weights.h5"
    file.write_bytes(b"")
    assert networks.resolve_weights("ViT", str(file), tmp_path) == file
    with pytest.raises(ValueError, match="lost.weights.h5 is missing"):
        networks.resolve_weights("ViT", str(tmp_path / "lost.weights.h5"), tmp_path)
    (tmp_path / "mine.keras").write_bytes(b"")
    with pytest.raises(ValueError, match=r"mine.keras.*weights.h5"):
        networks.resolve_weights("ViT", str(tmp_path / "mine.keras"), tmp_path)
    for name in ("BasicCNN", "SimpleCNN", "HalfVGG", "ViT"):
        with pytest.raises(ValueError, match="no ImageNet weights.*use none"):
            networks.resolve_weights(name, "imagenet", tmp_path)
    with pytest.raises(ValueError, match="no network 'AlexNet'.*ConvNeXtBase"):
        networks.build("AlexNet")


@pytest.mark.filterwarnings("ignore:Skipping nested container")
@pytest.mark.parametrize(
    "name", ["BasicCNN", *(pytest.param(n, marks=pytest.mark.slow) for n in ("ViT", "EfficientNetV2B0"))]
)
def test_weights_that_do_not_fit(name, tmp_path):
    garbage, other, bare = (tmp_path / f"{name}.weights.h5" for name in ("garbage", "other", "bare"))
    garbage.write_bytes(b"no HDF5")
    network = networks.build("SimpleCNN")
    network.save_weights(other)
    keras.Model(network.input, network.layers[-3].output).save_weights(bare)
    for path in (garbage, other, bare):
        with pytest.raises(ValueError, match=f"{path.name} does not fit"):
            networks.build(name, weights=path)


def test_imagenet_file_at_hand_is_taken_without_a_download(tmp_path, monkeypatch):
    monkeypatch.delattr(keras.applications, "DenseNet169")
    file = tmp_path / "densenet169_notop.weights.h5"
    file.write_bytes(b"")
    assert networks.resolve_weights("DenseNet169", "imagenet", tmp_path) == file


def test_imagenet_download_is_saved_once(tmp_path, monkeypatch):
    asked = []

    def download(weights, include_top):
        asked.append((weights, include_top))
        return keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])

    monkeypatch.setattr(keras.applications, "DenseNet169", download)
    folder = tmp_path / "data" / "pretrained"
    file = networks.resolve_weights("DenseNet169", "imagenet", folder)
    assert networks.resolve_weights("DenseNet169", "imagenet", folder) == file
    assert asked == [("imagenet", False)] and list(folder.iterdir()) == [file]
    download(None, False).load_weights(file)


def test_imagenet_without_internet_says_what_to_do(tmp_path, monkeypatch):
    def offline(**_):
        raise Exception("URL fetch failure")

    monkeypatch.setattr(keras.applications, "DenseNet169", offline)
    with pytest.raises(ValueError) as error:
        networks.resolve_weights("DenseNet169", "imagenet", tmp_path)
    text = str(error.value)
    assert str(tmp_path / "densenet169_notop.weights.h5") in text and "URL fetch failure" in text
    assert "keras.applications.DenseNet169(weights='imagenet', include_top=False).save_weights(" in text
    assert not list(tmp_path.iterdir())
