"""Recipes for the systems of the two team reports, another team's published steps, and the reports' future work.

    python -m training.train --recipe NAME --data data/training_set.npz --out runs/NAME

LionIA and Spritzers are the teams. Each recipe has its source and the local and hidden accuracy in % stated there,
figures that are kept only here. Where a report says nothing, settings are plain (docs/REPORTS.md compares statement by
statement). Times are for two cores; "GPU" marks what is too slow there. `frozen` counts layers as Keras's
`base_model.layers` does, input, rescaling and normalisation included: of EfficientNetB4's 476, the first 124 end with
block3c_activation, the first 100 with block3a_se_expand.
"""

from dataclasses import replace

from training.recipes import RECIPES, REPORTED, Recipe, Reported

L = "LionIA's report, table 2"
S = "Spritzers' report"
LADDER = "another team's published steps, there on EfficientNetB2"
FUTURE = Reported("future work in the reports")

PLAIN = Recipe(epochs=3, learning_rate=3e-4, label_smoothing=0.0, average_epochs=0.2)
RANDAUGMENT = replace(PLAIN, policy="randaugment", epochs=6)
SCRATCH = Recipe(
    weights="none", head_epochs=0, epochs=30, batch_size=64, optimizer="adam", learning_rate=1e-3, schedule="constant",
    weight_decay=0.0, label_smoothing=0.0, average_epochs=0.0, patience=5,
)  # fmt: skip
PRETRAINED = replace(SCRATCH, weights="imagenet", head_epochs=1, batch_size=32, learning_rate=1e-4)
LIONIA = replace(PRETRAINED, policy="randaugment_keras_cv", optimizer="lion")
SPRITZERS = replace(PRETRAINED, policy="shifts")
B4 = replace(SPRITZERS, network="EfficientNetB4", frozen=124, accumulate=4)  # 32 images of 380 pixels would take 22 GB
RANDAUGMENT_B4 = replace(B4, policy="randaugment_keras_cv")
TRANSFORMER = Recipe(
    network="ViT", weights="none", policy="ours", mixup=0.15, cutmix=0.25, head_epochs=0, epochs=60, batch_size=64,
    warmup_epochs=5.0, dropout=0.1,
)  # fmt: skip
CUTOUT = tuple((label, "randaugment_cutout_keras_cv") for label in (0, 2, 4, 5))

