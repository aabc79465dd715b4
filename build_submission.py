"""Builds submission.zip from model.py and weights/, checks it, then runs and scores it locally as Codabench would.

    python build_submission.py                        build and check the zip, rehearse (run and score) it, report
    python build_submission.py --check ZIP            check any zip without running it; takes about a second
    python build_submission.py --check ZIP --rehearse check any zip, then run and score it
    python build_submission.py --source FOLDER        build from your own folder with a model.py, or from a training run
    python build_submission.py --verify ZIP           compare a zip, byte for byte, with the one these sources give
    python build_submission.py --bundle OUT.zip       pack a competition for Codabench: see docs/ORGANISERS.md

Accuracy is measured on data/heldout.npz or --heldout NPZ; without either the zip runs on generated images, unscored.
The report says how well the sandbox isolated the submission. Each finding has a code, explained in grader/CODES.md.
Exit status: 0 not refused, 1 refused or failed, 2 wrong usage.

From your own folder, the zip takes all files except hidden ones, caches, virtual environments, notebooks, datasets
(an .npz of images and labels, a folder of over 100 pictures), older submissions and the files this command writes.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import sys
import zipfile
import zlib
from datetime import datetime, timezone
from pathlib import Path

from grader import bundle, checks, competition, report, verdict, worker
from grader.bundle import pack
from grader.codes import refused
from grader.rehearsal import POSIX, PROBED, may_run, rehearse, workplace
from grader.weights import ZIP_ERRORS

ROOT = Path(__file__).resolve().parent
OWN = "build_submission.py"  # a folder that holds it is a copy of this project
PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
FORECAST = 3421  # images in BloodMNIST's test split: the likely size of the hidden test set
PACKED = 2e9  # bytes: largest folder to zip, since the zip is made in memory
JUDGED = {"packages", "profile", "era"}  # options that affect the check of a zip
REHEARSED = JUDGED | {"heldout", "report", "html", "logs", "python", "time_limit", "memory_limit", "forecast"}
EFFECTIVE = {  # {mode: the options that have an effect there}
    "building": REHEARSED | {"source", "out", "metadata"},
    "with --check alone": JUDGED,
    "with --check --rehearse": REHEARSED | {"rehearse", "without_isolation"},
    "with --verify": {"source"},
    "with --bundle": {"heldout", "final", "corrupt", "seed", "competition"},
}


class Refused(Exception):
    """Nothing can be built; the message says why and what to do."""


def description(metadata: str | None) -> dict[str, bytes]:
    """{"metadata": contents}; {} for None. Until spring 2026 the platform copied zips without it into their results."""
    return {} if metadata is None else {"metadata": f"description: {json.dumps(metadata)}\n".encode()}


def collect(folder: Path, written: frozenset[Path] = frozenset()) -> tuple[dict[str, bytes], dict[str, str]]:
    """Returns ({name: contents} for the zip, {name: why it is left out}). Raises Refused.

    From a copy of this project it takes model.py and weights/; from a training run's folder the weights, together with
    this project's model.py; from any other folder with a model.py all files that are not `unwanted`. written: paths
    that this command writes, which are left out.
    """
    if (folder / OWN).is_file():
        return project_files(folder, folder / "weights"), {}
    if not (folder / "model.py").is_file() and (folder / "manifest.json").is_file():
        return project_files(ROOT, folder), {}
    left: dict[str, str] = {}
    return {name: read_whole(folder / name) for name in plain_files(folder, written, left)}, left


def read_whole(path: Path) -> bytes:
    """The contents of a file. Raises Refused if it cannot be read."""
    try:
        if path.exists() and not path.is_file():  # reading a pipe would never end
            raise OSError(0, "no regular file")
        return path.read_bytes()
    except OSError as error:
        raise Refused(f"{path} cannot be read ({error.strerror}): train first, or restore it") from None


def project_files(project: Path, weights: Path) -> dict[str, bytes]:
    """{name: contents} of the project's model.py, of the weights in `weights`, and of the modules that these need."""
    contents, code = {"model.py": read_whole(project / "model.py")}, set()
    add_weights(weights, "weights", contents, code)
    return contents | {name: read_whole(project / name) for name in code}


