"""Train a network: cells in, weights, manifest, history and curves out.

    python -m training.train --recipe ours --data data/training_set.npz --out runs/ours
    python -m training.train --recipe ours --data data/training_set.npz --out runs/ours --resume    # after a kill
    python -m training.train ... --epochs 2 --limit 500                                             # a trial

Two stages: the head on a frozen backbone, then everything. The backbone's ImageNet weights are read from
data/pretrained/efficientnetv2b0_notop.weights.h5. Runs on any Keras backend (KERAS_BACKEND=tensorflow, jax, torch).
The run folder gets, after every epoch, model.weights.h5 and manifest.json (what model.py reads from weights/),
history.json, curves.png and the state that --resume goes on from; audit.json says which images were left out.
"""

import argparse
import dataclasses
import hashlib
import json
import os
import platform
import shutil
import sys
import time
from collections import deque
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context, shared_memory
from pathlib import Path

import cv2
import numpy as np

from training import augment, clean, data
from training.files import ROOT, commit, write_atomically, write_json
from training.recipes import RECIPES, Recipe

PRETRAINED = ROOT / "data" / "pretrained" / "efficientnetv2b0_notop.weights.h5"


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
    """Augmented batches, made ahead by worker processes; the same whatever their number.

    Image i of epoch e draws from a generator seeded by (seed, e, i), the batch's mix by (seed, e, its first image).
    """

    def __init__(self, cells: data.Cells, recipe: Recipe, workers: int):
        self.cells, self.recipe, self.workers = cells, recipe, workers
        self.steps = len(cells) // recipe.batch_size
        self.memory = shared_memory.SharedMemory(create=True, size=cells.images.nbytes)
        shared = np.ndarray(cells.images.shape, np.uint8, self.memory.buf)
        shared[:] = cells.images
        self.pool = ProcessPoolExecutor(
            workers,
            get_context("spawn"),  # a fork after a framework has started its threads can hang
            initializer=_attach,
            initargs=(self.memory.name, cells.images.shape, cells.labels, recipe),
        )

    def epoch(self, number: int, size: int):
        """Yield (images (batch, size, size, 3) float32 0-255, targets (batch, 8) float32) for one epoch."""
        order = np.random.default_rng((self.recipe.seed, number)).permutation(len(self.cells))
        chunks = order[: self.steps * self.recipe.batch_size].reshape(self.steps, -1)
        pending = deque()
        for chunk in chunks:
            pending.append(self.pool.submit(_make_batch, number, chunk, size))
            if len(pending) > 4 * self.workers:
                yield _as_float(pending.popleft().result())
        while pending:
            yield _as_float(pending.popleft().result())

    def close(self) -> None:
        self.pool.shutdown(cancel_futures=True)
        self.memory.close()
        self.memory.unlink()


def _as_float(batch):
    import model

    images, targets = batch
    return model.preprocess(images) if images.shape[1] == model.IMAGE_SIZE else images.astype(np.float32), targets


def _attach(name, shape, labels, recipe):
    """In a worker: map the shared images."""
    global _memory, _images, _labels, _recipe
    cv2.setNumThreads(0)
    _memory = shared_memory.SharedMemory(name)
    _images, _labels, _recipe = np.ndarray(shape, np.uint8, _memory.buf), labels, recipe


def _make_batch(epoch, indices, size):
    """In a worker: one batch, images uint8 and targets float32."""
    policy, seed = augment.POLICIES[_recipe.policy], _recipe.seed
    images = [augment.apply(policy, _images[i], np.random.default_rng((seed, epoch, i))) for i in indices]
    if size != images[0].shape[0]:
        images = [cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA) for image in images]
    targets = np.eye(len(data.CLASSES), dtype=np.float32)[_labels[indices]]
    rng = np.random.default_rng((seed, epoch, indices[0], 1))
    return augment.mix(np.stack(images), targets, rng, _recipe.mixup, _recipe.cutmix)


# --- the run ---------------------------------------------------------------------------------------------------------


