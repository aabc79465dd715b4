"""Shows the results of build_submission.py in the terminal and as one self-contained HTML page.

Both are made from report.json; docs/CHECKING.md explains its keys.
"""

import base64
import hashlib
import html as markup
import os
from datetime import datetime
from pathlib import Path

from grader.environment import GRADER_VERSIONS, phrase

VERSION = 2
SHOWN = 60  # mistakes on the page
FEW_TIMES = 4  # a forecast for more than this many times the images that were run is rough
HASHED = 4 << 30  # bytes: no SHA-256 is computed of larger files
COLOURS = {"good": "green", "runs": "yellow", "unknown": "yellow", "refused": "red"}
EXPLAINED = {
    "ran under": "the versions in this rehearsal",
    "zip": "the file to upload",
    "sha256": "the zip's checksum: two zips with the same checksum are equal byte for byte",
    "files": "the files in the zip",
    "left out": "files of the folder that are not in the zip, and why",
    "rehearsal": "the status that the platform would show; docs/CHECKING.md explains its profiles and rules",
    "isolation": "how the submission was isolated from this machine while it ran",
    "prediction": "the job that loads the model and labels all images: time, peak memory, exit status (0: no error)",
    "scoring": "the job that compares the labels with the true ones",
    "probe": "the job that predicts some images again, in other ways: their labels must not change",
    "forecast": "time and memory on this machine for a hidden test set of that size, extrapolated linearly",
    "quota": "the storage that one upload and its results take, of what a user has on Codabench",
    "logs": "the folder with all output of the jobs",
}
GET_DATA = """No accuracy was measured, because there are no held-out cells. Put the challenge's held-out file at \
data/heldout.npz, or choose one with --heldout NPZ: an .npz of `images` (n, height, width, 3) uint8 and `labels` (n,). \
docs/DATA.md explains where to get it."""


def describe(path: Path) -> dict:
    """Path (relative if below the working directory), bytes and SHA-256 of a file."""
    digest, size = hashlib.sha256(), os.stat(path).st_size
    with open(path, "rb") as file:
        while size <= HASHED and (chunk := file.read(1 << 20)):
            digest.update(chunk)
    shown = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    return {"path": str(shown), "bytes": size, "sha256": digest.hexdigest() if size <= HASHED else None}


def shorten(names) -> str:
    """Names joined by commas: the first 20 and the number of others."""
    names = list(names)
    return ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")


def facts(report: dict) -> list[tuple[str, str]]:
    """The lines at the top of both reports: (name, value)."""
    zip_, rehearsal = report["zip"], report.get("rehearsal")
    rows = []
    if found := report.get("environment"):
        theirs = f"not the grader's {phrase(GRADER_VERSIONS, found['differs'])}"
        said = theirs if found["differs"] else "the grader's versions"
        rows.append(("ran under", f"{phrase({name: found[name] for name in GRADER_VERSIONS})}: {said}"))
    rows += [("zip", f"{zip_['path']}, {zip_['bytes'] / 1e6:.1f} MB"),
             ("sha256", zip_["sha256"] or "not computed: the file is too large")]  # fmt: skip
    if "files" in report:
        rows.append(("files", shorten(report["files"])))
    if report.get("left_out"):
        rows.append(("left out", shorten([f"{name} ({why})" for name, why in report["left_out"].items()])))
    if not rehearsal:
        return rows
    rows += [("rehearsal", f"{rehearsal['status']} (profile {rehearsal['profile']}, rules of {rehearsal['era']})"),
             ("isolation", rehearsal["isolation"])]  # fmt: skip
    for name, job in rehearsal["jobs"].items():
        ended = f"stopped: {job['stopped_by']} limit" if job["stopped_by"] else f"exit status {job['exit_code']}"
        rows.append((name, f"{job['seconds']:.1f} s, {job['peak_memory_mb']} MB, {ended}"))
    if expected := report.get("forecast"):
        n, seen, seconds = expected["images"], expected["from_images"], expected["seconds"]
        spare = rehearsal["time_limit_s"] - seconds
        text = f"{n} images: about {seconds:.0f} s, {spare:.0f} s within the limit; {expected['memory_mb']:.0f} MB"
        if n > FEW_TIMES * seen:
            text = f"{n} images: roughly {seconds:.0f} s; {seen} are too few to forecast the memory"
        rows.append(("forecast", text))
    quota = report["quota"]
    text = f"{quota['bytes_per_upload'] / 1e6:.0f} MB per upload; {quota['uploads_that_fit']} uploads fit into "
    return [*rows, ("quota", text + f"{quota['quota_bytes'] / 1e9:.0f} GB"), ("logs", rehearsal["logs"])]


def classes(report: dict) -> list[tuple[str, ...]]:
    """Rows of the table of classes: name, cells, precision, recall, F1."""
    import numpy as np

    from grader.scoring_program.scoring import class_rows

    return class_rows(np.array(report["confusion"]), report["classes"])


def other_scores(report: dict) -> str:
    """All scores but the accuracy, in one line."""
    scores = {name.replace("_", " ").replace("f1", "F1"): value for name, value in report["scores"].items()}
    return ", ".join(f"{name} {value:.4f}" for name, value in scores.items() if name != "accuracy")


