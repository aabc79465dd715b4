"""Files: whole or not there, and the commit they came from."""

import shutil
import subprocess

import pytest

from training import files


def test_a_file_is_written_whole_or_stays_as_it_was(tmp_path):
    path = tmp_path / "a.json"
    files.write_json(path, {"a": 1})
    assert path.read_text() == '{\n "a": 1\n}\n'

    def broken(temporary):
        temporary.write_text("half")
        raise OSError("No space left on device")

    with pytest.raises(OSError, match="No space"):
        files.write_atomically(path, broken)
    assert path.read_text() == '{\n "a": 1\n}\n' and list(tmp_path.iterdir()) == [path]


def test_a_folder_is_filled_wholly_or_not_there(tmp_path):
    with files.new_folder(tmp_path / "run") as folder:
        (folder / "a").write_text("a")
        assert not (tmp_path / "run").exists()
    for name in ("new", "run"):  # a folder that is there is left alone
        with pytest.raises((KeyboardInterrupt, OSError)), files.new_folder(tmp_path / name) as folder:
            (folder / "b").write_text("b")
            if name == "new":
                raise KeyboardInterrupt
    assert [path.name for path in tmp_path.rglob("*")] == ["run", "a"]


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_the_revision_says_whether_something_was_changed(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "ROOT", tmp_path)
    assert files.revision() == {"commit": None, "clean": False}
    (tmp_path / "a").write_text("a")
    options = "-c user.name=a -c user.email=a@b -c commit.gpgsign=false".split()
    for command in ("init -q", "add a", "commit -qm a"):
        subprocess.run(["git", *options, *command.split()], cwd=tmp_path, check=True)
    found = files.revision()
    assert found["clean"] and len(found["commit"]) == 40
    (tmp_path / "a").write_text("b")
    assert files.revision() == found | {"clean": False} and files.commit() == found["commit"] + "-dirty"
