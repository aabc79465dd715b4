"""Recipes: everything that decides what a training run produces, one frozen object each.

    python -m training.train --recipe NAME --data data/training_set.npz --out runs/NAME
    python -m training.train --recipe ours --set mixup=0.3 --set epochs=5 --out runs/trial      # one change, a trial

`ours` makes the weights that ship. `lionia_*` and `spritzers_*` are the systems of the two team
reports, as far as the reports state them; `vit` is what both leave as future work. `frozen`, `fine_tuned`,
`flips_shifts`, `randaugment` and `randaugment_cutout` are the steps of another team's ladder (.63, .68, .74, .87 and
.90 on the hidden test, there with EfficientNetB2). Local and hidden accuracy in the docstrings are what the reports
say; what these recipes score here stands in results/systems.json.
"""

from dataclasses import dataclass, replace


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
        policy="ours", mixup=0.15, cutmix=0.25, epochs=60, sizes=((0, 64), (0.4, 96), (0.75, 112)), batch_size=64,
        learning_rate=8e-4, warmup_epochs=2.0, views=4,
    )  # fmt: skip


# --- a ladder: one network, ever more done ---------------------------------------------------------------------------

PLAIN = Recipe(epochs=3, learning_rate=3e-4, label_smoothing=0.0, average_epochs=0.2)


def frozen() -> Recipe:
    """The head alone, on the backbone's ImageNet features, without augmentation. Hidden .63.

    python -m training.train --recipe frozen --out runs/frozen        3 minutes on two cores
    """
    return replace(PLAIN, head_epochs=3, epochs=0)


def fine_tuned() -> Recipe:
    """Everything unfrozen, without augmentation. Hidden .46-.68 (several teams).

    python -m training.train --recipe fine_tuned --out runs/fine_tuned        10 minutes on two cores
    """
    return PLAIN


def flips_shifts() -> Recipe:
    """Everything unfrozen; flips, turns, rotations and shifts. Hidden .74.

    python -m training.train --recipe flips_shifts --out runs/flips_shifts        10 minutes on two cores
    """
    return replace(PLAIN, policy="flips_shifts")


def randaugment() -> Recipe:
    """Everything unfrozen; flips, turns and RandAugment(2, 0.3). Hidden .87.

    python -m training.train --recipe randaugment --out runs/randaugment        half an hour on two cores
    """
    return replace(PLAIN, policy="randaugment", epochs=6)


def randaugment_cutout() -> Recipe:
    """`randaugment` with less dropout, and Cutout; how much of each the team does not say. Hidden .90.

    python -m training.train --recipe randaugment_cutout --out runs/randaugment_cutout        half an hour on two cores
    """
    return replace(randaugment(), policy="randaugment_cutout", dropout=0.1)


# --- LionIA ----------------------------------------------------------------------------------------------------------

SCRATCH = Recipe(
    weights="none", head_epochs=0, epochs=30, batch_size=64, optimizer="adam", learning_rate=1e-3, schedule="constant",
    label_smoothing=0.0, average_epochs=0.0, patience=5,
)  # fmt: skip
LIONIA = replace(
    PLAIN, policy="randaugment", epochs=30, optimizer="lion", learning_rate=1e-4, weight_decay=0.01, patience=5
)


def lionia_basic_cnn() -> Recipe:
    """LionIA, Table 2: basic CNN from scratch, Adam, no augmentation. Local 96.3, hidden 28.

    python -m training.train --recipe lionia_basic_cnn --out runs/lionia_basic_cnn        5 minutes on two cores
    """
    return replace(SCRATCH, network="BasicCNN")


def lionia_convnext_base() -> Recipe:
    """LionIA, Table 2: ConvNeXtBase, its first 124 layers frozen. Local 93.0, hidden 38.

    python -m training.train --recipe lionia_convnext_base --out runs/lionia_convnext_base        wants a GPU
    """
    return replace(LIONIA, network="ConvNeXtBase", policy="shifts", frozen=124, optimizer="adam")


def lionia_resnet50v2() -> Recipe:
    """LionIA, Table 2: ResNet50V2 with class weights, its first 100 layers frozen. Local 98.1, hidden 77.

    python -m training.train --recipe lionia_resnet50v2 --out runs/lionia_resnet50v2        wants a GPU
    """
    return replace(LIONIA, network="ResNet50V2", policy="shifts", frozen=100, optimizer="adam", class_weights=True)


def lionia_efficientnetv2b0() -> Recipe:
    """LionIA, Table 2: EfficientNetV2B0, RandAugment(2, 0.3), Lion, its first 100 layers frozen. Local 98.0, hidden 87.

        python -m training.train --recipe lionia_efficientnetv2b0 --out runs/lionia_efficientnetv2b0

    Three minutes an epoch on two cores. Keras counts input and scaling among the 100: 97 are the backbone's own.
    """
    return replace(LIONIA, frozen=97)


