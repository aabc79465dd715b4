"""Where weights come from: the sources that a run depends on are all named, and a run goes on with no others."""

import ast
import hashlib
import json
import posixpath
import shutil
import subprocess

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


def git(*arguments: str) -> bytes:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, check=True).stdout


def test_the_weights_in_the_repository_are_of_the_recipe_at_a_clean_commit_of_its_history():
    """The sources that the run depended on, as its commit has them, have the digest that the run noted."""
    manifest = json.loads((ROOT / "weights" / "manifest.json").read_text())
    assert manifest["recipe"] == "ours" and manifest["clean"] is True
    commit = manifest["commit"]
    try:
        git("cat-file", "-e", f"{commit}^{{commit}}")
    except (OSError, subprocess.CalledProcessError):
        pytest.skip(f"needs git and the repository's history: {commit[:7]} is not here")
    git("merge-base", "--is-ancestor", commit, "HEAD")
    tree = ast.parse(git("show", f"{commit}:training/provenance.py"))
    [names] = [ast.literal_eval(node.value) for node in tree.body if isinstance(node, ast.Assign)
               and node.targets[0].id == "SOURCES"]  # fmt: skip
    paths = [posixpath.normpath(f"training/{name}.py") for name in names]
    texts = b"".join(git("show", f"{commit}:{path}") for path in paths)
    assert hashlib.sha256(texts).hexdigest() == manifest["sources"]
