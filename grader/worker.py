"""Runs the competition's two programs on one submission, as Codabench's worker does, without Docker or network.

    run = worker.run_submission(zip_path, images, labels, empty_folder, profile="an2dl", era="2026-05")
    run.status, run.scores, run.prediction.peak_memory

Each job has a new folder, which the sandbox makes its root folder. The program's command, from its metadata.yaml, runs
there without a shell:

    path                     prediction job        scoring job
    /app/program (cwd)       ingestion program     scoring program
    /app/ingested_program    the submission        the submission, since 2026-05
    /app/input_data          images.npy            -
    /app/input/ref, .../res  -                     labels.npy, classes.npy, the prediction job's output
    /app/output              predictions           scores.json, detailed_results.html

Source: codalab/codabench, compute_worker.py.
"""

import contextlib
import json
import math
import os
import re
import stat
import subprocess
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

from grader import competition, sandbox
from grader.competition import columns
from grader.runner import Job, Limits, run_program
from grader.sandbox import copy_files, folder_bytes, unlock

HERE = Path(__file__).resolve().parent
INGESTION, SCORING = HERE / "ingestion_program", HERE / "scoring_program"
PROFILES = ("an2dl", "strict")  # an2dl: the grader changes into the submission's folder; strict: it does not
LOGS = [f"{job}_{part}{stream}" for job in ("prediction", "scoring") for part in ("", "ingestion_")
        for stream in ("stdout", "stderr")]  # fmt: skip


@dataclass(frozen=True)
class Era:
    """How one version of the platform differs from others."""

    statuses: tuple[str, ...]  # of the prediction job, in order
    # Whether the submission is mounted read-only in both jobs and copied over the predictions before scoring. If not,
    # one without a metadata file is copied into the prediction output.
    over_predictions: bool
    failure: str | None  # the site's message if the scoring program exits non-zero; None: that is ignored


BEFORE, SINCE = ("Submitting", "Submitted", "Running", "Preparing"), ("Submitting", "Submitted", "Preparing", "Running")
FAILURE = "Child task failed or non-zero return code"
ERAS = {"2024": Era(BEFORE, False, None), "2026": Era(BEFORE, False, FAILURE), "2026-05": Era(SINCE, True, FAILURE)}
NEWEST = "2026-05"


@dataclass
class Run:
    """What the platform would show (status Finished or Failed, the reason, scores, logs), and the jobs."""

    status: str = ""
    history: list[str] = field(default_factory=list)
    detail: str = ""
    scores: dict[str, float] = field(default_factory=dict)
    logs: dict[str, str] = field(default_factory=lambda: dict.fromkeys(LOGS, ""))
    prediction: Job = field(default_factory=Job)
    scoring: Job = field(default_factory=Job)
    probe: Job = field(default_factory=Job)
    output_bytes: int = 0  # what both jobs leave on the platform, counted against the quota
    predictions: Path | None = None  # where predictions.npy is, if the submission wrote one
    isolation: str = ""
    classes: list[str] = field(default_factory=list)


def isolation(python: str) -> str:
    """A phrase for the report: how the sandbox isolates the submission on this machine."""
    full, reason = sandbox.permitted(python)
    if full:
        space = f"no process space of its own ({reason})" if reason else "process space"
        return f"its own root folder and {space}, no network (Linux namespaces)"
    return f"a plain process, network blocked by patching socket ({reason})"


def read_json(path: Path):
    """Parse an untrusted JSON file; None if it is missing, no regular file, larger than 1 MiB or not JSON."""
    with contextlib.suppress(OSError, ValueError, RecursionError):
        if stat.S_ISREG(os.lstat(path).st_mode) and os.path.getsize(path) <= 1 << 20:
            return json.loads(path.read_text(encoding="utf-8"))


def read_scores(output: Path) -> dict[str, float]:
    """The scores that have a column. Raises ValueError if there are none that can be posted."""
    if not (output / "scores.json").is_file():
        raise ValueError("Could not find scores file, did the scoring program output it?")
    try:
        scores = json.loads((output / "scores.json").read_text(encoding="utf-8"))
        kept = {key: float(scores[key]) for key in columns() if key in scores}
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise ValueError(f"scores.json does not hold numbers by their keys ({error})") from None
    if not kept or not all(map(math.isfinite, kept.values())):
        raise ValueError(f"scores.json has no finite number for a column of the leaderboard ({', '.join(columns())})")
    return kept


def write_metadata(output: Path, prediction: bool, job: Job) -> None:
    """Write the platform's metadata file of a job. Raises ValueError, as the platform fails, if the job wrote one."""
    if os.path.lexists(output / "metadata"):
        raise ValueError("Error, the output directory already contains a metadata file")
    own, ingestion = ("null", job.exit_code) if prediction else (job.exit_code, "null")
    text = f"elapsedTime: {job.seconds}\nexitCode: {own}\n"
    text += f"ingestionElapsedTime: {job.seconds if prediction else 'null'}\ningestionExitCode: {ingestion}\n"
    (output / "metadata").write_text(text)


