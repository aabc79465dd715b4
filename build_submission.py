"""Builds submission.zip from model.py and weights/, checks it, then runs and scores it locally as Codabench would.

    python build_submission.py                        build and check the zip, rehearse (run and score) it, report
    python build_submission.py --check ZIP            check any zip without running it; takes about a second
    python build_submission.py --check ZIP --rehearse check any zip, then run and score it
    python build_submission.py --source FOLDER        build from your own folder with a model.py, or from a training run
    python build_submission.py --bundle OUT.zip       pack a competition for Codabench: see docs/ORGANISERS.md

Accuracy is measured on data/heldout.npz or --heldout NPZ; without either the zip runs on generated images, unscored.
Each finding has a code, explained in grader/CODES.md; docs/CHECKING.md explains the report and the verdicts.
Exit status: 0 not refused, 1 refused or failed, 2 wrong usage.
"""

import argparse
import contextlib
import io
import json
import os
import secrets
import signal
import sys
import zipfile
from collections.abc import Collection, Iterator
from datetime import datetime, timezone
from pathlib import Path

from grader import checks, competition, report, verdict, worker
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
    "with --check alone": JUDGED | {"check"},
    "with --check --rehearse": REHEARSED | {"check", "rehearse", "without_isolation"},
    "with --bundle": {"bundle", "heldout", "final", "corrupt", "seed", "competition"},
}


class Refused(Exception):
    """Nothing can be built; the message says why and what to do."""


def description(metadata: str | None) -> dict[str, bytes]:
    """{"metadata": contents}; {} for None. Until spring 2026 the platform copied zips without it into their results."""
    return {} if metadata is None else {"metadata": f"description: {json.dumps(metadata)}\n".encode()}


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


def collect(folder: Path, written: Collection[Path] = ()) -> tuple[dict[str, bytes], dict[str, str]]:
    """Returns ({name: contents} for the zip, {name: why it is left out}). Raises Refused.

    From a copy of this project it takes model.py and weights/; from a training run's folder the weights, together with
    this project's model.py; from any other folder with a model.py all files that are not `unwanted`. written: resolved
    paths that this command writes, which are left out.
    """
    if (folder / OWN).is_file():
        return project_files(folder, folder / "weights"), {}
    if not (folder / "model.py").is_file():
        if (folder / "manifest.json").is_file():
            return project_files(ROOT, folder), {}
        raise Refused(f"{folder} has no model.py: choose the folder that has it")
    found = [(path.relative_to(folder).as_posix(), path, why) for path, why in gather(folder, written)]
    sizes = {name: path.stat().st_size for name, path, why in found if not why}
    if sum(sizes.values()) > PACKED:
        largest = ", ".join(sorted(sizes, key=sizes.get, reverse=True)[:3])
        raise Refused(f"{folder} has more than {PACKED / 1e6:.0f} MB: remove files that are not needed ({largest})")
    left = {name + "/" * path.is_dir(): why for name, path, why in found if why}
    return {name: read_whole(folder / name) for name in sizes}, left


