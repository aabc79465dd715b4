"""Combine several training runs, of any networks, into one submission that averages their probabilities."""

import shutil
from pathlib import Path

import model
from training.files import new_folder, write_json


def combine(runs: list[Path], out: Path) -> None:
    """Write folder `out`: a subfolder with weights and manifest for each run, and a manifest that lists them. Raises
    ValueError for fewer than two runs, a run that is an ensemble or damaged files; FileNotFoundError for missing files;
    FileExistsError if `out` exists."""
    if len(runs) < 2:
        raise ValueError("an ensemble needs at least two runs: name their folders")
    if out.exists():
        raise FileExistsError(f"{out} is already there: choose another --out")
    for run in runs:
        if "members" in model.read_manifest(run):
            raise ValueError(f"{run} is an ensemble: name its members")
        model.Model(run)
    members = {f"member-{place}": run for place, run in enumerate(runs, 1)}
    with new_folder(out) as folder:
        for member, run in members.items():
            (folder / member).mkdir()
            for name in ("model.weights.h5", "manifest.json"):
                shutil.copyfile(run / name, folder / member / name)
        write_json(folder / "manifest.json", {"members": list(members)})
