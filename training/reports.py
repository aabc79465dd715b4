"""The systems of the two team reports, of another team's ladder, and what the reports leave as future work.

    python -m training.train --recipe NAME --data data/training_set.npz --out runs/NAME

LionIA and Spritzers are the teams. Beside each recipe stands its source, with local and hidden accuracy in % as that
source has them; nothing else repeats these figures. What a report does not state is as plain as Keras has it: constant
rates, no weight decay, no smoothing, no average of the weights, early stopping. docs/REPORTS.md goes through both
reports statement by statement. Minutes are of two cores; "GPU" marks what is too slow there.

`frozen` counts as Keras's own `base_model.layers` does, with input, rescaling and normalisation. Of EfficientNetB4 with
ImageNet weights, which has 476 of them in seven stages, the first 124 end with block3c_activation, behind the depthwise
convolution of stage 3's third block; the first 100 end with block3a_se_expand, within that stage's first block.
"""

from dataclasses import replace

from training.recipes import Recipe, reported

L = "LionIA's report, table 2"
S = "Spritzers' report"
LADDER = "another team's published steps, there on EfficientNetB2"

# --- a ladder: one network, ever more done ---------------------------------------------------------------------------

PLAIN = Recipe(epochs=3, learning_rate=3e-4, label_smoothing=0.0, average_epochs=0.2)


@reported(LADDER, hidden="63")
def frozen() -> Recipe:
    """The head alone, on the backbone's ImageNet features, without augmentation. 3 minutes."""
    return replace(PLAIN, head_epochs=3, epochs=0)


@reported("several teams' pretrained networks without strong augmentation; the ladder's had 68", hidden="46-68")
def fine_tuned() -> Recipe:
    """Everything unfrozen, without augmentation. 10 minutes."""
    return PLAIN


@reported(LADDER, hidden="74")
def flips_shifts() -> Recipe:
    """Everything unfrozen; flips, turns, rotations and shifts. 10 minutes."""
    return replace(PLAIN, policy="flips_shifts")


@reported(LADDER, hidden="87")
def randaugment() -> Recipe:
    """Everything unfrozen; flips, turns and RandAugment(2, 0.3) with the paper's strengths. Half an hour."""
    return replace(PLAIN, policy="randaugment", epochs=6)


@reported(LADDER, hidden="90")
def randaugment_cutout() -> Recipe:
    """`randaugment` with less dropout, and Cutout; how much of each the team does not say. Half an hour."""
    return replace(randaugment(), policy="randaugment_cutout", dropout=0.1)


# --- LionIA ----------------------------------------------------------------------------------------------------------

SCRATCH = Recipe(
    weights="none", head_epochs=0, epochs=30, batch_size=64, optimizer="adam", learning_rate=1e-3, schedule="constant",
    weight_decay=0.0, label_smoothing=0.0, average_epochs=0.0, patience=5,
)  # fmt: skip
PRETRAINED = replace(SCRATCH, weights="imagenet", head_epochs=1, batch_size=32, learning_rate=1e-4)
LIONIA = replace(PRETRAINED, policy="randaugment_keras_cv", optimizer="lion")


@reported(L, local="96.3", hidden="28")
def lionia_basic_cnn() -> Recipe:
    """A basic CNN from scratch, without augmentation. 5 minutes."""
    return replace(SCRATCH, network="BasicCNN")


@reported(L, local="93.0", hidden="38")
def lionia_convnext_base() -> Recipe:
    """ConvNeXtBase with a dense layer added behind it; the layer's width and the augmentation are not known. GPU."""
    return replace(PRETRAINED, network="ConvNeXtBase", policy="shifts")


@reported(L, local="98.1", hidden="77")
def lionia_resnet50v2() -> Recipe:
    """ResNet50V2 with class weights; the augmentation is not known. GPU."""
    return replace(PRETRAINED, network="ResNet50V2", policy="shifts", class_weights=True)


@reported(L, local="98.0", hidden="87")
def lionia_efficientnetv2b0() -> Recipe:
    """LionIA's best: EfficientNetV2B0, KerasCV's RandAugment(2, 0.3), Lion. 3 minutes an epoch."""
    return LIONIA


@reported("LionIA's report, the comparison of optimizers")
def lionia_adam() -> Recipe:
    """`lionia_efficientnetv2b0` with Adam, and nothing else changed. 3 minutes an epoch."""
    return replace(LIONIA, optimizer="adam")


@reported("LionIA's report, class imbalance")
def lionia_oversample() -> Recipe:
    """`lionia_efficientnetv2b0` on as many cells of every class, by repetition. 5 minutes an epoch."""
    return replace(LIONIA, oversample=True)


@reported("LionIA's report, preprocessing: the bilateral filter")
def lionia_bilateral() -> Recipe:
    """`lionia_efficientnetv2b0` behind a bilateral filter. 3 minutes an epoch."""
    return replace(LIONIA, enhance=("bilateral",))


@reported("LionIA's report, preprocessing: I = S(C(L(I)))")
def lionia_enhanced() -> Recipe:
    """`lionia_efficientnetv2b0` behind correction of the light, CLAHE and segmentation. 3 minutes an epoch."""
    return replace(LIONIA, enhance=("illumination", "clahe", "segment"))


