"""The local worker against Codabench's, point by point, and against submissions that mean harm.

Submissions print what they see into their log. They run in namespaces where the machine permits it, and as the plain
process that other machines fall back to; the latter are slow tests where both do the same.
"""

import json
import os
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

from grader import runner, sandbox, verdict, worker
from tests.submissions import GOOD, RIGHT, cells, make_zip, model, npy

SHUT_IN, REASON = sandbox.permitted()
needs_namespaces = pytest.mark.skipif(not SHUT_IN, reason=f"this machine permits no namespaces: {REASON}")
both = pytest.mark.parametrize("mode", [pytest.param("namespaces", marks=needs_namespaces), "plain"])
either = pytest.mark.parametrize(
    "mode",
    [pytest.param("namespaces", marks=needs_namespaces), pytest.param("plain", marks=[pytest.mark.slow] * SHUT_IN)],
)
# What 2024 did differently is the exit code of the scoring program alone.
BOTH_RULES = (pytest.param("2026", marks=pytest.mark.slow), worker.NEWEST)


@pytest.fixture
def rehearse(tmp_path, monkeypatch):
    """rehearse(model.py or {name: contents}, mode="namespaces" or "plain", **options) -> worker.Run"""

    def go(files, mode=None, n=64, **options) -> worker.Run:
        if mode == "plain":
            monkeypatch.setattr(sandbox, "permitted", lambda python: (False, "the test asks for it"))
        images, labels = cells(n)
        folder = tmp_path / "run"
        worker.remove(folder)
        folder.mkdir()
        return worker.run_submission(make_zip(tmp_path / "s.zip", files), images, labels, folder, **options)

    return go


def codes(run: worker.Run, limits=None) -> set[str]:
    return {f.code for f in verdict.judge_run(run, 64, limits or worker.Limits())}


@both
def test_a_good_submission_finishes_with_scores(rehearse, mode):
    run = rehearse(GOOD, mode)
    assert run.history == ["Submitting", "Submitted", "Preparing", "Running", "Scoring", "Running", "Finished"]
    assert run.scores == dict.fromkeys(worker.columns(), 1.0)
    assert (np.load(run.predictions) == cells()[1]).all()
    assert codes(run) == set()
    assert ("patching socket" in run.isolation) == (mode == "plain")


LOOK = """
import json, os, sys
seen = {
    "cwd": os.getcwd(), "argv": sys.argv, "path": sys.path, "env": dict(os.environ), "file": __file__,
    "program": sorted(os.listdir(sys.path[0])), "app": sorted(os.listdir(os.path.join(sys.path[0], ".."))),
    "submission": sorted(os.listdir(os.path.dirname(os.path.abspath(__file__)))),
}
print("SEEN" + json.dumps(seen))
"""


@either
@pytest.mark.parametrize("profile", worker.PROFILES)
def test_what_a_submission_sees(rehearse, tmp_path, monkeypatch, mode, profile):
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    monkeypatch.setenv("A_SECRET", "token")
    run = rehearse({"model.py": model(top=LOOK), "notes.txt": "x"}, mode, profile=profile)
    seen = json.loads(run.logs["prediction_ingestion_stdout"].partition("SEEN")[2].splitlines()[0])
    app = "/app" if mode == "namespaces" else f"{tmp_path}/run/prediction/app"
    assert seen["cwd"] == f"{app}/{'ingested_program' if profile == 'an2dl' else 'program'}"
    assert seen["argv"] == [f"{app}/program/ingestion.py", "--profile", profile,
                            f"{app}/input_data", f"{app}/ingested_program", f"{app}/output"]  # fmt: skip
    assert seen["path"][0] == f"{app}/program" and seen["path"][-1] == f"{app}/ingested_program"
    assert seen["file"] == f"{app}/ingested_program/model.py"
    assert seen["program"] == ["ingestion.py", "metadata.yaml"]
    assert seen["app"] == ["ingested_program", "input_data", "output", "program"]  # no reference data
    assert seen["submission"] == ["model.py", "notes.txt"]
    assert seen["env"]["PYTHONUNBUFFERED"] == "1"
    plain = {"TMPDIR", "PYTHONDONTWRITEBYTECODE"} if mode == "plain" else set()
    assert set(seen["env"]) - {"PYTHONUSERBASE", "LC_CTYPE"} == {"PATH", "HOME", "LANG", "PYTHONUNBUFFERED"} | plain


