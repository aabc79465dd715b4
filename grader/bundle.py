"""Packs a competition for Codabench: the same programs that the local worker runs, pages, cells to score on."""

from __future__ import annotations

import datetime
import io
import zipfile
from pathlib import Path

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
HARDER = """They are harder than the ones you train on: most have several changes of light, colour, focus, position, \
noise at once."""


def pack(contents: dict[str, bytes]) -> bytes:
    """A reproducible zip: its bytes depend on names and contents only. Sorted, with fixed time and mode, uncompressed.

    Uncompressed, because the output of Deflate differs between versions of zlib, and weights hardly shrink.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as file:
        for name in sorted(contents):
            info = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            info.create_system, info.external_attr = 3, 0o100644 << 16  # Unix, a plain file, rw-r--r--
            file.writestr(info, contents[name])
    return buffer.getvalue()


def bundle(competition: dict, cells: list[Cells], harder: bool = False) -> bytes:
    """The zip for Codabench.

    competition: as `competition.complete` gives it. cells: of each task; with two, the second is the last phase's.
    harder: whether the images were corrupted, so that the page on the data says so.
    """
    import yaml

    contents = {}
    for program in ("ingestion_program", "scoring_program"):
        add(contents, program, HERE / program)
    tasks = [add_task(contents, index, part) for index, part in enumerate(cells)]
    for key in ("starting_kit", "public_data"):
        if key in competition:
            add(contents, key, competition[key])
    made = {key: value for key, value in competition.items() if key not in OURS}
    words = placeholders(competition, cells[0], harder)
    made["image"] = add(contents, "images", competition["image"])
    made["terms"] = add_page(contents, competition["terms"], words)
    made["pages"] = [page | {"file": add_page(contents, page["file"], words)} for page in competition["pages"]]
    made["tasks"] = tasks
    made["phases"] = [
        phase
        | {"index": index, "tasks": [len(tasks) - 1 if index and index == len(made["phases"]) - 1 else 0]}
        | {key: f"{key}/" for key in ("starting_kit", "public_data") if key in competition}
        for index, phase in enumerate(made["phases"])
    ]
    contents["competition.yaml"] = yaml.safe_dump(made, sort_keys=False, allow_unicode=True, width=1000).encode()
    return pack(contents)


def add(contents: dict[str, bytes], folder: str, source: Path) -> str:
    """Add a file, or all files of a folder except caches and hidden ones, to `folder`; returns the path in the zip."""
    if source.is_file():
        contents[f"{folder}/{source.name}"] = source.read_bytes()
        return f"{folder}/{source.name}"
    for path in sorted(source.rglob("*")):
        parts = path.relative_to(source).parts
        if path.is_file() and "__pycache__" not in parts and not any(part.startswith(".") for part in parts):
            contents["/".join((folder, *parts))] = path.read_bytes()
    return f"{folder}/"


def add_page(contents: dict[str, bytes], source: Path, words: dict[str, str]) -> str:
    """Add a page, its {{placeholders}} filled in; returns its name in the bundle."""
    text = source.read_text(encoding="utf-8")
    for key, value in words.items():
        text = text.replace("{{" + key + "}}", value)
    name = f"pages/{source.name}"
    if contents.setdefault(name, text.encode()) != text.encode() or not text.strip():
        raise ValueError(f"{source} is empty, or another page has its name: rename it")
    return name


def add_task(contents: dict[str, bytes], index: int, cells: Cells) -> dict:
    """Add the cells of a task; returns its entry in competition.yaml."""
    import numpy as np

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
    limits = dict.fromkeys(phase["execution_time_limit"] for phase in competition["phases"])
    return {
        "title": competition["title"],
        "description": competition["description"],
        "data": competition["data"],
        "docker_image": f"`{competition['docker_image']}`{environment_of(competition['docker_image'])}",
        "classes": "\n".join(f"| {label} | {name} |" for label, name in enumerate(cells.classes)),
        "shape": ", ".join(map(str, cells.images.shape[1:])),
        "size": " x ".join(map(str, cells.images.shape[1:3])),
        "last": str(len(cells.classes) - 1),
        "time_limit": " or ".join(map(str, limits)),
        "hidden": HARDER if harder else "",
    }


def environment_of(image: str) -> str:
    """' (Python ..., TensorFlow ...)' if the versions in this Docker image are known, else ''."""
    known = environment.GRADER_VERSIONS
    return f" ({environment.phrase(known)})" if image == f"tensorflow/tensorflow:{known['tensorflow']}" else ""


def warnings(competition: dict, cells: list[Cells]) -> list[str]:
    """Reasons why a competition is unfair or closed. cells: of each task, not corrupted."""
    import numpy as np

    found = []
    groups = {"--heldout": cells[:1], "--final": cells[1:], "--heldout and --final": cells if len(cells) > 1 else []}
    for name, group in groups.items():
        counts = sum(np.bincount(part.labels, minlength=len(part.classes)) for part in group)
        found += [f"{name}: as many cells of each class as {split}, whose labels are public: whoever finds the "
                  "pictures again knows the answers. Use cells that were never published"
                  for split, public in PUBLIC.items() if np.array_equal(counts, public)]  # fmt: skip
    hidden = [pictures(part.images) for part in cells]
    shared = {"cells are in both --heldout and --final": set.intersection(*hidden) if len(cells) > 1 else set(),
              "cells to score on are in public_data": set.union(*hidden) & public_pictures(competition)}  # fmt: skip
    found += [f"{len(same)} {what}: leave them out of one" for what, same in shared.items() if same]
    if len(competition["phases"]) > 1 and len(cells) == 1:
        found.append("all phases are scored on the same cells, which participants come to know: "
                     "give the last phase its own, --final NPZ")  # fmt: skip
    if competition["phases"][-1].get("end", "9") < datetime.datetime.now(datetime.timezone.utc).strftime(TIME):
        found.append("the last phase has ended, so nobody can submit: change its dates")
    return found


def pictures(images) -> set[int]:
    """Hashes of the images."""
    return {hash(image.tobytes()) for image in images}


def public_pictures(competition: dict) -> set[int]:
    """`pictures` of the .npz files that participants get."""
    import numpy as np

    found, path = set(), competition.get("public_data")
    for source in [] if path is None else [path] if path.is_file() else sorted(path.rglob("*.npz")):
        if source.suffix == ".npz":
            with np.load(source) as file:
                found |= set().union(*(pictures(file[name]) for name in file.files if name.endswith("images")))
    return found
