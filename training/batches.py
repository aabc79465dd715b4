"""Batches of augmented cells, prepared by worker processes. NumPy and OpenCV only, no deep-learning framework."""

import os
import shutil
import signal
import sys
import threading
from collections import deque
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context, parent_process, shared_memory
from pathlib import Path
from types import ModuleType

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
        others = cells.labels, self.slots, self.weights, recipe
        if workers:
            self.memory = share(cells.images)
            self.pool = _started(workers, self.memory.name, cells.images.shape, *others)
        else:
            self.memory, self.pool = None, ThreadPoolExecutor(1)
            _set(cells.images, *others)

    def epoch(self, number: int):
        """Yield one epoch: images (batch, 96, 96, 3) uint8, targets (batch, 8) float32, weights (batch,) or None."""
        order = np.random.default_rng((self.recipe.seed, number)).permutation(len(self.slots))
        pending = deque()
        for chunk in order[: self.steps * self.size].reshape(self.steps, -1):
            pending.append(self.pool.submit(_make_batch, number, chunk))
            if len(pending) > 4 * self.workers:
                yield pending.popleft().result()
        for batch in pending:
            yield batch.result()

    def close(self) -> None:
        """End the workers and free the shared memory."""
        self.pool.shutdown(cancel_futures=True)
        if self.memory:
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


def _started(workers: int, *attachment) -> ProcessPoolExecutor:
    """A pool of running processes."""
    # spawn: a fork can hang once a framework has started threads
    pool = ProcessPoolExecutor(workers, get_context("spawn"), initializer=_work, initargs=attachment)
    # each would import the main module, and so load the framework
    main, sys.modules["__main__"] = sys.modules["__main__"], ModuleType("__main__")
    try:
        for future in [pool.submit(os.getpid) for _ in range(workers)]:
            future.result()
    finally:
        sys.modules["__main__"] = main
    return pool


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


def _set(*given):
    """Set what `_make_batch` reads, in a worker or, if there are none, in this process."""
    global _given
    cv2.setNumThreads(0)
    _given = given


def _make_batch(epoch, chunk):
    """One batch: images (n, 96, 96, 3) uint8, targets (n, 8) float32, weights (n,) or None."""
    images, labels, slots, weights, recipe = _given
    made = [augment.apply(policy_of(recipe, labels[i]), images[i], np.random.default_rng((recipe.seed, epoch, slot)))
            for slot, i in zip(chunk, slots[chunk], strict=True)]  # fmt: skip
    targets = np.eye(len(data.CLASSES), dtype=np.float32)[labels[slots[chunk]]]
    rng = np.random.default_rng((recipe.seed, epoch, chunk[0], 1))
    mixed, targets = augment.mix(np.stack(made), targets, rng, recipe.mixup, recipe.cutmix)
    return mixed, targets, None if weights is None else targets @ weights
