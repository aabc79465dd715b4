"""Shared by the commands: a parser, option types, and errors reported as one line that says what to do."""

import argparse
import sys
from contextlib import contextmanager
from functools import partial
from pathlib import Path


class Parser(argparse.ArgumentParser):
    """An argument parser. A wrong option exits with status 2 and one line."""

    def error(self, message: str):
        self.exit(2, f"{self.prog}: {message} (--help lists the options)\n")


def parser(module: str, doc: str | None = None, **more) -> Parser:
    """A parser for `python -m MODULE`, described by its docstring."""
    form = argparse.RawDescriptionHelpFormatter
    return Parser(f"python -m {module}", description=doc, formatter_class=form, **more)


def new_file(text: str) -> Path:
    """Option type for a file to write. Rejects, before any work, a folder and a path whose folder is missing."""
    path = Path(text)
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"{path} is a folder: name a file in it")
    if not path.resolve().parent.is_dir():
        raise argparse.ArgumentTypeError(f"{path.parent} is not a folder: create it first, or write elsewhere")
    return path


def count(text: str, least: int = 0) -> int:
    """Option type for a whole number of at least `least`."""
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"give a whole number {'above 0' if least else 'from 0 on'}, not {text}")
    return int(text)


positive = partial(count, least=1)


@contextmanager
def plain_errors(stopped: str = "stopped"):
    """Exits with status 1 and one line: `stopped` on Ctrl-C, or an error of input, disk or a missing package."""
    try:
        yield
    except OSError as error:
        why = " is not there: check the path" if isinstance(error, FileNotFoundError) else f": {error.strerror}"
        sys.exit(f"error: {error.filename}{why}" if error.filename else f"error: {error}")
    except (ValueError, ImportError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(stopped)
