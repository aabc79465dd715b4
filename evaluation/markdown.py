"""Format results as Markdown, for the pages and the terminal."""

import sys
from collections.abc import Iterable

from rich.console import Console
from rich.markdown import Markdown


def percent(share: float | None, digits: int = 2) -> str:
    return number(share, 100, digits)


def number(value: float | None, scale: float = 1, digits: int = 0) -> str:
    return "-" if value is None else f"{scale * value:.{digits}f}"


def table(header: list[str], rows: Iterable[list[str]]) -> str:
    head, *body = ("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in (header, *rows))
    return "\n".join([head, "|---" * len(header) + "|", *body])


def show(text: str) -> None:
    """Print Markdown at the terminal's width, or at 120 columns where stdout is no terminal."""
    Console(width=None if sys.stdout.isatty() else 120).print(Markdown(text))
