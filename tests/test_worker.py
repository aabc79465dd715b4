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
NAMESPACES = pytest.param("namespaces", marks=needs_namespaces)
both = pytest.mark.parametrize("mode", [NAMESPACES, "plain"])
either = pytest.mark.parametrize("mode", [NAMESPACES, pytest.param("plain", marks=[pytest.mark.slow] * SHUT_IN)])
# What 2024 did differently is the exit code of the scoring program alone.
BOTH_RULES = (pytest.param("2026", marks=pytest.mark.slow), worker.NEWEST)
GOOD_END = ("Finished", set())
MINUTE = worker.Limits(seconds=60)


@pytest.fixture
def rehearse(tmp_path, monkeypatch):
    """rehearse(model.py or {name: contents}, mode="namespaces" or "plain", **options) -> (worker.Run, {code}).

    When its time is up, a submission is given five seconds more to be gone. None of its processes is left.
    """

    def go(files, mode=None, limits=MINUTE, **options) -> tuple[worker.Run, set[str]]:
        if mode == "plain":
            monkeypatch.setattr(sandbox, "permitted", lambda python: (False, "the test asks for it"))
        folder = tmp_path / "run"
        worker.remove(folder)
        folder.mkdir()
        start, before = time.monotonic(), set(sandbox.descendants(os.getpid()))
        run = worker.run_submission(make_zip(tmp_path / "s.zip", files), *cells(), folder, limits=limits, **options)
        assert time.monotonic() - start - run.scoring.seconds < limits.seconds + 5
        assert set(sandbox.descendants(os.getpid())) <= before
        return run, {f.code for f in verdict.judge_run(run, 64, limits)}

    return go


def hostile(*lines: str) -> str:
    """A model.py that does this in its `predict`, line by line."""
    text = "\n".join(textwrap.dedent(part).strip("\n") for part in lines)
    return model(text, top="import ctypes, mmap, os, signal, socket, subprocess, sys, threading, time")


@both
def test_a_good_submission_finishes_with_scores(rehearse, mode):
    run, found = rehearse(GOOD, mode)
    assert run.history == ["Submitting", "Submitted", "Preparing", "Running", "Scoring", "Running", "Finished"]
    assert run.scores == dict.fromkeys(worker.columns(), 1.0)
    assert (np.load(run.predictions) == cells()[1]).all() and found == set()
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
    run, _ = rehearse({"model.py": model(top=LOOK), "notes.txt": "x"}, mode, profile=profile)
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


def program(folder: Path, script: str, more: str = "") -> Path:
    """A program folder of a competition that runs `script`; `more` is added to its command."""
    folder.mkdir()
    (folder / "metadata.yaml").write_text(f"description: a test\ncommand: python3 $program/p.py $input $output{more}\n")
    (folder / "p.py").write_text(textwrap.dedent(script))
    return folder


@pytest.mark.parametrize("era", BOTH_RULES)
def test_what_the_scoring_program_sees_and_the_platform_keeps(rehearse, tmp_path, era):
    script = """
        import json, os, sys
        found = sorted(os.path.relpath(os.path.join(f, n), "..") for f, _, ns in os.walk("..") for n in ns)
        print("SEEN" + json.dumps([os.getcwd(), sys.argv, found, sorted(os.listdir(".."))]))
        print("a word on stderr", file=sys.stderr)
        json.dump({"accuracy": 0.5, "nonsense": 3}, open(sys.argv[2] + "/scores.json", "w"))
        """
    files = {"model.py": GOOD, "notes.txt": "x"}
    run, _ = rehearse(files, era=era, scoring=program(tmp_path / "scoring", script))
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
    assert set(run.logs) == {f"{job}_{part}std{end}" for job in ("prediction", "scoring")
                             for part in ("", "ingestion_") for end in ("out", "err")}  # fmt: skip
    written = (tmp_path / "run/prediction/app/output/metadata").read_text()
    assert "\nexitCode: null\n" in written and "\ningestionExitCode: 0\n" in written
    worker.save_logs(run, tmp_path / "logs")
    assert {path.stem for path in (tmp_path / "logs").iterdir()} == set(run.logs)