def program(folder, script: str, name: str = "p.py") -> object:
    """A program folder of a competition that runs `script`."""
    folder.mkdir()
    (folder / "metadata.yaml").write_text(f"description: a test\ncommand: python3 $program/{name} $input $output\n")
    (folder / name).write_text(textwrap.dedent(script))
    return folder


@pytest.mark.parametrize("era", BOTH_RULES)
def test_what_the_scoring_program_sees_and_the_platform_keeps(rehearse, tmp_path, era):
    scoring = program(
        tmp_path / "scoring",
        """
        import json, os, sys
        found = sorted(os.path.relpath(os.path.join(f, n), "..") for f, _, ns in os.walk("..") for n in ns)
        print("SEEN" + json.dumps([os.getcwd(), sys.argv, found, sorted(os.listdir(".."))]))
        print("a word on stderr", file=sys.stderr)
        json.dump({"accuracy": 0.5, "nonsense": 3}, open(sys.argv[2] + "/scores.json", "w"))
        """,
    )
    run = rehearse({"model.py": GOOD, "notes.txt": "x"}, scoring=scoring, era=era)
    cwd, argv, found, app = json.loads(run.logs["scoring_stdout"].partition("SEEN")[2])
    assert cwd.endswith("/app/program") and argv[1].endswith("/app/input") and argv[2].endswith("/app/output")
    there = ["ingested_program"] if era == worker.NEWEST else []
    assert app == [*there, "input", "output", "program"]
    mounted = ["ingested_program/model.py", "ingested_program/notes.txt"] if there else []
    files = ["metadata", "model.py", "notes.txt", "predictions.npy", "progress.json"]  # without metadata: copied
    files = ["ref/classes.npy", "ref/labels.npy", *(f"res/{name}" for name in files)]
    assert found == [*mounted, *(f"input/{name}" for name in files), "program/metadata.yaml", "program/p.py"]
    assert run.scores == {"accuracy": 0.5}  # a key that is no column is dropped without a word
    assert run.logs["scoring_stderr"] == "a word on stderr\n"
    assert set(run.logs) == {
        f"{job}_{part}std{end}"
        for job in ("prediction", "scoring") for part in ("", "ingestion_") for end in ("out", "err")
    }  # fmt: skip
    assert "exitCode: 0\n" in (tmp_path / "run/prediction/app/output/metadata").read_text()
    worker.save_logs(run, tmp_path / "logs")
    assert {path.stem for path in (tmp_path / "logs").iterdir()} == set(run.logs)


@pytest.mark.slow
def test_a_metadata_file_keeps_the_submission_out_of_its_result(rehearse, tmp_path):
    large = {"model.py": GOOD, "w.npy": bytes(3_000_000)}
    assert rehearse(large, era="2026").output_bytes > 3_000_000
    run = rehearse({**large, "metadata": "description: cells"}, era="2026")
    assert run.status == "Finished" and run.output_bytes < 100_000
    assert not (tmp_path / "run/prediction/app/output/w.npy").exists()


def test_there_is_no_shell(rehearse, tmp_path):
    folder = program(tmp_path / "scoring", "import sys; print(sys.argv[3:]); sys.exit(1)")
    (folder / "metadata.yaml").write_text("command: python3 $program/p.py $input $output 'a b' * && touch x > y | z\n")
    assert (
        rehearse(GOOD, scoring=folder).logs["scoring_stdout"]
        == f"{['a b', '*', '&&', 'touch', 'x', '>', 'y', '|', 'z']}\n"
    )


@pytest.mark.parametrize("era, status", [("2024", "Finished"), ("2026-05", "Failed")])
def test_a_scoring_program_that_exits_non_zero_fails_only_since_2026(rehearse, tmp_path, era, status):
    script = "import sys; open(sys.argv[2] + '/scores.json', 'w').write('{\"accuracy\": 0.25}'); sys.exit(3)"
    run = rehearse(GOOD, era=era, scoring=program(tmp_path / "scoring", script))
    assert (run.status, run.scoring.exit_code) == (status, 3)
    assert run.scores == ({"accuracy": 0.25} if era == "2024" else {})
    assert codes(run) == (set() if era == "2024" else {"SCO01"})
    assert run.detail == ("" if era == "2024" else "Child task failed or non-zero return code")


