"""The first commands, timed: what fails is shown, and the pages get what was measured."""

import pytest
from conftest import ROOT

from evaluation import setup

FOUND = {
    "cores": 2,
    "download_mb": 781,
    "disk_mb": 2630,
    "seconds": {"install": 95, "build": 30, "pytest": 195, "trial": 130},
}


def test_the_commands_are_run_in_a_clone_with_its_own_python(tmp_path, monkeypatch):
    ran = []

    def seconds(command, folder, python=None):
        ran.append((command.split()[:2], folder, python))
        (tmp_path / "wheels").mkdir(exist_ok=True)
        (tmp_path / "wheels" / "a.whl").write_bytes(bytes(3_000_000))
        (tmp_path / "venv").mkdir(exist_ok=True)
        return 1.5

    monkeypatch.setattr(setup, "seconds", seconds)
    found = setup.measure(tmp_path)
    clone, python = tmp_path / "clone", tmp_path / "venv/bin/python"
    assert (clone / "model.py").read_bytes() and (clone / "data").resolve() == (ROOT / "data").resolve()
    assert {(folder, interpreter) for _, folder, interpreter in ran[1:]} == {(clone, python)}
    assert found["download_mb"] == 3 and found["disk_mb"] > 10
    assert found["seconds"] == {"install": 3.0, "build": 1.5, "pytest": 1.5, "trial": 1.5}


def test_a_command_that_fails_is_named_with_its_words(tmp_path):
    assert setup.seconds("-c pass", tmp_path) < 5
    with pytest.raises(ValueError, match=r"(?s)python -c 1/0 failed:.*ZeroDivisionError"):
        setup.seconds("-c 1/0", tmp_path)


def test_the_pages_show_what_was_measured():
    said = setup.commands(FOUND)
    for words in ("2.6 GB of disk, 781 MB", "of 2 cores", "# 1.6 minutes;", "# 0.5 minutes\n", "# 3.2 minutes\n"):
        assert words in said
    assert setup.trial(FOUND).startswith("A trial takes 2.2 minutes on 2 cores: `--limit 400 ")
