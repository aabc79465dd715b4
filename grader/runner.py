"""Runs one program of a job in the sandbox under resource limits and returns what it did.

    job = run_program(root, scoring=False, limits=Limits(seconds=600))

`root` is a folder in which worker.py has prepared app/. Time, memory, disk and the number of processes are checked from
outside the sandbox every TICK seconds. A program that exceeds a limit is killed with all of its processes.
"""

from __future__ import annotations

import collections
import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from grader import sandbox
from grader.environment import lay_out
from grader.sandbox import walk

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
TICK = 0.05  # seconds between two checks of a running program
RESERVE = 0.1  # share of this machine's memory that a submission must leave free


@dataclass
class Limits:
    """Limits of one job. The platform sets the time and the packages; the others protect this machine."""

    seconds: float = 600.0  # the platform's default for a phase
    memory: int | None = None  # bytes of all processes, with shared memory; None: this machine's, less RESERVE
    disk: int = 2 << 30  # bytes written below /app and /tmp together, and in any one file
    processes: int = 2048  # and threads
    log: int = 1 << 20  # bytes kept of each log, half from its beginning and half from its end
    python: str = sys.executable  # the interpreter, whose packages are hidden if the grader lacks them
    packages: tuple[str, ...] = ()  # modules that are not hidden


@dataclass
class Job:
    """What one program did. stopped: the limit that it exceeded (time, memory, disk or processes), or None."""

    exit_code: int | None = None
    seconds: float = 0.0
    peak_memory: int = 0  # bytes
    stopped: str | None = None
    stdout: str = ""
    stderr: str = ""
    changed: list[str] = field(default_factory=list)  # files of the submission or the input that it changed
    notes: dict = field(default_factory=dict)  # progress.json: the stage reached, times, the exception if one ended it


def read_command(program: Path) -> str | None:
    """The command in a program's metadata.yaml, or metadata, read as YAML; None if there is none."""
    import yaml  # imported here: building a zip needs the standard library only

    for name in ("metadata.yaml", "metadata"):
        if (program / name).is_file():
            try:
                content = yaml.safe_load((program / name).read_text(encoding="utf-8-sig", errors="replace"))
            except yaml.YAMLError:
                return None
            return (content.get("command") or None) if isinstance(content, dict) else None
    return None


def substitute(word: str, app: str, scoring: bool) -> str:
    """Replace the legacy placeholders in a word of a command, in the platform's order. app: the path of /app."""
    paths = {"$input": "input" if scoring else "input_data", "$output": "output", "$program": "program",
             "$ingestion_program": "program", "$hidden": "input/ref", "$shared": "shared",
             "$submission_program": "ingested_program", "$tmp": "output",
             "$predictions": "input/res" if scoring else "output"}  # fmt: skip
    for name, path in paths.items():
        word = word.replace(name, f"{app}/{path}")
    return word


def folder_bytes(*folders: Path) -> int:
    """Bytes on disk below folders. Each entry counts as one block at least: many empty files fill a disk, too."""
    total = 0
    for folder in folders:
        for _, entry in walk(folder):
            with contextlib.suppress(OSError):
                total += max(4096, entry.stat(follow_symlinks=False).st_blocks * 512)
    return total


def fingerprint(folder: Path) -> dict[str, tuple]:
    """{path: (mode, size, ctime in ns)} of everything below a folder. A program cannot set the ctime back."""
    infos = ((path, entry.stat(follow_symlinks=False)) for path, entry in walk(folder))
    return {path: (info.st_mode, info.st_size, info.st_ctime_ns) for path, info in infos}


class Tail(threading.Thread):
    """A thread that reads a pipe to its end and keeps the first and the last `limit / 2` bytes."""

    def __init__(self, pipe, limit: int):
        super().__init__(daemon=True)
        self.pipe, self.half, self.total, self.head = pipe, limit // 2, 0, b""
        self.last: collections.deque[bytes] = collections.deque()
        self.start()

    def run(self) -> None:
        held = 0
        while chunk := self.pipe.read1(1 << 16):
            self.total += len(chunk)
            space = self.half - len(self.head)
            self.head += chunk[:space]
            self.last.append(chunk[space:])
            held += len(self.last[-1])
            while held - len(self.last[0]) >= self.half:
                held -= len(self.last.popleft())
        self.pipe.close()

    def text(self) -> str:
        self.join(timeout=2)  # a process that outlived the kill could hold the pipe open
        last = b"".join(self.last)[-self.half :]
        cut = self.total - len(self.head) - len(last)
        middle = f"\n[... {cut:,} bytes not kept ...]\n".encode() if cut else b""
        return (self.head + middle + last).decode("utf-8", "replace")