@pytest.mark.slow
def test_the_statuses_come_in_the_order_of_their_time(rehearse):
    start, end = ["Submitting", "Submitted"], ["Scoring", "Running", "Finished"]
    assert rehearse(GOOD, era="2026").history == [*start, "Running", "Preparing", *end]
    assert rehearse(GOOD, era="2026-05").history == [*start, "Preparing", "Running", *end]


def answer(folder: Path) -> Path:
    """A scoring program that trusts the predictions it finds, as those of many competitions do."""
    return program(
        folder,
        """
        import json, numpy as np, sys
        labels, found = np.load(sys.argv[1] + "/ref/labels.npy"), np.load(sys.argv[1] + "/res/predictions.npy")
        json.dump({"accuracy": float((labels == found).mean())}, open(sys.argv[2] + "/scores.json", "w"))
        """,
    )


@pytest.mark.parametrize("era", BOTH_RULES)
def test_predictions_in_the_zip_are_what_the_newest_platform_scores(rehearse, tmp_path, era):
    wrong = model("return np.full(len(X), 7)")
    files = {"model.py": wrong, "predictions.npy": npy(cells()[1])}
    run = rehearse(files, era=era, scoring=answer(tmp_path / "scoring"))
    assert run.scores["accuracy"] == (1.0 if era == "2026-05" else (cells()[1] == 7).mean())


@either
def test_our_scoring_refuses_a_submission_that_holds_predictions(rehearse, mode):
    run = rehearse({"model.py": GOOD, "predictions.npy": npy(cells()[1])}, mode)
    assert (run.status, run.detail, run.scores) == ("Failed", "Child task failed or non-zero return code", {})
    assert "refused: the submission holds a predictions.npy" in run.logs["scoring_stderr"]
    assert rehearse({"model.py": GOOD, "old_predictions.npy": npy(cells()[1])}, mode).status == "Finished"


def test_a_folder_in_the_way_of_the_submission_fails_it(rehearse):
    run = rehearse(hostile("os.mkdir(sys.argv[-1] + '/model.py')\n" + RIGHT))
    assert (run.status, codes(run)) == ("Failed", {"SCO01"})


@pytest.mark.parametrize("mode, era", [pytest.param("namespaces", "2026", marks=[needs_namespaces, pytest.mark.slow]),
                                       pytest.param("namespaces", "2026-05", marks=needs_namespaces),
                                       ("plain", "2026-05")])  # fmt: skip
def test_a_submission_may_write_beside_itself_only_before_2026_05(rehearse, mode, era):
    run = rehearse(hostile("open(os.path.dirname(__file__) + '/cache', 'w')\n" + RIGHT), mode, era=era)
    assert codes(run) == (set() if era == "2026" else {"RUN01"} if mode == "namespaces" else {"SAF01"})


@either
@pytest.mark.parametrize("era", BOTH_RULES)
def test_the_working_directory_of_a_strict_grader_can_be_written(rehearse, mode, era):
    run = rehearse(hostile("open('cache', 'w').write('x')\n" + RIGHT), mode, era=era, profile="strict")
    assert (run.status, codes(run)) == ("Finished", set())


def test_the_ingestion_programs_exit_code_is_ignored(rehearse, tmp_path):
    script = """
        import numpy as np, sys
        np.save(sys.argv[2] + "/predictions.npy", np.load(sys.argv[1] + "/images.npy")[:, 0, 0, 0].astype(int) // 32)
        sys.exit(5)
    """
    run = rehearse(GOOD, ingestion=program(tmp_path / "ingestion", script))
    assert (run.status, run.prediction.exit_code, run.scores["accuracy"]) == ("Finished", 5, 1.0)


def test_missing_scores_are_told_in_the_platforms_words(tmp_path):
    with pytest.raises(ValueError, match="Could not find scores file"):
        worker.read_scores(tmp_path)


