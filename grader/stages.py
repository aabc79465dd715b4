"""What a rehearsal is at, on the terminal: which of its two stages, the seconds gone, and those to expect."""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path


@contextlib.contextmanager
def stage(console, number: int, what: str, seconds: list[float]):
    """Print a line as a stage begins; until its end another tells the time gone.

    console: rich's. seconds: as `expected_seconds` gives them.
    """
    from rich.live import Live

    about, start = f", about {seconds[number - 1]:.0f} s" if seconds else "", time.monotonic()
    text = f"stage {number} of 2: {what}{about}"
    console.print(text, soft_wrap=True)
    with Live(get_renderable=lambda: f"{text}; {time.monotonic() - start:.0f} s gone", console=console, transient=True):
        yield


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
