"""The commands: their help names what can be run, and what goes wrong is one line that says what to do."""

import argparse
import importlib
import re
import sys

import pytest
from conftest import ROOT

from training import shell

MODULES = [
    f"{path.parent.name}.{path.stem}"
    for folder in ("training",)
    for path in sorted((ROOT / folder).glob("*.py"))
    if "\ndef main(" in path.read_text(encoding="utf-8")
]


def run(monkeypatch, capsys, module: str, *arguments) -> tuple[int, str, str]:
    """(exit status, stdout, stderr) of `python -m MODULE ARGUMENTS`, in this process."""
    monkeypatch.setattr(sys, "argv", [f"{module.rpartition('.')[2]}.py", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        importlib.import_module(module).main()
    said = capsys.readouterr()
    if isinstance(ended.value.code, str):  # as Python does at the end
        return 1, said.out, f"{said.err}{ended.value.code}\n"
    return ended.value.code, said.out, said.err


@pytest.mark.parametrize("module", MODULES)
def test_help_names_what_can_be_run_and_a_wrong_option_is_one_line(monkeypatch, capsys, module):
    status, out, err = run(monkeypatch, capsys, module, "--help")
    assert (status, err) == (0, "") and out.startswith(f"usage: python -m {module} ")
    status, out, err = run(monkeypatch, capsys, module, "--no-such-option")
    assert (status, out, err.count("\n")) == (2, "", 1) and err.startswith(f"python -m {module}")


def test_files_at_the_top_name_themselves(monkeypatch, capsys):
    for module in ("build_submission", "model"):
        monkeypatch.setattr(sys, "argv", [f"{module}.py", "--help"])
        with pytest.raises(SystemExit):
            importlib.import_module(module).main()
        assert capsys.readouterr().out.startswith(f"usage: python {module}.py ")


@pytest.mark.parametrize(
    ("module", "arguments", "said"),
    [
        ("training.adapt", ["--data", "gone", "--out", "new"], "gone does not exist"),
        ("training.clean", ["empty.npz"], "empty.npz is not an npz file"),
        ("training.train", ["--ensemble", "gone", "--out", "new"], "at least two runs"),
        ("training.train", ["--ensemble", "a", "b", "--out", "new", "--limit", "4"], "--limit would have no effect"),
        ("training.train", ["--data", "gone.npz", "--out", "new"], "gone.npz does not exist"),
    ],
)
def test_what_cannot_be_done_is_one_line(monkeypatch, capsys, tmp_path, module, arguments, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.npz").touch()
    status, out, err = run(monkeypatch, capsys, module, *arguments)
    lines = err.splitlines()
    assert status in (1, 2) and said in lines[-1] and "Traceback" not in err
    assert len(lines) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["empty.npz"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--recipe", "other"], "invalid choice: 'other' (choose from"),
        (["--epochs", "0"], "argument --epochs: give a whole number above 0, not 0"),
        (["--limit", "-5"], "argument --limit: give a whole number above 0, not -5"),
        (["--set", "mixup=2"], "the odds of mixup"),
        (["--set", "no_such_knob=2"], "no_such_knob"),
        (["--ensemble", "a", "b", "--epochs=3"], "--epochs would have no effect"),
        (["--ensemble", "a", "b", "--workers", "2"], "--workers would have no effect"),
    ],
)
def test_wrong_usage_of_the_training_has_the_status_of_wrong_options(monkeypatch, capsys, tmp_path, arguments, said):
    status, out, err = run(monkeypatch, capsys, "training.train", "--out", tmp_path / "new", *arguments)
    assert (status, out, err.count("\n")) == (2, "", 1) and said in err


def test_files_and_numbers_that_will_do_are_taken(tmp_path):
    assert shell.new_file(str(tmp_path / "new.json")) == tmp_path / "new.json"
    assert shell.positive("3") == 3
    for text in ("0", "-1", "1.5", "x"):
        with pytest.raises(argparse.ArgumentTypeError):
            shell.positive(text)


def test_a_full_disk_and_an_interruption_are_one_line(tmp_path):
    for error, said in (
        (OSError(28, "No space left on device", "a.json"), "^error: a.json: No space left on device$"),
        (FileNotFoundError(2, "No such file or directory", "a.json"), "^error: a.json is not there: check the path$"),
        (ValueError("labels are 9"), "^error: labels are 9$"),
        (KeyboardInterrupt(), "^stopped$"),
    ):
        with pytest.raises(SystemExit, match=said), shell.plain_errors():
            raise error
    with pytest.raises(KeyError), shell.plain_errors():
        raise KeyError("a fault of ours, which keeps its traceback")


def test_no_command_makes_a_parser_of_its_own():
    for path in [*ROOT.glob("training/*.py"), *ROOT.glob("evaluation/*.py"), ROOT / "tests/dirty.py"]:
        if path.stem != "shell":
            assert not re.search(r"ArgumentParser\(", path.read_text(encoding="utf-8")), path