# Submissions that mean harm. When its time is up, each is given five seconds more to be gone.


def hostile(predict: str, top: str = "import ctypes, os, sys, time") -> str:
    return model(predict, top=top)


def timed(rehearse, files, mode, limits) -> tuple[worker.Run, set[str]]:
    start = time.monotonic()
    run = rehearse(files, mode, limits=limits)
    spent = time.monotonic() - start - run.scoring.seconds
    assert spent < limits.seconds + 5
    return run, codes(run, limits)


@pytest.mark.parametrize(
    "mode, predict",
    [pytest.param("namespaces", "signal.pause()", marks=needs_namespaces), ("plain", "while True: pass")],
)
def test_hanging_ends_at_the_time_limit_in_the_platforms_words(rehearse, mode, predict):
    stubborn = "import signal\nfor s in (15, 2, 1): signal.signal(s, signal.SIG_IGN)"
    run, found = timed(rehearse, model(predict, top=stubborn), mode, worker.Limits(seconds=1))
    assert (run.status, run.prediction.stopped, found) == ("Failed", "time", {"LIM01"})
    assert run.logs["prediction_ingestion_stderr"].endswith("Execution Time Limit exceeded. Limit was 1 seconds\n")
    assert run.scoring.exit_code is None  # scoring did not run


@either
def test_a_process_that_steals_away_is_ended(rehearse, tmp_path, mode):
    steal = """
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                while True:
                    with open(sys.argv[-1] + "/beat", "a") as file: file.write(".")
                    time.sleep(0.02)
            os._exit(0)
        time.sleep(0.3)
        """
    before = set(sandbox.descendants(os.getpid()))
    run, found = timed(rehearse, hostile(textwrap.dedent(steal) + RIGHT), mode, worker.Limits(seconds=60))
    assert (run.status, found) == ("Finished", set())
    beat = tmp_path / "run/prediction/app/output/beat"
    size = beat.stat().st_size
    time.sleep(0.2)
    assert beat.stat().st_size == size > 0
    assert set(sandbox.descendants(os.getpid())) <= before


@either
def test_a_fork_bomb_is_stopped(rehearse, mode):
    limits = worker.Limits(seconds=10, processes=50)
    run, found = timed(rehearse, hostile("while True:\n    if os.fork() == 0: time.sleep(60)"), mode, limits)
    assert (run.prediction.stopped, found) == ("processes", {"LIM04"})


@either
def test_filling_the_disk_is_stopped(rehearse, mode):
    fill = "for i in range(10**6): open(f'{sys.argv[-1]}/{i}', 'wb').write(bytes(10**6))"
    run, found = timed(rehearse, hostile(fill), mode, worker.Limits(seconds=60, disk=50 * 10**6))
    assert (run.prediction.stopped, found) == ("disk", {"LIM03"})
    one_file = "with open(sys.argv[-1] + '/x', 'wb') as file:\n    while True: file.write(bytes(10**6))"
    run, found = timed(rehearse, hostile(one_file), mode, worker.Limits(seconds=60, disk=50 * 10**6))
    assert found <= {"LIM03", "RUN01"} and found  # the file's own limit is an OSError in the submission


@needs_namespaces
def test_shared_memory_ends_at_dockers_64_mb(rehearse):
    map_it = """
        import mmap
        with open("/dev/shm/block", "w+b") as file:
            file.truncate({size})
            block = mmap.mmap(file.fileno(), {size})
            for at in range(0, {size}, 4096): block[at] = 1
        """
    run = rehearse(hostile(textwrap.dedent(map_it.format(size=100 * 10**6)) + RIGHT))
    assert (run.prediction.exit_code, codes(run)) == (135, {"LIM08"})
    run = rehearse(hostile(textwrap.dedent(map_it.format(size=50 * 10**6)) + RIGHT))
    assert (run.status, codes(run)) == ("Finished", set())


