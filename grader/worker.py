"""Runs the competition's two programs on one submission, as Codabench's worker does, without Docker or network.

    from grader import worker
    run = worker.run_submission(zip_path, images, labels, profile="strict", era="2026")
    run.status, run.scores, run.prediction.peak_memory

Two jobs, each in a fresh temporary folder that is the root folder of what runs in it (see sandbox.py):

    path                     prediction job        scoring job
    /app/program (cwd)       ingestion program     scoring program
    /app/ingested_program    the submission        -
    /app/input_data          images.npy            -
    /app/input/ref, .../res  -                     labels.npy, the prediction job's output
    /app/output              predictions           scores.json, detailed_results.html

What is copied from the platform (codalab/codabench, compute_worker.py): the command from the program's metadata.yaml
without a shell and with the legacy placeholders; an environment of PYTHONUNBUFFERED=1 and little else; a submission
without a metadata file is copied into the output first; the ingestion program's exit code is ignored, the scoring
program's too in 2024 and not in 2026; an alarm per job; the metadata file with exit codes and times; the eight logs;
scores.json, else scores.txt, else no score.
"""

from __future__ import annotations

import json
import math
import os
import re
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from grader import sandbox

HERE = Path(__file__).resolve().parent
INGESTION, SCORING, PROBE = HERE / "ingestion_program", HERE / "scoring_program", HERE / "probe_program"
PROFILES = ("an2dl", "strict")  # an2dl: the grader changes into the submission; strict: it stays where it is
ERAS = ("2024", "2026")  # 2026: a scoring program that exits non-zero fails the submission
LOGS = [f"{job}_{part}{stream}" for job in ("prediction", "scoring") for part in ("", "ingestion_")
        for stream in ("stdout", "stderr")]  # fmt: skip
TICK = 0.1  # seconds between two looks at a running program


@dataclass
class Limits:
    """What one job may use. The platform sets the time; the others keep this machine safe."""

    seconds: float = 600.0  # the platform's default for a phase
    memory: int | None = None  # bytes resident over all processes; None: as much as there is
    disk: int = 4 << 30  # bytes under /app/output and /tmp together, and in any one file
    processes: int = 256
    log: int = 1 << 20  # bytes kept of each log, half from its beginning and half from its end


@dataclass
class Job:
    """What one program did. `stopped` names the limit that ended it: time, memory, disk or processes."""

    exit_code: int | None = None
    seconds: float = 0.0
    peak_memory: int = 0  # bytes
    stopped: str | None = None
    stdout: str = ""
    stderr: str = ""
    changed: list[str] = field(default_factory=list)  # files of the submission or the input that it altered
    notes: dict = field(default_factory=dict)  # progress.json: the stage reached, times, the exception if one ended it


@dataclass
class Run:
    """What the platform would show: status Finished or Failed, why, the scores, the logs; and both jobs."""

    status: str = "Submitted"
    history: list[str] = field(default_factory=list)
    detail: str = ""
    scores: dict[str, float] = field(default_factory=dict)
    logs: dict[str, str] = field(default_factory=lambda: dict.fromkeys(LOGS, ""))
    prediction: Job = field(default_factory=Job)
    scoring: Job = field(default_factory=Job)
    output_bytes: int = 0  # what both jobs leave on the platform, counted against the quota
    predictions: Path | None = None  # predictions.npy, in `folder`
    isolation: str = ""

    def become(self, status: str, detail: str = "") -> None:
        self.status, self.detail = status, detail
        self.history.append(status)


def columns(competition: Path = HERE / "competition.yaml") -> list[str]:
    """Keys of the leaderboard's columns: the only scores that the platform keeps."""
    text = competition.read_text(encoding="utf-8").partition("columns:")[2]
    return re.findall(r"^\s+key: (\S+)", text, re.MULTILINE)


def isolation() -> str:
    """One phrase: how far the rehearsal shuts the submission in on this machine."""
    full, reason = sandbox.permitted()
    if full:
        return "its own root folder and process space, no network (Linux namespaces)"
    return f"a plain process, network blocked by patching socket ({reason})"


def read_command(program: Path) -> str | None:
    """The `command:` of a program's metadata.yaml, or metadata; None where there is none."""
    for name in ("metadata.yaml", "metadata"):
        if (program / name).is_file():
            text = (program / name).read_text(encoding="utf-8", errors="replace")
            found = re.search(r"^command:[ \t]*(.+?)[ \t]*$", text, re.MULTILINE)
            return found[1].strip("'\"") if found else None
    return None