SYSTEMS: dict[str, tuple[Recipe, Reported]] = {
    # --- another team's steps: one network, more training and augmentation at each step ---
    "frozen": (replace(PLAIN, head_epochs=3, epochs=0), Reported(LADDER, hidden="63")),  # 3 minutes
    "fine_tuned": (PLAIN, Reported(  # 10 minutes
        "several teams' pretrained networks without strong augmentation; the ladder's had 68", hidden="46-68")),
    "flips_shifts": (replace(PLAIN, policy="flips_shifts"), Reported(LADDER, hidden="74")),  # 10 minutes
    "randaugment": (RANDAUGMENT, Reported(LADDER, hidden="87")),  # with the paper's strengths; half an hour
    "randaugment_cutout": (  # the team states the amounts of neither dropout nor Cutout; half an hour
        replace(RANDAUGMENT, policy="randaugment_cutout", dropout=0.1), Reported(LADDER, hidden="90")),

    # --- LionIA ---
    "lionia_basic_cnn": (replace(SCRATCH, network="BasicCNN"), Reported(L, "96.3", "28")),  # 5 minutes
    # The report states neither the width of the added layer nor the augmentation. GPU.
    "lionia_convnext_base": (replace(PRETRAINED, network="ConvNeXtBase", policy="shifts"), Reported(L, "93.0", "38")),
    # The report does not state the augmentation. GPU.
    "lionia_resnet50v2": (
        replace(PRETRAINED, network="ResNet50V2", policy="shifts", class_weights=True), Reported(L, "98.1", "77")),
    # LionIA's best. 3 minutes an epoch, as those below it.
    "lionia_efficientnetv2b0": (LIONIA, Reported(L, "98.0", "87")),
    "lionia_adam": (replace(LIONIA, optimizer="adam"), Reported("LionIA's report, the comparison of optimizers")),
    # 5 minutes an epoch.
    "lionia_oversample": (replace(LIONIA, oversample=True), Reported("LionIA's report, class imbalance")),
    "lionia_bilateral": (
        replace(LIONIA, enhance=("bilateral",)), Reported("LionIA's report, preprocessing: the bilateral filter")),
    "lionia_enhanced": (
        replace(LIONIA, enhance=("illumination", "clahe", "segment")),
        Reported("LionIA's report, preprocessing: I = S(C(L(I)))")),
    # The report does not state the share of the images.
    "lionia_cutmix": (replace(LIONIA, cutmix=0.5), Reported("LionIA's report, augmentation: CutMix")),

    # --- Spritzers, in the order of the report ---
    "spritzers_linear": (replace(SCRATCH, network="Linear", dropout=0.0), Reported(S)),  # a minute
    "spritzers_simple_cnn": (replace(SCRATCH, network="SimpleCNN"), Reported(S, hidden="25")),  # 5 minutes
    "spritzers_vgg": (  # 4 minutes an epoch
        replace(SCRATCH, network="HalfVGG", policy="shifts", learning_rate=1e-4), Reported(S, "95-97", "45")),
    # 2 minutes an epoch. Without its ImageNet weights, train all layers: `--weights none --set learning_rate=1e-3`.
    "spritzers_mobilenetv3small": (replace(SPRITZERS, network="MobileNetV3Small"), Reported(S, "95-97", "45")),
    # GPU, as all of Spritzers' below.
    "spritzers_resnet101": (replace(SPRITZERS, network="ResNet101"), Reported("Spritzers' report, table 1")),
    "spritzers_densenet169": (replace(SPRITZERS, network="DenseNet169"), Reported("Spritzers' report, table 1")),
    "spritzers_efficientnetb4": (B4, Reported(S, hidden="65")),
    "spritzers_augmix": (replace(B4, policy="augmix_keras_cv"), Reported(S)),
    "spritzers_randmix": (replace(RANDAUGMENT_B4, mixup=0.5, cutmix=0.5), Reported(S, "99.33", "86")),
    "spritzers_oversample": (replace(RANDAUGMENT_B4, oversample=True), Reported(S, hidden="86")),
    # The final system. The report does not state how many epochs came before with a frozen backbone.
    "spritzers_lion": (replace(
        B4, policy="augmix_randaugment_keras_cv", frozen=100, only=("Conv2D", "DepthwiseConv2D"), head_epochs=5,
        optimizer="lion", learning_rate=1e-5, dropout=0.3), Reported(S, hidden="92")),

    # --- the reports' future work: a new network, or one change to LionIA's best system ---
    "vit": (TRANSFORMER, FUTURE),  # 2 minutes an epoch
    "hybrid": (replace(TRANSFORMER, network="Hybrid"), FUTURE),  # 2 minutes an epoch
    "autoaugment": (replace(LIONIA, policy="autoaugment"), FUTURE),  # 3 minutes an epoch
    # EfficientNetV2B0's default input size; the cells have 96. GPU.
    "higher_resolution": (replace(LIONIA, sizes=((0, 224),)), FUTURE),
    # Additional Cutout for the four classes with the fewest cells: basophil, erythroblast, lymphocyte, monocyte.
    "class_augmentation": (replace(LIONIA, class_policies=CUTOUT), FUTURE),
    # The background is replaced by one colour, in training and at inference.
    "cell_segmentation": (replace(LIONIA, enhance=("segment",)), FUTURE),
}  # fmt: skip
for name, (recipe, said) in SYSTEMS.items():
    RECIPES[name], REPORTED[name] = recipe, said
