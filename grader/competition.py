"""Reads a competition: competition.yaml, or an organiser's own YAML file in its place, and the cells to score on.

The keys are Codabench's (version 2). These are added, and left out of the bundle's competition.yaml:

    classes       names of the classes, in the order of their labels 0, 1, ...
    data          the page on the data: where it is from, its licence
    starting_kit, public_data    a file or folder that participants get in every phase

Paths are relative to the YAML file. Missing keys are taken from competition.yaml; in phases, only limits are.
"""

import datetime
from pathlib import Path
from typing import NamedTuple

TEMPLATE = Path(__file__).resolve().parent / "competition.yaml"
OURS = {"classes", "data", "starting_kit", "public_data"}
KEYS = OURS | set("""version title description image terms pages phases leaderboards docker_image queue fact_sheet
    reward contact_email registration_auto_approve competition_type forum_enabled auto_run_submissions
    enable_detailed_results show_detailed_results_in_submission_panel show_detailed_results_in_leaderboard
    make_programs_available can_participants_make_submissions_public""".split())  # fmt: skip
LIMITS = ("execution_time_limit", "max_submissions_per_day", "max_submissions", "hide_prediction_output")
PHASE = {*LIMITS, *"name description start end auto_migrate_to_this_phase hide_output hide_score_output".split()}
BOARD = {"title", "key", "submission_rule", "hidden", "columns"}
COLUMN = set("title key index sorting computation computation_indexes precision hidden".split())
TEXTS = {"title", "description", "data", "docker_image"}
TIME = "%Y-%m-%d %H:%M:%S"
PARTS = {"images": "input_data/images", "labels": "reference_data/labels", "classes": "reference_data/classes"}


class Cells(NamedTuple):
    """images (n, height, width, 3) uint8 RGB, labels (n,) int64, and the names of all classes."""

    images: object
    labels: object
    classes: list[str]


def load(path: Path) -> dict:
    """The contents of a YAML file. Raises ValueError if it is none."""
    import yaml  # imported here: building a zip needs the standard library only

    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"{path} cannot be read as YAML ({' '.join(str(error).split())})") from None


def columns() -> list[str]:
    """Keys of the leaderboard's columns: the only scores that the platform keeps."""
    return [column["key"] for board in load(TEMPLATE)["leaderboards"] for column in board["columns"]]


def read(path: Path = TEMPLATE) -> dict:
    """Read a YAML file and make its paths absolute. Raises ValueError if something in it is wrong."""
    given = load(path)
    try:
        check(given, path)
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"{path} does not have the form of {TEMPLATE}: compare the two ({error!r})") from None
    return given


def check(given: dict, path: Path) -> None:
    """Check the contents of the YAML file `path`; make its paths absolute and its times text."""
    check_keys(given, KEYS, tuple(given), path)
    for key in TEXTS & set(given):
        if not isinstance(given[key], str):
            raise ValueError(f"{path}: {key} must be text, in quotes, not {given[key]}")
    for key in {"image", "terms", "starting_kit", "public_data"} & set(given):
        given[key] = find(path, given[key])
    for page in given.get("pages", []):
        check_keys(page, {"title", "file"}, ("title", "file"), path)
        page["file"] = find(path, page["file"])
    for board in given.get("leaderboards", []):
        for column in board["columns"]:
            if column["key"] not in columns():
                raise ValueError(f"{path}: {column['key']} is not a score; the scores are {', '.join(columns())}")
            check_keys(column, COLUMN, ("title", "key", "index"), path)
        check_keys(board, BOARD, ("title", "key", "columns"), path)
    if "classes" in given:
        given["classes"] = check_classes(given["classes"], path)
    if "phases" in given:
        check_phases(given["phases"], path)


def check_keys(given: dict, known: set[str], needed: tuple[str, ...], path: Path) -> None:
    """Raise ValueError if a part of the YAML has an unknown key, or lacks a needed one or its value."""
    if unknown := sorted(map(str, given.keys() - known)):
        raise ValueError(f"{path}: {', '.join(unknown)} is not a known key; known keys are {', '.join(sorted(known))}")
    if missing := [key for key in needed if given.get(key) in (None, [], {}, "")]:
        raise ValueError(f"{path}: give a value for {', '.join(missing)} in {str(given):.100}")


def find(path: Path, name: str) -> Path:
    """The file or folder that the YAML at `path` names."""
    found = path.resolve().parent / str(name)
    if not found.exists():
        raise ValueError(f"{path} names {name}, but {found} does not exist")
    return found


def check_classes(names, path: Path) -> list[str]:
    names = [str(name) for name in names] if isinstance(names, list) else []
    if len(names) < 2 or len(set(names)) < len(names) or not all(name.strip() for name in names):
        raise ValueError(f"{path}: classes must be two or more different names, in the order of their labels")
    return names


