"""A rehearsal: runs, scores and probes one zip in the sandbox as the platform would; collects facts for the report."""

import argparse
import contextlib
import errno
import glob
import os
import platform
import re
import tempfile
import time
import zipfile
from pathlib import Path

from grader import competition, environment, report, sandbox, verdict, worker
from grader.codes import Finding, clean, finding, refused
from grader.weights import MANIFEST

PROBED = 128  # images for the probes
QUOTA = 15e9  # bytes that a Codabench user may store
TENSORFLOWS = re.compile(
    r"[\d-]{10} [\d:.]+: [IWE] |[IWE]0000 |WARNING: All log messages before|To enable the following"
)
POSIX = os.name == "posix"  # a rehearsal needs process groups and limits


def may_run(args: argparse.Namespace, console) -> bool:
    """Whether a rehearsal may start. If there is no sandbox, --check runs a zip only with --without-isolation."""
    if not environment.versions(args.python)["numpy"]:
        raise ValueError(f"{args.python} has no numpy: install requirements.txt for it, or choose another --python")
    isolated, why = sandbox.permitted(args.python)
    runs = isolated or not args.check or args.without_isolation
    if not isolated:
        then = "It runs as an ordinary process." if runs else "It is not run. If you trust it, add --without-isolation."
        console.print(f"This machine cannot isolate a submission ({why}). {then}")
    return runs


