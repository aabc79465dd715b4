"""Makes a competition for Codabench: the same programs that the local worker runs, pages, cells to score on."""

import datetime
import io
import re
from pathlib import Path

import numpy as np
import yaml

from grader import environment
from grader.competition import OURS, TIME, Cells

HERE = Path(__file__).resolve().parent
# Cells of each class in public splits, which anybody can download with their labels.
PUBLIC = {
    "BloodMNIST's training split": (852, 2181, 1085, 2026, 849, 993, 2330, 1643),
    "BloodMNIST's validation split": (122, 312, 155, 290, 122, 143, 333, 235),
    "BloodMNIST's test split": (244, 624, 311, 579, 243, 284, 666, 470),
    "the challenge's training set": (1052, 2381, 1285, 2226, 1049, 1393, 2530, 1843),
}
HARDER = """They are harder than the ones you train on: most have several changes of light, colour, focus, position \
and noise at once."""


def bundle(competition: dict, cells: list[Cells], harder: bool) -> dict[str, bytes]:
    """{name: contents} of the files of a bundle.

    competition: as `competition.complete` gives it. cells: of each task; with two, the second is the last phase's.
    harder: whether the images were corrupted, so that the page on the data says so.
    """
    contents = {}
    for program in ("ingestion_program", "scoring_program"):
        add(contents, program, HERE / program)
    shared = {key: f"{key}/" for key in ("starting_kit", "public_data") if key in competition}
    for key in shared:
        add(contents, key, competition[key])
    made = {key: value for key, value in competition.items() if key not in OURS}
    words = placeholders(competition, cells[0], harder)
    made["image"] = add(contents, "images", competition["image"])
    made["terms"] = add_page(contents, competition["terms"], words)
    made["pages"] = [page | {"file": add_page(contents, page["file"], words)} for page in competition["pages"]]
    made["tasks"] = [add_task(contents, index, part) for index, part in enumerate(cells)]
    made["phases"] = [phase | {"index": index, "tasks": [0]} | shared for index, phase in enumerate(made["phases"])]
    made["phases"][-1]["tasks"] = [len(cells) - 1]
    contents["competition.yaml"] = yaml.safe_dump(made, sort_keys=False, allow_unicode=True, width=1000).encode()
    return contents


def add(contents: dict[str, bytes], folder: str, source: Path) -> str:
    """Add a file, or all files of a folder except caches and hidden ones, to `folder`; returns the path in the zip."""
    if source.is_file():
        contents[f"{folder}/{source.name}"] = source.read_bytes()
        return f"{folder}/{source.name}"
    for path in sorted(source.rglob("*")):
        parts = path.relative_to(source).parts
        if path.is_file() and not any(part.startswith((".", "__pycache__")) for part in parts):
            contents["/".join((folder, *parts))] = path.read_bytes()
    return f"{folder}/"


def add_page(contents: dict[str, bytes], source: Path, words: dict[str, str]) -> str:
    """Add a page, its {{placeholders}} filled in; returns its name in the bundle."""
    text = source.read_text(encoding="utf-8")
    for key, value in words.items():
        text = text.replace("{{" + key + "}}", value)
    if left := re.search(r"\{\{.*?\}\}", text):
        raise ValueError(f"{source}: {left[0]} is not a placeholder; the placeholders are {', '.join(words)}")
    name = f"pages/{source.name}"
    if contents.setdefault(name, text.encode()) != text.encode() or not text.strip():
        raise ValueError(f"{source} is empty, or another page has its name: rename it")
    return name


def add_task(contents: dict[str, bytes], index: int, cells: Cells) -> dict:
    """Add the cells of a task; returns its entry in competition.yaml."""
    name = ("Development", "Final")[index]
    end = f"_{name.lower()}" if index else ""
    arrays = {f"input_data{end}/images": cells.images, f"reference_data{end}/labels": cells.labels,
              f"reference_data{end}/classes": np.array(cells.classes)}  # fmt: skip
    for path, array in arrays.items():
        buffer = io.BytesIO()
        np.save(buffer, array)
        contents[f"{path}.npy"] = buffer.getvalue()
    return {"index": index, "name": name, "description": "One label per hidden image",
            "ingestion_program": "ingestion_program/", "scoring_program": "scoring_program/",
            "input_data": f"input_data{end}/", "reference_data": f"reference_data{end}/"}  # fmt: skip


def placeholders(competition: dict, cells: Cells, harder: bool) -> dict[str, str]:
    """{word: text} for the {{words}} in pages."""
    image, versions = competition["docker_image"], environment.GRADER_VERSIONS
    known = image == f"tensorflow/tensorflow:{versions['tensorflow']}"
    limits = dict.fromkeys(phase["execution_time_limit"] for phase in competition["phases"])
    return {
        "title": competition["title"],
        "description": competition["description"],
        "data": competition["data"],
        "docker_image": f"`{image}` ({environment.phrase(versions)})" if known else f"`{image}`",
        "classes": "\n".join(f"| {label} | {name} |" for label, name in enumerate(cells.classes)),
        "shape": ", ".join(map(str, cells.images.shape[1:])),
        "size": " x ".join(map(str, cells.images.shape[1:3])),
        "last": str(len(cells.classes) - 1),
        "ranking": min(competition["leaderboards"][0]["columns"], key=lambda column: column["index"])["title"],
        "time_limit": " or ".join(map(str, limits)),
        "hidden": HARDER if harder else "",
    }


def warnings(competition: dict, cells: list[Cells]) -> list[str]:
    """Reasons why a competition is unfair or closed. cells: of each task, not corrupted."""
    found = []
    groups = {"--heldout": cells[:1], "--final": cells[1:], "--heldout and --final": cells if len(cells) > 1 else []}
    for name, group in groups.items():
        counts = sum(np.bincount(part.labels, minlength=len(part.classes)) for part in group)
        found += [f"{name} has as many cells of each class as {split}, whose labels are public. Anyone who finds these "
                  "images knows the answers: use cells that were never published"
                  for split, public in PUBLIC.items() if np.array_equal(counts, public)]  # fmt: skip
    hidden = [pictures(part.images) for part in cells]
    shared = {"cells are in both --heldout and --final": set.intersection(*hidden) if len(cells) > 1 else set(),
              "cells to score on are in public_data": set.union(*hidden) & public_pictures(competition)}  # fmt: skip
    found += [f"{len(same)} {what}: remove them from one" for what, same in shared.items() if same]
    if len(competition["phases"]) > 1 and len(cells) == 1:
        found.append("all phases are scored on the same cells, which participants come to know: "
                     "give the last phase cells of its own with --final NPZ")  # fmt: skip
    if competition["phases"][-1].get("end", "9") < datetime.datetime.now(datetime.timezone.utc).strftime(TIME):
        found.append("the last phase has ended, so nobody can submit: change its dates")
    return found


def pictures(images) -> set[int]:
    """Hashes of the images."""
    return {hash(image.tobytes()) for image in images}


def public_pictures(competition: dict) -> set[int]:
    """`pictures` of the .npz files that participants get."""
    source, found = competition.get("public_data"), set()
    for path in [source, *source.rglob("*.npz")] if source else []:
        if path.is_file() and path.suffix == ".npz":
            with np.load(path) as file:
                found |= set().union(*(pictures(file[name]) for name in file.files if name.endswith("images")))
    return found
