"""Recipes: everything that decides what a training run produces, one frozen object each.

python -m training.train --recipe ours --data data/training_set.npz --out runs/ours
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """Settings of one run; every knob with its reason. Epochs count passes over the training cells."""

    policy: str  # per-image augmentation, a name in augment.POLICIES
    mixup: float = 0.0  # odds that an image is averaged with another one
    cutmix: float = 0.0  # odds that a rectangle of another one is pasted in
    head_epochs: int = 1  # backbone frozen: a random head would tear the pretrained features apart
    epochs: int = 20  # everything unfrozen, batch norm live, since augmented cells have other statistics
    sizes: tuple[tuple[int, int], ...] = ((0, 96),)  # (from this fine-tuning epoch on, pixels a side)
    batch_size: int = 32
    head_learning_rate: float = 2e-3
    learning_rate: float = 5e-4  # peak, after the warm-up; then a cosine down to nothing
    warmup_epochs: float = 1.0
    weight_decay: float = 0.05  # of kernels only
    label_smoothing: float = 0.1
    average_epochs: float = 1.0  # horizon of the exponential moving average (EMA) of the weights that ships
    validation: float = 0.05  # share of each class that is split off
    seed: int = 0


def ours() -> Recipe:
    """EfficientNetV2B0 at 96 px, ImageNet weights, long varied augmentation, CutMix and MixUp, everything unfrozen.

        python -m training.train --recipe ours --data data/training_set.npz --out runs/ours

    The first eight epochs run at 64 px (progressive resizing, Tan & Le 2021), at two thirds of the cost. About three
    minutes an epoch at 96 px on two idle cores, an hour in all. What it scored stands in results/card.json.
    """
    return Recipe(policy="ours", mixup=0.15, cutmix=0.25, epochs=20, sizes=((0, 64), (8, 96)))


RECIPES = {"ours": ours()}