def substitute(command: str, app: str, scoring: bool) -> str:
    """Replace the legacy placeholders in the platform's own order; `app` is where /app is."""
    for name, path in [
        ("$input", "input" if scoring else "input_data"),
        ("$output", "output"),
        ("$program", "program"),
        ("$ingestion_program", "program"),
        ("$hidden", "input/ref"),
        ("$shared", "shared"),
        ("$submission_program", "ingested_program"),
        ("$tmp", "output"),
        ("$predictions", "input/res" if scoring else "output"),
    ]:
        command = command.replace(name, f"{app}/{path}")
    return command


def copy_files(source: Path, target: Path) -> None:
    """Copy folders and regular files; links, pipes and devices stay behind, as a submission may plant them."""
    target.mkdir(parents=True, exist_ok=True)
    for folder, _, names in os.walk(source):
        to = target / os.path.relpath(folder, source)
        to.mkdir(exist_ok=True)
        for name in names:
            path = os.path.join(folder, name)
            if stat.S_ISREG(os.lstat(path).st_mode):
                shutil.copyfile(path, to / name)


def folder_bytes(*folders: Path) -> int:
    total = 0
    for folder in folders:
        for parent, _, names in os.walk(folder):
            for name in names:
                try:
                    total += os.lstat(os.path.join(parent, name)).st_blocks * 512
                except OSError:
                    pass  # it went while we looked
    return total


def fingerprint(folder: Path) -> dict[str, tuple]:
    """{path: (mode, size, modification and change time in ns)}: the change time cannot be set back."""
    found = {}
    for parent, folders, names in os.walk(folder):
        for name in (*folders, *names):
            path = os.path.join(parent, name)
            info = os.lstat(path)
            found[os.path.relpath(path, folder)] = (
                info.st_mode,
                info.st_size if stat.S_ISREG(info.st_mode) else 0,
                info.st_mtime_ns,
                info.st_ctime_ns,
            )
    return found


def remove(folder: Path) -> None:
    for parent, folders, _ in os.walk(folder):
        for name in folders:
            path = os.path.join(parent, name)
            if not os.path.islink(path):
                os.chmod(path, 0o700)
    shutil.rmtree(folder, ignore_errors=True)


class Tail(threading.Thread):
    """Reads a pipe to its end and keeps the first and the last `limit / 2` bytes."""

    def __init__(self, pipe, limit: int):
        super().__init__(daemon=True)
        self.pipe, self.half, self.head, self.last, self.total = pipe, limit // 2, b"", b"", 0
        self.start()

    def run(self) -> None:
        while chunk := self.pipe.read1(1 << 16):
            self.total += len(chunk)
            space = self.half - len(self.head)
            self.head += chunk[:space]
            self.last = (self.last + chunk[space:])[-self.half :]

    def text(self) -> str:
        self.join(timeout=2)  # a process that outlived the kill could hold the pipe open
        cut = self.total - len(self.head) - len(self.last)
        middle = f"\n[... {cut:,} bytes not kept ...]\n".encode() if cut else b""
        return (self.head + middle + self.last).decode("utf-8", "replace")