def rehearse(zip_path: Path, cells: competition.Cells, args: argparse.Namespace, facts: dict, console) -> list[Finding]:
    """Run, score and probe a zip that passed the static checks. Returns the findings; adds to `facts`, the report."""
    n, versions = len(cells.images), environment.versions(args.python)
    differs = environment.differing(versions)
    facts["environment"] = versions | {"differs": differs, "hidden": environment.hidden(args.python, args.packages)}
    for name in environment.missing(args.python, args.packages):
        console.print(f"--packages: {name} is not installed here, so the submission cannot import it.")
    if args.heldout:
        facts["heldout"] = {**report.describe(args.heldout), "images": n}
    limits = worker.Limits(args.time_limit, args.memory_limit and args.memory_limit * 10**6, python=args.python,
                           packages=args.packages)  # fmt: skip
    with workplace() as folder:
        with stage(console, f"stage 1 of 2: predicting and scoring {n:,} images"):
            run = worker.run_submission(
                zip_path, *cells[:2], folder, args.profile, args.era, limits, classes=cells.classes
            )
        found = verdict.judge_run(run, n, limits)
        worker.save_logs(run, args.logs)
        if run.status == "Finished" and not refused(found):
            with stage(console, f"stage 2 of 2: predicting {min(n, PROBED)} of them again in other ways"):
                found += ask_again(zip_path, cells, run, folder, limits, args, facts)
    facts["rehearsal"] = describe_run(run, refused(found) or run.status == "Failed", args)
    upload = facts["zip"]["bytes"] + run.output_bytes
    facts["quota"] = {"bytes_per_upload": upload, "quota_bytes": int(QUOTA), "uploads_that_fit": int(QUOTA // upload)}
    if differs:
        here, there = (environment.phrase(those, differs) for those in (versions, environment.GRADER_VERSIONS))
        found.append(finding("ENV01", here=here, there=there))
    return found


def ask_again(zip_path, cells, run: worker.Run, folder, limits, args, facts) -> list[Finding]:
    """Probe a submission whose run finished. Returns findings on probes, forecast and accuracy; adds to `facts`."""
    import numpy as np

    from grader.scoring_program.scoring import confusion

    images, labels, classes = cells
    predicted = verdict.read_labels(run.predictions, len(images), len(classes))
    sample = np.random.default_rng(0).permutation(len(images))[:PROBED]
    wrong = np.flatnonzero(predicted != labels) if args.heldout else labels[:0]  # generated images have no true labels
    shown = wrong[: report.SHOWN]
    run.probe = worker.probe(folder / "probe", zip_path, images[sample], images[shown], args.profile, args.era, limits)
    (args.logs / "probe.txt").write_text(run.probe.stdout + run.probe.stderr, encoding="utf-8")
    answers, truth = folder / "probe/app/output", labels[sample] if args.heldout else None
    found = verdict.judge_probes(run.probe, answers, predicted[sample], truth, limits, len(classes))
    expected = verdict.forecast(run.probe, args.forecast, run.prediction, len(images))
    facts["forecast"] = expected and {**expected, "from_images": len(images)}
    forecasts = verdict.judge_forecast(expected, limits, images[0].nbytes)
    if len(sample) < PROBED:  # differences between calls are noise: only a time beyond the limit counts
        forecasts = [f for f in forecasts if f.code == "LIM05" and expected["seconds"] > limits.seconds]
    found += forecasts
    if args.heldout:
        matrix = confusion(labels, predicted, len(classes))
        facts["scores"], facts["confusion"], facts["classes"] = run.scores, matrix.tolist(), classes
        facts["mistakes"] = np.column_stack([wrong, labels[wrong], predicted[wrong]]).tolist()
        facts["confidences"] = verdict.read_confidences(answers / "chances.npy", predicted[shown])
        with zipfile.ZipFile(zip_path) as file:
            manifest = file.read(MANIFEST) if MANIFEST in file.namelist() else None
        found += verdict.judge_accuracy(matrix, classes, manifest)
    return found


def describe_run(run: worker.Run, failed: bool, args: argparse.Namespace) -> dict:
    """The report's entry on a rehearsal. failed: include the end of the log that shows why."""
    jobs = {
        name: {"exit_code": job.exit_code, "seconds": round(job.seconds, 2),
               "peak_memory_mb": round(job.peak_memory / 1e6), "stopped_by": job.stopped}
        for name, job in (("prediction", run.prediction), ("scoring", run.scoring), ("probe", run.probe))
        if job.exit_code is not None
    }  # fmt: skip
    return {
        **{name: getattr(run, name) for name in ("isolation", "status", "history", "detail")},
        "profile": args.profile,
        "era": args.era,
        "time_limit_s": args.time_limit,
        "jobs": jobs,
        "logs": str(args.logs),
        "log_end": telling_lines(run) if failed else [],
    }


def telling_lines(run: worker.Run) -> list[str]:
    """The last 12 lines of the first failed job's log, without TensorFlow's messages if there are others."""
    if run.probe.exit_code is None:
        log = run.logs["scoring_stderr" if run.prediction.exit_code == 0 else "prediction_ingestion_stderr"]
    else:
        log = run.probe.stderr if run.probe.notes.get("errors") or run.probe.notes.get("stage") != "done" else ""
    lines = log.strip().splitlines()
    own = [line for line in lines if not TENSORFLOWS.match(line)]
    return [clean(line) for line in (own or lines)[-12:]]


@contextlib.contextmanager
def workplace():
    """Context manager: a temporary folder. First removes folders of earlier rehearsals whose process was killed."""
    prefix = f"an2dl-judge-{platform.node()}-"
    for old in Path(tempfile.gettempdir()).glob(f"{glob.escape(prefix)}*") if POSIX else ():
        with contextlib.suppress(OSError, ValueError):  # another process may remove it at the same time
            pid = int(old.name.removeprefix(prefix).partition("-")[0])
            if not old.is_symlink() and old.stat().st_uid == os.getuid() and gone(pid):
                worker.remove(old)
    folder = Path(tempfile.mkdtemp(prefix=f"{prefix}{os.getpid()}-"))
    try:
        yield folder
    finally:
        worker.remove(folder)


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError as error:
        return error.errno == errno.ESRCH
    return False


@contextlib.contextmanager
def stage(console, what: str):
    """Context manager: print what is done. On a terminal, show the seconds elapsed until it ends."""
    from rich.live import Live

    start = time.monotonic()
    console.print(what, soft_wrap=True)
    with Live(get_renderable=lambda: f"{time.monotonic() - start:.0f} s", console=console, transient=True):
        yield