@pytest.mark.slow
def test_before_2026_05_a_metadata_file_keeps_the_submission_out_of_its_result(rehearse, tmp_path):
    large = {"model.py": GOOD, "w.npy": bytes(3_000_000)}
    run, _ = rehearse(large, era="2026")
    assert run.history == ["Submitting", "Submitted", "Running", "Preparing", "Scoring", "Running", "Finished"]
    assert run.output_bytes > 3_000_000
    run, _ = rehearse({**large, "metadata": "description: cells"}, era="2026")
    assert run.status == "Finished" and run.output_bytes < 100_000
    assert not (tmp_path / "run/prediction/app/output/w.npy").exists()


def test_there_is_no_shell(rehearse, tmp_path):
    script = "import sys; print(sys.argv[3:]); sys.exit(1)"
    run, _ = rehearse(GOOD, scoring=program(tmp_path / "scoring", script, " 'a b' * && touch x > y | z"))
    assert run.logs["scoring_stdout"] == "['a b', '*', '&&', 'touch', 'x', '>', 'y', '|', 'z']\n"


@pytest.mark.parametrize("era, status, detail, scores, codes", [
    ("2024", "Finished", "", {"accuracy": 0.25}, set()),
    ("2026-05", "Failed", "Child task failed or non-zero return code", {}, {"SCO01"}),
])  # fmt: skip
def test_scoring_that_exits_non_zero_fails_only_since_2026(rehearse, tmp_path, era, status, detail, scores, codes):
    script = "import sys; open(sys.argv[2] + '/scores.json', 'w').write('{\"accuracy\": 0.25}'); sys.exit(3)"
    run, found = rehearse(GOOD, era=era, scoring=program(tmp_path / "scoring", script))
    assert (run.status, run.detail, run.scores, run.scoring.exit_code) == (status, detail, scores, 3)
    assert found == codes


@pytest.mark.parametrize("era", BOTH_RULES)
def test_predictions_in_the_zip_are_what_the_newest_platform_scores(rehearse, tmp_path, era):
    """If the scoring program trusts the predictions it finds, as those of many competitions do."""
    script = """
        import json, numpy as np, sys
        labels, found = np.load(sys.argv[1] + "/ref/labels.npy"), np.load(sys.argv[1] + "/res/predictions.npy")
        json.dump({"accuracy": float((labels == found).mean())}, open(sys.argv[2] + "/scores.json", "w"))
        """
    files = {"model.py": model("return np.full(len(X), 7)"), "predictions.npy": npy(cells()[1])}
    run, _ = rehearse(files, era=era, scoring=program(tmp_path / "scoring", script))
    assert run.scores["accuracy"] == (1.0 if era == "2026-05" else (cells()[1] == 7).mean())


@either
def test_our_scoring_refuses_a_submission_that_holds_predictions(rehearse, mode):
    run, _ = rehearse({"model.py": GOOD, "predictions.npy": npy(cells()[1])}, mode)
    assert (run.status, run.scores) == ("Failed", {})
    assert "refused: the submission holds a predictions.npy" in run.logs["scoring_stderr"]
    assert rehearse({"model.py": GOOD, "old_predictions.npy": npy(cells()[1])}, mode)[0].status == "Finished"


def test_a_folder_in_the_way_of_the_submission_fails_it(rehearse):
    run, found = rehearse(hostile("os.mkdir(sys.argv[-1] + '/model.py')", RIGHT))
    assert (run.status, found) == ("Failed", {"SCO01"})


@pytest.mark.parametrize("mode, era, codes", [
    pytest.param("namespaces", "2026", set(), marks=[needs_namespaces, pytest.mark.slow]),
    pytest.param("namespaces", "2026-05", {"RUN01"}, marks=needs_namespaces), ("plain", "2026-05", {"SAF01"}),
])  # fmt: skip
def test_a_submission_may_write_beside_itself_only_before_2026_05(rehearse, mode, era, codes):
    _, found = rehearse(hostile("open(os.path.dirname(__file__) + '/cache', 'w')", RIGHT), mode, era=era)
    assert found == codes


@either
@pytest.mark.parametrize("era", BOTH_RULES)
def test_the_working_directory_of_a_strict_grader_can_be_written(rehearse, mode, era):
    run, found = rehearse(hostile("open('cache', 'w').write('x')", RIGHT), mode, era=era, profile="strict")
    assert (run.status, found) == GOOD_END


