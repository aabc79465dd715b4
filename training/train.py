"""Train a network: cells in, weights, manifest, history and curves out.

    python -m training.train --recipe ours --data data/training_set.npz --out runs/ours
    python -m training.train --recipe ours --data data/training_set.npz --out runs/ours --resume    # after a kill
    python -m training.train ... --epochs 2 --limit 500 --set mixup=0.3                             # a trial

Two stages: the head on a frozen backbone, then what the recipe unfreezes. ImageNet weights are read from
data/pretrained/<backbone>_notop.weights.h5. Runs on any Keras backend (KERAS_BACKEND=tensorflow, jax, torch).
The run folder gets, after every epoch, model.weights.h5 and manifest.json (what model.py reads from weights/),
run.json (everything about the run), curves.png and the state that --resume goes on from; audit.json says which images
were left out.
"""

import argparse
import ast
import dataclasses
import hashlib
import json
import os
import platform
import shutil
import sys
import threading
import time
from collections import deque
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context, parent_process, shared_memory
from pathlib import Path

import cv2
import numpy as np

from training import augment, clean, data, enhance, networks
from training.files import ROOT, commit, write_atomically, write_json
from training.recipes import RECIPES, Recipe

PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")
SCORES = ("validation", "augmented_validation")


# --- files -----------------------------------------------------------------------------------------------------------


def save_half(network, path: Path) -> None:
    """Save weights as `.weights.h5` with kernels in float16, which halves the file; the rest stays float32.

    Batch norm's variances can leave float16's range, kernels do not. Loading needs nothing special: Keras casts.
    """
    import h5py

    def write(temporary: Path) -> None:
        whole = temporary.with_name(f".whole{temporary.name}")
        try:
            network.save_weights(whole)
            with h5py.File(whole) as old, h5py.File(temporary, "w") as new:

                def visit(name, item):
                    if isinstance(item, h5py.Group):
                        copy = new.require_group(name)
                    else:
                        copy = new.create_dataset(name, data=item[()].astype("f2" if item.ndim > 1 else item.dtype))
                    copy.attrs.update(item.attrs)

                new.attrs.update(old.attrs)
                old.visititems(visit)
        finally:
            whole.unlink(missing_ok=True)

    write_atomically(path, write)


# --- batches ---------------------------------------------------------------------------------------------------------


class Batches:
    """Augmented batches, made ahead by worker processes, or in this one where `workers` is 0; the same in any case.

    Slot i of epoch e draws from a generator seeded by (seed, e, i), its batch's mix by (seed, e, first slot). Epochs
    are counted on from those of the run that this one starts from. A slot is a cell; where the recipe oversamples, a
    cell of a rare class has several.
    """

    def __init__(self, cells: data.Cells, recipe: Recipe, workers: int):
        self.cells, self.recipe, self.workers = cells, recipe, workers
        self.slots = oversample(cells.labels) if recipe.oversample else np.arange(len(cells))
        self.weights = class_weights(cells.labels) if recipe.class_weights else None
        self.steps = len(self.slots) // recipe.batch_size
        self.pool = None
        if not workers:
            _set(cells.images, cells.labels, self.slots, recipe)
            return
        self.memory = share(cells.images)
        attachment = (self.memory.name, cells.images.shape, cells.labels, self.slots, recipe)
        # spawn: a fork after a framework has started its threads can hang
        self.pool = ProcessPoolExecutor(workers, get_context("spawn"), initializer=_work, initargs=attachment)

    def epoch(self, number: int, size: int):
        """Yield (images (batch, size, size, 3) float32 0-255, targets (batch, 8) float32) for one epoch.

        With class weights there is a third part, the weight of each image, (batch,) float32.
        """
        order = np.random.default_rng((self.recipe.seed, number)).permutation(len(self.slots))
        chunks = order[: self.steps * self.recipe.batch_size].reshape(self.steps, -1)
        pending = deque()
        for chunk in chunks:
            if self.pool is None:
                yield self._finish(*_make_batch(number, chunk, size))
                continue
            pending.append(self.pool.submit(_make_batch, number, chunk, size))
            if len(pending) > 4 * self.workers:
                yield self._finish(*pending.popleft().result())
        while pending:
            yield self._finish(*pending.popleft().result())

    def _finish(self, images, targets):
        import model

        if images.shape[1] == model.IMAGE_SIZE:
            images = model.preprocess(images, self.recipe.enhance)
        else:  # smaller pictures of an early epoch, uint8 as they are made here
            images = images.astype(np.float32)
        return (images, targets) if self.weights is None else (images, targets, targets @ self.weights)

    def close(self) -> None:
        if self.pool is not None:
            self.pool.shutdown(cancel_futures=True)
            self.memory.close()
            self.memory.unlink()