def check_phases(phases: list[dict], path: Path) -> None:
    """Check the phases: each has a name and a start, all but the last an end, none overlap. Times become text."""
    free = datetime.datetime.min  # the time from which a phase may start; None after one without an end
    for number, phase in enumerate(phases):
        check_keys(phase, PHASE, (), path)
        shown = f"{path}, phase {phase.get('name', number)}"
        if "name" not in phase or "start" not in phase:
            raise ValueError(f"{shown}: a phase needs name and start")
        times = {key: as_time(phase[key], shown) for key in ("start", "end") if key in phase}
        if free is None:
            raise ValueError(f"{shown}: the phase before it needs an end")
        if times["start"] < free:
            raise ValueError(f"{shown}: it must start after the previous phase has ended, at {free}")
        if times.get("end", datetime.datetime.max) <= times["start"]:
            raise ValueError(f"{shown}: it must end after its own start")
        for key in LIMITS[:3]:
            if key in phase and (type(phase[key]) is not int or phase[key] <= 0):
                raise ValueError(f"{shown}: {key} must be a whole number above 0, not {phase[key]}")
        phase |= {key: time.strftime(TIME) for key, time in times.items()}
        free = times.get("end")


def as_time(value, shown: str) -> datetime.datetime:
    """A datetime, in UTC without a time zone, from what YAML gives: text, a date or a datetime."""
    try:
        time = datetime.datetime.fromisoformat(str(value))
        return time.astimezone(datetime.timezone.utc).replace(tzinfo=None) if time.tzinfo else time
    except ValueError:
        raise ValueError(f'{shown}: write times as "2027-01-31 18:00:00", in UTC, not {value}') from None


def complete(given: dict, cells: list[Cells]) -> dict:
    """Add missing keys from competition.yaml. Its texts are on blood cells, so other classes need their own.

    cells: of each task. Raises ValueError if they and the YAML do not fit together.
    """
    own, classes = read(), cells[0].classes
    if classes != own["classes"]:
        if not {"title", "description"} <= set(given):
            raise ValueError(f"the classes are {', '.join(classes)}: give them a title and a description in a file for "
                             "--competition YAML")  # fmt: skip
        own |= {"data": ""}
        del own["starting_kit"]
    limits = {key: own["phases"][0][key] for key in LIMITS}
    made = own | {"classes": classes} | given
    for part in cells:
        if part.classes != made["classes"] or part.images.shape[1:] != cells[0].images.shape[1:]:
            raise ValueError("--heldout, --final and --competition need the same classes, and pictures of one size")
    if len(cells) > 1 and len(made["phases"]) == 1:
        raise ValueError("--final gives the last of several phases its cells: add a phase in --competition YAML")
    return made | {"phases": [limits | phase for phase in made["phases"]]}


def read_cells(path: Path, classes: list[str] | None = None) -> Cells:
    """Read the cells of an .npz (images, labels and, if other than competition.yaml's, classes) or of a bundle.

    classes: names for a file without any. Raises ValueError if something in it is wrong.
    """
    import numpy as np

    try:
        with np.load(path) as file:
            names = PARTS if PARTS["images"] in file else {name: name for name in PARTS}
            images, labels = np.asarray(file[names["images"]]), np.asarray(file[names["labels"]]).reshape(-1)
            if names["classes"] in file:
                classes = file[names["classes"]].astype(str).tolist()
    except Exception as error:  # numpy raises exceptions of many types on damaged files
        raise ValueError(f"{path} is not a file of images and labels ({error})") from None
    known = check_classes(classes or read()["classes"], path)
    if images.ndim != 4 or images.shape[3] != 3 or images.dtype != np.uint8 or not 0 < len(images) == len(labels):
        raise ValueError(f"{path}: images are {images.shape} {images.dtype}, labels {labels.shape}; they must be "
                         "(n, height, width, 3) uint8 and (n,)")  # fmt: skip
    if not np.issubdtype(labels.dtype, np.integer) or labels.min() < 0 or labels.max() >= len(known):
        raise ValueError(f"{path}: labels must be integers 0 to {len(known) - 1}; for other classes, name them in an "
                         "array `classes`")  # fmt: skip
    return Cells(images, labels.astype(np.int64), known)


def generated_cells(n: int) -> Cells:
    """n generated pictures, 96x96, that resemble stained cells: background, cytoplasm, nucleus. All labels are 0."""
    import cv2
    import numpy as np

    rng = np.random.default_rng(0)
    images = rng.normal((232, 206, 196), 3, (n, 96, 96, 3))
    for image in images:
        centre, radius = rng.integers(43, 54, 2).tolist(), rng.uniform(27, 38)
        for colour, size in (((222, 180, 196), radius), ((125, 75, 140), rng.uniform(0.5, 0.8) * radius)):
            cv2.circle(image, centre, int(size), rng.normal(colour, 6).tolist(), cv2.FILLED)
    return Cells(images.clip(0, 255).astype(np.uint8), np.zeros(n, np.int64), read()["classes"])