def test_the_ingestion_programs_exit_code_is_ignored(rehearse, tmp_path):
    script = """
        import numpy as np, sys
        np.save(sys.argv[2] + "/predictions.npy", np.load(sys.argv[1] + "/images.npy")[:, 0, 0, 0].astype(int) // 32)
        sys.exit(5)
    """
    run, _ = rehearse(GOOD, ingestion=program(tmp_path / "ingestion", script))
    assert (run.status, run.prediction.exit_code, run.scores["accuracy"]) == ("Finished", 5, 1.0)


@pytest.mark.parametrize("text, words", [
    (None, "Could not find scores file"), ('{"accuracy": NaN}', "no finite number"), ("[1]", "no finite number"),
    ('{"Accuracy": 1}', "no finite number"), ('{"accuracy": {"mean": 1}}', "does not hold numbers"),
    (f'{{"accuracy": 1{"0" * 400}}}', "does not hold numbers"), ("{", "does not hold numbers"),
    ("5", "does not hold numbers"),
])  # fmt: skip
def test_scores_that_the_platform_cannot_post(tmp_path, text, words):
    if text:
        (tmp_path / "scores.json").write_text(text)
    with pytest.raises(ValueError, match=words):
        worker.read_scores(tmp_path)
    (tmp_path / "scores.json").write_text('{"accuracy": 0.5, "other": "x"}')
    assert worker.read_scores(tmp_path) == {"accuracy": 0.5}


# Submissions that mean harm


@pytest.mark.parametrize("mode, predict", [
    pytest.param("namespaces", "signal.pause()", marks=needs_namespaces), ("plain", "while True: pass"),
])  # fmt: skip
def test_hanging_ends_at_the_time_limit_in_the_platforms_words(rehearse, mode, predict):
    stubborn = hostile("for s in (15, 2, 1): signal.signal(s, signal.SIG_IGN)", predict)
    run, found = rehearse(stubborn, mode, worker.Limits(seconds=1))
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
    run, found = rehearse(hostile(steal, RIGHT), mode)
    assert (run.status, found) == GOOD_END
    beat = tmp_path / "run/prediction/app/output/beat"
    size = beat.stat().st_size
    time.sleep(0.2)
    assert beat.stat().st_size == size > 0


FORK = """
    for _ in range({}):
        if os.fork() == 0:
            time.sleep(60)
            os._exit(0)
    time.sleep(0.3)
    """
THREADS = """
    for _ in range({}): threading.Thread(target=time.sleep, args=(3,), daemon=True).start()
    time.sleep(1)
    """
FILES = "for i in range({}): open(f'{{sys.argv[-1]}}/{{i}}', 'wb').write(bytes(10**6))"
ARRAY = "held = np.ones({0})\ntime.sleep({0} / 10**7)"
UNMAPPED = """
    for file in [os.memfd_create(str(i)) for i in range({})]:
        for _ in range(100): os.write(file, bytes(10**6))
    time.sleep(1)
    """
needs_memfd = pytest.mark.skipif(sys.platform != "linux", reason="memfd is of Linux")


@either
@pytest.mark.parametrize("limit, code, limits, lines, much, little", [
    ("processes", "LIM04", worker.Limits(seconds=10, processes=50), FORK, 10**6, 20),
    ("processes", "LIM04", worker.Limits(seconds=30, processes=200), THREADS, 300, 50),
    ("disk", "LIM03", worker.Limits(seconds=60, disk=50 * 10**6), FILES, 10**6, 20),
    ("memory", "LIM02", worker.Limits(seconds=30, memory=300 * 10**6), ARRAY, 10**8, 10**7),
    pytest.param("memory", "LIM02", worker.Limits(seconds=30, memory=500 * 10**6), UNMAPPED, 8, 1,
                 marks=[needs_memfd, pytest.mark.slow]),
], ids=["fork bomb", "threads", "files", "memory", "memory that no process maps"])  # fmt: skip
def test_beyond_a_limit_it_is_stopped_and_below_it_is_not(rehearse, mode, limit, code, limits, lines, much, little):
    run, found = rehearse(hostile(lines.format(much), RIGHT), mode, limits)
    assert (run.prediction.stopped, run.prediction.exit_code, found) == (limit, 137, {code})
    run, found = rehearse(hostile(lines.format(little), RIGHT), mode, limits)
    assert (run.status, found) == GOOD_END
    assert run.prediction.peak_memory > (8 * little if lines is ARRAY else 0)


