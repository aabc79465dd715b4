"""Train a network: labelled cells in, weights and manifest out. Or combine trained runs into an ensemble.

    python -m training.train --out runs/ours                        the recipe that ships, on data/training_set.npz
    python -m training.train --out runs/ours --resume               after a kill or Ctrl-C
    python -m training.train --out runs/trial --limit 400 --epochs 3 --set mixup=0.3
    python -m training.train --out runs/both --ensemble runs/a runs/b

After every epoch the folder holds model.weights.h5 and manifest.json (what model.py reads from weights/), run.json
(settings and history) and a checkpoint for --resume. audit.json lists the images that the audit removed.
"""

import argparse
import dataclasses
import json
import os
import shlex
import shutil
import sys
import textwrap
import time
from pathlib import Path

import keras
import numpy as np

import model
from training import augment, clean, data, ensemble, networks, shell
from training.batches import Batches, policy_of
from training.files import ROOT, write_json
from training.optimization import Average, check_memory, compile_for, freeze, fuse_batch_norm, hasten_batch_norm, reseed
from training.provenance import find_checkpoint, provenance, save_half
from training.recipes import RECIPES, Recipe
from training.scores import fit_temperature, score
from training.settings import check, from_scratch, override

PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")


def prepare(cells: data.Cells, recipe: Recipe) -> tuple[data.Cells, data.Cells, dict]:
    """Audit the cells, then split them: (training cells, validation cells, the audit's report). Raises ValueError if a
    class has no training cells, or if there are no validation cells."""
    print(f"audit of {len(cells):,} images: copies, contradictory labels, pictures that repeat", flush=True)
    audit = clean.audit(cells)
    kept = audit.kept
    train, validation = data.split(cells.labels[kept], audit.groups[kept], recipe.validation, recipe.seed)
    missing = [f"{c} {name}" for c, name in enumerate(data.CLASSES) if c not in cells.labels[kept[train]]]
    if missing:
        raise ValueError(f"no cells to train on of {', '.join(missing)}: add some, or raise --limit")
    if not len(validation):
        raise ValueError(f"no validation cells among {len(kept)}: add cells, or --set validation=0.2")
    print(f"{len(kept):,} kept: {len(train):,} to train on, {len(validation):,} to validate", flush=True)
    return cells.take(kept[train]), cells.take(kept[validation]), audit.report()


def augmented(cells: data.Cells, recipe: Recipe) -> data.Cells:
    """The cells, each augmented once with the policy of its class."""
    rng, pairs = np.random.default_rng((recipe.seed, 2)), zip(cells.images, cells.labels, strict=True)
    return data.Cells(np.stack([augment.apply(policy_of(recipe, c), image, rng) for image, c in pairs]), cells.labels)


def limited(cells: data.Cells, limit: int | None, seed: int) -> data.Cells:
    """A random sample of at most `limit` cells, stratified by class; None: all cells."""
    if limit is None:
        return cells
    return cells.take(np.sort(data.stratified_order(cells.labels, seed)[:limit]))


def as_dataset(source: Batches, epoch: int):
    """One epoch for `fit`, preprocessed by model.py: a generator; for TensorFlow a tf.data.Dataset, as Keras would make
    one with autotuning, whose thread can delay an epoch's end by a minute."""

    def generate():
        for images, targets, weights in source.epoch(epoch):
            images = model.preprocess(images, source.recipe.enhance)
            yield (images, targets) if weights is None else (images, targets, weights)

    if keras.backend.backend() != "tensorflow":
        return generate()
    import tensorflow as tf

    shapes = [(data.IMAGE_SIZE, data.IMAGE_SIZE, 3), (len(data.CLASSES),)] + [()] * (source.weights is not None)
    signature = tuple(tf.TensorSpec((source.size, *shape)) for shape in shapes)
    options = tf.data.Options()
    options.autotune.enabled = False
    return tf.data.Dataset.from_generator(generate, output_signature=signature).prefetch(2).with_options(options)


