"""A family of corruptions left out: what a network scores on it when its training never saw the like.

    python -m training.left_out --out runs/left_out --json results/left_out.json        an hour or two on two cores

Six short runs of `ours` that differ in nothing but the policy: one with all of it, and for each family of the report
card one without the operations that resemble it (augment.FAMILIES; without occlusion there is no CutMix either). The
gap is the accuracy on the family that the leaving out costs, cell by cell, with a 95% bootstrap interval over the
cells. A small gap says that the rest of the augmentation carries over to what no list foresaw. Killed, the same command
goes on.
"""

import argparse
import dataclasses
import os
import sys
from pathlib import Path

import numpy as np

from training import augment, corruptions, data, evaluate, networks, train
from training.files import ROOT, commit, write_json
from training.recipes import RECIPES, Recipe


def recipe_without(family: str | None) -> Recipe:
    """The short run of `ours` without a family's operations; None: with all of them."""
    short = dataclasses.replace(RECIPES["ours"], epochs=9, sizes=((0, 64), (6, 96)))
    if family is None:
        return short
    cutmix = 0.0 if family == "occlusion" else short.cutmix
    return dataclasses.replace(short, policy=f"ours_without_{family}", cutmix=cutmix)


def hits(model: object, cells: data.Cells, family: str) -> np.ndarray:
    """Share of the family's corruptions and severities under which each cell is named rightly, (n,)."""
    right = [
        evaluate.predict(model, corruptions.corrupt_batch(cells.images, name, severity))[0] == cells.labels
        for name in corruptions.FAMILIES[family]
        for severity in corruptions.SEVERITIES
    ]
    return np.mean(right, axis=0)


def gap(whole: np.ndarray, left_out: np.ndarray) -> dict:
    """Mean of whole - left_out, both (n,) shares of one set of cells, with its 95% percentile bootstrap interval."""
    found = evaluate.interval(whole - left_out)
    means = {"seen": whole.mean(), "left_out": left_out.mean(), "gap": found.pop("difference"), **found}
    return {name: round(float(value), 5) for name, value in means.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, default=ROOT / "data" / "training_set.npz")
    parser.add_argument("--heldout", type=Path, default=ROOT / "data" / "heldout.npz")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "left_out", help="folder of the six runs")
    parser.add_argument("--json", type=Path, default=ROOT / "results" / "left_out.json")
    parser.add_argument("--limit", type=int, default=4000, help="cells of each run (default 4000)")
    parser.add_argument("--images", type=int, default=400, help="held-out cells of each condition (default 400)")
    args = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        args.json.parent.mkdir(parents=True, exist_ok=True)  # before the long part
        cells, heldout = data.read(args.data), evaluate.read_heldout(args.heldout)
        for family in (None, *augment.FAMILIES):
            name = f"without_{family}" if family else "whole"
            args.out.mkdir(parents=True, exist_ok=True)
            train.train(recipe_without(family), name, cells, args.out / name, limit=args.limit, resume=True)
    except (ValueError, FileExistsError) as error:
        sys.exit(f"error: {error}")
    sample = heldout.take(evaluate.stratified_order(heldout.labels)[: args.images])
    whole = networks.open_run(args.out / "whole")
    families = {}
    for family in augment.FAMILIES:
        seen = hits(whole, sample, family)
        families[family] = gap(seen, hits(networks.open_run(args.out / f"without_{family}"), sample, family))
        print(family, families[family])
    write_json(
        args.json,
        {
            "mean_gap": round(float(np.mean([row["gap"] for row in families.values()])), 5),
            "families": families,
            "cells": {"training": args.limit, "heldout": len(sample)},
            "settings": dataclasses.asdict(recipe_without(None)),
            "data": data.digest(cells),
            "heldout": data.digest(heldout),
            "corruptions": corruptions.fingerprint(),
            "commit": commit(),
        },
    )


if __name__ == "__main__":
    main()