@either
def test_one_file_may_not_fill_the_disk(rehearse, mode):
    fill = "with open(sys.argv[-1] + '/x', 'wb') as file:\n    while True: file.write(bytes(10**6))"
    _, found = rehearse(hostile(fill), mode, worker.Limits(seconds=60, disk=50 * 10**6))
    assert found <= {"LIM03", "RUN01"} and found  # the file's own limit is an OSError in the submission


@needs_namespaces
def test_shared_memory_ends_at_dockers_64_mb(rehearse):
    map_it = """
        with open("/dev/shm/block", "w+b") as file:
            file.truncate({0})
            block = mmap.mmap(file.fileno(), {0})
            for at in range(0, {0}, 4096): block[at] = 1
        """
    run, found = rehearse(hostile(map_it.format(100 * 10**6), RIGHT))
    assert (run.prediction.exit_code, found) == (135, {"LIM08"})
    run, found = rehearse(hostile(map_it.format(50 * 10**6), RIGHT))
    assert (run.status, found) == GOOD_END


@needs_namespaces
@pytest.mark.parametrize("fill", [
    "for i in range(30): open(f'{sys.argv[-1]}/{i}', 'wb').truncate(4 * 10**7)",  # sparse
    "files = [open(f'/tmp/{i}', 'wb') for i in range(8)]\nfor f in files: os.remove(f.name); f.write(bytes(10**7))",
    "os.chdir('/tmp')\nfor i in range(1500): os.mkdir('d'); os.chdir('d'); open('f', 'wb').write(bytes(5 * 10**4))",
    "os.chmod(sys.argv[-1], 0)\nfor i in range(60): open(f'/tmp/{i}', 'wb').write(bytes(10**6))",
])  # fmt: skip
def test_the_disk_limit_is_the_file_systems_own(rehearse, tmp_path, fill):
    _, found = rehearse(hostile(fill, RIGHT), "namespaces", worker.Limits(seconds=60, disk=50 * 10**6))
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
    run, _ = rehearse(hostile(reach, RIGHT))
    log = run.logs["prediction_ingestion_stdout"]
    assert run.status == "Finished" and "REFUSED 1\nOPENED 2\nKEYRING -1\n" in log.replace("AddressFamily.AF_INET", "2")


def test_the_environment_of_who_started_it_is_not_readable(rehearse, monkeypatch):
    monkeypatch.setenv("A_SECRET", "token")
    run, _ = rehearse(hostile("print(open(f'/proc/{os.getppid()}/environ').read())", RIGHT), "plain")
    log = run.logs["prediction_ingestion_stdout"]
    assert "PATH=" in log and "A_SECRET" not in log


@needs_namespaces
def test_any_way_to_name_a_python_is_isolated(tmp_path):
    (tmp_path / "venv").symlink_to(sys.prefix)
    python = os.path.relpath(f"{tmp_path}/venv/lib/../bin/python")  # a relative path, through a link, not normal
    assert sandbox.permitted(python) == (True, "")


@needs_namespaces
@pytest.mark.parametrize("before, said", [
    ("true", ""), ("mount -t tmpfs none /proc/sys/fs", "it sees the names of this machine's processes"),
])  # fmt: skip
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


LONG = "os.chdir(sys.argv[-1])\nfor _ in range(30): os.mkdir('d' * 200); os.chdir('d' * 200)"


@needs_namespaces
@pytest.mark.parametrize("act", [FORK.format(300), LONG], ids=["300 processes", "paths too long to copy"])
def test_what_costs_no_predictions(rehearse, act):
    run, found = rehearse(hostile(act, RIGHT))
    assert (run.status, found) == GOOD_END


@either
def test_a_submission_that_needs_the_network_is_not_refused(rehearse, mode):
    fetch = "import urllib.request\nurllib.request.urlopen('http://127.0.0.1:9/weights', timeout=2)"
    run, _ = rehearse(hostile(fetch, RIGHT), mode)
    (found,) = verdict.judge_run(run, 64, MINUTE)
    assert (found.code, found.level) == ("NET02", "warning")
    assert verdict.conclude([found], True, True, False) == (
        "unknown", "NOT KNOWN: it needs the network, which the rehearsal does not have"
    )  # fmt: skip
    assert rehearse(hostile("raise OSError('no such network weights')"), mode)[1] == {"RUN01"}