def add_weights(folder: Path, name: str, contents: dict[str, bytes], code: set[str]) -> None:
    """Add a weights folder, with ensemble members, to `contents`, and the modules model.py imports for it to `code`."""
    contents[f"{name}/manifest.json"] = manifest = read_whole(folder / "manifest.json")
    try:
        manifest = dict(json.loads(manifest))
    except (ValueError, TypeError):  # model.py refuses such a manifest, and says why
        manifest = {}
    members = manifest.get("members") or []
    for member in members if isinstance(members, list) else []:
        add_weights(folder / Path(str(member)).name, f"{name}/{Path(str(member)).name}", contents, code)
    if not members:
        contents[f"{name}/model.weights.h5"] = read_whole(folder / "model.weights.h5")
    if manifest.get("enhance"):
        code |= {"training/__init__.py", "training/enhance.py"}
    if manifest.get("network", "EfficientNetV2B0") != "EfficientNetV2B0":
        code |= {"training/__init__.py", "training/networks.py"}


def plain_files(folder: Path, written: frozenset[Path], left: dict[str, str]) -> list[str]:
    """Names of all files below a folder that go into the zip. Adds {name: reason} of the others to `left`."""
    if not (folder / "model.py").is_file():
        raise Refused(f"{folder} holds no model.py: name the folder that does")
    sizes = {}
    for top, folders, files in os.walk(folder):
        for path in (Path(top, name) for name in sorted([*folders, *files])):
            shown = path.relative_to(folder).as_posix()
            if why := "written by this command" if path.resolve() in written else unwanted(path):
                left[shown + "/" * (path.name in folders)] = why
                folders[:] = [kept for kept in folders if kept != path.name]
            elif path.name in files:
                sizes[shown] = path.stat().st_size
    if sum(sizes.values()) > PACKED:
        largest = ", ".join(sorted(sizes, key=sizes.get, reverse=True)[:3])
        raise Refused(f"{folder} holds more than {PACKED / 1e6:.0f} MB: move what is not needed ({largest})")
    return list(sizes)


def unwanted(path: Path) -> str | None:
    """Why a file or folder is left out of the zip; None if it goes in."""
    if path.name.startswith("."):
        return "hidden"
    if checks.JUNK.search(path.name) or path.name == "node_modules":
        return "a leftover of a tool"
    if path.is_dir():
        if path.is_symlink():
            return "a link to a folder"
        if (path / "pyvenv.cfg").exists() or (path / "conda-meta").exists():
            return "a virtual environment"
        pictures = sum(name.lower().endswith(PICTURES) for name in os.listdir(path))
        return f"a dataset of {pictures} pictures" if pictures > 100 else None
    if not path.is_file():
        return "not a plain file"
    if path.suffix == ".ipynb":
        return "a notebook"
    held = set()
    if path.suffix in (".zip", ".npz"):
        with contextlib.suppress(*ZIP_ERRORS), zipfile.ZipFile(path) as file:
            held = set(file.namelist())
    if {"images.npy", "labels.npy"} <= held:
        return "a dataset"
    return "a submission" if path.suffix == ".zip" and any(Path(name).name == "model.py" for name in held) else None


def write(path: Path, data: bytes) -> None:
    """Write a file atomically, through a temporary file."""
    temporary = beside(path)
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def beside(path: Path) -> Path:
    """A random path in the same folder, for a temporary file."""
    return path.with_name(f".{os.getpid()}-{os.urandom(4).hex()}-{path.name}")


def unwritable(path: Path) -> str | None:
    """Why a file cannot be written or replaced; None if it can."""
    try:
        if not path.resolve().parent.is_dir():
            return f"{path.parent} is no folder: make it first"
        if path.exists() and not path.is_file():
            return "it is no regular file"
        (temporary := beside(path)).touch()
        temporary.unlink()
    except OSError as error:
        return error.strerror
    return None