def read_whole(path: Path) -> bytes:
    """The contents of a file. Raises Refused if it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise Refused(f"{path} cannot be read ({error.strerror}): train first, or restore it") from None


def project_files(project: Path, weights: Path, name: str = "weights") -> dict[str, bytes]:
    """{name: contents} of the project's model.py, of weights, and of the modules that model.py imports for these.

    weights: their folder, which may hold ensemble members. name: of this folder in the zip.
    """
    given = read_whole(weights / "manifest.json")
    contents = {"model.py": read_whole(project / "model.py"), f"{name}/manifest.json": given}
    try:
        manifest = dict(json.loads(given))
        members = manifest.get("members")
        members = [Path(str(member)).name for member in members] if isinstance(members, list) else []
    except (ValueError, TypeError):  # model.py refuses such a manifest, and says why
        manifest, members = {}, []
    for member in members:
        contents |= project_files(project, weights / member, f"{name}/{member}")
    if not members:
        contents[f"{name}/model.weights.h5"] = read_whole(weights / "model.weights.h5")
    modules = ["enhance"] * bool(manifest.get("enhance"))
    modules += ["networks"] * (manifest.get("network", "EfficientNetV2B0") != "EfficientNetV2B0")
    code = [f"training/{module}.py" for module in ("__init__", *modules) if modules]
    return contents | {name: read_whole(project / name) for name in code}


def gather(folder: Path, written: Collection[Path]) -> Iterator[tuple[Path, str | None]]:
    """(path, why it is left out, or None) of each file below a folder, and of each folder that is left out."""
    for path in sorted(folder.iterdir()):
        why = "written by this command" if path.resolve() in written else unwanted(path)
        if why or not path.is_dir():
            yield path, why
        else:
            yield from gather(path, written)


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
    if path.suffix in (".zip", ".npz"):
        with contextlib.suppress(*ZIP_ERRORS), zipfile.ZipFile(path) as file:
            held = {Path(name).name for name in file.namelist()}
            if {"images.npy", "labels.npy"} <= held:
                return "a dataset"
            if path.suffix == ".zip" and "model.py" in held:
                return "a submission"
    return None


def write(path: Path, data: bytes) -> None:
    """Write a file atomically, through a temporary file in the same folder."""
    temporary = path.with_name(f".{os.urandom(8).hex()}.part")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def unwritable(path: Path, is_folder: bool) -> str | None:
    """Why a file, or a folder and files in it, cannot be written or replaced; None if it can."""
    try:
        if not is_folder and path.exists() and not path.is_file():
            return "it is not a regular file"
    except OSError as error:  # such as a name that is too long
        return error.strerror
    folder = path if is_folder else path.parent
    while is_folder and not os.path.lexists(folder):
        folder = folder.parent
    if not folder.is_dir():
        return f"{folder} is not a folder"
    return None if os.access(folder, os.W_OK) else f"{folder} is read-only"


def judge(zip_path: Path, args: argparse.Namespace, console) -> tuple:
    """Check one zip; with --rehearse, and if no error was found, rehearse it. Returns (report, the images or None)."""
    date = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S")
    facts = {"version": report.VERSION, "date": date, "zip": report.describe(zip_path)}
    found = checks.check_within_limits(zip_path, args.profile, args.packages, args.era)
    images = None
    if args.rehearse and POSIX and not refused(found):
        cells = competition.read_cells(args.heldout) if args.heldout else competition.generated_cells(PROBED)
        if may_run(args, console):
            images = cells.images
            found += rehearse(zip_path, cells, args, facts, console)
    facts["findings"] = [f.as_json() for f in found]
    facts["verdict"], facts["words"] = verdict.conclude(found, args.rehearse, "rehearsal" in facts, "scores" in facts)
    return facts, images


def publish(facts: dict, images, args: argparse.Namespace, console) -> int:
    """Print a report; with --rehearse, also write it. Returns 1 if refused, else 0."""
    if args.rehearse:
        write(args.report, f"{json.dumps(facts, indent=1)}\n".encode())
        write(args.html, report.html(facts, images).encode("utf-8", "backslashreplace"))
    report.terminal(facts, console)
    if args.rehearse and facts["verdict"] == "refused" and "rehearsal" not in facts:
        console.print("It was not run, because of these errors.")
    if not args.rehearse and facts["verdict"] != "refused":
        console.print("Add --rehearse to run and score it.")
    if args.rehearse:
        console.print(f"The full report is in {args.html} and {args.report}.", soft_wrap=True)
    if args.rehearse and not POSIX:
        console.print("A rehearsal needs Linux or macOS. On Windows, use WSL.")
    return 1 if facts["verdict"] == "refused" else 0


def build(args: argparse.Namespace, console) -> int:
    """Build, check and rehearse the zip, then report. Writes --out only if the zip is not refused."""
    written = {path.resolve() for path in (args.out, args.report, args.html, args.logs)}
    contents, left = collect(args.source, written)
    contents |= description(args.metadata)
    packed = pack(contents)
    with workplace() as folder:
        candidate = folder / args.out.name
        candidate.write_bytes(packed)
        facts, images = judge(candidate, args, console)
    facts["zip"]["path"] = str(args.out)
    facts |= {"files": {name: len(data) for name, data in sorted(contents.items())}, "left_out": left}
    if facts["verdict"] != "refused":
        write(args.out, packed)
    status = publish(facts, images, args, console)
    console.print(f"{args.out} was not written." if status else f"{args.out} is written.", soft_wrap=True)
    return status


def bundle_competition(args: argparse.Namespace, console) -> int:
    """Write a bundle of --competition and the cells of --heldout and --final, corrupted with --corrupt."""
    from grader import bundle  # imported here: building a zip needs the standard library only

    given = competition.read(args.competition) if args.competition else {}
    cells = [competition.read_cells(path, given.get("classes")) for path in (args.heldout, args.final) if path]
    made = competition.complete(given, cells)
    for warning in bundle.warnings(made, cells):
        console.print(f"warning: {warning}.", soft_wrap=True)
    if args.corrupt:
        from evaluation.corruptions import hide  # imported here: only --corrupt needs it

        seed = secrets.randbits(32) if args.seed is None else args.seed
        console.print(f"--seed {seed}: keep it secret; with it, the hidden images can be made again.", soft_wrap=True)
        with console.status("corrupting the cells"):
            cells = [part._replace(images=hide(part.images, args.corrupt, seed)) for part in cells]
    write(args.bundle, pack(bundle.bundle(made, cells, bool(args.corrupt))))
    console.print(f"{args.bundle} is written. Upload it under Benchmarks > Management > Upload.", soft_wrap=True)
    return 0


class Parser(argparse.ArgumentParser):
    """Prints a usage error in one line."""

    def error(self, message: str):
        self.exit(2, f"{self.prog}: {message} (--help lists the options)\n")


def options() -> Parser:
    form = argparse.RawDescriptionHelpFormatter
    parser = Parser(prog="python build_submission.py", description=__doc__, formatter_class=form)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--check", type=Path, metavar="ZIP", help="check this zip")
    what.add_argument("--bundle", type=Path, metavar="ZIP", help="pack a competition with the held-out cells")
    add = parser.add_argument
    add("--rehearse", action="store_true", help="with --check: also run and score the zip")
    add("--without-isolation", action="store_true", help="run it even without isolation: only if you trust the zip")
    add("--heldout", type=Path, metavar="NPZ", help="cells to score on, or a bundle (data/heldout.npz, if it exists)")
    add("--competition", type=Path, metavar="YAML", help="with --bundle: its settings (grader/competition.yaml)")
    add("--final", type=Path, metavar="NPZ", help="with --bundle: the cells that the last phase is scored on")
    add("--corrupt", type=int, choices=range(1, 6), metavar="1-5", help="with --bundle: corrupt the cells (5: most)")
    add("--seed", type=int, metavar="N", help="with --corrupt: any number; keep it secret (a random one, printed)")
    add("--out", type=Path, default=Path("submission.zip"), metavar="ZIP", help="where to write the zip (%(default)s)")
    add("--report", type=Path, default=Path("report.json"), metavar="JSON", help="the report as data (%(default)s)")
    add("--html", type=Path, default=Path("report.html"), metavar="HTML", help="the report as a page (%(default)s)")
    add("--logs", type=Path, default=Path("runs/rehearsal"), metavar="DIR", help="folder for the logs (%(default)s)")
    add("--source", type=Path, default=ROOT, metavar="DIR", help="folder with a model.py, or of a run (this one)")
    add("--metadata", metavar="TEXT", help="a description for the zip; older platforms copy a zip that has none")
    add("--packages", default="", metavar="A,B", help="modules that the grader has besides those of its image")
    add("--python", default=sys.executable, metavar="PATH", help="interpreter for the rehearsal (this one)")
    add("--profile", choices=worker.PROFILES, default="an2dl",
        help="the grader changes into the submission's folder (an2dl, the default) or does not (strict)")  # fmt: skip
    add("--era", choices=worker.ERAS, default=worker.NEWEST, help="the platform's rules at that time (%(default)s)")
    add("--time-limit", type=float, default=600, metavar="S", help="seconds for each job (%(default)s)")
    add("--memory-limit", type=int, metavar="MB", help="memory for each job (nine tenths of what this machine has)")
    add("--forecast", type=int, default=FORECAST, metavar="N", help="number of images to forecast for (%(default)s)")
    return parser


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Parse and check the options. Wrong usage prints one line and exits with status 2.

    `packages` becomes a tuple, and `rehearse` true without --check.
    """
    parser = options()
    args = parser.parse_args(argv)
    mode = "with --bundle" if args.bundle else "building"
    if args.check:
        mode = "with --check --rehearse" if args.rehearse else "with --check alone"
    given = {name for name, value in vars(args).items() if value != parser.get_default(name)}
    if idle := sorted(given - EFFECTIVE[mode]):
        shown = ", ".join("--" + name.replace("_", "-") for name in idle)
        if mode == "building":
            mode = "without --bundle" if set(idle) <= EFFECTIVE["with --bundle"] else "without --check"
        parser.error(f"{shown} would have no effect {mode}")
    if args.heldout is None and (ROOT / "data/heldout.npz").exists():
        args.heldout = ROOT / "data/heldout.npz"
    if args.bundle and not args.heldout:
        parser.error("--bundle needs --heldout NPZ: the cells that submissions are scored on")
    if args.seed is not None and not args.corrupt:
        parser.error("--seed would have no effect without --corrupt")
    if args.time_limit <= 0 or args.forecast <= 0 or (args.memory_limit or 1) <= 0:
        parser.error("--time-limit, --memory-limit and --forecast must be positive")
    inputs = list(filter(None, (args.check, args.heldout, args.final, args.competition)))
    for path in inputs:
        if not path.is_file():
            parser.error(f"{path} is not a file")
    taken = {path.resolve() for path in (*inputs, args.source / "model.py")}
    for name in sorted(EFFECTIVE[mode] & {"bundle", "out", "report", "html", "logs"}):
        path = getattr(args, name)
        why = "it is another input or output" if path.resolve() in taken else unwritable(path, name == "logs")
        if why:
            parser.error(f"{path} cannot be written ({why}): choose another path")
        taken.add(path.resolve())
    if not args.source.is_dir():
        parser.error(f"--source {args.source} is not a folder: choose one with a model.py, or of a training run")
    args.rehearse = not args.check or args.rehearse
    args.packages = tuple(filter(None, map(str.strip, args.packages.split(","))))
    return args


def main(argv: list[str] | None = None) -> int:
    from rich.console import Console

    args, console = parse(argv), Console(highlight=False, markup=False, emoji=False)
    if sys.stdout:  # it may be closed
        sys.stdout.reconfigure(errors="backslashreplace")  # escapes characters that the terminal cannot print
    try:
        if args.check:
            return publish(*judge(args.check, args, console), args, console)
        if args.bundle:
            return bundle_competition(args, console)
        return build(args, console)
    except KeyboardInterrupt:
        console.print("interrupted: no zip and no report was written")
        return 1
    except Refused as error:
        console.print(f"refused: {error}", soft_wrap=True)
        return 1
    except (ImportError, OSError, ValueError, zipfile.BadZipFile) as error:
        hint = ". Run: python -m pip install -r requirements.txt" if isinstance(error, ImportError) else ""
        console.print(f"error: {error}{hint}", soft_wrap=True)
        return 2


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: ends children, removes temporary files
    sys.exit(main())