def test_a_program_that_ends_just_before_it_is_stopped_is_no_error():
    ended = subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"], start_new_session=True)
    os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)  # over, and nobody has asked for its status yet
    runner.stop(ended)
    assert ended.returncode == 3


@either
def test_printing_without_end_leaves_a_short_log(rehearse, mode):
    shout = "block = 'x' * 2**20\nprint('BEGIN')\nfor i in range(200): print(block)\nprint('END')"
    run, found = rehearse(hostile(shout, RIGHT), mode)
    log = run.logs["prediction_ingestion_stdout"]
    assert (run.status, found) == GOOD_END
    assert log.startswith("BEGIN\n") and "\nEND\n" in log and "bytes not kept" in log
    assert len(log) < 1.1 * runner.LOG


@either
@pytest.mark.parametrize("quiet", ["os.close(1)", "sys.stdout.close()", "sys.stdout = None"])
def test_a_submission_that_closes_its_output_is_scored(rehearse, mode, quiet):
    run, found = rehearse(hostile(quiet, RIGHT), mode)
    assert (run.status, found) == GOOD_END


@either
@pytest.mark.parametrize("leave, code", [("os._exit(0)", "RUN02"), ("ctypes.string_at(0)", "RUN02"),
                                         ("sys.exit(0)", "RUN01"), ("return", "RUN01")])  # fmt: skip
def test_leaving_early_is_no_success(rehearse, mode, leave, code):
    run, found = rehearse(hostile(leave), mode)
    assert (run.status, run.scores, found) == ("Failed", {}, {code})


@pytest.mark.slow
def test_predictions_shipped_in_the_zip_were_not_scored_before(rehearse):
    run, found = rehearse({"model.py": hostile("os._exit(0)"), "predictions.npy": npy(cells()[1])}, era="2026")
    assert (run.status, found) == ("Failed", {"RUN02"})


MEDDLE = """
    app = os.path.dirname(os.path.dirname(os.path.abspath(sys.argv[0])))
    for folder in ("input_data", "ingested_program"):
        for name in os.listdir(f"{app}/{folder}"):
            for act in (lambda p: open(p, "a").write("x"), os.remove, lambda p: os.utime(p, (0, 0))):
                try:
                    act(f"{app}/{folder}/{name}")
                    print("CHANGED", folder, name)
                except OSError: pass
    """


@both
def test_meddling_with_what_is_given_is_prevented_or_reported(rehearse, mode):
    run, found = rehearse(hostile(MEDDLE, RIGHT), mode)
    assert found == (set() if mode == "namespaces" else {"SAF01"})
    assert ("CHANGED" in run.logs["prediction_ingestion_stdout"]) == (mode == "plain")
    assert run.scores["accuracy"] == 1.0


def test_a_submission_that_ends_its_supervisor_ends_itself(rehearse):
    steal = "if os.fork() == 0: time.sleep(600)\nos.kill(os.getppid(), 9)\ntime.sleep(600)"
    run, found = rehearse(hostile(steal), "plain")
    assert (run.status, found) == ("Failed", {"RUN02"})


@pytest.mark.slow
@either
def test_a_worker_that_is_killed_takes_the_submission_with_it(tmp_path, mode):
    make_zip(tmp_path / "s.zip", model("while True: pass"))
    script = f"""
        from pathlib import Path
        from grader import sandbox, worker
        from tests.submissions import cells
        if {mode == "plain"}: sandbox.permitted = lambda python: (False, "")
        worker.run_submission(Path({str(tmp_path / "s.zip")!r}), *cells(), Path({str(tmp_path)!r}))
        """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], cwd=worker.HERE.parent)
    while not (tmp_path / "prediction/tmp").exists() or len(sandbox.descendants(process.pid)) < 2:
        time.sleep(0.05)
    time.sleep(0.5)
    family = sandbox.descendants(process.pid)
    assert len(family) >= 2
    process.kill()
    process.wait()
    end = time.monotonic() + 5
    while set(family) & set(sandbox.process_table()) and time.monotonic() < end:
        time.sleep(0.05)
    assert not set(family) & set(sandbox.process_table())