@dataclasses.dataclass
class Run:
    """One training run: its settings, its history, and the network of the current stage."""

    recipe: Recipe
    out: Path
    settings: dict
    provenance: dict
    parts: dict[str, data.Cells]  # validation cells, clean and augmented
    history: list[dict]
    batches: Batches | None = None
    network: keras.Model | None = None
    shipped: keras.Model | None = None  # the same network with the averaged weights
    average: list[np.ndarray] = dataclasses.field(default_factory=list)

    def stage(self, epoch: int) -> tuple[str, int]:
        """('head' or 'all', image side in pixels) of an epoch, counted from 0."""
        tuned = epoch - self.recipe.head_epochs
        share = max(0, tuned + 1) / max(1, self.recipe.epochs) - 1e-9
        return "head" if tuned < 0 else "all", [p for start, p in self.recipe.sizes if start <= max(0, share)][-1]

    def finish(self, training: data.Cells, workers: int) -> None:
        """Train the remaining epochs."""
        keras.config.set_dtype_policy(self.settings["precision"])
        keras.utils.set_random_seed(self.recipe.seed)
        self.batches = Batches(training, self.recipe, workers)
        try:
            while not is_over(self.history, self.recipe):
                epoch = len(self.history)
                if self.network is None or self.stage(epoch) != self.stage(epoch - 1):
                    self.enter(epoch)
                self.train_epoch(epoch)
                print(self.line(), flush=True)
        finally:
            self.batches.close()
            keras.config.set_dtype_policy("float32")

    def enter(self, epoch: int) -> None:
        """Build the network for an epoch's stage and load weights and optimizer state from the checkpoint, if any."""
        recipe, (stage, pixels) = self.recipe, self.stage(epoch)
        checkpoint = max(self.out.glob("checkpoint-*"), default=None)
        start = None if checkpoint else networks.resolve_weights(recipe.network, recipe.weights)
        self.network = networks.build(recipe.network, weights=start, dropout=recipe.dropout, pixels=pixels)
        self.shipped = networks.build(recipe.network, dropout=recipe.dropout, pixels=pixels)
        if recipe.weights == "none":
            hasten_batch_norm(self.network)
        fuse_batch_norm(self.network)
        freeze(self.network, recipe, stage)
        check_memory(self.network, self.batches.size)
        same = self.stage(epoch - 1)[0] == stage  # a new stage loads the weights only; its optimizer starts afresh
        if checkpoint and not same:
            self.network.load_weights(checkpoint / "live.weights.h5")
        compile_for(self.network, recipe, stage, self.batches.steps)
        if checkpoint and same:
            self.network.load_weights(checkpoint / "live.weights.h5")
        self.average = self.network.get_weights()
        if checkpoint:
            with np.load(checkpoint / "average.npz") as file:
                self.average = [file[f"arr_{i}"] for i in range(len(file.files))]

    def train_epoch(self, epoch: int) -> None:
        """Train for one epoch, score it, write everything."""
        started, (stage, pixels), steps = time.monotonic(), self.stage(epoch), self.batches.steps
        reseed(self.network, self.recipe.seed, epoch)
        horizon = self.recipe.average_epochs * steps
        callbacks = [Average(self.average, horizon, steps)] if horizon else []
        fit = self.network.fit(
            as_dataset(self.batches, epoch), steps_per_epoch=steps, initial_epoch=epoch, epochs=epoch + 1,
            shuffle=False, callbacks=callbacks, verbose=1 if sys.stdout.isatty() else 0,
        )  # fmt: skip
        if stage == "head" or not horizon:  # in the head stage, an average would only lag behind
            self.average[:] = self.network.get_weights()
        self.shipped.set_weights(self.average)
        entry = {"epoch": epoch, "stage": stage, "size": pixels}
        entry["train"] = {key: round(float(values[-1]), 5) for key, values in fit.history.items()}
        for name, cells in self.parts.items():
            images = model.preprocess(cells.images, self.recipe.enhance)
            entry[name] = score(self.shipped.predict(images, batch_size=64, verbose=0), cells.labels)
        entry["seconds"] = round(time.monotonic() - started, 1)
        self.history.append(entry)
        self.write(epoch)

    def write(self, epoch: int) -> None:
        """Write weights and manifest if this epoch is the best so far, then run.json and the checkpoint."""
        if best_epoch(self.history, self.recipe) == epoch:
            self.ship()
        if is_over(self.history, self.recipe):
            self.set_temperature()
        run = {key: self.settings[key] for key in ("recipe", "network", "weights", "precision")} | {
            "parameters": self.network.count_params(), "flops": networks.flops(self.shipped),
            "commit": self.provenance["commit"], "seconds": round(self.seconds(), 1),
            "file_mb": round((self.out / "model.weights.h5").stat().st_size / 1e6, 2),
            "settings": self.settings, "history": self.history,
        }  # fmt: skip
        write_json(self.out / "run.json", run)
        self.save_checkpoint()

    def ship(self) -> None:
        """Write weights and manifest: what model.py needs, and the provenance. A kill at any moment leaves a pair that
        matches: while weights are replaced, the old manifest holds the new one as `next`."""
        weights, path, last = self.out / ".next.weights.h5", self.out / "manifest.json", self.history[-1]
        save_half(self.shipped, weights)
        manifest = {
            "sha256": model.sha256(weights), "network": self.recipe.network, "pixels": last["size"],
            "enhance": list(self.recipe.enhance), "views": self.recipe.views, "temperature": 1.0,
            "recipe": self.settings["recipe"], "seed": self.recipe.seed, "epochs": len(self.history),
            "hours": round(self.seconds() / 3600, 2), **self.provenance,
            "scores": {name: last[name] for name in self.parts}, "settings": self.settings,
        }  # fmt: skip
        if path.exists():
            write_json(path, model.read_manifest(self.out) | {"next": manifest})
        os.replace(weights, self.out / "model.weights.h5")
        write_json(path, manifest)

    def save_checkpoint(self) -> None:
        """Write checkpoint-NNN: weights, optimizer state, averaged weights, settings, history. Delete older ones."""
        temporary, final = self.out / ".checkpoint", self.out / f"checkpoint-{len(self.history):03d}"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        self.network.save_weights(temporary / "live.weights.h5")
        np.savez(temporary / "average.npz", *self.average)
        state = {"settings": self.settings, "provenance": self.provenance, "history": self.history}
        write_json(temporary / "state.json", state)
        os.replace(temporary, final)
        for old in set(self.out.glob("checkpoint-*")) - {final}:
            shutil.rmtree(old)

    def set_temperature(self) -> None:
        """Fit the temperature to model.py's predictions on all validation cells; write it and the new scores."""
        keras.config.set_dtype_policy("float32")
        predictor = model.Model(self.out)
        predictor.temperature = 1.0  # the manifest of an extended run can hold another
        parts = self.parts.values()
        answers = np.concatenate([predictor.predict_proba(part.images) for part in parts])
        labels = np.concatenate([part.labels for part in parts])
        predictor.temperature = temperature = fit_temperature(answers, labels)
        scores = {name: score(predictor.predict_proba(part.images), part.labels) for name, part in self.parts.items()}
        write_json(self.out / "manifest.json", predictor.manifest | {"temperature": temperature, "scores": scores})

    def seconds(self) -> float:
        """Training time so far."""
        return sum(entry["seconds"] for entry in self.history)

    def line(self) -> str:
        """A summary of the last epoch. An epoch's cost is taken as (pixels a side)^1.4, a third in the head stage."""
        entry, done, total = self.history[-1], len(self.history), self.recipe.head_epochs + self.recipe.epochs
        costs = [pixels**1.4 / (3 if stage == "head" else 1) for stage, pixels in map(self.stage, range(total))]
        left = self.seconds() / sum(costs[:done]) * sum(costs[done:])
        return (
            f"epoch {entry['epoch'] + 1:3} of {total}  {entry['stage']:4} {entry['size']:3} px  loss"
            f" {entry['train']['loss']:.3f}  validation {entry['validation']['accuracy']:.2%}, augmented"
            f" {entry['augmented_validation']['accuracy']:.2%}  {entry['seconds']:.0f} s,"
            f" {left // 3600:.0f} h {left % 3600 // 60:02.0f} min left"
        )


