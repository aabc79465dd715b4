"""What a rehearsal is at, on the terminal: which of its stages, the seconds gone, and those to expect."""

from __future__ import annotations

import json
import time
from pathlib import Path


class Stages:
    """Prints a line as each stage begins; within `with stages.shown:` a line below tells the seconds gone."""

    def __init__(self, console, expected: list[float], number: int = 2):
        """console: rich's. expected: seconds of each stage, [] where not known. number: how many there are."""
        from rich.live import Live

        self.expected, self.number, self.current, self.text, self.start = expected, number, 0, "", 0.0
        self.shown = Live(get_renderable=self.line, console=console, transient=True)

    def begin(self, what: str) -> None:
        about = f", about {self.expected[self.current]:.0f} s" if self.expected else ""
        self.current, self.start = self.current + 1, time.monotonic()
        self.text = f"stage {self.current} of {self.number}: {what}{about}"
        self.shown.console.print(self.text, soft_wrap=True)

    def line(self) -> str:
        return f"{self.text}; {time.monotonic() - self.start:.0f} s gone" if self.text else ""


def expected_seconds(reports: list[Path], zip_name: str, n: int) -> list[float]:
    """Seconds of a rehearsal's two stages with n images, by the first of the reports that is of a zip of this name."""
    for path in reports:
        try:
            old = json.loads(path.read_text(encoding="utf-8"))
            found, probe = old["forecast"], old["rehearsal"]["jobs"]["probe"]
            if old["zip"]["path"] == zip_name:
                return [float(found["seconds_load"] + n * found["seconds_per_image"]), float(probe["seconds"])]
        except (OSError, ValueError, LookupError, TypeError):
            continue  # no report, or of a zip that did not come so far
    return []
