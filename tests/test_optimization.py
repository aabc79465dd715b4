"""Gradient accumulation and the check of memory."""

import dataclasses

import keras
import numpy as np
import pytest
from test_train import RECIPE, easy_cells

from training import optimization
from training.batches import Batches


def network():
    images = keras.Input((96, 96, 3))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 255)(images))
    ones = keras.initializers.Constant(0.1)
    return keras.Model(images, keras.layers.Dense(8, activation="softmax", kernel_initializer=ones, name="head")(x))


def trained(accumulate: int):
    """The head's weights after one batch of 16 in so many steps. Lion: Adam in Keras counts steps at its start."""
    recipe = dataclasses.replace(
        RECIPE, batch_size=16, accumulate=accumulate, optimizer="lion", schedule="constant", head_learning_rate=0.1,
        policy="none", mixup=0, cutmix=0,
    )  # fmt: skip
    made, source = network(), Batches(easy_cells(16), recipe, 0)
    optimization.compile_for(made, recipe, "head", source.steps)
    assert source.steps == accumulate
    for images, targets, _ in source.epoch(0):
        made.train_on_batch(images.astype(np.float32), targets)
    return made.get_weights()


def test_a_batch_in_four_steps_is_the_batch_at_once():
    start, once, four = network().get_weights()[0], trained(1)[0], trained(4)[0]
    assert not np.allclose(start, once, atol=1e-3) and np.allclose(once, four, atol=1e-4)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="the fused kernel is TensorFlow's")
@pytest.mark.parametrize("trainable", [False, True])
def test_fused_batch_norm_learns_and_answers_as_keras_does(trainable):
    image = keras.Input((8, 8, 3))
    norm = keras.layers.BatchNormalization(trainable=trainable)
    x = keras.layers.GlobalAveragePooling2D()(norm(keras.layers.Conv2D(4, 3)(image)))
    plain = keras.Model(image, keras.layers.Dense(8, activation="softmax", name="head")(keras.layers.Dropout(0.0)(x)))
    fused = keras.models.clone_model(plain)
    fused.set_weights(plain.get_weights())
    optimization.fuse_batch_norm(fused)
    images = np.random.default_rng(0).uniform(0, 255, (4, 8, 8, 3)).astype(np.float32)
    for model in (plain, fused):
        model.compile(keras.optimizers.SGD(0.1), "categorical_crossentropy")
        model.fit(images, np.eye(8, dtype=np.float32)[:4], epochs=3, verbose=0)
    for expected, found in zip(plain.get_weights(), fused.get_weights(), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    moved = norm.moving_mean.numpy().any(), not np.allclose(norm.moving_variance, 1)
    assert moved == (trainable, trainable)
    np.testing.assert_allclose(fused.predict(images, verbose=0), plain.predict(images, verbose=0), atol=1e-5)


def test_a_step_is_traced_once():
    made, traced = network(), []
    optimization.compile_for(made, RECIPE, "head", 2)
    step = made.train_step
    made.train_step = lambda batch: (traced.append(batch), step(batch))[1]
    made.fit(np.zeros((2, 96, 96, 3), np.float32), np.eye(8)[:2], batch_size=1, verbose=0)
    assert len(traced) == 1


def test_too_large_a_step_is_refused_before_it_is_made():
    optimization.check_memory(network(), 16)
    with pytest.raises(ValueError, match=r"a step of 1000000000 images takes about .* GB.* --set accumulate="):
        optimization.check_memory(network(), 10**9)
