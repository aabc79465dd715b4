"""The networks of the two reports, a vision transformer and a hybrid, all with one input and one output.

    from training import networks
    network = networks.build("DenseNet169", weights=networks.resolve_weights("DenseNet169", "imagenet"))

Every network takes float32 images (n, 96, 96, 3) in 0-255, as `model.preprocess` gives them, and returns softmax
probabilities (n, 8) float32; resizing and scaling are layers of the graph. "As far as stated" marks usual values, used
where the reports of LionIA and Spritzers state none. A submission with one of these networks must include this file.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import h5py
import keras
from keras import layers

import model

PRETRAINED = Path(__file__).resolve().parent.parent / "data" / "pretrained"


@dataclass(frozen=True)
class Network:
    """An architecture. backbone: symbolic images (n, size, size, 3) in 0-255 to symbolic features (n, d); None: that of
    keras.applications, which has ImageNet weights. size: pixels a side to which images are resized. dense: units of a
    ReLU layer added after the backbone, not in the backbone's weights files; 0: none."""

    backbone: Callable | None = None
    size: int = model.IMAGE_SIZE
    dense: int = 0


def build(name: str, weights: Path | None = None, dropout: float = 0.3, pixels: int | None = None) -> keras.Model:
    """The network of that name: float32 images (n, 96, 96, 3) in 0-255 to probabilities (n, 8) float32.

    weights: a `.weights.h5` of the backbone, or of the whole network as a run writes it; None: random weights. dropout:
    rate before the head. pixels: for EfficientNetV2B0 only, see model.build_network. Raises ValueError for an unknown
    name, or a weights file that cannot be read or does not fit.
    """
    if name not in NETWORKS:
        raise ValueError(f"there is no network {name!r}; choose one of {', '.join(NETWORKS)}")
    try:
        whole = weights is not None and _has_head(weights)
        headless = None if whole else weights
        if name == "EfficientNetV2B0":  # the code that is also used at inference
            made = model.build_network(headless, dropout, pixels)
        else:
            made = _assemble(name, headless, dropout)
        if whole:
            made.load_weights(weights)
    except (ValueError, OSError, KeyError) as error:
        if weights is None:
            raise
        raise ValueError(f"{weights} does not fit: it must hold this network's own weights ({error})") from error
    return made


def _assemble(name: str, headless: Path | None, dropout: float) -> keras.Model:
    """Resizing if needed, backbone, added layer if any, dropout and head; see `build`."""
    network = NETWORKS[name]
    x = images = keras.Input((model.IMAGE_SIZE, model.IMAGE_SIZE, 3))
    if network.size != model.IMAGE_SIZE:
        x = layers.Resizing(network.size, network.size, dtype="float32")(x)
    x = network.backbone(x) if network.backbone else application(name, x)
    if headless is not None:
        keras.Model(images, x).load_weights(headless)
    if network.dense:
        x = layers.Dense(network.dense, activation="relu", name="added")(x)
    x = layers.Dropout(dropout)(x)
    return keras.Model(images, layers.Dense(model.NUM_CLASSES, activation="softmax", dtype="float32", name="head")(x))


def _has_head(weights: Path) -> bool:
    """Whether a `.weights.h5` holds a dense layer with one output per class."""
    with h5py.File(weights) as file:
        dense = [layer["vars"] for name, layer in file["layers"].items() if name.startswith("dense")]
        return any("1" in held and held["1"].shape == (model.NUM_CLASSES,) for held in dense)


def convolved(x, blocks, start: str = "glorot_uniform"):
    """Scaling to 0-1, then blocks of (filters, convolutions), each followed by max pooling. start: initialiser."""
    x = layers.Rescaling(1 / 255, dtype="float32")(x)
    for filters, repeats in blocks:
        for _ in range(repeats):
            x = layers.Conv2D(filters, 3, padding="same", activation="relu", kernel_initializer=start)(x)
        x = layers.MaxPooling2D()(x)
    return x