def lionia_enhanced() -> Recipe:
    """LionIA's preprocessing, I = S(C(L(I))), before the network of `lionia_efficientnetv2b0`.

    python -m training.train --recipe lionia_enhanced --out runs/lionia_enhanced        3 minutes an epoch
    """
    return replace(LIONIA, frozen=97, enhance=("illumination", "clahe", "segment"))


def lionia_cutmix() -> Recipe:
    """`lionia_efficientnetv2b0` with CutMix on half of the images.

    python -m training.train --recipe lionia_cutmix --out runs/lionia_cutmix        3 minutes an epoch
    """
    return replace(LIONIA, frozen=97, cutmix=0.5)


# --- Spritzers -------------------------------------------------------------------------------------------------------

SPRITZERS = replace(
    LIONIA, network="EfficientNetB4", policy="shifts", oversample=True, optimizer="adam", learning_rate=1e-4,
    only=("Conv2D", "DepthwiseConv2D"),
)  # fmt: skip


def spritzers_simple_cnn() -> Recipe:
    """Spritzers, step 1: four convolutions from scratch. Hidden 25.

    python -m training.train --recipe spritzers_simple_cnn --out runs/spritzers_simple_cnn        5 minutes
    """
    return replace(SCRATCH, network="SimpleCNN")


def spritzers_vgg() -> Recipe:
    """Spritzers, step 2: VGG with half the filters and smaller dense layers, from scratch. Local 95-97, hidden 45.

    python -m training.train --recipe spritzers_vgg --out runs/spritzers_vgg        4 minutes an epoch on two cores
    """
    return replace(SCRATCH, network="HalfVGG", policy="shifts", learning_rate=1e-4)


def spritzers_mobilenetv3small() -> Recipe:
    """Spritzers, step 3: MobileNetV3Small, rotations and translations. Local 95-97, hidden 45.

        python -m training.train --recipe spritzers_mobilenetv3small --out runs/spritzers_mobilenetv3small

    Two minutes an epoch on two cores. Where its ImageNet weights are not at hand: `--weights none`, which trains all of
    it, and `--set learning_rate=1e-3`.
    """
    return replace(SPRITZERS, network="MobileNetV3Small")


def spritzers_resnet101() -> Recipe:
    """Spritzers, Table 1: ResNet101, rotations and translations.

    python -m training.train --recipe spritzers_resnet101 --out runs/spritzers_resnet101        wants a GPU
    """
    return replace(SPRITZERS, network="ResNet101")


def spritzers_densenet169() -> Recipe:
    """Spritzers, Table 1: DenseNet169, rotations and translations.

    python -m training.train --recipe spritzers_densenet169 --out runs/spritzers_densenet169        wants a GPU
    """
    return replace(SPRITZERS, network="DenseNet169")


def spritzers_efficientnetb4() -> Recipe:
    """Spritzers, step 4: EfficientNetB4 at 380 px, rotations and translations. Hidden 65.

    python -m training.train --recipe spritzers_efficientnetb4 --out runs/spritzers_efficientnetb4    wants a GPU
    """
    return SPRITZERS


def spritzers_augmix() -> Recipe:
    """Spritzers, step 5: EfficientNetB4 with AugMix at severity 0.2.

    python -m training.train --recipe spritzers_augmix --out runs/spritzers_augmix        wants a GPU
    """
    return replace(SPRITZERS, policy="augmix")


def spritzers_randmix() -> Recipe:
    """Spritzers, step 5: EfficientNetB4, RandAugment(2, 0.3) and RandMix (MixUp or CutMix). Local 99.3, hidden 86.

    python -m training.train --recipe spritzers_randmix --out runs/spritzers_randmix        wants a GPU
    """
    return replace(SPRITZERS, policy="randaugment", mixup=0.5, cutmix=0.5)


def spritzers_lion() -> Recipe:
    """Spritzers, step 6: `spritzers_randmix` with Lion at 1e-5. Hidden 92.

    python -m training.train --recipe spritzers_lion --out runs/spritzers_lion        wants a GPU
    """
    return replace(spritzers_randmix(), optimizer="lion", learning_rate=1e-5)


def vit() -> Recipe:
    """A small vision transformer from scratch, our augmentation.

    python -m training.train --recipe vit --out runs/vit        2 minutes an epoch on two cores
    """
    return Recipe(
        network="ViT", weights="none", policy="ours", mixup=0.15, cutmix=0.25, head_epochs=0, epochs=60, batch_size=64,
        warmup_epochs=5.0, dropout=0.1,
    )  # fmt: skip


RECIPES = {
    make.__name__: make()
    for make in (
        ours, frozen, fine_tuned, flips_shifts, randaugment,
        randaugment_cutout,
        lionia_basic_cnn, lionia_convnext_base, lionia_resnet50v2, lionia_efficientnetv2b0, lionia_enhanced,
        lionia_cutmix,
        spritzers_simple_cnn, spritzers_vgg, spritzers_mobilenetv3small, spritzers_resnet101, spritzers_densenet169,
        spritzers_efficientnetb4, spritzers_augmix, spritzers_randmix, spritzers_lion,
        vit,
    )
}  # fmt: skip