@either
def test_threads_count_as_processes(rehearse, mode):
    many = """
        import threading
        for _ in range({n}): threading.Thread(target=time.sleep, args=(3,), daemon=True).start()
        time.sleep(1)
        """
    limits = worker.Limits(seconds=30, processes=200)
    run, found = timed(rehearse, hostile(textwrap.dedent(many.format(n=300)) + RIGHT), mode, limits)
    assert (run.prediction.stopped, found) == ("processes", {"LIM04"})
    run, found = timed(rehearse, hostile(textwrap.dedent(many.format(n=50)) + RIGHT), mode, limits)
    assert (run.status, found) == ("Finished", set())


@either
@pytest.mark.skipif(sys.platform != "linux", reason="memfd is of Linux")
def test_memory_that_no_process_maps_counts(rehearse, mode):
    hold = """
        files = [os.memfd_create(str(i)) for i in range({n})]
        for file in files:
            for _ in range(100): os.write(file, bytes(10**6))
        time.sleep(1)
        """
    limits = worker.Limits(seconds=30, memory=500 * 10**6)
    run, found = timed(rehearse, hostile(textwrap.dedent(hold.format(n=8)) + RIGHT), mode, limits)
    assert (run.prediction.stopped, found) == ("memory", {"LIM02"})
    run, found = timed(rehearse, hostile(textwrap.dedent(hold.format(n=1)) + RIGHT), mode, limits)
    assert (run.status, found) == ("Finished", set())


@needs_namespaces
@pytest.mark.parametrize("fill", [
    "for i in range(30): open(f'{sys.argv[-1]}/{i}', 'wb').truncate(4 * 10**7)",  # sparse
    "files = [open(f'/tmp/{i}', 'wb') for i in range(8)]\nfor f in files: os.remove(f.name); f.write(bytes(10**7))",
    "os.chdir('/tmp')\nfor i in range(1500): os.mkdir('d'); os.chdir('d'); open('f', 'wb').write(bytes(5 * 10**4))",
    "os.chmod(sys.argv[-1], 0)\nfor i in range(60): open(f'/tmp/{i}', 'wb').write(bytes(10**6))",
])  # fmt: skip
def test_the_disk_limit_is_the_file_systems_own(rehearse, tmp_path, fill):
    limits = worker.Limits(seconds=60, disk=50 * 10**6)
    run, found = timed(rehearse, hostile(fill + "\n" + RIGHT), "namespaces", limits)
    assert found == {"LIM03"}
    assert sandbox.folder_bytes(tmp_path / "run/prediction/app/output") < 51 * 10**6


@needs_namespaces
def test_neither_keyrings_nor_the_machine_below_can_be_reached(rehearse):
    reach = """
        for what in (lambda: socket.socket(40, socket.SOCK_STREAM), lambda: socket.socket()):
            try: print("OPENED", what().family)
            except OSError as error: print("REFUSED", error.errno)
        libc = ctypes.CDLL(None, use_errno=True)
        print("KEYRING", libc.syscall({"x86_64": 250, "aarch64": 219}[os.uname().machine], 0, -3, 0))
        """
    run = rehearse(hostile(textwrap.dedent(reach) + RIGHT, top="import ctypes, os, socket, sys"))
    log = run.logs["prediction_ingestion_stdout"]
    assert run.status == "Finished" and "REFUSED 1\nOPENED 2\nKEYRING -1\n" in log.replace("AddressFamily.AF_INET", "2")


def test_the_environment_of_who_started_it_is_not_readable(rehearse, monkeypatch):
    monkeypatch.setenv("A_SECRET", "token")
    look = "print(open(f'/proc/{os.getppid()}/environ').read())\n" + RIGHT
    log = rehearse(hostile(look), "plain").logs["prediction_ingestion_stdout"]
    assert "PATH=" in log and "A_SECRET" not in log


@needs_namespaces
def test_any_way_to_name_a_python_is_isolated(tmp_path):
    (tmp_path / "venv").symlink_to(sys.prefix)
    python = os.path.relpath(f"{tmp_path}/venv/lib/../bin/python")  # a relative path, through a link, not normal
    assert sandbox.permitted(python) == (True, "")