def basic_cnn(x):
    """LionIA's basic CNN, as far as stated: three convolutions with max pooling and one dense layer, from scratch."""
    x = convolved(x, ((32, 1), (64, 1), (128, 1)))
    return layers.Dense(128, activation="relu")(layers.Flatten()(x))


def half_vgg(x):
    """Spritzers' modified VGG: VGG16 with half the filters and smaller dense layers (512 for 4096, as far as stated);
    He initialisation, without which thirteen successive convolutions do not start to learn (He et al. 2015)."""
    x = layers.Flatten()(convolved(x, ((32, 2), (64, 2), (128, 3), (256, 3), (256, 3)), "he_normal"))
    for _ in range(2):
        x = layers.Dense(512, activation="relu", kernel_initializer="he_normal")(x)
    return x


def vit(x):
    """A vision transformer (Dosovitskiy et al. 2021): width and heads of DeiT-Ti (Touvron et al. 2021), half its depth,
    and the average of all patches instead of a class token (Beyer, Zhai & Kolesnikov 2022)."""
    x = layers.Rescaling(1 / 127.5, -1.0, dtype="float32")(x)
    return encode(layers.Conv2D(192, 8, strides=8)(x), depth=6)


def hybrid(x):
    """A transformer with a convolutional stem, which replaces the patch embedding and one block (Xiao et al. 2021).
    12x12 tokens for a 96-pixel image, as many as in `vit`."""
    x = layers.Rescaling(1 / 127.5, -1.0, dtype="float32")(x)
    for filters in (48, 96, 192):
        x = layers.Conv2D(filters, 3, strides=2, padding="same", use_bias=False)(x)
        x = layers.ReLU()(layers.BatchNormalization()(x))
    return encode(layers.Conv2D(192, 1)(x), depth=5)