def share(images: np.ndarray) -> shared_memory.SharedMemory:
    """Shared memory with these images, uint8. Raises ValueError where there is no room for them."""
    folder = Path("/dev/shm")  # where Linux keeps it: to write more than fits would end the process without a word
    free = shutil.disk_usage(folder).free if folder.is_dir() else images.nbytes
    if free < images.nbytes:
        raise ValueError(
            f"{folder} has {free / 2**20:.0f} MB free, the workers' images need {images.nbytes / 2**20:.0f}: give the "
            "container more (docker run --shm-size=1g), or augment without workers (--workers 0)"
        )
    memory = shared_memory.SharedMemory(create=True, size=images.nbytes)
    np.ndarray(images.shape, np.uint8, memory.buf)[:] = images
    return memory


def oversample(labels: np.ndarray) -> np.ndarray:
    """Indices (n,) into labels in which every class occurs as often as the largest: whole rounds, then the first."""
    members = [np.flatnonzero(labels == c) for c in np.unique(labels)]
    return np.concatenate([np.resize(part, max(map(len, members))) for part in members])


def class_weights(labels: np.ndarray) -> np.ndarray:
    """n / (8 n_c) of each class c, (8,) float32: scikit-learn's "balanced"; every class must occur."""
    return (len(labels) / (len(data.CLASSES) * np.bincount(labels, minlength=len(data.CLASSES)))).astype(np.float32)


def _work(name, shape, *others):
    """Start as a worker, which ends with its parent: if that is killed, nobody else would tell it to."""
    global _memory

    def end():
        parent_process().join()
        os._exit(1)

    threading.Thread(target=end, daemon=True).start()
    _memory = shared_memory.SharedMemory(name)
    _set(np.ndarray(shape, np.uint8, _memory.buf), *others)


def _set(images, labels, slots, recipe):
    """Set what batches are made of, in a worker or where there is none in this process."""
    global _images, _labels, _slots, _recipe
    cv2.setNumThreads(0)
    _images, _labels, _slots, _recipe = images, labels, slots, recipe


def _make_batch(epoch, slots, size):
    """One batch, images uint8 and targets float32."""
    own, seed = dict(_recipe.class_policies), _recipe.seed
    indices, images = _slots[slots], []
    for slot, i in zip(slots, indices, strict=True):
        policy = augment.POLICIES[own.get(int(_labels[i]), _recipe.policy)]
        images.append(augment.apply(policy, _images[i], np.random.default_rng((seed, epoch, slot))))
    if size != images[0].shape[0]:
        images = [cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA) for image in images]
    targets = np.eye(len(data.CLASSES), dtype=np.float32)[_labels[indices]]
    rng = np.random.default_rng((seed, epoch, slots[0], 1))
    return augment.mix(np.stack(images), targets, rng, _recipe.mixup, _recipe.cutmix)


# --- the run ---------------------------------------------------------------------------------------------------------


