"""Batches of augmented cells, prepared by worker processes. NumPy and OpenCV only, no deep-learning framework."""

import os
import shutil
import signal
import sys
import threading
from collections import deque
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context, parent_process, shared_memory
from pathlib import Path

import cv2
import numpy as np

from training import augment, data
from training.recipes import Recipe


class Batches:
    """Batches of one training set, made by worker processes, or in this process if `workers` is 0.

    A slot is one use of a cell in an epoch; with oversampling, cells of rare classes have several slots. Augmentation
    of slot i in epoch e is seeded by (seed, e, i), mixing of a batch by (seed, e, first slot, 1), so that batches do
    not depend on the number of workers. A batch is the `size` images of one step.
    """

    def __init__(self, cells: data.Cells, recipe: Recipe, workers: int):
        self.recipe, self.workers = recipe, workers
        self.slots = oversample(cells.labels) if recipe.oversample else np.arange(len(cells))
        self.weights = class_weights(cells.labels) if recipe.class_weights else None
        self.size = recipe.batch_size // recipe.accumulate
        self.steps = len(self.slots) // self.size
        self.pool = None
        if not workers:
            _set(cells.images, cells.labels, self.slots, recipe)
            return
        self.memory = share(cells.images)
        attachment = (self.memory.name, cells.images.shape, cells.labels, self.slots, recipe)
        # spawn: a fork can hang once a framework has started threads
        self.pool = ProcessPoolExecutor(workers, get_context("spawn"), initializer=_work, initargs=attachment)
        with _without_main():
            for future in [self.pool.submit(os.getpid) for _ in range(workers)]:
                future.result()

    def epoch(self, number: int):
        """Yield one epoch: images (batch, 96, 96, 3) uint8, targets (batch, 8) float32, weights (batch,) or None."""
        order = np.random.default_rng((self.recipe.seed, number)).permutation(len(self.slots))
        chunks = order[: self.steps * self.size].reshape(self.steps, -1)
        pending = deque()
        for chunk in chunks:
            if self.pool is None:
                yield self._weighted(*_make_batch(number, chunk))
                continue
            pending.append(self.pool.submit(_make_batch, number, chunk))
            if len(pending) > 4 * self.workers:
                yield self._weighted(*pending.popleft().result())
        while pending:
            yield self._weighted(*pending.popleft().result())

    def _weighted(self, images, targets):
        return images, targets, None if self.weights is None else targets @ self.weights

    def close(self) -> None:
        """End the workers and free the shared memory."""
        if self.pool is not None:
            self.pool.shutdown(cancel_futures=True)
            self.memory.close()
            self.memory.unlink()


def share(images: np.ndarray) -> shared_memory.SharedMemory:
    """Copy images, uint8, to shared memory. Raises ValueError if there is no room for them."""
    folder = Path("/dev/shm")  # shared memory on Linux; writing more than fits kills the process without a message
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
    """Indices (n,) into labels that repeat each class's cells, in order, up to the size of the largest class."""
    members = [np.flatnonzero(labels == c) for c in np.unique(labels)]
    return np.concatenate([np.resize(part, max(map(len, members))) for part in members])


def class_weights(labels: np.ndarray) -> np.ndarray:
    """n / (8 n_c) of each class c, (8,) float32: scikit-learn's "balanced"; every class must occur."""
    return (len(labels) / (len(data.CLASSES) * np.bincount(labels, minlength=len(data.CLASSES)))).astype(np.float32)


def policy_of(recipe: Recipe, label: int) -> augment.Policy:
    """The recipe's augmentation policy for a class."""
    return augment.POLICIES[dict(recipe.class_policies).get(int(label), recipe.policy)]


@contextmanager
def _without_main():
    """Hide the main module, so that spawned workers do not import it: that would load the deep-learning framework."""
    main = sys.modules["__main__"]
    kept = {name: getattr(main, name) for name in ("__spec__", "__file__") if hasattr(main, name)}
    main.__spec__ = None
    main.__dict__.pop("__file__", None)
    try:
        yield
    finally:
        for name, value in kept.items():
            setattr(main, name, value)


def _work(name, shape, *others):
    """Initialise a worker. It ignores Ctrl-C, which the parent handles, and exits when the parent ends or is killed."""
    global _memory

    def end():
        parent_process().join()
        os._exit(1)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=end, daemon=True).start()
    _memory = shared_memory.SharedMemory(name)
    _set(np.ndarray(shape, np.uint8, _memory.buf), *others)


def _set(images, labels, slots, recipe):
    """Set the globals that `_make_batch` reads, in a worker or, if there are none, in this process."""
    global _images, _labels, _slots, _recipe
    cv2.setNumThreads(0)
    _images, _labels, _slots, _recipe = images, labels, slots, recipe


def _make_batch(epoch, slots):
    """One batch: images (n, 96, 96, 3) uint8 and targets (n, 8) float32."""
    seed, indices = _recipe.seed, _slots[slots]
    images = [augment.apply(policy_of(_recipe, _labels[i]), _images[i], np.random.default_rng((seed, epoch, slot)))
              for slot, i in zip(slots, indices, strict=True)]  # fmt: skip
    targets = np.eye(len(data.CLASSES), dtype=np.float32)[_labels[indices]]
    rng = np.random.default_rng((seed, epoch, slots[0], 1))
    return augment.mix(np.stack(images), targets, rng, _recipe.mixup, _recipe.cutmix)