def train(recipe: Recipe, name: str, cells: data.Cells, out: Path, *, limit: int | None = None, resume: bool = False,
          precision: str = "float32", workers: int = 2) -> dict:  # fmt: skip
    """Train a recipe in folder `out`. Returns the manifest.

    limit: maximum number of cells. precision: one of PRECISIONS; the weights stay float32. workers: see `Batches`.
    Raises ValueError for invalid settings or data, FileExistsError if `out` holds a run and `resume` is not set.
    """
    check(recipe)
    settings = {"recipe": name, **dataclasses.asdict(recipe), "limit": limit, "precision": precision}
    settings = json.loads(json.dumps(settings))  # as read back from a file: tuples become lists
    checkpoint = find_checkpoint(out, settings, resume)
    state = json.loads((checkpoint / "state.json").read_text(encoding="utf-8")) if checkpoint else {"history": []}
    if is_over(state["history"], recipe):
        print(f"{out} is finished: {len(state['history'])} epochs")
        return model.read_manifest(out)
    if not checkpoint:  # find faults before the slow audit
        networks.resolve_weights(recipe.network, recipe.weights)
        freeze(probe := networks.build(recipe.network), recipe, "all" if recipe.epochs else "head")
        check_space(out, probe)
    cells = limited(cells, limit, recipe.seed)
    training, validation, audit = prepare(cells, recipe)
    known = provenance(cells, audit)
    if any(state.get("provenance", known)[key] != known[key] for key in ("data", "kept_sha256")):
        raise ValueError(f"{out} was started with other data: use the same, or another --out")
    if recipe.batch_size > len(training):
        recipe = dataclasses.replace(recipe, batch_size=len(training), accumulate=1)
        print(f"batches of {len(training)}, as there are no more cells")
    parts = {"validation": validation, "augmented_validation": augmented(validation, recipe)}
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "audit.json", audit)
    Run(recipe, out, settings, state.get("provenance", known), parts, state["history"]).finish(training, workers)
    return model.read_manifest(out)


