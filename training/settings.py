"""Settings of a run: checks of a recipe, and the changes that the command line makes to it."""

import ast
import dataclasses

import model
from training import augment, data, enhance, networks, optimization
from training.recipes import Recipe


def check(recipe: Recipe) -> None:
    """Raises ValueError for invalid settings, before any data are read or a network is built."""
    choices = {"network": networks.NETWORKS, "policy": augment.POLICIES, "optimizer": optimization.OPTIMIZERS,
               "schedule": ("cosine", "constant")}  # fmt: skip
    wrong = [f"{knob} is {getattr(recipe, knob)!r}; choose from {', '.join(known)}"
             for knob, known in choices.items() if getattr(recipe, knob) not in known]  # fmt: skip
    for knob, what in (("sizes", "(share of the epochs, pixels)"), ("class_policies", "(label, policy)")):
        if not all(isinstance(pair, tuple | list) and len(pair) == 2 for pair in getattr(recipe, knob)):
            raise ValueError(f"{knob} must hold pairs {what}, such as {knob}=((0, ...),): {getattr(recipe, knob)!r}")
    for label, policy in recipe.class_policies:
        if label not in range(len(data.CLASSES)) or policy not in augment.POLICIES:
            wrong.append(f"class_policies holds ({label!r}, {policy!r}); it takes labels 0-7 and names of policies")
    steps = ", ".join(enhance.STEPS)
    wrong += [f"enhance holds {step!r}; choose from {steps}" for step in recipe.enhance if step not in enhance.STEPS]
    if recipe.batch_size < 1 or recipe.epochs < 0 or recipe.head_epochs < 0 or recipe.epochs + recipe.head_epochs < 1:
        wrong.append("batch_size must be at least 1, and head_epochs and epochs 1 together")
    if recipe.accumulate < 1 or recipe.batch_size % recipe.accumulate:
        wrong.append(f"accumulate must divide batch_size {recipe.batch_size}: {recipe.accumulate}")
    shares = [share for share, _ in recipe.sizes]
    if shares[:1] != [0] or shares != sorted(shares) or shares[-1] >= 1 or min(p for _, p in recipe.sizes) < 32:
        wrong.append(f"sizes must begin at share 0, rise below 1 and have 32 pixels or more: {recipe.sizes}")
    elif recipe.network != "EfficientNetV2B0" and recipe.sizes != ((0, data.IMAGE_SIZE),):
        wrong.append(f"{recipe.network} has a size of its own: sizes must be ((0, {data.IMAGE_SIZE}),)")
    if not 1 <= recipe.views <= len(model.VIEWS):
        wrong.append(f"views must be 1 to {len(model.VIEWS)}: {recipe.views}")
    if not 0 <= recipe.dropout < 1:
        wrong.append(f"dropout must be at least 0 and less than 1: {recipe.dropout}")
    if not 0 < recipe.validation < 1:
        wrong.append(f"validation must be between 0 and 1: {recipe.validation}")
    odds = recipe.mixup, recipe.cutmix
    if min(odds) < 0 or sum(odds) > 1:
        wrong.append(f"the odds of mixup and cutmix must be at least 0 and at most 1 together: {odds}")
    if wrong:
        raise ValueError("this recipe cannot run: " + "; ".join(wrong))


def from_scratch(recipe: Recipe) -> Recipe:
    """The recipe with random initial weights, no head stage and no frozen layers. One that trains only the head still
    does so, on the features of a random backbone."""
    trained = {"head_epochs": 0, "frozen": 0, "only": ()} if recipe.epochs else {}
    return dataclasses.replace(recipe, weights="none", **trained)


def override(recipe: Recipe, assignments: list[str]) -> Recipe:
    """The recipe with `knob=value` changes. Values are Python literals or bare words; ValueError for invalid ones."""
    fields = {field.name for field in dataclasses.fields(Recipe)}
    changes = {}
    for assignment in assignments:
        knob, _, value = assignment.partition("=")
        if knob not in fields or not value:
            raise ValueError(f"--set {assignment}: write knob=value, with a knob of {', '.join(sorted(fields))}")
        if knob == "weights":
            raise ValueError(f"--set {assignment}: write --weights {value}")
        try:
            changes[knob] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            changes[knob] = value
        old = getattr(recipe, knob)
        kinds = int | float if isinstance(old, float) else int | None if knob == "patience" else type(old)
        if not isinstance(changes[knob], kinds):
            raise ValueError(f"--set {assignment}: {knob} is now {old!r}, the new value must be of that kind")
    return dataclasses.replace(recipe, **changes)