def run_program(root: Path, scoring: bool, limits: Limits, writable: tuple[str, ...] = ()) -> Job:
    """Run /app/program of the folder `root` in the sandbox.

    writable: folders of /app that the program may write to, besides program and output. Raises ValueError if the
    program has no command.
    """
    writable = ("output", "program", *writable)
    given = [root / "app" / name for name in ("ingested_program", "input_data", "input") if name not in writable]
    specify(root, scoring, limits, writable)
    before = {folder: fingerprint(folder) for folder in given}
    job = watch(root, limits)
    for folder in given:
        after = fingerprint(folder)
        names = {name for name in before[folder] | after if before[folder].get(name) != after.get(name)}
        job.changed += [f"{folder.relative_to(root)}/{name}" for name in sorted(names)]
    return job


def specify(root: Path, scoring: bool, limits: Limits, writable: tuple[str, ...]) -> None:
    """Make the Python environment in `root` and write spec.json, which tells sandbox.py what to run and how."""
    isolated, _ = sandbox.permitted(limits.python)
    app = "/app" if isolated else f"{root}/app"
    command = read_command(root / "app/program")
    if not command:
        raise ValueError("the program's metadata.yaml has no line 'command: ...'; the platform would fail every run")
    words = [substitute(word, app, scoring) for word in shlex.split(command)]
    environment = {"PATH": PATH, "HOME": "/tmp", "LANG": "C.UTF-8", "PYTHONUNBUFFERED": "1"}
    if not isolated:
        environment |= {"HOME": f"{root}/tmp", "TMPDIR": f"{root}/tmp", "PYTHONDONTWRITEBYTECODE": "1"}
    if words[0] in ("python", "python3"):
        words[:1] = ["/env/bin/python"] if isolated else [f"{root}/env/bin/python", sandbox.__file__, "--no-network"]
    visible = lay_out(root / "env", limits.python, limits.packages)
    (root / "tmp").mkdir()
    spec = {"root": str(root), "command": words, "cwd": f"{app}/program", "env": environment, "isolated": isolated,
            "writable": [*(f"/app/{name}" for name in writable), "/tmp"], "keep": "/app/output", "visible": visible,
            "disk": limits.disk}  # fmt: skip
    (root / "spec.json").write_text(json.dumps(spec))


def watch(root: Path, limits: Limits) -> Job:
    """Run the sandbox with spec.json; stop it if it exceeds a limit."""
    job, start, shared = Job(), time.monotonic(), sandbox.memory_facts()[1]
    facts, facts_end = os.pipe()
    process = subprocess.Popen(
        [limits.python, "-I", sandbox.__file__, str(root / "spec.json"), str(facts_end)], pass_fds=[facts_end],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        env={"PATH": PATH},
    )  # fmt: skip
    os.close(facts_end)
    out, err = Tail(process.stdout, limits.log), Tail(process.stderr, limits.log)
    try:
        while process.poll() is None and not job.stopped:
            job.seconds = time.monotonic() - start
            job.stopped = over_limit(process.pid, root, limits, shared, job)
            time.sleep(TICK)
    finally:  # at Ctrl-C, too: leave no process behind
        stop(process)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # what is left if the submission killed its supervisor
        said = json.loads(os.read(facts, 100) or "{}")
        os.close(facts)
    job.peak_memory = max(job.peak_memory, said.get("peak", 0))
    job.stopped = job.stopped or ("disk" if said.get("disk") else None)
    job.seconds = time.monotonic() - start
    sandbox.unlock(root / "app/output")
    job.exit_code = 137 if job.stopped else process.returncode
    job.stdout, job.stderr = out.text(), err.text()
    return job


def over_limit(pid: int, root: Path, limits: Limits, shared: int, job: Job) -> str | None:
    """The limit that the running program exceeds, or None. Updates job.peak_memory.

    shared: bytes of shared memory that this machine used before the start. Any increase counts as the program's, since
    resident bytes do not include it.
    """
    table = sandbox.process_table()
    family = sandbox.descendants(pid, table)
    total, now = sandbox.memory_facts()
    resident = sum(table[p][1] for p in family)
    job.peak_memory = max(job.peak_memory, resident)
    if job.seconds > limits.seconds:
        return "time"
    if resident + max(0, now - shared) > (limits.memory or (1 - RESERVE) * total):
        return "memory"
    if sum(table[p][2] for p in family) > limits.processes:
        return "processes"
    isolated, _ = sandbox.permitted(limits.python)  # the sandbox's tmpfs has the limit's size
    if not isolated and folder_bytes(root / "app/output", root / "tmp") > limits.disk:
        return "disk"
    return None


def stop(process: subprocess.Popen) -> None:
    """Stop the sandbox: SIGTERM makes it kill all its processes; after 5 s, SIGKILL."""
    process.terminate()
    try:
        process.wait(timeout=5)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