@needs_namespaces
def test_nothing_outside_its_folder_can_be_written_or_ended(rehearse, tmp_path):
    (tmp_path / "precious").write_text("mine")
    places = [str(tmp_path), os.getcwd(), os.path.expanduser("~"), os.path.dirname(worker.__file__),
              "/", "/usr", "/dev/shm", "/var/tmp", "/etc", "/proc/1"]  # fmt: skip
    escape = f"""
        for place in {places!r}:
            try: open(place + "/planted-by-a-submission", "w").write("x")
            except OSError: pass
            os.system("rm -rf " + place + "/precious")
        for pid in (-1, 0, os.getppid(), {os.getpid()}):
            try: os.kill(pid, 9)
            except OSError: pass
        """
    run, found = rehearse(hostile(escape, RIGHT), "namespaces")
    assert (run.status, found) == GOOD_END
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
                if "labels.npy" in names: return np.load(folder + "/labels.npy")
        return np.zeros(len(X), int)
        """
    run, _ = rehearse(hostile(search), mode)
    assert run.scores["accuracy"] == pytest.approx((cells()[1] == 0).mean())


def test_links_planted_among_the_predictions_are_not_followed(rehearse, tmp_path):
    np.save(tmp_path / "labels.npy", cells()[1])
    for target in (f"{tmp_path}/labels.npy", "/app/input/ref/labels.npy"):
        run, found = rehearse(hostile(f"os.symlink({target!r}, sys.argv[-1] + '/predictions.npy')", "os._exit(0)"))
        assert (run.status, found) == ("Failed", {"RUN02" if SHUT_IN else "OUT05"})  # it stays in the sandbox


@both
def test_there_is_no_network(rehearse, mode):
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.1)
        call = f"socket.create_connection(('127.0.0.1', {server.getsockname()[1]}), 2)"
        calls = f"""
            subprocess.run([sys.executable, "-c", "import socket; {call}"])
            try: print("CALLED", {call})
            except OSError as error: print("REFUSED", error)
            try: print("FOUND", socket.getaddrinfo("example.org", 80))
            except OSError as error: print("REFUSED", error)
            """
        run, _ = rehearse(hostile(calls, RIGHT), mode)
        with pytest.raises(TimeoutError):
            server.accept()
    assert run.logs["prediction_ingestion_stdout"].count("REFUSED") == 2


@pytest.mark.parametrize("depth", [50, pytest.param(1100, marks=pytest.mark.slow)])
def test_deep_and_locked_folders_are_cleared_away(rehearse, tmp_path, depth):
    dig = f"os.chdir(sys.argv[-1])\nfor _ in range({depth}): os.mkdir('d'); os.chdir('d')"
    run, _ = rehearse(hostile(dig, "os.chmod(sys.argv[-1] + '/d', 0)", RIGHT))
    assert run.status == "Finished"
    worker.remove(tmp_path / "run")
    assert not (tmp_path / "run").exists()


@both
def test_what_is_left_without_permissions_is_read_all_the_same(rehearse, tmp_path, mode):
    """The files of a user who is not root: what matters is that the judge may read and clear them."""
    lock = "os.umask(0o777)\nos.makedirs(sys.argv[-1] + '/d')\nopen(sys.argv[-1] + '/f', 'w')"
    run, found = rehearse(hostile(lock, RIGHT), mode)
    assert (run.status, found) == GOOD_END
    for name, needed in (("d", 0o700), ("f", 0o600), ("predictions.npy", 0o600)):
        assert os.stat(tmp_path / "run/prediction/app/output" / name).st_mode & needed == needed


@both
def test_the_probe_is_called_as_the_scored_run_is(rehearse, tmp_path, mode):
    look = "print('SEEN', sys.argv, sorted(os.listdir(sys.path[0])), sorted(os.listdir(sys.argv[-3])), os.getcwd())"
    run, _ = rehearse(model(top=f"import os, sys\n{look}"), mode)
    images = cells(10)[0]
    (tmp_path / "run/again").mkdir()
    job = worker.probe(tmp_path / "run/again", tmp_path / "s.zip", images[:8], images[8:], "an2dl", worker.NEWEST,
                       worker.Limits())  # fmt: skip
    seen = [text.partition("SEEN")[2].splitlines()[0] for text in (run.prediction.stdout, job.stdout)]
    assert seen[0] == seen[1].replace("run/again", "run/prediction")
    assert job.notes["images"] == 8 and job.notes["stage"] == "done" and not job.notes["errors"]