def check(recipe: Recipe) -> None:
    """Raises ValueError for settings that cannot run, before anything is read or built."""
    wrong = []
    for field, known in {
        "network": networks.NETWORKS, "policy": augment.POLICIES, "optimizer": OPTIMIZERS,
        "schedule": ("cosine", "constant"), "loss": LOSSES, "batch_norm": ("live", "frozen"),
    }.items():  # fmt: skip
        if getattr(recipe, field) not in known:
            wrong.append(f"{field} is {getattr(recipe, field)!r}; choose from {', '.join(known)}")
    for knob, what in (("sizes", "(epoch, pixels)"), ("class_policies", "(label, policy)")):
        if not all(isinstance(pair, tuple | list) and len(pair) == 2 for pair in getattr(recipe, knob)):
            raise ValueError(f"{knob} must hold pairs {what}, such as {knob}=((0, ...),): {getattr(recipe, knob)!r}")
    for label, policy in recipe.class_policies:
        if label not in range(len(data.CLASSES)) or policy not in augment.POLICIES:
            wrong.append(f"class_policies holds ({label!r}, {policy!r}); it takes labels 0-7 and names of policies")
    for step in recipe.enhance:
        if step not in enhance.STEPS:
            wrong.append(f"enhance holds {step!r}; choose from {', '.join(enhance.STEPS)}")
    if recipe.batch_size < 1 or recipe.epochs < 0 or recipe.head_epochs < 0 or recipe.epochs + recipe.head_epochs < 1:
        wrong.append("batch_size must be at least 1, and head_epochs and epochs 1 together")
    if not recipe.sizes or recipe.sizes[0][0] != 0 or recipe.sizes[-1][1] != data.IMAGE_SIZE:
        wrong.append(f"sizes must begin at epoch 0 and end at {data.IMAGE_SIZE} pixels: {recipe.sizes}")
    if recipe.network != "EfficientNetV2B0" and len(recipe.sizes) > 1:
        wrong.append(f"{recipe.network} takes {data.IMAGE_SIZE} pixels only: sizes must be ((0, {data.IMAGE_SIZE}),)")
    if recipe.pixels is not None and (recipe.network != "EfficientNetV2B0" or len(recipe.sizes) > 1):
        wrong.append(f"pixels is for EfficientNetV2B0 with sizes ((0, {data.IMAGE_SIZE}),): {recipe}")
    if recipe.pixels is not None and recipe.pixels < 32:
        wrong.append(f"pixels must be at least 32: {recipe.pixels}")
    if recipe.enhance and len(recipe.sizes) > 1:
        wrong.append(f"enhance works at {data.IMAGE_SIZE} pixels: sizes must be ((0, {data.IMAGE_SIZE}),)")
    if recipe.validation_too and recipe.patience is not None:
        wrong.append("patience needs validation cells that are not trained on: validation_too must be False")
    if not 0 < recipe.validation < 1:
        wrong.append(f"validation must be between 0 and 1: {recipe.validation}")
    if min(recipe.mixup, recipe.cutmix) < 0 or recipe.mixup + recipe.cutmix > 1:
        wrong.append(f"the odds of mixup and cutmix must be at least 0 and at most 1 together: {recipe}")
    if wrong:
        raise ValueError("this recipe cannot run: " + "; ".join(wrong))


