"""The door of evaluation/: its names, its help, and what goes wrong in one line."""

import importlib
import re
from types import SimpleNamespace

import pytest
from conftest import ROOT

from evaluation import __main__ as door
from evaluation.__main__ import NAMES, main


def test_the_list_names_every_command_with_a_line(capsys):
    for words in ([], ["--help"]):
        main(words)
        said = capsys.readouterr().out
        assert re.findall(r"^  (\w+)  +\S.*\.$", said, re.MULTILINE) == list(NAMES)
        assert max(map(len, said.splitlines())) <= 120
    modules = {path.stem for path in (ROOT / "evaluation").glob("*.py") if "\ndef run(" in path.read_text()}
    assert modules == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_help_names_what_can_be_run_and_shows_defaults(capsys, name):
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    said = capsys.readouterr().out
    assert ended.value.code == 0 and said.startswith(f"usage: python -m evaluation {name} ")
    assert re.search(rf"^ *python -m evaluation {name}", said, re.MULTILINE)  # an example
    parser = door.shell.Parser("p")
    importlib.import_module(f"evaluation.{name}").options(parser)
    for action in parser._actions:
        assert action.help
        if action.default not in (None, False, "==SUPPRESS=="):
            assert "default: " in action.help, action.dest
    with pytest.raises(SystemExit) as ended:
        main([name, "--no-such-option"])
    said = capsys.readouterr().err
    assert ended.value.code == 2 and said.count("\n") == 1 and said.startswith(f"python -m evaluation {name}: ")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["laboratory", "gone.npz"], "gone.npz does not exist"),
        (["laboratory", "empty.npz"], "empty.npz is not an npz file"),
        (["laboratory", "empty.npz", "--json", "gone/a.json"], "gone is not a folder: create it first"),
        (["card"], "arguments are required: target"),
        (["card", ".", "--quick", "--composite"], "not allowed with"),
        (["compare", "."], "no run to compare"),
        (["compare", "gone"], "gone/run.json is missing"),
        (["compare", ".", "--cards", "gone"], "gone is not a folder"),
        (["compare", ".", "--json", "."], ". is a folder: name a file in it"),
        (["unforeseen"], "arguments are required: target"),
        (["unforeseen", ".", "--images", "0"], "give a whole number above 0, not 0"),
        (["pictures", "--heldout", "empty.npz"], "empty.npz is not an npz file"),
        (["cards"], "there is no such command; choose from card"),
        (["all", "--quick"], "unrecognized arguments"),
    ],
)
def test_what_cannot_be_done_is_one_line(monkeypatch, capsys, tmp_path, words, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.npz").touch()
    with pytest.raises(SystemExit) as ended:
        main(words)
    err = capsys.readouterr().err
    code = ended.value.code
    lines = [*err.splitlines(), *([code] if isinstance(code, str) else [])]
    assert code == 2 or lines[-1].startswith("error: ")
    assert said in lines[-1] and (len(lines) == 1 or "contains no run: left out" in lines[0])
    assert [path.name for path in tmp_path.iterdir()] == ["empty.npz"]


def processes(status: int, ran: list):
    """Stands for the module subprocess: notes what would run, after the interpreter."""
    return SimpleNamespace(run=lambda words: ran.append(words[1:]) or SimpleNamespace(returncode=status))


def test_all_runs_commands_that_exist_in_an_order_that_works(monkeypatch, capsys, tmp_path):
    ran = []
    monkeypatch.setattr(door, "main", lambda words: ran.append(["evaluation", *words]))
    monkeypatch.setattr(door, "subprocess", processes(0, ran))
    monkeypatch.chdir(tmp_path)
    for path in ("data/heldout.npz", "data/jtsc.npz", "results/ladder/b.json", "results/ladder/a.json"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    door.make_all()
    names = [words[1] if words[0] in ("evaluation", "-m") else words[0] for words in ran]
    assert names[0] == "build_submission.py" and names[-1] == "tables"
    assert set(names) == {"build_submission.py", "tests.dirty", *NAMES} - {"compare", "setup"}
    assert names.index("calibrate") < names.index("card")
    assert ran[names.index("calibrate")][2:] == ["results/ladder/a.json", "results/ladder/b.json"]
    for words in ran:  # each is taken by its own parser
        if words[0] == "evaluation":
            parser = door.shell.Parser("p")
            importlib.import_module(f"evaluation.{words[1]}").options(parser)
            parser.parse_args(words[2:])
    for path in re.findall(r"results/\w+\.\w+", door.ALL):
        assert (ROOT / path).exists(), path
    (tmp_path / "data/jtsc.npz").unlink()
    ran.clear()
    door.make_all()
    assert "laboratory" not in [words[1] for words in ran if len(words) > 1] and len(ran) == len(names) - 1
    assert "left out" in capsys.readouterr().out


def test_all_stops_where_cells_are_missing_or_a_command_fails(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="docs/DATA.md"):
        door.make_all()
    (tmp_path / "data").mkdir()
    (tmp_path / "data/heldout.npz").touch()
    monkeypatch.setattr(door, "subprocess", processes(1, []))
    with pytest.raises(SystemExit, match="build_submission.py .* failed"):
        door.make_all()