def inside(folder: Path) -> Path:
    """A path for a test of write access: in `folder`, or in its nearest parent that exists."""
    return next(there for there in (folder.absolute(), *folder.absolute().parents) if os.path.lexists(there)) / "log"


def judge(zip_path: Path, shown_as: Path, run: bool, args: argparse.Namespace, console, **more) -> tuple:
    """Check one zip; if `run` is set and no error was found, rehearse it. Returns (report, the images or None).

    shown_as: the path that the report shows. more: further entries of the report.
    """
    date = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S")
    facts = {
        "version": report.VERSION,
        "date": date,
        "zip": {**report.describe(zip_path), "path": str(shown_as)},
        **more,
    }
    found = checks.check_within_limits(zip_path, args.profile, args.packages, args.era)
    images = None
    if run and POSIX and not refused(found):
        cells = competition.read_cells(args.heldout) if args.heldout else competition.generated_cells(PROBED)
        if may_run(args, console):
            images = cells.images
            found += rehearse(zip_path, cells, args, facts, console)
    facts["findings"] = [f.as_json() for f in found]
    facts["verdict"], facts["words"] = verdict.conclude(found, run, "rehearsal" in facts, "scores" in facts)
    return facts, images


def publish(facts: dict, images, run: bool, args: argparse.Namespace, console) -> int:
    """Print a report; if `run` is set (a rehearsal was asked for), write it, too. Returns 1 if refused, else 0."""
    if run:
        write(args.report, report.as_json(facts).encode())
        write(args.html, report.html(facts, images).encode("utf-8", "backslashreplace"))
    report.terminal(facts, console)
    if run:
        console.print(f"The same to look at: {args.html}; to read by a program: {args.report}.", soft_wrap=True)
    if run and not POSIX:
        console.print("A rehearsal needs Linux or macOS; on Windows, WSL will do.")
    return 1 if facts["verdict"] == "refused" else 0


def build(args: argparse.Namespace, console) -> int:
    """Build, check and rehearse the zip, then report. Writes --out only if the zip is not refused."""
    with workplace() as folder:
        candidate = folder / args.out.name
        contents, left = collect(args.source, written_by(args))
        contents |= description(args.metadata)
        candidate.write_bytes(pack(contents))
        files = {name: len(data) for name, data in sorted(contents.items())}
        facts, images = judge(candidate, args.out, True, args, console, files=files, left_out=left)
        if facts["verdict"] != "refused":
            write(args.out, candidate.read_bytes())
    status = publish(facts, images, True, args, console)
    console.print(f"{args.out} was not written." if status else f"{args.out} is written.", soft_wrap=True)
    return status


def bundle_competition(args: argparse.Namespace, console) -> int:
    """Write a bundle of --competition and the cells of --heldout and --final, corrupted with --corrupt."""
    given = competition.read(args.competition) if args.competition else {}
    cells = [competition.read_cells(path, given.get("classes")) for path in (args.heldout, args.final) if path]
    made = competition.complete(given, cells[0].classes)
    competition.agree(made, cells)
    for warning in bundle.warnings(made, cells):
        console.print(f"warning: {warning}.", soft_wrap=True, markup=False)
    if args.corrupt:
        from evaluation.corruptions import hide  # imported here: only --corrupt needs it

        with console.status("corrupting the cells"):
            cells = [part._replace(images=hide(part.images, args.corrupt, args.seed)) for part in cells]
    write(args.bundle, bundle.bundle(made, cells, bool(args.corrupt)))
    console.print(f"{args.bundle}: upload it under Benchmarks > Management > Upload.", soft_wrap=True, markup=False)
    return 0


def written_by(args: argparse.Namespace) -> frozenset[Path]:
    """The paths that this command writes."""
    return frozenset(path.resolve() for path in (args.out, args.report, args.html, args.logs))