def encode(x, depth: int, heads: int = 3):
    """Transformer encoder: tokens (n, h, w, width) through `depth` blocks, then their average (n, width)."""
    small = partial(keras.initializers.TruncatedNormal, stddev=0.02)
    norm, width, tokens = partial(layers.LayerNormalization, epsilon=1e-6), x.shape[3], x.shape[1] * x.shape[2]
    x = layers.Reshape((tokens, width))(x)
    positions = keras.ops.cumsum(keras.ops.ones_like(x[:, :, 0], dtype="int32"), axis=1) - 1
    x = layers.Add()([x, layers.Embedding(tokens, width, embeddings_initializer=small())(positions)])
    for _ in range(depth):
        y = norm()(x)
        x = layers.Add()([x, layers.MultiHeadAttention(heads, width // heads, kernel_initializer=small())(y, y)])
        y = layers.Dense(4 * width, activation="gelu", kernel_initializer=small())(norm()(x))
        x = layers.Add()([x, layers.Dense(width, kernel_initializer=small())(y)])
    return layers.GlobalAveragePooling1D()(norm()(x))


UNSCALED = {"ResNet50V2": "resnet_v2", "ResNet101": "resnet", "DenseNet169": "densenet"}  # others scale in their graph
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's pixels, RGB in 0-1


def application(name: str, x):
    """Features of keras.applications' network `name` without its top, with average pooling, for images x in 0-255,
    which are scaled as its ImageNet weights expect."""
    if name in UNSCALED:
        x = getattr(keras.applications, UNSCALED[name]).preprocess_input(x)
    if name == "EfficientNetB4":
        # Keras normalises internally. If it loads ImageNet weights itself, it also divides by sqrt(deviation). Here the
        # input is scaled, y/255 - mean = (x/255 - mean) / sqrt(deviation), so that one graph serves all weights.
        again = [1 / math.sqrt(d) for d in DEVIATION]
        offset = [255 * m * (1 - a) for m, a in zip(MEAN, again, strict=True)]
        x = layers.Rescaling(again, offset, dtype="float32")(x)
    return getattr(keras.applications, name)(weights=None, include_top=False, input_tensor=x, pooling="avg").output


NETWORKS = {
    # Spritzers' first model, a linear classifier: the pixels themselves, in 0-1, are the features
    "Linear": Network(lambda x: layers.Flatten()(layers.Rescaling(1 / 255, dtype="float32")(x))),
    "BasicCNN": Network(basic_cnn),  # LionIA
    # Spritzers', four convolutions; widths, max pooling and the final average pooling are usual values
    "SimpleCNN": Network(
        lambda x: layers.GlobalAveragePooling2D()(convolved(x, ((32, 1), (64, 1), (128, 1), (256, 1))))
    ),
    "HalfVGG": Network(half_vgg),  # Spritzers; Simonyan & Zisserman 2015, with half the filters
    "MobileNetV3Small": Network(),  # Spritzers; Howard et al. 2019
    "ResNet50V2": Network(),  # LionIA; He et al. 2016, Identity mappings
    "ResNet101": Network(),  # the reports' comparisons; He et al. 2016, Deep residual learning
    "DenseNet169": Network(),  # the reports' comparisons; Huang et al. 2017
    "ConvNeXtBase": Network(dense=256),  # LionIA, with an added layer; Liu et al. 2022
    "EfficientNetB4": Network(size=380),  # Spritzers' best; Tan & Le 2019
    "EfficientNetV2B0": Network(),  # LionIA's best, and ours; Tan & Le 2021
    "ViT": Network(vit),  # future work in the reports; Dosovitskiy et al. 2021
    "Hybrid": Network(hybrid),  # future work in the reports; Xiao et al. 2021
}


def resolve_weights(name: str, weights: str, folder: Path = PRETRAINED) -> Path | None:
    """The path of a network's weights file; None if `weights` is "none". "imagenet" means folder/<name in lower case>
    _notop.weights.h5; if that is missing, keras.applications' weights are downloaded and saved there. Any other text is
    a path. Raises ValueError if there are no such weights."""
    if weights == "none":
        return None
    if weights != "imagenet":
        path = Path(weights)
        if not path.is_file() or not path.name.endswith(".weights.h5"):
            raise ValueError(f"{path} is missing or no weights file: give a .weights.h5 of {name}, imagenet or none")
        return path
    if NETWORKS[name].backbone:
        raise ValueError(f"{name} has no ImageNet weights: use none, or the path of your own")
    path = Path(folder) / f"{name.lower()}_notop.weights.h5"
    if not path.is_file():
        try:
            from training.files import write_atomically  # not needed in a submission

            pretrained = getattr(keras.applications, name)(weights="imagenet", include_top=False)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, pretrained.save_weights)
        except Exception as error:  # keras raises a bare Exception where a download fails
            fetch = f"keras.applications.{name}(weights='imagenet', include_top=False).save_weights('{path.name}')"
            raise ValueError(
                f"{path} is missing and could not be downloaded ({error}). On a machine with internet run\n"
                f'    python -c "import keras; {fetch}"\nand put the file at {path}; or use weights none.'
            ) from error
    return path


def backbone_layers(network) -> list:
    """The backbone's layers in graph order, as in Keras's `base_model.layers`: the input is the first, a nested model
    counts as one. Layers around the backbone are left out: resizing, the added layer, the last two (dropout, head)."""
    return [x for x in network.layers[:-2] if x.name != "added" and not isinstance(x, layers.Resizing)]


def flops(network) -> int:
    """Floating-point operations for one image: two for every multiply-add of convolutions, dense layers and attention.
    Not counted: biases, normalisation, activations, pooling, resizing."""
    total = 0
    for layer in network.layers:
        if isinstance(layer, keras.Model):
            total += flops(layer)
        elif isinstance(layer, layers.MultiHeadAttention):
            config, tokens = layer.get_config(), layer.output.shape[1]
            total += 4 * tokens**2 * config["num_heads"] * config["key_dim"]
            total += 2 * tokens * sum(math.prod(w.shape) for w in layer.weights if len(w.shape) == 3)
        elif isinstance(layer, (layers.Conv2D, layers.DepthwiseConv2D, layers.Dense)):
            total += 2 * math.prod(layer.output.shape[1:-1]) * math.prod(layer.kernel.shape)
    return total
