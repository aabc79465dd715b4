"""Recipes: all settings that determine the result of a training run, one frozen object each.

    python -m training.train --recipe NAME --data data/training_set.npz --out runs/NAME
    python -m training.train --recipe ours --set mixup=0.3 --set epochs=5 --out runs/trial      # a trial with changes

`ours` makes the weights that ship. All others are in training/reports.py, each with its source and that source's
figures; scores on this project's cells are in results/systems.json.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """Settings of one run. An epoch is one pass over the training cells."""

    network: str = "EfficientNetV2B0"  # a name in networks.NETWORKS
    weights: str = "imagenet"  # initial: imagenet, none (random), or a file of the backbone or the whole network
    policy: str = "none"  # per-image augmentation, a name in augment.POLICIES
    class_policies: tuple[tuple[int, str], ...] = ()  # (label, policy) for classes with another one
    enhance: tuple[str, ...] = ()  # preprocessing in training and at inference, names in enhance.STEPS
    mixup: float = 0.0  # probability that an image is averaged with another one
    cutmix: float = 0.0  # probability that a rectangle of another image is pasted in
    oversample: bool = False  # repeat cells, each copy augmented separately, up to the size of the largest class
    class_weights: bool = False  # weight the loss by inverse class frequency
    head_epochs: int = 1  # first stage, backbone frozen: gradients of a random head would damage pretrained features
    epochs: int = 20  # second stage, with all layers trained except those excluded by `frozen` and `only`
    frozen: int = 0  # number of the backbone's first layers that are not trained
    only: tuple[str, ...] = ()  # train only backbone layers of these types, such as Conv2D; () means all types
    sizes: tuple[tuple[float, int], ...] = ((0, 96),)  # (from this share of `epochs` on, image side in pixels)
    batch_size: int = 32
    accumulate: int = 1  # steps per batch, to save memory: gradients are averaged; batch norm sees one step's images
    optimizer: str = "adamw"  # adamw, adam or lion
    head_learning_rate: float = 2e-3
    learning_rate: float = 5e-4  # peak
    schedule: str = "cosine"  # cosine: warm-up, then cosine decay to 0; or constant
    warmup_epochs: float = 1.0
    weight_decay: float = 0.05  # of kernels only; not used with adam
    dropout: float = 0.3  # before the head
    label_smoothing: float = 0.1
    average_epochs: float = 1.0  # horizon of the exponential moving average (EMA) of the weights, which ships; 0: none
    patience: int | None = None  # early stopping after this many epochs without a lower validation loss; the best ships
    validation: float = 0.05  # share of each class split off for validation
    views: int = 1  # test-time augmentation: number of model.VIEWS averaged for an unsure image
    seed: int = 0


@dataclass(frozen=True)
class Reported:
    """A source's figures for a system: accuracy in % as printed there, one number or a range such as 46-68."""

    source: str
    local: str | None = None  # on the source's own cells
    hidden: str | None = None  # on the hidden test


RECIPES: dict[str, Recipe] = {
    # What ships. Images grow from 64 to 112 pixels (progressive resizing, Tan & Le 2021) within one cosine schedule.
    "ours": Recipe(
        policy="ours", mixup=0.15, cutmix=0.25, epochs=104, sizes=((0, 64), (0.2, 96), (0.6, 112)), batch_size=64,
        learning_rate=8e-4, warmup_epochs=2.0, validation=0.02, views=4,
    ),
}  # fmt: skip
REPORTED: dict[str, Reported] = {}

import training.reports  # noqa: E402, F401  last: it uses the names above and registers its recipes