def run_program(root: Path, scoring: bool, limits: Limits, tick: Callable[[float], None] | None = None) -> Job:
    """Run /app/program of the folder `root` in the sandbox. `tick` is called with the seconds gone, for progress.

    Raises ValueError where the program has no command.
    """
    isolated, _ = sandbox.permitted()
    app = "/app" if isolated else f"{root}/app"
    command = read_command(root / "app/program")
    if not command:
        raise ValueError("the program's metadata.yaml has no line 'command: ...'; the platform would fail every run")
    words = shlex.split(substitute(command, app, scoring))
    if words[0] in ("python", "python3"):
        words[0] = sys.executable
        if not isolated:
            words[1:1] = [sandbox.__file__, "--no-network"]
    temporary = "/tmp" if isolated else f"{root}/tmp"
    (root / "tmp").mkdir()
    environment = {"PATH": os.environ.get("PATH", os.defpath), "HOME": temporary, "LANG": "C.UTF-8",
                   "PYTHONUNBUFFERED": "1"}  # fmt: skip
    if not isolated:
        environment["TMPDIR"] = temporary
    spec = {"root": str(root), "command": words, "cwd": f"{app}/program", "env": environment, "isolated": isolated,
            "writable": ["/app/output", "/tmp"], "file_limit": limits.disk}  # fmt: skip
    (root / "spec.json").write_text(json.dumps(spec))
    given = [root / "app" / name for name in ("ingested_program", "input_data", "input", "program")]
    before = {folder: fingerprint(folder) for folder in given}

    job, start = Job(), time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-I", sandbox.__file__, str(root / "spec.json")],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    out, err = Tail(process.stdout, limits.log), Tail(process.stderr, limits.log)
    try:
        while True:
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)
            if pid:
                break
            job.seconds = time.monotonic() - start
            job.stopped = over_limit(process.pid, root, limits, job)
            if job.stopped:
                pid, status, usage = stop(process)
                break
            if tick:
                tick(job.seconds)
            time.sleep(TICK)
    except BaseException:  # Ctrl-C: nothing that was started may stay
        stop(process)
        raise
    job.seconds = time.monotonic() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    job.exit_code = 137 if job.stopped else process.returncode
    scale = 1 if sys.platform == "darwin" else 1024
    job.peak_memory = max(job.peak_memory, usage.ru_maxrss * scale)
    job.stdout, job.stderr = out.text(), err.text()
    for folder in given:
        after = fingerprint(folder)
        names = {name for name in before[folder] | after if before[folder].get(name) != after.get(name)}
        job.changed += [f"{folder.relative_to(root)}/{name}" for name in sorted(names)]
    return job


def over_limit(pid: int, root: Path, limits: Limits, job: Job) -> str | None:
    """The limit that the running program has passed, if any; notes its memory on the way."""
    table = sandbox.process_table()
    family = sandbox.descendants(pid, table)
    resident = sum(table[p][1] for p in family)
    job.peak_memory = max(job.peak_memory, resident)
    if job.seconds > limits.seconds:
        return "time"
    if limits.memory and resident > limits.memory:
        return "memory"
    if len(family) > limits.processes:
        return "processes"
    if folder_bytes(root / "app/output", root / "tmp") > limits.disk:
        return "disk"
    return None


def stop(process: subprocess.Popen) -> tuple:
    """End the sandbox and all in it: first by its own kill, then by force. Returns what wait4 returns."""
    process.send_signal(signal.SIGTERM)
    for _ in range(50):
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            return pid, status, usage
        time.sleep(TICK)
    os.killpg(process.pid, signal.SIGKILL)
    return os.wait4(process.pid, 0)


def read_json(path: Path, limit: int = 1 << 20):
    """The JSON in a file that foreign code may have written; None where it is not there, not a file or not JSON."""
    try:
        if stat.S_ISREG(os.lstat(path).st_mode) and os.path.getsize(path) <= limit:
            return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        pass
    return None


def read_scores(output: Path) -> dict[str, float]:
    """Scores as the platform reads them: scores.json, else scores.txt. ValueError says why there are none."""
    if (output / "scores.json").is_file():
        scores = read_json(output / "scores.json")
        if not isinstance(scores, dict):
            raise ValueError("scores.json is not a JSON object")
    elif (output / "scores.txt").is_file():
        lines = (output / "scores.txt").read_text(errors="replace").splitlines()
        scores = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines) if value}
    else:
        raise ValueError("Could not find scores file, did the scoring program output it?")  # the platform's own words
    kept = {}
    for key in columns():
        if key in scores:
            try:
                kept[key] = float(scores[key])
            except (TypeError, ValueError):
                raise ValueError(f"the score {key!r} is not a number but {scores[key]!r}") from None
            if not math.isfinite(kept[key]):
                raise ValueError(f"the score {key!r} is {kept[key]}, which cannot be posted")
    if not kept:
        raise ValueError(f"no score has the key of a leaderboard column ({', '.join(columns())})")
    return kept


def write_metadata(output: Path, prediction: bool, job: Job) -> None:
    """The platform's own metadata file of a job. ValueError if the job wrote one itself, as on the platform."""
    if os.path.lexists(output / "metadata"):
        raise ValueError("Error, the output directory already contains a metadata file")
    program, ingestion = (None, job) if prediction else (job, None)
    lines = [
        f"elapsedTime: {job.seconds}",
        f"exitCode: {program.exit_code if program else 'null'}",
        f"ingestionElapsedTime: {ingestion.seconds if ingestion else 'null'}",
        f"ingestionExitCode: {ingestion.exit_code if ingestion else 'null'}",
    ]
    (output / "metadata").write_text("\n".join(lines) + "\n")