@needs_namespaces
@pytest.mark.parametrize(
    ("before", "said"),
    [("true", ""), ("mount -t tmpfs none /proc/sys/fs", "it sees the names of this machine's processes")],
)
def test_a_masked_proc_is_said_to_show_the_machines_processes(before, said):
    """As containers mask it: no fresh /proc can be mounted then, and the one there is has every process."""
    ask = f"{sys.executable} -c 'from grader import sandbox; print(*sandbox.permitted())'"
    done = subprocess.run(["unshare", "-rm", "sh", "-c", f"{before} && {ask}"], capture_output=True, text=True)
    if "unshare:" in done.stderr:
        pytest.skip(f"no namespaces of its own: {done.stderr.strip()}")
    assert done.stdout == f"True {said}\n"


def test_of_a_pythons_folder_only_its_own_parts_are_shown(tmp_path, monkeypatch):
    for name in ("bin", "lib", "project"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(sys, "base_prefix", str(tmp_path))
    shown = sandbox.visible_paths("/nowhere")
    assert {f"{tmp_path}/bin", f"{tmp_path}/lib"} <= set(shown)
    assert not {str(tmp_path), f"{tmp_path}/project", "/usr", "/home"} & set(shown)


@needs_namespaces
def test_300_processes_are_no_fault(rehearse):
    many = """
        children = []
        for _ in range(300):
            children.append(os.fork())
            if children[-1] == 0:
                time.sleep(5)
                os._exit(0)
        for child in children: os.kill(child, 9)
        """
    run = rehearse(hostile(textwrap.dedent(many) + RIGHT))
    assert (run.status, codes(run)) == ("Finished", set())


@either
def test_a_submission_that_needs_the_network_is_not_refused(rehearse, mode):
    fetch = "import urllib.request\nurllib.request.urlopen('http://127.0.0.1:9/weights', timeout=2)\n" + RIGHT
    run = rehearse(hostile(fetch), mode)
    (found,) = verdict.judge_run(run, 64, worker.Limits())
    assert (found.code, found.level) == ("NET02", "warning")
    assert verdict.conclude([found], True, True, False) == (
        "unknown", "NOT KNOWN: it needs the network, which the rehearsal does not have"
    )  # fmt: skip
    run = rehearse(hostile("raise OSError('no such network weights')"), mode)
    assert codes(run) == {"RUN01"}


def test_a_program_that_ends_just_before_it_is_stopped_is_no_error():
    ended = subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"], start_new_session=True)
    os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)  # over, and nobody has asked for its status yet
    runner.stop(ended)
    assert ended.returncode == 3


@either
def test_printing_without_end_leaves_a_short_log(rehearse, mode):
    shout = "block = 'x' * 2**20\nprint('BEGIN')\nfor i in range(200): print(block)\nprint('END')\n" + RIGHT
    run, found = timed(rehearse, hostile(shout), mode, worker.Limits(seconds=60))
    log = run.logs["prediction_ingestion_stdout"]
    assert (run.status, found) == ("Finished", set())
    assert log.startswith("BEGIN\n") and "\nEND\n" in log and "bytes not kept" in log
    assert len(log) < 1.1 * runner.LOG


@either
@pytest.mark.parametrize("leave", ["os._exit(0)", "ctypes.string_at(0)", "sys.exit(0)", "return"])
def test_leaving_early_is_no_success(rehearse, mode, leave):
    run, found = timed(rehearse, hostile(leave), mode, worker.Limits(seconds=60))
    assert run.status == "Failed" and run.scores == {}
    assert found == ({"RUN01"} if leave in ("sys.exit(0)", "return") else {"RUN02"})


@pytest.mark.slow
def test_predictions_shipped_in_the_zip_were_not_scored_before(rehearse):
    files = {"model.py": model("os._exit(0)", top="import os"), "predictions.npy": npy(cells()[1])}
    run = rehearse(files, era="2026")
    assert (run.status, codes(run)) == ("Failed", {"RUN02"})


MEDDLE = """
for folder in ("input_data", "ingested_program"):
    for name in os.listdir(f"{app}/{folder}"):
        for act in (lambda p: open(p, "a").write("x"), os.remove, lambda p: os.utime(p, (0, 0))):
            try:
                act(f"{app}/{folder}/{name}")
                print("CHANGED", folder, name)
            except OSError: pass
"""
APP = "app = os.path.dirname(os.path.dirname(os.path.abspath(sys.argv[0])))\n"


