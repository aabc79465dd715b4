"""Atomic writing of files and folders, and the git commit of the working tree."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Call `write` with a temporary path beside `path`, then rename: a kill leaves the old file or the new one."""
    temporary = path.with_name(f".{os.getpid()}-{path.name}")  # keeps the suffix, which decides the format
    try:
        write(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def new_folder(path: Path):
    """Yields a temporary folder to fill. It is renamed to `path` at the end, or removed if something fails."""
    temporary = path.with_name(f".{os.getpid()}-{path.name}")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        os.rename(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_json(path: Path, content) -> None:
    """Write indented JSON atomically."""
    write_text(path, json.dumps(content, indent=1) + "\n")


def commit() -> str | None:
    """The commit of the working tree, with -dirty where it has changes; None outside a repository."""
    git = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def revision() -> dict:
    """{"commit": the commit or None, "clean": whether the working tree has no changes}, for a manifest."""
    found = commit()
    return {"commit": found and found.removesuffix("-dirty"), "clean": bool(found) and not found.endswith("-dirty")}
