"""Folders are the rule: what may import what (see the README's layout)."""

import ast
import sys

import pytest
from conftest import ROOT

OURS = {"model", "training", "evaluation", "grader", "build_submission", "tests"}
MAY = {
    "model.py": {"training"},  # lazily, where a manifest asks for it
    "training": {"model", "training"},
    "evaluation": {"model", "training", "evaluation", "grader"},  # the grader's report, to show it
    "build_submission.py": {"grader", "evaluation"},  # lazily, for --corrupt alone: an organiser's, no participant's
}


def imported(source: str) -> set[str]:
    """The top-level names that a source file imports, at any depth of it."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add((node.module or "").split(".")[0])
    return names


@pytest.mark.parametrize("room", MAY)
def test_a_room_imports_only_what_it_may(room):
    paths = [ROOT / room] if room.endswith(".py") else sorted((ROOT / room).rglob("*.py"))
    assert paths
    for path in paths:
        found = imported(path.read_text(encoding="utf-8")) & OURS
        assert found <= MAY[room], f"{path.relative_to(ROOT)} imports {', '.join(sorted(found - MAY[room]))}"


def test_the_grader_imports_nothing_of_ours():
    for path in sorted((ROOT / "grader").rglob("*.py")):
        if "starting_kit" not in path.parts:
            found = imported(path.read_text(encoding="utf-8")) & OURS
            assert found <= {"grader", "model"}, path  # `model` is the submission that a program runs


def test_who_checks_a_zip_needs_the_grader_alone():
    """Nothing of evaluation/ is imported but below `if args.corrupt`."""
    tree = ast.parse((ROOT / "build_submission.py").read_text(encoding="utf-8"))
    below = [node for node in ast.walk(tree) if isinstance(node, ast.If) and ast.unparse(node.test) == "args.corrupt"]
    lazy = [node for branch in below for node in ast.walk(branch) if isinstance(node, ast.ImportFrom)]
    assert [node.module for node in lazy] == ["evaluation.corruptions"]
    modules = [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node not in lazy]
    assert "grader" in modules and not [name for name in modules if name.split(".")[0] in OURS - {"grader"}]


def test_imports_are_found_wherever_they_stand():
    source = "import os, evaluation.card\ndef f():\n    from training import data\n    from . import x\n"
    assert imported(source) == {"os", "evaluation", "training"}
    assert "pathlib" in imported("from pathlib import Path") and "pathlib" in sys.stdlib_module_names
