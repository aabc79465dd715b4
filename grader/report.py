"""Shows a report of build_submission.py: in the terminal, and as one HTML page."""

from __future__ import annotations

from grader.scoring_program.scoring import CLASSES


def terminal(report: dict, console) -> None:
    """Print a report, readable at 80 columns. `console`: rich.console.Console."""
    from rich.table import Table
    from rich.text import Text

    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="bold", no_wrap=True)
    facts.add_column(overflow="fold")
    zip_ = report["zip"]
    facts.add_row("zip", f"{zip_['path']}, {zip_['bytes'] / 1e6:.1f} MB")
    facts.add_row("sha256", zip_["sha256"])
    rehearsal = report.get("rehearsal")
    if rehearsal:
        facts.add_row(
            "rehearsal", f"profile {rehearsal['profile']}, rules of {rehearsal['era']}: {rehearsal['status']}"
        )
        facts.add_row("isolation", rehearsal["isolation"])
        for name, job in rehearsal["jobs"].items():
            facts.add_row(name, f"{job['seconds']:.1f} s, {job['peak_memory_mb']} MB, exit status {job['exit_code']}")
    expected = report.get("forecast")
    if expected:
        margin = rehearsal["time_limit_s"] - expected["seconds"]
        facts.add_row(
            "forecast",
            f"{expected['images']} images: {expected['seconds']:.0f} s of {rehearsal['time_limit_s']:g} s "
            f"({margin:.0f} s to spare), {expected['memory_mb']:.0f} MB",
        )
    if "quota" in report:
        quota = report["quota"]
        facts.add_row("quota", f"{quota['bytes_per_upload'] / 1e6:.0f} MB per upload, "
                      f"{quota['uploads_that_fit']} fit into {quota['quota_bytes'] / 1e9:.0f} GB")  # fmt: skip
    console.print(facts)
    if "scores" in report:
        scores = Table(title=f"{report['heldout']['images']} held-out cells, through the zip", title_justify="left")
        scores.add_column("score")
        scores.add_column("", justify="right")
        for name, value in report["scores"].items():
            scores.add_row(name.replace("_", " "), f"{value:.4f}")
        console.print(scores)
        classes = Table()
        for name in ("class", "cells", "precision", "recall", "F1"):
            classes.add_column(name, justify="left" if name == "class" else "right")
        for name, row in zip(CLASSES, report["classes"], strict=True):
            classes.add_row(name, str(row["support"]), *(f"{row[k]:.4f}" for k in ("precision", "recall", "f1")))
        console.print(classes)
    for found in report["findings"]:
        style = "red" if found["level"] == "error" else "yellow"
        console.print(Text.assemble((f"{found['code']} {found['level']} ", f"bold {style}"), found["message"]))
    for line in report.get("last_log_lines", []):
        console.print(Text("  | " + line, style="dim"))
    good = report["verdict"] == "good"
    console.print(
        Text("GOOD to upload" if good else "REFUSED: no zip was written", style="bold green" if good else "bold red")
    )
