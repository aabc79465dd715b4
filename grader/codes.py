"""Every finding by its code: what is wrong, what the platform would do, what to change. CODES.md is the table.

A code never changes its meaning; a new finding gets a new row. An `error` refuses the submission, a `warning` does not.
Failure modes are numbered by how often submissions to Codabench fail in this way, the most frequent first.
"""

from pathlib import Path
from typing import NamedTuple


class Finding(NamedTuple):
    """A code with its details filled in; str() gives them as one sentence. Rows of the table are templates of it."""

    code: str
    level: str
    wrong: str
    platform: str
    change: str

    def __str__(self) -> str:
        wrong = f"T{self.wrong[1:]}" if self.wrong.startswith("the ") else self.wrong
        return f"{wrong}; on the platform, {self.platform}; {self.change}."

    def as_json(self) -> dict:
        return {**self._asdict(), "message": str(self)}


LINES = Path(__file__).with_name("CODES.md").read_text(encoding="utf-8").splitlines()
ROWS = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in LINES if line.startswith("| ")]
CODES = {code: Finding(code, level, *templates) for code, level, _, *templates in ROWS[1:]}


def clean(value):
    """Untrusted text, with "?" for control characters, cut to 300 characters. Other values are returned unchanged."""
    if not isinstance(value, str):
        return value
    value = "".join(c if c.isprintable() else "?" for c in value[:301])
    return value if len(value) <= 300 else value[:297] + "..."


def finding(code: str, level: str | None = None, **details) -> Finding:
    """The finding `code` with `details` filled in. level: needed where the table says "error or warning"."""
    row, details = CODES[code], {key: clean(value) for key, value in details.items()}
    level = level or row.level
    assert level in ("error", "warning"), code
    return Finding(code, level, *(template.format(**details) for template in row[2:]))


def refused(findings: list[Finding]) -> bool:
    return any(f.level == "error" for f in findings)