@both
def test_meddling_with_what_is_given_is_prevented_or_reported(rehearse, mode):
    run, found = timed(rehearse, hostile(APP + MEDDLE + RIGHT), mode, worker.Limits(seconds=60))
    assert found == (set() if mode == "namespaces" else {"SAF01"})
    assert ("CHANGED" in run.logs["prediction_ingestion_stdout"]) == (mode == "plain")
    assert run.scores["accuracy"] == 1.0


def test_a_submission_that_ends_its_supervisor_ends_itself(rehearse):
    steal = "if os.fork() == 0: time.sleep(600)\nos.kill(os.getppid(), 9)\ntime.sleep(600)"
    before = set(sandbox.descendants(os.getpid()))
    run, found = timed(rehearse, hostile(steal), "plain", worker.Limits(seconds=60))
    assert (run.status, found) == ("Failed", {"RUN02"})
    assert set(sandbox.descendants(os.getpid())) <= before


@either
def test_a_worker_that_is_killed_takes_the_submission_with_it(tmp_path, mode):
    make_zip(tmp_path / "s.zip", model("while True: pass"))
    script = f"""
        import sys, pathlib
        sys.path.insert(0, {str(worker.HERE.parent)!r})
        from grader import sandbox, worker
        from tests.submissions import cells
        if {mode == "plain"}: sandbox.permitted = lambda python: (False, "")
        folder = pathlib.Path({str(tmp_path)!r})
        worker.run_submission(folder / "s.zip", *cells(), folder)
        """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)])
    while not (tmp_path / "prediction/tmp").exists() or len(sandbox.descendants(process.pid)) < 2:
        time.sleep(0.05)
    time.sleep(0.5)
    family = sandbox.descendants(process.pid)
    assert len(family) >= 2
    process.kill()
    process.wait()
    for _ in range(100):
        if not set(family) & set(sandbox.process_table()):
            break
        time.sleep(0.05)
    assert not set(family) & set(sandbox.process_table())


@needs_namespaces
def test_nothing_outside_its_folder_can_be_written_or_ended(rehearse, tmp_path):
    (tmp_path / "precious").write_text("mine")
    places = [
        str(tmp_path),
        os.getcwd(),
        os.path.expanduser("~"),
        "/",
        "/usr",
        "/dev/shm",
        "/var/tmp",
        "/etc",
        "/proc/1",
    ]
    escape = f"""
        for place in {places + [os.sep.join(worker.__file__.split(os.sep)[:-1])]!r}:
            try: open(place + "/planted-by-a-submission", "w").write("x")
            except OSError: pass
            os.system("rm -rf " + place + "/precious")
        for pid in (-1, 0, os.getppid(), {os.getpid()}):
            try: os.kill(pid, 9)
            except OSError: pass
        """
    run, found = timed(rehearse, hostile(textwrap.dedent(escape) + RIGHT), "namespaces", worker.Limits(seconds=60))
    assert (run.status, found) == ("Finished", set())
    assert (tmp_path / "precious").read_text() == "mine"
    assert not [place for place in places if os.path.exists(place + "/planted-by-a-submission")]


@either
def test_the_reference_labels_are_not_there_to_be_read(rehearse, tmp_path, mode):
    np.save(tmp_path / "labels.npy", cells()[1])
    places = ["/app/input/ref", "../input/ref", "/app/reference_data", "/app/data"]
    places += [str(tmp_path)] if mode == "namespaces" else []  # a plain process reads what its user may read
    search = f"""
        for place in {places!r}:
            for folder, _, names in os.walk(place):
                for name in names:
                    if name == "labels.npy": return np.load(folder + "/" + name)
        return np.zeros(len(X), int)
        """
    run, found = timed(rehearse, hostile(textwrap.dedent(search)), mode, worker.Limits(seconds=60))
    assert run.scores["accuracy"] == pytest.approx((cells()[1] == 0).mean())


def test_links_planted_among_the_predictions_are_not_followed(rehearse, tmp_path):
    np.save(tmp_path / "labels.npy", cells()[1])
    for target in (f"{tmp_path}/labels.npy", "/app/input/ref/labels.npy"):
        plant = f"os.symlink({target!r}, sys.argv[-1] + '/predictions.npy')\nos._exit(0)"
        run = rehearse(hostile(plant))
        assert (run.status, codes(run)) == ("Failed", {"RUN02" if SHUT_IN else "OUT05"})  # it stays in the sandbox