def prepare(cells: data.Cells, recipe: Recipe, limit: int | None) -> tuple[data.Cells, data.Cells, dict]:
    """Audit, then split: (training cells, validation cells, the audit's report). limit: at most so many cells.

    Raises ValueError where a class has no cells, all together are fewer than a batch, or none is left to validate.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"--limit is {limit}; it must be at least 1")
    audit = clean.audit(cells)
    kept = audit.kept
    if limit is not None:
        kept = np.sort(np.random.default_rng(recipe.seed).permutation(kept)[:limit])
    train, validation = data.split(cells.labels[kept], audit.groups[kept], recipe.validation, recipe.seed)
    if recipe.validation_too:
        train = np.arange(len(kept))
    missing = np.setdiff1d(np.arange(len(data.CLASSES)), cells.labels[kept[train]])
    if len(missing):
        names = ", ".join(f"{label} {data.CLASSES[label]}" for label in missing)
        raise ValueError(f"no cells to train on of {names}: add some, or raise --limit")
    if len(train) < recipe.batch_size:
        raise ValueError(f"{len(train)} training cells are fewer than one batch of {recipe.batch_size}")
    if not len(validation):
        raise ValueError(f"no cells are left to validate on, of {len(kept)}: use more, or a larger validation")
    return cells.take(kept[train]), cells.take(kept[validation]), audit.report()


OPTIMIZERS = ("adamw", "adam", "lion")
LOSSES = ("cross-entropy", "focal")


def freeze(network, recipe: Recipe, stage: str) -> None:
    """Set which layers are trained: in stage 'head' that alone, in 'all' what the recipe leaves of the backbone, too.

    A frozen batch norm is in inference mode. Raises ValueError where more layers are to be frozen than there are, or
    none is of the types to be trained.
    """
    import keras

    backbone = networks.backbone_layers(network)
    if recipe.frozen > len(backbone):
        raise ValueError(f"frozen={recipe.frozen}, but the backbone of {recipe.network} has {len(backbone)} layers")
    for place, layer in enumerate(backbone):
        wanted = place >= recipe.frozen and (not recipe.only or type(layer).__name__ in recipe.only)
        if recipe.batch_norm == "frozen" and isinstance(layer, keras.layers.BatchNormalization):
            wanted = False
        layer.trainable = stage == "all" and wanted
    if recipe.only and stage == "all" and not any(layer.trainable for layer in backbone):
        raise ValueError(f"no layer of {recipe.network} behind the first {recipe.frozen} is of {recipe.only}")


def hasten_batch_norm(network, momentum: float = 0.99) -> None:
    """Let batch norm's running statistics follow within hundreds of steps, for a network that starts at random.

    MobileNetV3's momentum of 0.999 is for a hundred times as many steps: there, each layer's statistics lag behind,
    and after four epochs it still named every cell alike.
    """
    import keras

    for layer in networks.backbone_layers(network):
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = min(layer.momentum, momentum)


def compile_for(network, recipe: Recipe, stage: str, steps: int) -> None:
    """Set what is trained, and how: optimizer, learning rate over `steps` an epoch, loss."""
    import keras

    freeze(network, recipe, stage)
    rate = recipe.head_learning_rate if stage == "head" else recipe.learning_rate
    if stage == "all" and recipe.schedule == "cosine":
        warmup = int(recipe.warmup_epochs * steps)
        decay = max(1, recipe.epochs * steps - warmup)
        rate = keras.optimizers.schedules.CosineDecay(0.0, decay, warmup_target=rate, warmup_steps=warmup)
    if recipe.optimizer == "adam":
        optimizer = keras.optimizers.Adam(rate, global_clipnorm=1.0)
    else:
        make = {"adamw": keras.optimizers.AdamW, "lion": keras.optimizers.Lion}[recipe.optimizer]
        optimizer = make(rate, weight_decay=recipe.weight_decay, global_clipnorm=1.0)
        optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    make = {"cross-entropy": keras.losses.CategoricalCrossentropy, "focal": keras.losses.CategoricalFocalCrossentropy}
    network.compile(optimizer, make[recipe.loss](label_smoothing=recipe.label_smoothing), metrics=["accuracy"])
    network.optimizer.build(network.trainable_variables)


def averaging(average: list[np.ndarray], horizon: float, steps: int):
    """A callback that keeps `average`, in place, an exponential moving average of all weights over `horizon` steps.

    steps: of an epoch. Whole numbers among the weights, such as counters, are not averaged: the newest counts.
    """
    import keras

    every = min(8, steps)  # reading the weights back at each step would cost a GPU more than it is worth

    class Average(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch % every == every - 1:
                share = min(1.0, every / horizon)
                average[:] = [
                    now if now.dtype.kind in "iu" else mean + (now - mean) * share
                    for mean, now in zip(average, self.model.get_weights(), strict=True)
                ]

    return Average()


def score(probabilities: np.ndarray, labels: np.ndarray) -> dict:
    """Accuracy, and cross-entropy in nats, of probabilities (n, 8) for labels (n,)."""
    likelihood = np.clip(probabilities[np.arange(len(labels)), labels], 1e-7, 1)
    accuracy = float(np.mean(probabilities.argmax(axis=1) == labels))
    return {"accuracy": accuracy, "loss": float(-np.log(likelihood).mean())}


def score_network(network, cells: data.Cells, steps: tuple[str, ...] = ()) -> dict:
    """`score` of a network on cells, which pass the enhancement `steps` first."""
    import model

    return score(network.predict(model.preprocess(cells.images, steps), batch_size=64, verbose=0), cells.labels)


def train(
    recipe: Recipe,
    name: str,
    cells: data.Cells,
    out: Path,
    *,
    limit: int | None = None,
    resume: bool = False,
    precision: str = "float32",
    distribute: bool = False,
    workers: int = 2,
) -> dict:
    """Run a recipe in folder `out`; returns the manifest.

    precision: one of PRECISIONS; the weights stay float32. distribute: spread each batch over all devices.
    Raises ValueError for what cannot run, FileExistsError where `out` holds a run and `resume` is not set.
    """
    check(recipe)
    import keras

    settings = {"recipe": name, **dataclasses.asdict(recipe), "limit": limit, "data": data.digest(cells)}
    settings = json.loads(json.dumps(settings))  # as it comes back from a file
    checkpoint, history = find_checkpoint(out, settings, resume, precision)
    stages = ["head"] * recipe.head_epochs + ["all"] * recipe.epochs
    if is_over(history, recipe):
        print(f"{out} is finished: {len(history)} epochs")
        return json.loads((out / "manifest.json").read_text(encoding="utf-8"))
    start = None if checkpoint else networks.resolve_weights(recipe.network, recipe.weights)
    started_from = json.loads((out / "manifest.json").read_text()).get("started_from") if checkpoint else origin(start)
    training, validation, audit = prepare(cells, recipe, limit)
    if checkpoint and json.loads((out / "audit.json").read_text(encoding="utf-8"))["removed"] != audit["removed"]:
        raise ValueError(f"the audit now removes other images than when {out} was started: use another --out")

    keras.config.set_dtype_policy(precision)
    keras.utils.set_random_seed(recipe.seed)
    with devices(distribute):
        size = None if len(recipe.sizes) > 1 else data.IMAGE_SIZE
        network = networks.build(recipe.network, size, start, recipe.dropout, recipe.pixels)
        freeze(network, recipe, "all" if recipe.epochs else "head")  # for what it may find wrong
        if recipe.weights == "none":
            hasten_batch_norm(network)
        check_space(out, network)
        out.mkdir(parents=True, exist_ok=True)
        write_json(out / "audit.json", audit)
        print(f"{audit['kept']} of {len(cells)} images kept, {len(training)} to train, {len(validation)} to validate")
        shipped = networks.build(  # carries the average
            recipe.network, data.IMAGE_SIZE, None, recipe.dropout, recipe.pixels
        )
        average = network.get_weights()
        size_of = {
            "parameters": networks.parameters(shipped),
            "flops": networks.flops(shipped, data.IMAGE_SIZE),
            "precision": precision,
            "saw_validation": saw_validation({"settings": settings, "started_from": started_from}),
        }
        rng = np.random.default_rng((recipe.seed, 2))
        policy = augment.POLICIES[recipe.policy]
        augmented = data.Cells(np.stack([augment.apply(policy, i, rng) for i in validation.images]), validation.labels)
        batches = Batches(training, recipe, workers)
        before = epochs_behind(started_from)  # so that a later run does not draw what an earlier one drew
        stage = None
        try:
            for epoch in range(len(history), len(stages)):
                if stages[epoch] != stage:
                    stage = stages[epoch]
                    same_stage = bool(checkpoint) and stages[epoch - 1] == stage
                    if checkpoint and not same_stage:
                        load_checkpoint(checkpoint, network, average)  # the weights alone: the optimizer starts anew
                    compile_for(network, recipe, stage, batches.steps)
                    if same_stage:
                        load_checkpoint(checkpoint, network, average)
                    checkpoint = None
                tuned = epoch - recipe.head_epochs
                pixels = [pixels for start, pixels in recipe.sizes if start <= max(tuned, 0)][-1]
                started = time.monotonic()
                callbacks = []
                if recipe.average_epochs:
                    callbacks = [averaging(average, recipe.average_epochs * batches.steps, batches.steps)]
                fit = network.fit(
                    as_dataset(batches, before + epoch, pixels),
                    steps_per_epoch=batches.steps,
                    initial_epoch=epoch,
                    epochs=epoch + 1,
                    shuffle=False,
                    callbacks=callbacks,
                    verbose=1 if sys.stdout.isatty() else 2,
                )
                if stage == "head" or not recipe.average_epochs:  # in the first, an average would only lag behind
                    average[:] = network.get_weights()
                shipped.set_weights(average)
                seconds = round(time.monotonic() - started, 1)
                entry = {"epoch": epoch, "stage": stage, "size": pixels, "seconds": seconds}
                entry["train"] = {key: float(values[-1]) for key, values in fit.history.items()}
                entry["validation"] = score_network(shipped, validation, recipe.enhance)
                entry["augmented_validation"] = score_network(shipped, augmented, recipe.enhance)
                print(json.dumps(entry))
                history.append(entry)
                if best_epoch(history, recipe) == epoch:
                    export(shipped, out, settings, history, started_from)
                finish_epoch(size_of, out, settings, history)
                state = {"settings": settings, "precision": precision, "history": history}
                save_checkpoint(out, network, average, state)
                if is_over(history, recipe):
                    break
        finally:
            batches.close()
            keras.config.set_dtype_policy("float32")
    return json.loads((out / "manifest.json").read_text(encoding="utf-8"))


def best_epoch(history: list[dict], recipe: Recipe) -> int:
    """The epoch whose weights ship: the last, or with `patience` the one with the lowest validation loss."""
    if recipe.patience is None:
        return len(history) - 1
    return int(np.argmin(np.nan_to_num([entry["validation"]["loss"] for entry in history], nan=np.inf)))


def is_over(history: list[dict], recipe: Recipe) -> bool:
    """Whether a run has all its epochs, or has lost its patience."""
    done = len(history)
    if done >= recipe.head_epochs + recipe.epochs:
        return True
    return recipe.patience is not None and done > 0 and done - 1 - best_epoch(history, recipe) >= recipe.patience


@contextmanager
def devices(distribute: bool):
    """With `distribute`, networks that are built inside train on all devices: each takes a part of every batch.

    JAX: keras.distribution.DataParallel. TensorFlow: tf.distribute.MirroredStrategy. Raises ValueError for PyTorch.
    """
    import keras

    if not distribute:
        yield
    elif keras.backend.backend() == "jax":
        before = keras.distribution.distribution()
        keras.distribution.set_distribution(keras.distribution.DataParallel(auto_shard_dataset=False))
        try:
            yield
        finally:
            keras.distribution.set_distribution(before)
    elif keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        names = [d.name.replace("/physical_device:", "/") for d in tf.config.list_logical_devices("GPU")]
        names = names or [d.name for d in tf.config.list_logical_devices("CPU")]
        with tf.distribute.MirroredStrategy(names).scope():
            yield
    else:
        raise ValueError("--distribute needs KERAS_BACKEND=jax or tensorflow")


def as_dataset(batches: Batches, epoch: int, size: int):
    """batches.epoch for Keras: for TensorFlow a tf.data.Dataset, else as it is.

    Of a plain generator Keras makes one itself, but with autotuning, whose thread sleeps for up to a minute before an
    epoch can end; and MirroredStrategy starts an iteration twice, which a generator does not survive.
    """
    import keras

    if keras.backend.backend() != "tensorflow":
        return batches.epoch(epoch, size)
    import tensorflow as tf

    shape, kinds = (batches.recipe.batch_size,), (tf.float32,) * (2 if batches.weights is None else 3)
    shapes = ((*shape, size, size, 3), (*shape, len(data.CLASSES)), shape)
    signature = tuple(tf.TensorSpec(s, kind) for s, kind in zip(shapes, kinds, strict=False))
    dataset = tf.data.Dataset.from_generator(lambda: batches.epoch(epoch, size), output_signature=signature)
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.prefetch(2).with_options(options)


def check_space(out: Path, network) -> None:
    """Raises ValueError where the disk has no room for a checkpoint beside its predecessor, with what ships."""
    needed = 12 * sum(int(np.prod(w.shape)) * 4 for w in network.weights)
    there = next(folder for folder in (out.resolve(), *out.resolve().parents) if folder.exists())
    free = shutil.disk_usage(there).free
    if free < needed:
        raise ValueError(f"{there} has {free / 2**20:.0f} MB free, a run needs {needed / 2**20:.0f}: make room")


def origin(weights: Path | None) -> dict | None:
    """The manifest of the run that these weights are of, where its folder holds one; what it started from included."""
    try:
        manifest = json.loads((weights.parent / "manifest.json").read_text(encoding="utf-8"))
        same = manifest["sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()
    except (AttributeError, OSError, ValueError, KeyError, TypeError):
        return None
    return manifest if same else None


def made_of(manifest: dict) -> list[dict]:
    """What a soup or an ensemble is made of, each part with what it started from, in full; of a run, nothing."""
    parts = (manifest.get("soup") or manifest.get("ensemble") or {}).get("ingredients", [])
    known = {part.get("sha256"): part for part in parts}

    def whole(part: dict) -> dict:
        before = part.get("started_from")
        named = before and "epochs_done" not in before
        return part | {"started_from": whole(known[before["sha256"]])} if named else part

    return [whole(part) for part in parts]


def brief(manifest: dict) -> dict:
    """A manifest in which a part that started from one beside it says so by its SHA-256 alone.

    In full, each average of a run with what that began with would make the manifest twice as long.
    """
    short = dict(manifest)
    if manifest.get("started_from"):
        short["started_from"] = brief(manifest["started_from"])
    for key in {"soup", "ensemble"} & set(manifest):
        parts = [brief(part) for part in manifest[key]["ingredients"]]
        beside = {part["sha256"] for part in parts}
        for part in parts:
            if (before := part.get("started_from")) and before["sha256"] in beside:
                part["started_from"] = {"sha256": before["sha256"]}
        short[key] = manifest[key] | {"ingredients": parts}
    return short


def epochs_behind(manifest: dict | None) -> int:
    """Epochs of a run and of all that it started from; of a soup, of all its runs. None: 0."""
    if manifest is None:
        return 0
    if parts := made_of(manifest):
        return sum(map(epochs_behind, parts))
    return manifest["epochs_done"] + epochs_behind(manifest.get("started_from"))


SPLIT = ("data", "limit", "validation", "seed")  # the settings that decide which cells are validation cells


def saw_validation(manifest: dict) -> bool:
    """Whether a run was trained on the validation cells too, or one was that it started from or is made of.

    A run that split the cells in another way was trained on most of them.
    """
    settings = manifest["settings"]
    before = [manifest["started_from"]] if manifest.get("started_from") else []
    return settings.get("validation_too", False) or any(
        saw_validation(other) or any(other["settings"].get(key) != settings.get(key) for key in SPLIT)
        for other in [*before, *made_of(manifest)]
    )


def name_scores(scores: list[dict], seen: bool) -> dict:
    """Scores on the validation cells, clean and augmented, as a manifest names them: `seen_...` if trained on."""
    return {f"seen_{name}" if seen else name: part for name, part in zip(SCORES, scores, strict=True)}


def export(network, out: Path, settings: dict, history: list[dict], started_from: dict | None = None) -> None:
    """Write model.weights.h5 and manifest.json: what model.py reads."""
    import keras

    save_half(network, out / "model.weights.h5")
    last, seen = history[-1], saw_validation({"settings": settings, "started_from": started_from})
    manifest = {
        "sha256": hashlib.sha256((out / "model.weights.h5").read_bytes()).hexdigest(),
        "network": settings["network"],
        "enhance": settings["enhance"],
        **({"pixels": settings["pixels"]} if settings["pixels"] else {}),
        "settings": settings,
        **({"started_from": started_from} if started_from else {}),
        "epochs_done": len(history),
        "scores": name_scores([last[key] for key in SCORES], seen),
        "commit": commit(),
        "versions": {
            "python": platform.python_version(),
            "keras": keras.__version__,
            "backend": keras.backend.backend(),
            "numpy": np.__version__,
            "opencv": cv2.__version__,
        },
    }
    write_json(out / "manifest.json", manifest)


def finish_epoch(size_of: dict, out: Path, settings: dict, history: list[dict]) -> None:
    """Write run.json, all that is known of the run, and curves.png. size_of: more for run.json, the size first."""
    run = {
        "recipe": settings["recipe"],
        "network": settings["network"],
        "weights": settings["weights"],
        **size_of,
        "file_mb": round((out / "model.weights.h5").stat().st_size / 1e6, 2),
        "seconds": round(sum(entry["seconds"] for entry in history), 1),
        "commit": commit(),
        "settings": settings,
        "history": history,
    }
    write_json(out / "run.json", run)
    parts = ("train",) if size_of.get("saw_validation") else ("train", *SCORES)
    write_atomically(out / "curves.png", lambda path: draw_curves(history, path, parts))


def draw_curves(history: list[dict], path: Path, parts: tuple[str, ...]) -> None:
    """Loss and accuracy by epoch: training (augmented and mixed), validation clean and augmented where unseen."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.5), layout="constrained")
    for axes, metric in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        for part in parts:
            axes.plot(
                [e["epoch"] + 1 for e in history],
                [e[part][metric] for e in history],
                "o-",
                ms=3,
                label=part.replace("_", " "),
            )
        axes.set(xlabel="epoch", ylabel=metric)
        axes.legend()
    figure.savefig(path, dpi=110)


