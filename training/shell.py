"""What the commands share: a wrong option, a missing file, a full disk end in one line that says what to do."""

from __future__ import annotations

import argparse
import sys
from contextlib import contextmanager
from functools import partial
from pathlib import Path


class Parser(argparse.ArgumentParser):
    """Options, of which a wrong one ends with status 2 and one line."""

    def error(self, message: str):
        self.exit(2, f"{self.prog}: {message} (--help lists the options)\n")


def parser(module: str, doc: str | None = None, **more) -> Parser:
    """A parser for `python -m MODULE`, described by its docstring."""
    form = argparse.RawDescriptionHelpFormatter
    return Parser(f"python -m {module}", description=doc, formatter_class=form, **more)


def new_file(text: str) -> Path:
    """The type of an option that names a file to write: refused, before any work, where its folder is missing."""
    path = Path(text)
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"{path} is a folder: name a file in it")
    if not path.resolve().parent.is_dir():
        raise argparse.ArgumentTypeError(f"{path.parent} is no folder: make it first, or write elsewhere")
    return path


def count(text: str, least: int = 0) -> int:
    """The type of an option that counts something, or nothing."""
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"give a whole number {'above 0' if least else 'from 0 on'}, not {text}")
    return int(text)


positive = partial(count, least=1)  # of one that counts something


@contextmanager
def plain_errors(stopped: str = "stopped"):
    """Ends the program with status 1 and one line where input, disk or a missing package stop it, or Ctrl-C.

    stopped: what is said after Ctrl-C.
    """
    try:
        yield
    except (ValueError, OSError, ImportError) as error:
        said = str(error)
        if isinstance(error, OSError) and error.filename:
            said = f"{error.filename}: {error.strerror}"
            if isinstance(error, FileNotFoundError):
                said = f"{error.filename} is not there: check the path"
        sys.exit(f"error: {said}")
    except KeyboardInterrupt:
        sys.exit(stopped)
