"""Where weights come from: the sources that a run depends on are all named, and a run goes on with no others."""

import ast
import json
import shutil

import pytest
from conftest import ROOT

from training import provenance


def imported(name: str) -> set[str]:
    """The modules of training/ that one of them imports, and those that these import, and so on."""
    tree = ast.parse((ROOT / "training" / f"{name}.py").read_text(encoding="utf-8"))
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    found = {alias.name for node in nodes if node.module == "training" for alias in node.names}
    found |= {node.module.split(".")[1] for node in nodes if node.module.startswith("training.")}
    return found.union(*map(imported, found - {name}))


def test_sources_are_all_that_a_run_depends_on():
    """But what only reads options, shows an audit or joins finished runs; reports registers itself with recipes."""
    assert {*imported("train"), "train", "reports"} - {"shell", "audit_page", "ensemble"} | {"../model"} == set(
        provenance.SOURCES
    )


@pytest.fixture
def copy(tmp_path, monkeypatch):
    """The project's sources elsewhere, to change them."""
    shutil.copytree(ROOT / "training", tmp_path / "training", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "model.py", tmp_path)
    monkeypatch.setattr(provenance, "FOLDER", tmp_path / "training")
    return tmp_path


def test_sources_change_with_each_file_and_with_no_other(copy):
    before = provenance.sources()
    (copy / "training" / "shell.py").write_text("")
    assert provenance.sources() == before
    for path in ("model.py", "training/augment.py"):
        (copy / path).write_text("")
        assert provenance.sources() != before
        before = provenance.sources()


def test_a_run_goes_on_with_the_code_that_began_it(copy):
    out, settings = copy / "run", {"schedule": "cosine", "epochs": 3}
    (out / "checkpoint-002").mkdir(parents=True)
    origin = {"sources": provenance.sources(), "commit": "abc"}
    (out / "checkpoint-002" / "state.json").write_text(json.dumps({"settings": settings, "provenance": origin}))
    assert provenance.find_checkpoint(out, settings, True) == out / "checkpoint-002"
    with pytest.raises(ValueError, match="started with epochs 3, not 4: use the same"):
        provenance.find_checkpoint(out, settings | {"epochs": 4}, True)
    (copy / "training" / "train.py").write_text("")
    with pytest.raises(ValueError, match=r"started with other code \(commit abc\): check that out"):
        provenance.find_checkpoint(out, settings, True)