def prepare(cells: data.Cells, recipe: Recipe, limit: int | None) -> tuple[data.Cells, data.Cells, dict]:
    """Audit, then split: (training cells, validation cells, the audit's report). limit: at most so many cells."""
    audit = clean.audit(cells)
    kept = audit.kept
    if limit is not None:
        kept = np.sort(np.random.default_rng(recipe.seed).permutation(kept)[:limit])
    train, validation = data.split(cells.labels[kept], audit.groups[kept], recipe.validation, recipe.seed)
    if len(train) < recipe.batch_size:
        raise ValueError(f"{len(train)} training cells are fewer than one batch of {recipe.batch_size}")
    return cells.take(kept[train]), cells.take(kept[validation]), audit.report()


def compile_for(network, recipe: Recipe, stage: str, steps: int) -> None:
    """Set what is trained and how: stage 'head' (backbone frozen, batch norm in inference mode) or 'all'."""
    import keras

    for layer in network.layers:
        layer.trainable = stage == "all" or layer.name == "head"
    rate = recipe.head_learning_rate
    if stage == "all":
        warmup = int(recipe.warmup_epochs * steps)
        decay = max(1, recipe.epochs * steps - warmup)
        rate = keras.optimizers.schedules.CosineDecay(
            0.0, decay, warmup_target=recipe.learning_rate, warmup_steps=warmup
        )
    optimizer = keras.optimizers.AdamW(rate, weight_decay=recipe.weight_decay, global_clipnorm=1.0)
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    loss = keras.losses.CategoricalCrossentropy(label_smoothing=recipe.label_smoothing)
    network.compile(optimizer, loss, metrics=["accuracy"])
    optimizer.build(network.trainable_variables)


def averaging(network, average: list[np.ndarray], horizon: float):
    """A callback that keeps `average`, in place, an exponential moving average of all weights over `horizon` steps."""
    import keras

    every = 8  # reading the weights back at each step would cost a GPU more than it is worth

    class Average(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch % every == every - 1:
                for mean, now in zip(average, self.model.get_weights(), strict=True):
                    mean += (now - mean) * min(1.0, every / horizon)

    return Average()


def score(network, cells: data.Cells) -> dict:
    """Accuracy and cross-entropy in nats of a network on cells."""
    import model

    chosen = network.predict(model.preprocess(cells.images), batch_size=64, verbose=0)
    likelihood = np.clip(chosen[np.arange(len(cells)), cells.labels], 1e-7, 1)
    accuracy = float(np.mean(chosen.argmax(axis=1) == cells.labels))
    return {"accuracy": accuracy, "loss": float(-np.log(likelihood).mean())}


def train(
    recipe: Recipe,
    name: str,
    cells: data.Cells,
    out: Path,
    *,
    limit: int | None = None,
    resume: bool = False,
    backbone_weights: Path | None = PRETRAINED,
    workers: int = 2,
) -> dict:
    """Run a recipe in folder `out`; returns the manifest. backbone_weights: None starts from random ones.

    Raises ValueError for what cannot run, FileExistsError where `out` holds a run and `resume` is not set.
    """
    import keras

    import model

    settings = {"recipe": name, **dataclasses.asdict(recipe), "limit": limit, "data": data.digest(cells)}
    settings = json.loads(json.dumps(settings))  # as it comes back from a file
    checkpoint, history = find_checkpoint(out, settings, resume)
    stages = ["head"] * recipe.head_epochs + ["all"] * recipe.epochs
    if len(history) == len(stages):
        print(f"{out} is finished: {len(stages)} epochs")
        return json.loads((out / "manifest.json").read_text(encoding="utf-8"))
    training, validation, audit = prepare(cells, recipe, limit)
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "audit.json", audit)
    print(f"{audit['kept']} of {len(cells)} images kept: {len(training)} to train on, {len(validation)} to validate")

    keras.utils.set_random_seed(recipe.seed)
    network = model.build_network(None, None if checkpoint else backbone_weights)
    shipped = model.build_network()  # carries the average, at full size
    average = network.get_weights()
    rng = np.random.default_rng((recipe.seed, 2))
    policy = augment.POLICIES[recipe.policy]
    augmented = data.Cells(np.stack([augment.apply(policy, i, rng) for i in validation.images]), validation.labels)
    batches = Batches(training, recipe, workers)
    stage = None
    try:
        for epoch in range(len(history), len(stages)):
            if stages[epoch] != stage:
                stage = stages[epoch]
                if checkpoint and stages[epoch - 1] != stage:
                    load_checkpoint(checkpoint, network, average)  # the weights alone: this stage has a new optimizer
                compile_for(network, recipe, stage, batches.steps)
                if checkpoint and stages[epoch - 1] == stage:
                    load_checkpoint(checkpoint, network, average)
                checkpoint = None
            tuned = epoch - recipe.head_epochs
            size = [pixels for start, pixels in recipe.sizes if start <= max(tuned, 0)][-1]
            started = time.monotonic()
            fit = network.fit(
                batches.epoch(epoch, size),
                steps_per_epoch=batches.steps,
                initial_epoch=epoch,
                epochs=epoch + 1,
                shuffle=False,
                callbacks=[averaging(network, average, recipe.average_epochs * batches.steps)],
                verbose=1 if sys.stdout.isatty() else 2,
            )
            if stage == "head":  # so far an average would only lag behind
                average[:] = network.get_weights()
            shipped.set_weights(average)
            entry = {"epoch": epoch, "stage": stage, "size": size, "seconds": round(time.monotonic() - started, 1)}
            entry["train"] = {key: float(values[-1]) for key, values in fit.history.items()}
            entry["validation"], entry["augmented_validation"] = score(shipped, validation), score(shipped, augmented)
            print(json.dumps(entry))
            history.append(entry)
            manifest = export(shipped, out, settings, history)
            save_checkpoint(out, network, average, {"settings": settings, "history": history})
    finally:
        batches.close()
    return manifest


