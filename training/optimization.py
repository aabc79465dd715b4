"""What is trained, and how: frozen layers, optimizer, learning rate, loss, weight averaging."""

import math
import re
from functools import partial
from pathlib import Path

import keras
import numpy as np

from training import networks
from training.recipes import Recipe

OPTIMIZERS = {"adamw": keras.optimizers.AdamW, "adam": keras.optimizers.Adam, "lion": keras.optimizers.Lion}


def freeze(network, recipe: Recipe, stage: str) -> None:
    """Set which layers train: in stage 'head' only the head, in 'all' also the backbone layers that the recipe trains.
    A frozen batch norm runs in inference mode. Raises ValueError for too high a `frozen`, or an `only` without a layer.
    """
    backbone = networks.backbone_layers(network)
    if recipe.frozen > len(backbone):
        raise ValueError(f"frozen={recipe.frozen}, but the backbone of {recipe.network} has {len(backbone)} layers")
    for place, layer in enumerate(backbone):
        wanted = place >= recipe.frozen and (not recipe.only or type(layer).__name__ in recipe.only)
        layer.trainable = stage == "all" and wanted
    if recipe.only and stage == "all" and not any(layer.trainable for layer in backbone):
        raise ValueError(f"no layer of {recipe.network} behind the first {recipe.frozen} is of {recipe.only}")


def batch_norms(network) -> list:
    """The batch norms of a network's backbone."""
    return [x for x in networks.backbone_layers(network) if isinstance(x, keras.layers.BatchNormalization)]


def hasten_batch_norm(network) -> None:
    """Lower batch norm's momentum to 0.99, so that running statistics adapt within hundreds of steps; for random
    weights. With MobileNetV3's 0.999, a network still predicted one class for all cells after four epochs."""
    for layer in batch_norms(network):
        layer.momentum = min(layer.momentum, 0.99)


def fuse_batch_norm(network) -> None:
    """Compute batch norm with TensorFlow's fused kernel, a fifth faster on a CPU. Other backends are unchanged."""
    if keras.backend.backend() == "tensorflow":
        for layer in batch_norms(network):
            layer.call = partial(_fused, layer)


def _fused(layer, inputs, training=None, mask=None):
    """Same outputs and same updates as BatchNormalization.call of `layer` with scale and centre, for (n, h, w, c)."""
    import tensorflow as tf

    inputs, size = tf.cast(inputs, tf.float32), tf.cast(tf.reduce_prod(tf.shape(inputs)[:3]), tf.float32)
    normalize = partial(tf.compat.v1.nn.fused_batch_norm, inputs, layer.gamma, layer.beta, epsilon=layer.epsilon)
    if not (training and layer.trainable):
        return tf.cast(normalize(layer.moving_mean, layer.moving_variance, is_training=False)[0], layer.compute_dtype)
    outputs, mean, variance = normalize(is_training=True)
    variance *= 1 - 1 / size  # the kernel returns the unbiased variance
    for kept, now in ((layer.moving_mean, mean), (layer.moving_variance, variance)):
        kept.assign(kept * layer.momentum + now * (1 - layer.momentum))
    return tf.cast(outputs, layer.compute_dtype)


def reseed(network, seed: int, epoch: int) -> None:
    """Seed dropout's generators by (seed, epoch). Weights files do not hold their state, so --resume needs this."""
    for layer in network.layers:
        if generator := getattr(layer, "seed_generator", None):
            generator.state.assign([seed, epoch])


def compile_for(network, recipe: Recipe, stage: str, steps: int) -> None:
    """Set optimizer, learning-rate schedule (`steps` per epoch) and loss for a stage."""
    rate = recipe.head_learning_rate if stage == "head" else recipe.learning_rate
    if stage == "all" and recipe.schedule == "cosine":
        warmup = int(min(recipe.warmup_epochs, recipe.epochs / 2) * steps)
        decay = max(1, recipe.epochs * steps - warmup)
        rate = keras.optimizers.schedules.CosineDecay(0.0, decay, warmup_target=rate, warmup_steps=warmup)
    spread = recipe.accumulate if recipe.accumulate > 1 else None
    decay = None if recipe.optimizer == "adam" else recipe.weight_decay / recipe.accumulate  # Keras decays in each step
    options = {"weight_decay": decay, "global_clipnorm": 1.0, "gradient_accumulation_steps": spread}
    optimizer = OPTIMIZERS[recipe.optimizer](rate, **options)
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    loss = keras.losses.CategoricalCrossentropy(label_smoothing=recipe.label_smoothing)
    network.compile(optimizer, loss, metrics=["accuracy"])
    network.optimizer.build(network.trainable_variables)
    blank = np.zeros((1, *network.output_shape[1:]), np.float32)
    network.compute_metrics(None, blank, blank)  # makes the metrics' variables; else the first step is traced twice


def check_memory(network, size: int) -> None:
    """Raises ValueError if a step of `size` images needs more memory than is free: it keeps the float32 output of every
    layer until the gradients are computed. Not checked on a GPU."""
    meminfo = Path("/proc/meminfo")
    if not meminfo.is_file() or keras.distribution.list_devices("gpu"):
        return
    shapes = [output.shape for layer in network.layers for output in keras.tree.flatten(layer.output)]
    needed = 4 * size * sum(math.prod(shape[1:]) for shape in shapes) + 16 * network.count_params()
    free = 1024 * int(re.search(r"MemAvailable:\s+(\d+)", meminfo.read_text())[1])
    if needed > free:
        raise ValueError(
            f"a step of {size} images takes about {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free: spread a batch"
            " over more steps, such as --set accumulate=8"
        )


class Average(keras.callbacks.Callback):
    """Updates `average` in place: an exponential moving average of all weights, integers such as counters excepted.
    horizon: in steps. Keras's own `use_ema` leaves out batch norm's statistics."""

    def __init__(self, average: list[np.ndarray], horizon: float, steps: int):
        super().__init__()
        self.average, self.every = average, min(8, steps)  # reading the weights stalls a GPU
        self.share = min(1.0, self.every / horizon)

    def on_train_batch_end(self, batch, logs=None):
        if batch % self.every == self.every - 1:
            self.average[:] = [
                now if now.dtype.kind in "iu" else mean + (now - mean) * self.share
                for mean, now in zip(self.average, self.model.get_weights(), strict=True)
            ]