@both
def test_there_is_no_network(rehearse, mode):
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.1)
        call = f"socket.create_connection(('127.0.0.1', {server.getsockname()[1]}), 2)"
        call = f"""
        subprocess.run([sys.executable, "-c", "import socket; {call}"])
        try: print("CALLED", {call})
        except OSError as error: print("REFUSED", error)
        try: print("FOUND", socket.getaddrinfo("example.org", 80))
        except OSError as error: print("REFUSED", error)
        """
        run = rehearse(model(textwrap.dedent(call) + RIGHT, top="import socket, subprocess, sys"), mode)
        with pytest.raises(TimeoutError):
            server.accept()
    assert run.logs["prediction_ingestion_stdout"].count("REFUSED") == 2


@either
def test_memory_above_the_limit_ends_with_137(rehearse, mode):
    limits = worker.Limits(seconds=30, memory=300 * 10**6)
    run, found = timed(rehearse, hostile("hold = np.ones(10**8)\ntime.sleep(20)"), mode, limits)
    assert (run.prediction.stopped, run.prediction.exit_code, found) == ("memory", 137, {"LIM02"})
    run, found = timed(rehearse, hostile("hold = np.ones(10**7)\ntime.sleep(0.1)\n" + RIGHT), mode, limits)
    assert (run.status, found) == ("Finished", set())
    assert run.prediction.peak_memory > 80 * 10**6


@needs_namespaces
def test_paths_too_long_to_copy_do_not_cost_the_predictions(rehearse):
    dig = "os.chdir(sys.argv[-1])\nfor _ in range(30): os.mkdir('d' * 200); os.chdir('d' * 200)\n"
    run = rehearse(hostile(dig + RIGHT))
    assert (run.status, codes(run)) == ("Finished", set())


@pytest.mark.parametrize("depth", [50, pytest.param(1100, marks=pytest.mark.slow)])
def test_deep_and_locked_folders_are_cleared_away(rehearse, tmp_path, depth):
    dig = f"""
        os.chdir(sys.argv[-1])
        for _ in range({depth}):
            os.mkdir("d")
            os.chdir("d")
        os.chmod(sys.argv[-1] + "/d", 0)
        """
    run = rehearse(hostile(textwrap.dedent(dig) + RIGHT))
    assert run.status == "Finished"
    worker.remove(tmp_path / "run")
    assert not (tmp_path / "run").exists()


@both
def test_what_is_left_without_permissions_is_read_all_the_same(rehearse, tmp_path, mode):
    """The files of a user who is not root: what matters is that the judge may read and clear them."""
    lock = "os.umask(0o777)\nos.makedirs(sys.argv[-1] + '/d')\nopen(sys.argv[-1] + '/f', 'w')\n" + RIGHT
    run = rehearse(hostile(lock), mode)
    assert (run.status, codes(run)) == ("Finished", set())
    for name, needed in (("d", 0o700), ("f", 0o600), ("predictions.npy", 0o600)):
        assert os.stat(tmp_path / "run/prediction/app/output" / name).st_mode & needed == needed


@both
def test_the_probe_is_called_as_the_scored_run_is(rehearse, tmp_path, mode):
    look = "print('SEEN', sys.argv, sorted(os.listdir(sys.path[0])), sorted(os.listdir(sys.argv[-3])), os.getcwd())"
    run = rehearse(hostile(RIGHT, top=f"import os, sys\n{look}"), mode)
    images = cells(10)[0]
    (tmp_path / "run/again").mkdir()
    job = worker.probe(tmp_path / "run/again", tmp_path / "s.zip", images[:8], images[8:], "an2dl", worker.NEWEST,
                       worker.Limits())  # fmt: skip
    seen = [text.partition("SEEN")[2].splitlines()[0] for text in (run.prediction.stdout, job.stdout)]
    assert seen[0] == seen[1].replace("run/again", "run/prediction")
    assert job.notes["images"] == 8 and job.notes["stage"] == "done" and not job.notes["errors"]