def stage(root: Path, program: Path, zip_path: Path | None) -> Path:
    """Below `root`, make the folder that becomes /app: a program, an empty output, the submission unless None."""
    copy_files(program, root / "app/program")
    (root / "app/output").mkdir()
    if zip_path:
        with zipfile.ZipFile(zip_path) as file:
            file.extractall(root / "app/ingested_program")
    return root / "app"


def predict(root: Path, zip_path: Path, images, profile: str, era: Era, limits: Limits, program: Path) -> Job:
    """Run the prediction job in the new folder `root`. images: the array to save as images.npy."""
    import numpy as np

    app = stage(root, program, zip_path)
    metadata = app / "program/metadata.yaml"
    metadata.write_text(re.sub(r"--profile \w+", f"--profile {profile}", metadata.read_text()))
    described = any((app / "ingested_program" / name).exists() for name in ("metadata.yaml", "metadata"))
    if not era.over_predictions and not described:
        copy_files(app / "ingested_program", app / "output")
    (app / "input_data").mkdir()
    np.save(app / "input_data/images.npy", images)
    job = run_program(root, False, limits, writable=not era.over_predictions)
    notes = read_json(app / "output/progress.json")
    job.notes = notes if isinstance(notes, dict) else {}
    return job


def probe(root: Path, zip_path: Path, images, mistakes, profile: str, era: str, limits: Limits) -> Job:
    """Run a prediction job with the `label` of probe.py in the new folder `root`. mistakes: the last images it gets."""
    import numpy as np

    program = root.with_name("program")
    copy_files(INGESTION, program)
    source, asks = (program / "ingestion.py").read_text(), (HERE / "probe.py").read_text()
    asks = asks.replace("MISTAKES = 0", f"MISTAKES = {len(mistakes)}")
    (program / "ingestion.py").write_text(source.replace("if __name__ ==", f"{asks}\n\nif __name__ =="))
    return predict(root, zip_path, np.concatenate([images, mistakes]), profile, ERAS[era], limits, program)


def score(root: Path, zip_path: Path, predictions: Path, labels, classes: list[str], era: Era, limits: Limits,
          program: Path) -> Job:  # fmt: skip
    """Run the scoring job in the new folder `root`. predictions: the output folder of the prediction job.

    Raises OSError if the submission has a folder with the name of a file in the predictions, or the other way round.
    """
    import numpy as np

    app = stage(root, program, zip_path if era.over_predictions else None)
    copy_files(predictions, app / "input/res")
    copy_files(app / "ingested_program", app / "input/res")  # if it is there
    (app / "input/ref").mkdir()
    np.save(app / "input/ref/labels.npy", labels)
    np.save(app / "input/ref/classes.npy", np.array(classes))
    return run_program(root, True, limits)


def run_submission(zip_path: Path, images, labels, folder: Path, profile: str = "an2dl", era: str = NEWEST,
                   limits: Limits | None = None, ingestion: Path = INGESTION, scoring: Path = SCORING,
                   classes: list[str] | None = None) -> Run:  # fmt: skip
    """Predict and score one submission, as the platform would.

    images: (n, height, width, 3) uint8. labels: (n,) integers. classes: their names; by default competition.yaml's.
    folder: an existing empty folder for the two jobs, which the caller removes. era: a key of ERAS.
    """
    limits, rules = limits or Limits(), ERAS[era]
    classes = classes or competition.read()["classes"]
    run = Run(history=list(rules.statuses), isolation=isolation(limits.python), classes=classes)
    output, scored = folder / "prediction/app/output", folder / "scoring/app/output"
    run.prediction = predict(folder / "prediction", zip_path, images, profile, rules, limits, ingestion)
    try:
        keep_log(run, "prediction_ingestion", run.prediction, limits)
        write_metadata(output, True, run.prediction)
        run.predictions = output / "predictions.npy"
        run.history += ["Scoring", "Running"]
        run.scoring = score(folder / "scoring", zip_path, output, labels, classes, rules, limits, scoring)
        keep_log(run, "scoring", run.scoring, limits)
        if rules.failure and run.scoring.exit_code != 0:
            raise ValueError(rules.failure)
        run.scores = read_scores(scored)
        write_metadata(scored, False, run.scoring)
        run.status = "Finished"
    except (ValueError, OSError) as error:
        run.status, run.detail = "Failed", str(error)
    run.history.append(run.status)
    run.output_bytes = folder_bytes(output, scored)
    return run


def keep_log(run: Run, name: str, job: Job, limits: Limits) -> None:
    """Store a job's output in the logs. Raises ValueError, with the platform's message, if the job timed out."""
    run.logs[f"{name}_stdout"], run.logs[f"{name}_stderr"] = job.stdout, job.stderr
    if job.stopped == "time":
        line = f"Execution Time Limit exceeded. Limit was {limits.seconds:g} seconds"
        run.logs[f"{name}_stderr"] += f"{line}\n"
        raise ValueError(line)


def save_logs(run: Run, folder: Path) -> None:
    """Write the eight logs as text files, as the platform offers them for download; empty logs, too."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in run.logs.items():
        (folder / f"{name}.txt").write_text(text, encoding="utf-8")


def remove(folder: Path) -> None:
    """Delete a folder that untrusted code has written to, at any depth and with any permissions; follows no links."""
    unlock(folder)
    subprocess.run(["rm", "-rf", folder])