def verify(path: Path, args: argparse.Namespace, console) -> int:
    """Compare a zip with the one built from --source and print the differences. Returns 0 if they are equal, else 1."""
    digest = report.describe(path)["sha256"]
    unsafe = [f for f in checks.check_within_limits(path) if f.code.startswith("ZIP") and f.level == "error"]
    for found in unsafe:
        console.print(f"{found.code}: {found}", soft_wrap=True)
    if unsafe:
        return 1
    with zipfile.ZipFile(path) as file:
        held = {info.filename: info.CRC for info in file.infolist()}
        given, note = file.read("metadata") if "metadata" in held else b"", None
    with contextlib.suppress(ValueError, RecursionError):
        note = json.loads(given.removeprefix(b"description: "))
    contents = collect(args.source, written_by(args))[0] | description(note if isinstance(note, str) else None)
    console.print(f"sha256 {digest}", soft_wrap=True)
    if path.read_bytes() == pack(contents):
        console.print(f"{path} is what {args.source} gives.", soft_wrap=True)
        return 0
    lines = [f"{name} is missing" for name in contents.keys() - held.keys()]
    lines += [f"{name} does not belong there" for name in held.keys() - contents.keys()]
    lines += [
        f"{name} has other contents" for name in contents if held.get(name) not in (None, zlib.crc32(contents[name]))
    ]
    for line in sorted(lines) or ["the contents agree, but not how they are packed: another tool made this zip"]:
        console.print(f"differs: {line}", soft_wrap=True)
    return 1


class Parser(argparse.ArgumentParser):
    """Prints a usage error in one line."""

    def error(self, message: str):
        self.exit(2, f"{self.prog}: {message} (--help lists the options)\n")


