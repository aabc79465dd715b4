"""Runs one program of a job in the sandbox under resource limits and returns what it did.

    job = run_program(root, scoring=False, limits=Limits(seconds=600))

Time, memory, disk and the number of processes are checked from outside the sandbox every TICK seconds. A program that
exceeds a limit is killed with all of its processes.
"""

import contextlib
import json
import os
import shlex
import shutil
import signal
import string
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from grader import sandbox
from grader.environment import lay_out
from grader.sandbox import folder_bytes, walk

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
TICK = 0.05  # seconds between two checks of a running program
RESERVE = 0.1  # share of this machine's memory that a submission must leave free
LOG = 1 << 20  # bytes kept of each log, half from its beginning and half from its end


@dataclass
class Limits:
    """Limits of one job. The platform sets the time and the packages; the others protect this machine."""

    seconds: float = 600.0  # the platform's default for a phase
    memory: int | None = None  # bytes of all processes, with shared memory; None: this machine's, less RESERVE
    disk: int = 2 << 30  # bytes written below /app and /tmp together, and in any one file
    processes: int = 2048  # and threads
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


def fingerprint(root: Path, folders: list[str]) -> set[tuple]:
    """(path below `root`, mode, size, ctime in ns) of everything below folders. A program cannot set the ctime back."""
    infos = [(f"{folder}/{path}", entry.stat(follow_symlinks=False)) for folder in folders
             for path, entry in walk(root / folder)]  # fmt: skip
    return {(path, info.st_mode, info.st_size, info.st_ctime_ns) for path, info in infos}


class Tail(threading.Thread):
    """A thread that reads a pipe to its end and keeps the first and the last LOG / 2 bytes."""

    def __init__(self, pipe):
        super().__init__(daemon=True)
        self.pipe, self.total, self.head, self.last = pipe, 0, b"", b""
        self.start()

    def run(self) -> None:
        half = LOG // 2
        while chunk := self.pipe.read1(1 << 16):
            space = half - len(self.head)
            self.head += chunk[:space]
            self.last = (self.last + chunk[space:])[-half:]
            self.total += len(chunk)
        self.pipe.close()

    def text(self) -> str:
        self.join(timeout=2)  # a process that outlived the kill could hold the pipe open
        cut = self.total - len(self.head) - len(self.last)
        middle = f"\n[... {cut:,} bytes not kept ...]\n".encode() if cut else b""
        return (self.head + middle + self.last).decode("utf-8", "replace")


def run_program(root: Path, scoring: bool, limits: Limits, writable: bool = False) -> Job:
    """Run the program of a job, in whose folder `root` worker.py has prepared app/.

    writable: whether the program may write to the submission's folder.
    """
    spec = specify(root, scoring, limits, writable)
    given = ["app/input_data", "app/input", *([] if writable else ["app/ingested_program"])]
    before = fingerprint(root, given)
    job = watch(spec, limits)
    job.changed = sorted({path for path, *_ in before ^ fingerprint(root, given)})
    return job


def specify(root: Path, scoring: bool, limits: Limits, writable: bool) -> dict:
    """Make the Python environment and /tmp in `root`; returns what sandbox.py is to run and how."""
    import yaml  # imported here: building a zip needs the standard library only

    site = lay_out(root / "env", limits.python, limits.packages)
    isolated, _ = sandbox.permitted(limits.python)
    base = "" if isolated else str(root)  # what paths begin with for the program
    app = f"{base}/app"
    environment = {"PATH": PATH, "HOME": f"{base}/tmp", "LANG": "C.UTF-8", "PYTHONUNBUFFERED": "1"}
    if not isolated:
        environment |= {"TMPDIR": f"{base}/tmp", "PYTHONDONTWRITEBYTECODE": "1"}
        shutil.copy(Path(__file__).with_name("no_network.py"), site)
        (site / "no_network.pth").write_text("import no_network")
    paths = {"input": f"{app}/input" if scoring else f"{app}/input_data", "output": f"{app}/output",
             "program": f"{app}/program", "submission_program": f"{app}/ingested_program"}  # fmt: skip
    command = yaml.safe_load((root / "app/program/metadata.yaml").read_text(encoding="utf-8"))["command"]
    words = [string.Template(word).safe_substitute(paths) for word in shlex.split(command)]
    (root / "tmp").mkdir()
    return {"root": str(root), "command": [f"{base}/env/bin/python", *words[1:]], "env": environment,
            "writable": ["/app/ingested_program"] if writable else [], "isolated": isolated,
            "disk": limits.disk}  # fmt: skip


def watch(spec: dict, limits: Limits) -> Job:
    """Run sandbox.py; stop it if it exceeds a limit."""
    job, start, shared = Job(), time.monotonic(), sandbox.memory_facts()[1]
    facts, facts_end = os.pipe()
    process = subprocess.Popen(
        [limits.python, "-I", sandbox.__file__, json.dumps(spec), str(facts_end)], pass_fds=[facts_end],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        env={"PATH": PATH},
    )  # fmt: skip
    os.close(facts_end)
    out, err = Tail(process.stdout), Tail(process.stderr)
    try:
        while process.poll() is None and not job.stopped:
            job.seconds = time.monotonic() - start
            job.stopped = over_limit(process.pid, spec, limits, shared, job)
            time.sleep(TICK)
    finally:  # at Ctrl-C, too: leave no process behind
        stop(process)
        said = json.loads(os.read(facts, 100) or "{}")
        os.close(facts)
    job.peak_memory = max(job.peak_memory, said.get("peak", 0))
    job.stopped = job.stopped or ("disk" if said.get("disk") else None)
    job.seconds = time.monotonic() - start
    sandbox.unlock(f"{spec['root']}/app/output")
    job.exit_code = 137 if job.stopped else process.returncode
    job.stdout, job.stderr = out.text(), err.text()
    return job


def over_limit(pid: int, spec: dict, limits: Limits, shared: int, job: Job) -> str | None:
    """The limit that the running program exceeds, or None. Updates job.peak_memory.

    shared: bytes of shared memory that this machine used before the start. Any increase counts as the program's, since
    resident bytes do not include it.
    """
    table = sandbox.process_table()
    family = sandbox.descendants(pid, table)
    total, now = sandbox.memory_facts()
    resident = sum(table[p][1] for p in family)
    job.peak_memory = max(job.peak_memory, resident)
    written = (f"{spec['root']}/app/output", f"{spec['root']}/tmp")  # if isolated, their tmpfs has the limit's size
    exceeded = {
        "time": job.seconds > limits.seconds,
        "memory": resident + max(0, now - shared) > (limits.memory or (1 - RESERVE) * total),
        "processes": sum(table[p][2] for p in family) > limits.processes,
        "disk": not spec["isolated"] and folder_bytes(*written) > limits.disk,
    }
    return next((limit for limit, reached in exceeded.items() if reached), None)


def stop(process: subprocess.Popen) -> None:
    """Stop the sandbox: SIGTERM makes it kill all its processes; after 5 s, SIGKILL ends what is left."""
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=5)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