def export(network, out: Path, settings: dict, history: list[dict]) -> dict:
    """Write model.weights.h5, manifest.json, history.json and curves.png; returns the manifest."""
    import keras

    save_half(network, out / "model.weights.h5")
    last = history[-1]
    manifest = {
        "sha256": hashlib.sha256((out / "model.weights.h5").read_bytes()).hexdigest(),
        "network": "EfficientNetV2B0",
        "settings": settings,
        "epochs_done": len(history),
        "scores": {key: last[key] for key in ("validation", "augmented_validation")},
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
    write_json(out / "history.json", history)
    write_atomically(out / "curves.png", lambda path: draw_curves(history, path))
    return manifest


def draw_curves(history: list[dict], path: Path) -> None:
    """Loss and accuracy by epoch: training (augmented and mixed), validation clean and augmented."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.5), layout="constrained")
    for axes, metric in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        for part in ("train", "validation", "augmented_validation"):
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


def find_checkpoint(out: Path, settings: dict, resume: bool) -> tuple[Path | None, list[dict]]:
    """The newest checkpoint of a run in `out` and its history; (None, []) where it starts afresh."""
    found = max(out.glob("checkpoint-*"), default=None)
    if not resume:
        if found or (out / "manifest.json").exists():
            raise FileExistsError(f"{out} already holds a run: add --resume to go on with it, or choose another --out")
        return None, []
    if found is None:
        return None, []
    state = json.loads((found / "state.json").read_text(encoding="utf-8"))
    changed = sorted(key for key in settings if settings[key] != state["settings"].get(key))
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--recipe", default="ours", choices=sorted(RECIPES))
    parser.add_argument("--data", type=Path, default=ROOT / "data" / "training_set.npz")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    parser.add_argument("--epochs", type=int, help="epochs with everything unfrozen, in place of the recipe's")
    parser.add_argument("--limit", type=int, help="use at most so many cells, for a trial")
    parser.add_argument("--resume", action="store_true", help="go on where a run in --out stopped")
    parser.add_argument("--workers", type=int, default=max(1, min(16, (os.cpu_count() or 1))))
    args = parser.parse_args()
    recipe = RECIPES[args.recipe]
    if args.epochs is not None:
        recipe = dataclasses.replace(recipe, epochs=args.epochs)
    if not PRETRAINED.exists():
        sys.exit(f"{PRETRAINED} is missing: put EfficientNetV2B0's headless ImageNet weights there (README, 'Data')")
    try:
        train(
            recipe,
            args.recipe,
            data.read(args.data),
            args.out,
            limit=args.limit,
            resume=args.resume,
            workers=args.workers,
        )
    except (ValueError, FileExistsError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
