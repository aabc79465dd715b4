"""Batches of augmented cells, prepared by worker processes. NumPy and OpenCV only, no deep-learning framework."""

import os
import signal
import sys
import threading
from collections import deque
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context, parent_process
from tempfile import NamedTemporaryFile
from types import ModuleType

import cv2
import numpy as np

from training import augment, data
from training.recipes import Recipe


class Batches:
    """Batches of one training set, made by worker processes, or in this process if `workers` is 0.

    A slot is one use of a cell in an epoch; with oversampling, cells of rare classes have several. Slot i in epoch e is
    augmented with the seed (seed, e, i), a batch mixed with (seed, e, its first slot, 1): batches do not depend on the
    number of workers. A batch is the `size` images of one step.
    """

    def __init__(self, cells: data.Cells, recipe: Recipe, workers: int):
        self.recipe, self.workers = recipe, workers
        self.slots = oversample(cells.labels) if recipe.oversample else np.arange(len(cells))
        self.weights = class_weights(cells.labels) if recipe.class_weights else None
        self.size = recipe.batch_size // recipe.accumulate
        self.steps = len(self.slots) // self.size
        given = cells.images, cells.labels, self.slots, self.weights, recipe
        self.pool = _started(workers, *given) if workers else ThreadPoolExecutor(1, initializer=_set, initargs=given)

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
        """End the workers."""
        self.pool.shutdown(cancel_futures=True)


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


def _started(workers: int, images: np.ndarray, *others) -> ProcessPoolExecutor:
    """A pool of running processes, which share the images: a file in the temporary folder, until all have opened it."""
    context = get_context("spawn")  # a fork can hang once a framework has started threads
    # each would import the main module, and so load the framework
    main, sys.modules["__main__"] = sys.modules["__main__"], ModuleType("__main__")
    try:
        with NamedTemporaryFile(suffix=".npy") as file:
            np.save(file, images)
            file.flush()
            ready = context.Barrier(workers)
            pool = ProcessPoolExecutor(workers, context, initializer=_work, initargs=(ready, file.name, *others))
            for future in [pool.submit(os.getpid) for _ in range(workers)]:
                future.result()
    finally:
        sys.modules["__main__"] = main
    return pool


def _work(ready, path, *others):
    """Initialise a worker. It ignores Ctrl-C, which the parent handles, and exits when the parent ends or is killed."""

    def end():
        parent_process().join()
        os._exit(1)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=end, daemon=True).start()
    _set(np.asarray(np.load(path, mmap_mode="r")), *others)
    ready.wait()  # no worker is idle before the last is started


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