def terminal(report: dict, console) -> None:
    """Print a report, readable at 80 columns. `console`: rich.console.Console."""
    from rich import box
    from rich.table import Column, Table
    from rich.text import Text

    grid = Table.grid(Column(style="bold", no_wrap=True), Column(overflow="fold"), padding=(0, 2))
    for name, value in facts(report):
        grid.add_row(name, Text(value))
    console.print(grid)
    if "scores" in report:
        head = [Column(name, justify="right") for name in ("cells", "precision", "recall", "F1")]
        table = Table("class", *head, box=box.SIMPLE, pad_edge=False)
        for row in classes(report):
            table.add_row(*row)
        console.print(table)
        console.print(Text.assemble((f"accuracy {report['scores']['accuracy']:.4f}", "bold"),
                                    f" on {report['heldout']['images']} held-out cells, through the zip"))  # fmt: skip
        console.print(other_scores(report))
    elif report.get("rehearsal", {}).get("status") == "Finished" and "heldout" not in report:
        console.print(Text(GET_DATA, style="yellow"))
    for found in report["findings"]:
        style = "red" if found["level"] == "error" else "yellow"
        console.print(Text.assemble((f"{found['code']} {found['level']}: ", f"bold {style}"), found["message"]))
    for line in report.get("rehearsal", {}).get("log_end", []):
        console.print(Text(f"  | {line}", style="dim"), soft_wrap=True)
    console.print(Text(report["words"], style=f"bold {COLOURS[report['verdict']]}"))


def png(image) -> str:
    """A data: URI with an RGB image (h, w, 3) uint8 as PNG."""
    import cv2

    return "data:image/png;base64," + base64.b64encode(cv2.imencode(".png", image[..., ::-1])[1]).decode()


def mistaken(report: dict, images) -> list[str]:
    """HTML of the mistakes: up to SHOWN pictures, by falling confidence if confidences are known."""
    name = [f"<b>{markup.escape(name)}</b>" for name in report["classes"]]
    mistakes, confidences = report["mistakes"], report["confidences"]
    rows = [(*row, confidence) for row, confidence in zip(mistakes, confidences or [None] * SHOWN, strict=False)]
    rows.sort(key=lambda row: -(row[3] or 0))
    which = f", the first {SHOWN}" * (len(mistakes) > SHOWN) + ", most confident first" * bool(confidences)
    parts = [f"<h2>Mistakes: {len(mistakes):,}{which}</h2><div class=cells>"]
    for row, true, predicted, confidence in rows:
        said = "" if confidence is None else f"{min(confidence, 0.999):.1%} sure<br>"
        caption = f"{name[true]} taken for {name[predicted]}<br>{said}row {row}"
        parts.append(f'<figure><img src="{png(images[row])}" alt=""><figcaption>{caption}</figcaption></figure>')
    return [*parts, "</div>"]


def heading(report: dict) -> str:
    """HTML of the heading: verdict, accuracy, zip, number of cells, date."""
    accuracy = f" &middot; accuracy {report['scores']['accuracy']:.2%}" if "scores" in report else ""
    cells = f"{report['heldout']['images']:,} held-out cells &middot; " if "heldout" in report else ""
    return (
        f'<h1 class="{report["verdict"]}">{markup.escape(report["words"])}{accuracy}</h1>'
        f"<p class=soft>{markup.escape(report['zip']['path'])} &middot; {cells}"
        f"{datetime.fromisoformat(report['date']):%d %B %Y, %H:%M} UTC</p>"
    )


def html(report: dict, images=None) -> str:
    """The report as one page; `images` (n, height, width, 3) uint8 are the held-out cells, to show the mistakes."""
    import numpy as np

    from grader.scoring_program import scoring

    text, parts = markup.escape, [heading(report)]
    for found in report["findings"]:
        parts.append(f"<p class={found['level']}><b>{found['code']}</b> {text(found['message'])}</p>")
    if log := report.get("rehearsal", {}).get("log_end"):
        parts.append(f"<pre>{text(chr(10).join(log))}</pre>")
    if "scores" in report:
        matrix = scoring.confusion_table(np.array(report["confusion"]), report["classes"])
        rows = scoring.table(classes(report), scoring.CLASS_HEAD)
        parts += [f"<h2>Confusion matrix</h2>{matrix}<h2>Classes</h2>{rows}<p class=soft>{other_scores(report)}</p>"]
        parts += mistaken(report, images)
    elif "rehearsal" in report and "heldout" not in report:
        parts.append(f"<p class=warning>{text(GET_DATA)}</p>")
    parts.append("<h2>The run</h2><dl>")
    for name, value in facts(report):
        parts.append(f"<dt>{text(name)}<dd>{text(value)}<br><span class=soft>{text(EXPLAINED[name])}</span>")
    css = scoring.style() + Path(__file__).with_name("report.css").read_text(encoding="utf-8")
    return f"{scoring.HEAD}<title>Submission report</title><style>{css}</style>{''.join(parts)}</dl></html>\n"
