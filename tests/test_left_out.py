"""Runs that leave a family out: what they see, and the gap by hand."""

import json
import sys

import numpy as np
import pytest

from training import augment, corruptions, data, left_out, networks, train
from training.augment import POLICIES


def operations(policy) -> set:
    return {*policy.always, *(o for layer in policy.layers for o in layer.operations)}


@pytest.mark.parametrize("family", sorted(corruptions.FAMILIES))
def test_a_run_sees_nothing_of_its_family_and_all_of_the_rest(family):
    recipe = left_out.recipe_without(family)
    whole, rest = operations(POLICIES["ours"]), operations(POLICIES[recipe.policy])
    assert rest == whole - set(augment.FAMILIES[family]) != whole
    assert [layer.odds for layer in POLICIES[recipe.policy].layers] == [
        layer.odds for layer in POLICIES["ours"].layers if set(layer.operations) - set(augment.FAMILIES[family])
    ]
    assert (recipe.cutmix == 0) == (family == "occlusion")
    train.check(recipe)


def test_every_operation_belongs_to_a_family_but_those_of_no_kind_on_the_card():
    free = operations(POLICIES["ours"]) - {o for part in augment.FAMILIES.values() for o in part}
    assert free == {augment.sharpen, augment.outline, augment.misregister, augment.plane_wave, augment.pattern}


def test_gap_by_hand():
    row = left_out.gap(np.array([1.0, 0.8, 0.6, 1.0]), np.array([0.9, 0.8, 0.2, 0.9]))
    assert (row["seen"], row["left_out"], row["gap"]) == (0.85, 0.7, 0.15)
    assert 0 <= row["low"] < 0.15 < row["high"] <= 0.4


class Grey:
    """Names class 0 where the picture has no colour."""

    def predict(self, X):
        return (np.ptp(X.astype(int), axis=-1).max(axis=(1, 2)) > 0).astype(np.int64)


@pytest.fixture
def cells():
    images = np.random.default_rng(0).integers(0, 256, (3, 96, 96, 3), np.uint8)
    return data.Cells(images, np.array([1, 0, 1]))


def test_hits_are_shares_over_corruptions_and_severities(cells):
    found = left_out.hits(Grey(), cells, "colour")
    count = len(corruptions.FAMILIES["colour"]) * len(corruptions.SEVERITIES)
    assert found.shape == (3,) and np.allclose(found * count, np.rint(found * count))
    assert found[0] > 0.5 > found[1]  # few corruptions take the colour away


def test_the_command_writes_gaps(cells, tmp_path, monkeypatch):
    trained = []
    monkeypatch.setattr(train, "train", lambda recipe, name, *rest, **more: trained.append((name, recipe.policy)))
    monkeypatch.setattr(networks, "open_run", lambda folder: Grey())
    few = {family: dict(list(members.items())[:1]) for family, members in corruptions.FAMILIES.items()}
    monkeypatch.setattr(corruptions, "FAMILIES", few)
    np.savez(tmp_path / "cells.npz", images=cells.images, labels=cells.labels[:, None])
    arguments = ["--data", "cells.npz", "--heldout", "cells.npz", "--out", "runs", "--json", "gaps.json"]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["left_out", *arguments, "--images", "3"])
    left_out.main()
    gaps = json.loads((tmp_path / "gaps.json").read_text())
    assert trained[0] == ("whole", "ours") and len(trained) == 6
    assert gaps["mean_gap"] == 0 and set(gaps["families"]) == set(augment.FAMILIES)
    assert gaps["cells"] == {"training": 4000, "heldout": 3}