def stage(root: Path, program: Path, **folders: Path) -> None:
    """Lay out /app under `root`: the program, an empty output, and `folders` by name ('__' stands for '/')."""
    copy_files(program, root / "app/program")
    (root / "app/output").mkdir(parents=True)
    for name, source in folders.items():
        copy_files(source, root / "app" / name.replace("__", "/"))


def predict(
    root: Path, zip_path: Path, images, profile: str, limits: Limits, program: Path = INGESTION, tick=None
) -> Job:
    """The prediction job in the fresh folder `root`: unzip, lay out, run. `images` is the array for images.npy."""
    import numpy as np

    stage(root, program)
    with zipfile.ZipFile(zip_path) as file:
        file.extractall(root / "app/ingested_program")
    metadata = root / "app/program/metadata.yaml"
    metadata.write_text(re.sub(r"--profile \w+", f"--profile {profile}", metadata.read_text()))
    submission = root / "app/ingested_program"
    if not any((submission / name).exists() for name in ("metadata.yaml", "metadata")):
        copy_files(submission, root / "app/output")  # the platform takes it for results, too
    (root / "app/input_data").mkdir()
    np.save(root / "app/input_data/images.npy", images)
    job = run_program(root, False, limits, tick)
    notes = read_json(root / "app/output/progress.json")
    job.notes = notes if isinstance(notes, dict) else {}
    return job


def run_submission(zip_path: Path, images, labels, folder: Path, profile: str = "strict", era: str = "2026",
                   limits: Limits | None = None, ingestion: Path = INGESTION, scoring: Path = SCORING,
                   tick=None) -> Run:  # fmt: skip
    """Predict and score one submission, as the platform would.

    images: (n, 96, 96, 3) array, labels: (n,) integers 0-7; folder: an existing, empty folder for the two jobs, left
    for the caller to look into and to remove.
    """
    import numpy as np

    limits = limits or Limits()
    run = Run(isolation=isolation())
    first, second = folder / "prediction", folder / "scoring"
    first.mkdir()
    second.mkdir()
    for status in ("Submitting", "Submitted", "Preparing", "Running"):
        run.become(status)
    job = run.prediction = predict(first, zip_path, images, profile, limits, ingestion, tick)
    run.logs["prediction_ingestion_stdout"], run.logs["prediction_ingestion_stderr"] = job.stdout, job.stderr
    if not failed_by_limit(run, job, limits, "prediction_ingestion_stderr"):
        try:
            write_metadata(first / "app/output", True, job)
        except ValueError as error:
            run.become("Failed", str(error))
    run.output_bytes = folder_bytes(first / "app/output")
    if run.status == "Failed":
        return run
    if (first / "app/output/predictions.npy").is_file():
        run.predictions = first / "app/output/predictions.npy"

    run.become("Scoring")
    stage(second, scoring, input__res=first / "app/output")
    (second / "app/input/ref").mkdir()
    (second / "app/shared").mkdir()
    np.save(second / "app/input/ref/labels.npy", np.asarray(labels).reshape(-1).astype(np.int64))
    job = run.scoring = run_program(second, True, limits, tick)
    run.logs["scoring_stdout"], run.logs["scoring_stderr"] = job.stdout, job.stderr
    if failed_by_limit(run, job, limits, "scoring_stderr"):
        return run
    try:
        if era == "2026" and job.exit_code != 0:
            raise ValueError(f"the scoring program exited with {job.exit_code}")
        run.scores = read_scores(second / "app/output")
        write_metadata(second / "app/output", False, job)
        run.output_bytes += folder_bytes(second / "app/output")
        run.become("Finished")
    except ValueError as error:
        run.become("Failed", str(error))
    return run


def failed_by_limit(run: Run, job: Job, limits: Limits, log: str) -> bool:
    """True where the time was over, which the platform fails at once, in its own words."""
    if job.stopped == "time":
        line = f"Execution Time Limit exceeded. Limit was {limits.seconds:g} seconds"
        run.logs[log] += line + "\n"
        run.become("Failed", line)
    return job.stopped == "time"


def save_logs(run: Run, folder: Path) -> None:
    """The eight logs as text files, as the platform offers them for download; empty ones too."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in run.logs.items():
        (folder / f"{name}.txt").write_text(text, encoding="utf-8")


def temporary_folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="rehearsal-"))