# --- checkpoints: a folder each, complete by the time it has its name ------------------------------------------------


def find_checkpoint(out: Path, settings: dict, resume: bool, precision: str) -> tuple[Path | None, list[dict]]:
    """The newest checkpoint of a run in `out` and its history; (None, []) where it starts afresh.

    Raises FileExistsError for a run that is not to be resumed, or of which no checkpoint is left; ValueError for one
    with other settings.
    """
    found = max(out.glob("checkpoint-*"), default=None)
    if not resume:
        if found or (out / "manifest.json").exists():
            raise FileExistsError(f"{out} already holds a run: add --resume to go on with it, or choose another --out")
        return None, []
    if found is None:
        manifest = origin(out / "model.weights.h5") or {}
        if made_of(manifest) or manifest.get("epochs_done", 0) > 1:  # after one, the run may have been killed
            raise FileExistsError(f"{out} holds finished weights and no checkpoint to go on from: choose another --out")
        return None, []
    state = json.loads((found / "state.json").read_text(encoding="utf-8"))
    before = json.loads(json.dumps(dataclasses.asdict(Recipe()))) | state["settings"]  # knobs it did not know yet
    free = {"epochs"} if settings["schedule"] == "constant" else set()  # nothing else depends on it there
    changed = sorted(key for key in settings if key not in free and settings[key] != before.get(key))
    if state.get("precision", precision) != precision:  # the optimizer's state would not fit
        changed.append("precision")
    if changed:
        raise ValueError(f"{out} was started with another {', '.join(changed)}: use the same, or another --out")
    return found, state["history"]


