"""Every finding by its code: what is wrong, what the platform would do, what to change. CODES.md is the table.

A code keeps its meaning for ever; a new finding gets a new row. Level `error` refuses the submission, `warning` lets it
pass and says so. Failure modes are numbered in the order in which submissions to Codabench fail most often.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple


class Code(NamedTuple):
    """One row of the table; the last three are templates that a finding fills in."""

    level: str
    mode: str
    wrong: str
    platform: str
    change: str


def read() -> dict[str, Code]:
    """{code: its row} of CODES.md."""
    lines = Path(__file__).with_name("CODES.md").read_text(encoding="utf-8").splitlines()
    rows = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in lines if line.startswith("| ")]
    return {code: Code(*row) for code, *row in rows[1:]}


CODES = read()


@dataclass(frozen=True)
class Finding:
    """A code with its details; str() is the one plain sentence."""

    code: str
    level: str
    wrong: str
    platform: str
    change: str

    def __str__(self) -> str:
        wrong = f"T{self.wrong[1:]}" if self.wrong.startswith("the ") else self.wrong
        return f"{wrong}; on the platform, {self.platform}; {self.change}."

    def as_json(self) -> dict:
        return {**asdict(self), "message": str(self)}


def clean(value):
    """Text from a foreign zip, without control characters and not too long to read."""
    if not isinstance(value, str):
        return value
    value = "".join(c if c.isprintable() else "?" for c in value[:301])
    return value if len(value) <= 300 else value[:297] + "..."


def finding(code: str, level: str | None = None, **details) -> Finding:
    """The finding `code`, its sentence filled in with `details`; `level` where the table leaves it open."""
    row, details = CODES[code], {key: clean(value) for key, value in details.items()}
    level = level or row.level
    assert level in ("error", "warning"), code
    return Finding(code, level, *(part.format(**details) for part in (row.wrong, row.platform, row.change)))


def refused(findings: list[Finding]) -> bool:
    return any(f.level == "error" for f in findings)