@reported("LionIA's report, augmentation: CutMix")
def lionia_cutmix() -> Recipe:
    """`lionia_efficientnetv2b0` with CutMix; its share of the images, half of them here, is not known."""
    return replace(LIONIA, cutmix=0.5)


# --- Spritzers: in the order of their steps --------------------------------------------------------------------------

SPRITZERS = replace(PRETRAINED, policy="shifts")
B4 = replace(SPRITZERS, network="EfficientNetB4", frozen=124, accumulate=4)  # at 380 pixels 32 at once would take 22 GB


@reported(S)
def spritzers_linear() -> Recipe:
    """The start: a linear classifier of the pixels. A minute."""
    return replace(SCRATCH, network="Linear", dropout=0.0)


@reported(S, hidden="25")
def spritzers_simple_cnn() -> Recipe:
    """Four convolutions from scratch. 5 minutes."""
    return replace(SCRATCH, network="SimpleCNN")


@reported(S, local="95-97", hidden="45")
def spritzers_vgg() -> Recipe:
    """VGG with half the filters and smaller dense layers, from scratch. 4 minutes an epoch."""
    return replace(SCRATCH, network="HalfVGG", policy="shifts", learning_rate=1e-4)


@reported(S, local="95-97", hidden="45")
def spritzers_mobilenetv3small() -> Recipe:
    """MobileNetV3Small, rotations and translations. 2 minutes an epoch.

    Where its ImageNet weights are not at hand: `--weights none`, which trains all of it, `--set learning_rate=1e-3`.
    """
    return replace(SPRITZERS, network="MobileNetV3Small")


@reported("Spritzers' report, table 1")
def spritzers_resnet101() -> Recipe:
    """ResNet101, rotations and translations. GPU."""
    return replace(SPRITZERS, network="ResNet101")


@reported("Spritzers' report, table 1")
def spritzers_densenet169() -> Recipe:
    """DenseNet169, rotations and translations. GPU."""
    return replace(SPRITZERS, network="DenseNet169")


@reported(S, hidden="65")
def spritzers_efficientnetb4() -> Recipe:
    """EfficientNetB4, its first 124 layers frozen, rotations and translations. GPU."""
    return B4


@reported(S)
def spritzers_augmix() -> Recipe:
    """`spritzers_efficientnetb4` with KerasCV's AugMix at severity 0.2 in place of both. GPU."""
    return replace(B4, policy="augmix_keras_cv")


@reported(S, local="99.33", hidden="86")
def spritzers_randmix() -> Recipe:
    """`spritzers_efficientnetb4` with KerasCV's RandAugment(2, 0.3), and MixUp or CutMix for each image. GPU."""
    return replace(B4, policy="randaugment_keras_cv", mixup=0.5, cutmix=0.5)


@reported(S, hidden="86")
def spritzers_oversample() -> Recipe:
    """`spritzers_randmix` with oversampling in place of RandMix. GPU."""
    return replace(B4, policy="randaugment_keras_cv", oversample=True)


@reported(S, hidden="92")
def spritzers_lion() -> Recipe:
    """The final system: AugMix and RandAugment, the deeper convolutions unfrozen, Lion at a constant 1e-5. GPU.

    The first 100 layers stay frozen, and behind them all but Conv2D and DepthwiseConv2D. How long the phase before,
    with the whole backbone frozen, took is not known.
    """
    return replace(
        B4, policy="augmix_randaugment_keras_cv", frozen=100, only=("Conv2D", "DepthwiseConv2D"), head_epochs=5,
        optimizer="lion", learning_rate=1e-5, dropout=0.3,
    )  # fmt: skip


# --- future work: what it names, one change each of LionIA's best system, or a network -------------------------------

FUTURE = "future work in the reports"
TRANSFORMER = Recipe(
    network="ViT", weights="none", policy="ours", mixup=0.15, cutmix=0.25, head_epochs=0, epochs=60, batch_size=64,
    warmup_epochs=5.0, dropout=0.1,
)  # fmt: skip


@reported(FUTURE)
def vit() -> Recipe:
    """A small vision transformer from scratch, with the augmentation of `ours`. 2 minutes an epoch."""
    return TRANSFORMER


@reported(FUTURE)
def hybrid() -> Recipe:
    """`vit` behind a convolutional stem. 2 minutes an epoch."""
    return replace(TRANSFORMER, network="Hybrid")


@reported(FUTURE)
def autoaugment() -> Recipe:
    """AutoAugment, with the policy that its paper found on ImageNet. 3 minutes an epoch."""
    return replace(LIONIA, policy="autoaugment")


@reported(FUTURE)
def higher_resolution() -> Recipe:
    """224 pixels, for which EfficientNetV2B0 was made; the cells themselves have no more than 96. GPU."""
    return replace(LIONIA, sizes=((0, 224),))


@reported(FUTURE)
def class_augmentation() -> Recipe:
    """Cutout as well for the four classes with the fewest cells: basophil, erythroblast, lymphocyte, monocyte."""
    return replace(LIONIA, class_policies=tuple((label, "randaugment_cutout_keras_cv") for label in (0, 2, 4, 5)))


@reported(FUTURE)
def cell_segmentation() -> Recipe:
    """The cell cut out, the background in one colour (training/enhance.py), in training and when graded."""
    return replace(LIONIA, enhance=("segment",))