def save_checkpoint(out: Path, network, average: list[np.ndarray], state: dict) -> None:
    """Write checkpoint-NNN: live weights with the optimizer's state, the average, settings and history."""
    temporary, final = out / ".checkpoint", out / f"checkpoint-{len(state['history']):03d}"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    network.save_weights(temporary / "live.weights.h5")
    np.savez(temporary / "average.npz", *average)
    write_json(temporary / "state.json", state)
    os.replace(temporary, final)
    for old in out.glob("checkpoint-*"):
        if old != final:
            shutil.rmtree(old)


def load_checkpoint(folder: Path, network, average: list[np.ndarray]) -> None:
    """Load what save_checkpoint wrote; the optimizer's state too where the network is compiled."""
    network.load_weights(folder / "live.weights.h5")
    with np.load(folder / "average.npz") as file:
        average[:] = [file[f"arr_{i}"] for i in range(len(file.files))]


def from_scratch(recipe: Recipe) -> Recipe:
    """The recipe from random weights: there is nothing pretrained to keep, so no head goes first and no layer stays.

    Raises ValueError for a recipe that trains nothing but the head.
    """
    if recipe.epochs == 0:
        raise ValueError(
            "this recipe trains nothing but the head, on pretrained features: take other --weights than none"
        )
    return dataclasses.replace(recipe, weights="none", head_epochs=0, frozen=0, only=(), batch_norm="live")