def options() -> Parser:
    form = argparse.RawDescriptionHelpFormatter
    parser = Parser(prog="python build_submission.py", description=__doc__, formatter_class=form)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--check", type=Path, metavar="ZIP", help="judge a zip that someone made")
    what.add_argument("--verify", type=Path, metavar="ZIP", help="compare a zip with the one these sources give")
    what.add_argument("--bundle", type=Path, metavar="ZIP", help="write the competition, with the held-out cells")
    add = parser.add_argument
    add("--rehearse", action="store_true", help="with --check: run and score the zip, too")
    add("--without-isolation", action="store_true", help="... even without isolation: only if you trust it")
    add("--heldout", type=Path, metavar="NPZ", help="cells to score on, or a bundle (data/heldout.npz, if there)")
    add("--competition", type=Path, metavar="YAML", help="with --bundle: title, phases, ... (grader/competition.yaml)")
    add("--final", type=Path, metavar="NPZ", help="with --bundle: other cells, to score the last phase on")
    add("--corrupt", type=int, choices=range(1, 6), metavar="1-5", help="with --bundle: make the cells harder")
    add("--seed", type=int, default=0, metavar="N", help="of --corrupt: choose your own and keep it (%(default)s)")
    add("--out", type=Path, default=Path("submission.zip"), metavar="ZIP", help="where the zip goes (%(default)s)")
    add("--report", type=Path, default=Path("report.json"), metavar="JSON", help="... the report (%(default)s)")
    add("--html", type=Path, default=Path("report.html"), metavar="HTML", help="... the same to look at (%(default)s)")
    add("--logs", type=Path, default=Path("runs/rehearsal"), metavar="DIR", help="... the logs (%(default)s)")
    add("--source", type=Path, default=ROOT, metavar="DIR", help="a folder with a model.py (this one)")
    add("--metadata", metavar="TEXT", help="add a description, so that the result holds no copy of the submission")
    add("--packages", default="", metavar="A,B", help="modules that you know the grader has beyond its image's")
    add("--python", default=sys.executable, metavar="PATH", help="rehearse with another interpreter (this one)")
    add("--profile", choices=worker.PROFILES, default="an2dl",
        help="does the grader change into the submission's folder (an2dl, the default) or not (strict)")  # fmt: skip
    add("--era", choices=worker.ERAS, default=worker.NEWEST, help="the platform's rules of that time (%(default)s)")
    add("--time-limit", type=float, default=600, metavar="S", help="seconds for each job (%(default)s)")
    add("--memory-limit", type=int, metavar="MB", help="stop the submission above this (a tenth stays free)")
    add("--forecast", type=int, default=FORECAST, metavar="N", help="images to forecast for (%(default)s)")
    return parser


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Parse and check the options; `packages` becomes a tuple. Wrong usage prints one line and exits with status 2."""
    parser = options()
    args = parser.parse_args(argv)
    refuse_idle(parser, argv, args)
    if args.heldout is None and (ROOT / "data/heldout.npz").exists():
        args.heldout = ROOT / "data/heldout.npz"
    if args.bundle and not args.heldout:
        parser.error("--bundle needs --heldout NPZ: the cells that submissions are scored on")
    if args.seed and not args.corrupt:
        parser.error("--seed would have no effect without --corrupt")
    if args.time_limit <= 0 or args.forecast <= 0 or (args.memory_limit or 1) <= 0:
        parser.error("--time-limit, --memory-limit and --forecast take positive numbers")
    for name in ("bundle", *sorted(EFFECTIVE[mode(args)] & {"out", "report", "html", "logs"})):
        path = getattr(args, name)
        if path and (why := unwritable(inside(path) if name == "logs" else path)):
            parser.error(f"{path} could not be written, {why}: write elsewhere")
    if not args.source.is_dir():
        parser.error(f"--source {args.source} is no folder: name one with a model.py, or a run's")
    args.packages = tuple(filter(None, map(str.strip, args.packages.split(","))))
    return args


def mode(args: argparse.Namespace) -> str:
    """The key of EFFECTIVE that the options select."""
    if args.check:
        return "with --check --rehearse" if args.rehearse else "with --check alone"
    if args.verify:
        return "with --verify"
    return "with --bundle" if args.bundle else "building"


def refuse_idle(parser: Parser, argv: list[str] | None, args: argparse.Namespace) -> None:
    """Exit with an error if an option is given that has no effect in this mode."""
    names = set(vars(args)) - {"check", "verify", "bundle"}
    unset = argparse.Namespace(**dict.fromkeys(names))  # argparse sets no defaults for attributes that exist
    given = {name for name in names if getattr(parser.parse_args(argv, unset), name) is not None}
    if idle := sorted(given - EFFECTIVE[mode(args)]):
        shown = ", ".join("--" + name.replace("_", "-") for name in idle)
        where = mode(args)
        if where == "building":
            where = "without --bundle" if set(idle) <= EFFECTIVE["with --bundle"] else "without --check"
        parser.error(f"{shown} would have no effect {where}")


def main(argv: list[str] | None = None) -> int:
    from rich.console import Console

    args, console = parse(argv), Console(highlight=False, markup=False, emoji=False)
    if sys.stdout:  # characters that the terminal cannot print are escaped
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        if args.check:
            judged = judge(args.check, args.check, args.rehearse, args, console)
            return publish(*judged, args.rehearse, args, console)
        if args.verify:
            return verify(args.verify, args, console)
        if args.bundle:
            return bundle_competition(args, console)
        return build(args, console)
    except KeyboardInterrupt:
        console.print("interrupted: no zip and no report was written")
        return 1
    except Refused as error:
        console.print(f"refused: {error}", soft_wrap=True)
        return 1
    except ImportError as error:
        console.print(f"error: {error}: python -m pip install -r requirements.txt", soft_wrap=True, markup=False)
        return 2
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        missing = isinstance(error, FileNotFoundError) and error.filename
        text = f"{error.filename} is not there: check the path" if missing else str(error)
        console.print(f"error: {text}", soft_wrap=True, markup=False)
        return 2


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: ends children, removes temporary files
    sys.exit(main())
