"""Recipes: everything that decides what a training run produces, one frozen object each.

    python -m training.train --recipe NAME --data data/training_set.npz --out runs/NAME
    python -m training.train --recipe ours --set mixup=0.3 --set epochs=5 --out runs/trial      # one change, a trial

`ours` makes the weights that ship; all others stand in training/reports.py, each with its source and with the figures
that the source has. What these recipes score here stands in results/systems.json.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """Settings of one run; every knob with its reason. Epochs count passes over the training cells."""

    network: str = "EfficientNetV2B0"  # a name in networks.NETWORKS
    weights: str = "imagenet"  # at the start: imagenet or none, or a file of backbone or whole network
    policy: str = "none"  # per-image augmentation, a name in augment.POLICIES
    class_policies: tuple[tuple[int, str], ...] = ()  # (label, policy) for classes that need another one
    enhance: tuple[str, ...] = ()  # steps of enhance.STEPS that every image passes, in training and when it is graded
    mixup: float = 0.0  # odds that an image is averaged with another one
    cutmix: float = 0.0  # odds that a rectangle of another one is pasted in
    oversample: bool = False  # repeat cells, each time augmented anew, until every class has as many as the largest
    class_weights: bool = False  # weigh the loss by the inverse of the class's share
    head_epochs: int = 1  # backbone frozen: a random head would tear the pretrained features apart
    epochs: int = 20  # after that, with everything trained but what `frozen` and `only` leave out
    frozen: int = 0  # so many of the backbone's first layers stay as they are
    only: tuple[str, ...] = ()  # train only backbone layers of these types, such as Conv2D; () means all types
    sizes: tuple[tuple[float, int], ...] = ((0, 96),)  # (from this share of the epochs on, pixels the network sees)
    batch_size: int = 32
    accumulate: int = 1  # steps that share a batch, to save memory: gradients are averaged, batch norm sees one step
    optimizer: str = "adamw"  # adamw, adam or lion
    head_learning_rate: float = 2e-3
    learning_rate: float = 5e-4  # peak
    schedule: str = "cosine"  # warm-up, then a cosine down to nothing; or constant
    warmup_epochs: float = 1.0
    weight_decay: float = 0.05  # of kernels only; Adam has none
    dropout: float = 0.3  # before the head
    label_smoothing: float = 0.1
    average_epochs: float = 1.0  # horizon of the exponential moving average (EMA) of the weights that ships; 0: none
    patience: int | None = None  # stop after so many epochs without a lower validation loss, and ship the best epoch
    validation: float = 0.05  # share of each class that is split off
    views: int = 1  # flips of an image that is not sure, averaged when it is graded
    seed: int = 0


def ours() -> Recipe:
    """What ships: EfficientNetV2B0, ImageNet weights, long varied augmentation, CutMix and MixUp, everything unfrozen.

        python -m training.train --out runs/ours

    The pictures grow from 64 over 96 to 112 pixels (progressive resizing, Tan & Le 2021) under one cosine.
    """
    return Recipe(
        policy="ours", mixup=0.15, cutmix=0.25, epochs=104, sizes=((0, 64), (0.2, 96), (0.6, 112)), batch_size=64,
        learning_rate=8e-4, warmup_epochs=2.0, validation=0.02, views=4,
    )  # fmt: skip


@dataclass(frozen=True)
class Reported:
    """What a source says of a system: accuracy in % as it has it, one number or a range such as 46-68."""

    source: str
    local: str | None = None  # on the source's own cells
    hidden: str | None = None  # on the hidden test


RECIPES: dict[str, Recipe] = {"ours": ours()}
REPORTED: dict[str, Reported] = {}

import training.reports  # noqa: E402, F401  it needs what stands above, and registers its recipes
