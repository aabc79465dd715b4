"""Make submission.zip from model.py and weights/, and know before the upload what the platform will say.

    python build_submission.py                      check, zip, rehearse, score, report
    python build_submission.py --check OTHER.zip    judge any zip without running it, in a second or two
    python build_submission.py --verify FILE.zip    is this the zip that these sources give?

Needs data/heldout.npz, or --heldout NPZ, to measure an accuracy; without it the contract is rehearsed on generated
images. The rehearsal runs the competition's own programs (grader/) as Codabench's worker does.
Exit status: 0 good, 1 refused or failed, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import sys
import zipfile
from pathlib import Path

from grader import checks, verdict, worker
from grader.codes import Finding, refused

ROOT = Path(__file__).resolve().parent
FILES = ("model.py", "weights/manifest.json", "weights/model.weights.h5")  # the zip holds these and no other
GET_DATA = (
    "No accuracy was measured: there are no held-out cells.\n"
    "Put the challenge's held-out file at data/heldout.npz, or name one with --heldout NPZ: arrays `images`\n"
    "(n, 96, 96, 3) uint8 and `labels` (n,). The README's section on data says where to get it."
)
REPORT_VERSION = 1
PROBED = 128  # images for the probes
FORECAST = 3421  # images in BloodMNIST's test split, the likeliest size of a hidden test
QUOTA = 15e9  # bytes that a Codabench user may store


class Refused(Exception):
    """The submission cannot be built; the message says why and what to do."""


def zip_bytes(folder: Path, metadata: str | None = None) -> bytes:
    """The submission as bytes that depend on its files alone: sorted names, no times, fixed modes, stored.

    Stored, because what Deflate makes of the same bytes differs between zlib versions, and weights hardly shrink.
    `metadata`: a description, for a file that keeps the platform from copying the submission into its result.
    """
    contents = {}
    for name in FILES:
        try:
            contents[name] = (folder / name).read_bytes()
        except OSError as error:
            raise Refused(f"{folder / name} cannot be read ({error.strerror}): train first, or restore it") from None
    if metadata is not None:
        contents["metadata"] = f"description: {json.dumps(metadata)}\n".encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as file:
        for name in sorted(contents):
            info = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            info.create_system, info.external_attr = 3, 0o100644 << 16  # Unix, a plain file, rw-r--r--
            file.writestr(info, contents[name])
    return buffer.getvalue()


def write(path: Path, data: bytes | str) -> None:
    """Write a whole file or none."""
    temporary = path.with_name(path.name + ".part")
    temporary.write_bytes(data if isinstance(data, bytes) else data.encode())
    os.replace(temporary, path)


def read_heldout(path: Path):
    """(images (n, 96, 96, 3) uint8, labels (n,) int64) of an .npz. ValueError says what is wrong with it."""
    import numpy as np

    try:
        with np.load(path) as file:
            images, labels = file["images"], file["labels"].reshape(-1)
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is no file of images and labels ({error})") from None
    if images.shape[1:] != (96, 96, 3) or images.dtype != np.uint8 or len(labels) != len(images) or not len(images):
        raise ValueError(f"{path}: images are {images.shape} {images.dtype}, labels {labels.shape}; "
                         "wanted (n, 96, 96, 3) uint8 and (n,)")  # fmt: skip
    if not np.issubdtype(labels.dtype, np.integer) or labels.min() < 0 or labels.max() > 7:
        raise ValueError(f"{path}: labels must be integers 0 to 7")
    return images, labels.astype(np.int64)


def generated_images(n: int):
    """n (96, 96, 3) uint8 pictures that look a little like cells: a dark disc on a pink, noisy ground."""
    import numpy as np

    rng = np.random.default_rng(0)
    y, x = np.mgrid[:96, :96]
    discs = [np.hypot(y - rng.integers(30, 66), x - rng.integers(30, 66)) < rng.integers(12, 34) for _ in range(n)]
    ground, ink = rng.integers(190, 240, (n, 1, 1, 3)), rng.integers(60, 160, (n, 1, 1, 3))
    images = np.where(np.array(discs)[..., None], ink, ground) + rng.normal(0, 8, (n, 96, 96, 3))
    return images.clip(0, 255).astype(np.uint8)


def rehearse(zip_path: Path, heldout: Path | None, args: argparse.Namespace, report: dict, tick) -> list[Finding]:
    """Run, score and probe a zip that passed the static checks; fill in `report`."""
    import numpy as np

    from grader.scoring_program import scoring

    limits = worker.Limits(args.time_limit, args.memory_limit and args.memory_limit * 10**6)
    if heldout:
        images, labels = read_heldout(heldout)
        digest = hashlib.sha256(heldout.read_bytes()).hexdigest()
        report["heldout"] = {"path": str(heldout), "sha256": digest, "images": len(images)}
    else:
        images = generated_images(PROBED)
        labels = np.zeros(len(images), np.int64)  # only to let the scoring program read the predictions
    sample = np.random.default_rng(0).permutation(len(images))[:PROBED]
    folder = worker.temporary_folder()
    try:
        run = worker.run_submission(zip_path, images, labels, folder, args.profile, args.era, limits, tick=tick)
        found = verdict.judge_run(run, len(images), limits)
        worker.save_logs(run, args.logs)
        jobs = {"prediction": run.prediction, "scoring": run.scoring}
        if not refused(found):
            predicted = verdict.read_labels(run.predictions, len(images))
            probe = folder / "probe"
            probe.mkdir()
            job = jobs["probe"] = worker.predict(
                probe, zip_path, images[sample], args.profile, limits, worker.PROBE, tick
            )
            truth = labels[sample] if heldout else None
            found += verdict.judge_probes(job, probe / "app/output", predicted[sample], truth, limits)
            report["forecast"] = verdict.forecast(job, args.forecast)
            found += verdict.judge_forecast(report["forecast"], limits)
            if heldout:
                report["scores"] = run.scores
                with zipfile.ZipFile(zip_path) as file:
                    manifest = file.read(FILES[1]) if FILES[1] in file.namelist() else None
                found += verdict.judge_accuracy(run.scores["accuracy"], manifest)
                matrix = scoring.confusion(labels, predicted)
                report["confusion"] = matrix.tolist()
                columns = {name: values.tolist() for name, values in scoring.per_class(matrix).items()}
                report["classes"] = [
                    dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)
                ]
    finally:
        worker.remove(folder)
    uploaded = report["zip"]["bytes"] + run.output_bytes
    report["rehearsal"] = {
        "profile": args.profile,
        "era": args.era,
        "isolation": run.isolation,
        "status": run.status,
        "history": run.history,
        "detail": run.detail,
        "time_limit_s": limits.seconds,
        "jobs": {
            name: {
                "exit_code": job.exit_code,
                "seconds": round(job.seconds, 2),
                "peak_memory_mb": round(job.peak_memory / 1e6),
                "stopped_by": job.stopped,
            }
            for name, job in jobs.items()
        },
        "logs": str(args.logs),
    }
    report["quota"] = {
        "bytes_per_upload": uploaded,
        "uploads_that_fit": int(QUOTA // uploaded),
        "quota_bytes": int(QUOTA),
    }
    report["last_log_lines"] = last_lines(run) if refused(found) else []
    return found


def last_lines(run: worker.Run, n: int = 12) -> list[str]:
    """The end of the log that most likely says why a run failed."""
    for log in (run.logs["prediction_ingestion_stderr"], run.logs["scoring_stderr"]):
        if log.strip():
            return log.strip().splitlines()[-n:]
    return []


def describe(path: Path) -> dict:
    data = path.read_bytes()
    return {"path": str(path), "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def verify(path: Path, args: argparse.Namespace) -> list[str]:
    """What distinguishes a zip from the one that the sources give; empty if nothing does."""
    with zipfile.ZipFile(path) as file:
        held = {info.filename: info for info in file.infolist()}
        note = file.read("metadata").decode() if "metadata" in held else None
    description = json.loads(note.partition(":")[2]) if note else None
    expected = zip_bytes(args.source, description)
    if path.read_bytes() == expected:
        return []
    with zipfile.ZipFile(io.BytesIO(expected)) as file:
        wanted = {info.filename: info for info in file.infolist()}
    differences = [f"{name} is missing" for name in wanted if name not in held]
    differences += [f"{name} does not belong there" for name in held if name not in wanted]
    differences += [
        f"{name} has other contents" for name in wanted if name in held and wanted[name].CRC != held[name].CRC
    ]
    return differences or ["the contents agree, but not how they are packed: it was made by another tool"]


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--check", type=Path, metavar="ZIP", help="judge a zip that someone made, without running it")
    what.add_argument("--verify", type=Path, metavar="ZIP", help="compare a zip with the one these sources give")
    parser.add_argument("--heldout", type=Path, metavar="NPZ", help="cells to score on (data/heldout.npz if there)")
    parser.add_argument("--out", type=Path, default=Path("submission.zip"), help="the zip to write")
    parser.add_argument("--report", type=Path, default=Path("report.json"), help="the report to write")
    parser.add_argument("--source", type=Path, default=ROOT, help="folder with model.py and weights/")
    parser.add_argument("--metadata", metavar="TEXT", help="add a description, so that results hold no copy of the zip")
    parser.add_argument("--profile", choices=worker.PROFILES, default="strict", help="does the grader change into the "
                        "submission (an2dl) or not (strict)")  # fmt: skip
    parser.add_argument("--era", choices=worker.ERAS, default="2026", help="whose exit-code rules")
    parser.add_argument("--time-limit", type=float, default=600, metavar="S", help="seconds for each job")
    parser.add_argument("--memory-limit", type=int, metavar="MB", help="stop the submission above this")
    parser.add_argument("--forecast", type=int, default=FORECAST, metavar="N", help="images to forecast the time for")
    parser.add_argument("--packages", default="", metavar="A,B", help="modules that you know the grader has")
    parser.add_argument("--logs", type=Path, default=Path("runs/rehearsal"), help="folder for the eight logs")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=False)
    packages = tuple(filter(None, args.packages.split(",")))
    try:
        if args.check:
            return check(args, packages, console)
        if args.verify:
            differences = verify(args.verify, args)
            for line in differences:
                console.print(line)
            console.print(
                f"sha256 {describe(args.verify)['sha256']}: " + ("differs" if differences else "as built here")
            )
            return 1 if differences else 0
        return build(args, packages, console)
    except Refused as error:
        console.print(f"refused: {error}")
        return 1
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        console.print(f"error: {error}")
        return 2


def check(args: argparse.Namespace, packages: tuple[str, ...], console) -> int:
    """--check: the static part alone."""
    from grader import report as page

    found = checks.check_zip(args.check, args.profile, packages)
    report = {"version": REPORT_VERSION, "zip": describe(args.check), "findings": [f.as_json() for f in found]}
    report["verdict"] = "refused" if refused(found) else "good"
    page.terminal(report, console)
    return 1 if refused(found) else 0


def build(args: argparse.Namespace, packages: tuple[str, ...], console) -> int:
    """The whole way: zip, check, rehearse, report. submission.zip is written only if it is good."""
    from grader import report as page

    heldout = args.heldout or (ROOT / "data/heldout.npz" if (ROOT / "data/heldout.npz").exists() else None)
    if heldout:
        read_heldout(heldout)
    folder = worker.temporary_folder()
    try:
        candidate = folder / "submission.zip"
        candidate.write_bytes(zip_bytes(args.source, args.metadata))
        report = {"version": REPORT_VERSION, "zip": {**describe(candidate), "path": str(args.out)}}
        found = checks.check_zip(candidate, args.profile, packages)
        if not refused(found):
            with console.status("rehearsing") as status:
                found += rehearse(candidate, heldout, args, report, lambda s: status.update(f"rehearsing, {s:.0f} s"))
        report["findings"] = [f.as_json() for f in found]
        report["verdict"] = "refused" if refused(found) else "good"
        if not refused(found):
            write(args.out, candidate.read_bytes())
    finally:
        worker.remove(folder)
    write(args.report, json.dumps(report, indent=2) + "\n")
    page.terminal(report, console)
    if not heldout:
        console.print(GET_DATA)
    return 1 if refused(found) else 0


if __name__ == "__main__":
    sys.exit(main())