def override(recipe: Recipe, assignments: list[str]) -> Recipe:
    """The recipe with `knob=value` changes; values as Python writes them, or bare words. ValueError for others."""
    fields = {field.name for field in dataclasses.fields(Recipe)}
    changes = {}
    for assignment in assignments:
        knob, _, value = assignment.partition("=")
        if knob not in fields or not value:
            raise ValueError(f"--set {assignment}: write knob=value, with a knob of {', '.join(sorted(fields))}")
        if knob == "weights":
            raise ValueError(f"--set {assignment}: write --weights {value}")
        try:
            changes[knob] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            changes[knob] = value
        old = getattr(recipe, knob)
        optional = knob in ("patience", "pixels")
        kinds = (int, float) if isinstance(old, float) else (int, type(None)) if optional else type(old)
        if not isinstance(changes[knob], kinds):
            raise ValueError(f"--set {assignment}: {knob} is now {old!r}, the new value must be of that kind")
    return dataclasses.replace(recipe, **changes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--recipe", default="ours", help=f"one of {', '.join(RECIPES)}")
    parser.add_argument("--data", type=Path, default=ROOT / "data" / "training_set.npz")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    parser.add_argument("--epochs", type=int, help="epochs after the head's, in place of the recipe's")
    parser.add_argument("--weights", help="at the start: imagenet, a file, or none, which trains all at once")
    parser.add_argument("--set", action="append", default=[], metavar="KNOB=VALUE", help="change a knob of the recipe")
    parser.add_argument("--limit", type=int, help="use at most so many cells, for a trial")
    parser.add_argument("--resume", action="store_true", help="go on where a run in --out stopped")
    parser.add_argument("--precision", choices=PRECISIONS, default="float32", help="mixed_* for GPUs")
    parser.add_argument("--distribute", action="store_true", help="spread each batch over all devices")
    parser.add_argument("--workers", type=int, default=min(16, os.cpu_count() or 1), help="processes that augment")
    args = parser.parse_args()
    try:
        if args.recipe not in RECIPES:
            raise ValueError(f"there is no recipe {args.recipe!r}; choose from {', '.join(RECIPES)}")
        recipe = RECIPES[args.recipe]
        if args.weights == "none":
            recipe = from_scratch(recipe)
        elif args.weights is not None:
            recipe = dataclasses.replace(recipe, weights=args.weights)
        recipe = override(recipe, args.set)
        if args.epochs is not None:
            recipe = dataclasses.replace(recipe, epochs=args.epochs)
        train(
            recipe,
            args.recipe,
            data.read(args.data),
            args.out,
            limit=args.limit,
            resume=args.resume,
            precision=args.precision,
            distribute=args.distribute,
            workers=args.workers,
        )
    except (ValueError, FileExistsError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