def check_space(out: Path, network) -> None:
    """Raises ValueError if the disk lacks room for the old and the new checkpoint and the weights that ship."""
    needed = 12 * 4 * network.count_params()
    there = next(folder for folder in (out.resolve(), *out.resolve().parents) if folder.exists())
    free = shutil.disk_usage(there).free
    if free < needed:
        raise ValueError(f"{there} has {free / 2**20:.0f} MB free, a run needs {needed / 2**20:.0f}: make room")


def best_epoch(history: list[dict], recipe: Recipe) -> int:
    """The epoch whose weights ship: the last; with early stopping, the one with the lowest validation loss."""
    if recipe.patience is None:
        return len(history) - 1
    return int(np.argmin(np.nan_to_num([entry["validation"]["loss"] for entry in history], nan=np.inf)))


def is_over(history: list[dict], recipe: Recipe) -> bool:
    """Whether a run has done all its epochs, or early stopping (`patience`) ends it."""
    done = len(history)
    if done >= recipe.head_epochs + recipe.epochs:
        return True
    return recipe.patience is not None and done > 0 and done - 1 - best_epoch(history, recipe) >= recipe.patience


def options() -> shell.Parser:
    names = textwrap.fill(", ".join(RECIPES), 100, subsequent_indent="  ")
    knobs = "\n".join(f"  {f.name:20} {f.default!r}" for f in dataclasses.fields(Recipe))
    said = "knobs for --set, with their defaults; a recipe sets some (training/recipes.py explains all)"
    parser = shell.parser("training.train", __doc__, epilog=f"recipes:\n  {names}\n\n{said}:\n{knobs}")
    add, cells, cpus = parser.add_argument, ROOT / "data" / "training_set.npz", min(16, os.cpu_count() or 1)
    add("--out", type=Path, required=True, metavar="FOLDER", help="of the run: weights, manifest, checkpoints")
    add("--recipe", choices=RECIPES, default="ours", metavar="NAME", help="one of the recipes below (default: ours)")
    add("--data", type=Path, default=cells, metavar="CELLS", help="npz or a folder per class"
        " (default: data/training_set.npz)")  # fmt: skip
    add("--epochs", type=shell.positive, metavar="N", help="passes over the cells, in all (default: the recipe's)")
    add("--weights", help="start from imagenet, a file, or none: random, all layers trained (default: the recipe's)")
    add("--set", action="append", default=[], metavar="KNOB=VALUE", help="change a knob of the recipe; can be repeated")
    add("--limit", type=shell.positive, metavar="N", help="use at most so many cells, for a trial (default: all)")
    add("--resume", action="store_true", help="continue the run in --out")
    add("--precision", choices=PRECISIONS, default="float32", help="mixed_* is for GPUs (default: float32)")
    add("--workers", type=shell.count, default=cpus, metavar="N", help="processes that augment, 0 for none but this"
        f" (default here: {cpus})")  # fmt: skip
    add("--ensemble", type=Path, nargs="+", metavar="RUN", help="train nothing: combine these finished runs in --out,"
        " to average their probabilities; inference takes the sum of their times")  # fmt: skip
    return parser


def parse() -> tuple[argparse.Namespace, Recipe]:
    """The options, and the recipe with their changes. Exits with status 2 and one line if they are invalid."""
    args = (parser := options()).parse_args()
    given = {argument.partition("=")[0] for argument in sys.argv[1:] if argument.startswith("--")}
    if args.ensemble and (idle := given - {"--ensemble", "--out"}):
        parser.error(f"{', '.join(sorted(idle))} would have no effect with --ensemble")
    recipe = RECIPES[args.recipe]
    if args.weights is not None:
        recipe = from_scratch(recipe) if args.weights == "none" else dataclasses.replace(recipe, weights=args.weights)
    try:
        recipe = override(recipe, args.set)
        if args.epochs is not None:
            head = min(recipe.head_epochs, args.epochs)
            recipe = dataclasses.replace(recipe, head_epochs=head, epochs=args.epochs - head)
        check(recipe)
    except ValueError as error:
        parser.error(str(error))
    return args, recipe


def main() -> None:
    args, recipe = parse()
    rest = [argument for argument in sys.argv[1:] if argument != "--resume"]
    with shell.plain_errors(f"\nstopped; to continue: python -m training.train {shlex.join(rest)} --resume"):
        if args.ensemble:
            ensemble.combine(args.ensemble, args.out)
        else:
            options = {"limit": args.limit, "resume": args.resume, "precision": args.precision, "workers": args.workers}
            train(recipe, args.recipe, data.read(args.data), args.out, **options)
        print(f"{args.out} is ready: python build_submission.py --source {args.out}")


if __name__ == "__main__":
    main()
