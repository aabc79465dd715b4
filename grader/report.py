"""Shows what build_submission.py found: in the terminal, and as one HTML page that needs nothing from elsewhere.

report.json, which both are made from, has these keys; those of a rehearsal are absent where there was none:

    version     2; changes when a key goes or changes its meaning, not when one is added
    verdict     "good", "runs", "unknown" (not run) or "refused"
    words       the verdict in words, as the terminal shows it
    zip         path, bytes, sha256 (null above 4 GB)
    files       {name: bytes} of what went into the zip, where this command made it; with it:
    left_out    {name: why} of what did not
    environment  python, tensorflow, keras, numpy (versions, null: not there), differs (names of those that are not the
                grader's), hidden (modules that are installed, and that the grader lacks)
    findings    [{code, level ("error" or "warning"), wrong, platform, change, message}], see CODES.md
    rehearsal   profile, era, isolation, status, history (of statuses), detail, time_limit_s, logs (folder), log_end
                (last lines, if refused), jobs {prediction, scoring, probe: {exit_code, seconds, peak_memory_mb,
                stopped_by: null, "time", "memory", "disk" or "processes"}}
    forecast    images, seconds, seconds_load, seconds_per_image, memory_mb, memory_mb_per_image
    quota       bytes_per_upload, quota_bytes, uploads_that_fit
    heldout     path, bytes, sha256, images; with it:
    scores      {accuracy, balanced_accuracy, macro_precision, macro_recall, macro_f1}, each 0-1
    classes     names of the classes, in the order of their labels
    confusion   a row for each class (true) of counts (predicted)
    mistakes    [[row in the held-out file, true label, predicted label]]
"""

from __future__ import annotations

import base64
import html as markup
import json
import re
import struct
import zlib

from grader.environment import GRADER_VERSIONS, phrase

VERSION = 2
SHOWN = 60  # mistakes on the page
COLOURS = {"good": "green", "runs": "yellow", "unknown": "yellow", "refused": "red"}
GET_DATA = """No accuracy was measured: there are no held-out cells here. Put the challenge's held-out file at \
data/heldout.npz, or name one with --heldout NPZ: arrays `images` (n, height, width, 3) uint8 and `labels` (n,). \
The README says where to get it."""


def as_json(report: dict) -> str:
    """report.json: indented, with each row of numbers on one line."""
    text = json.dumps(report, indent=1)
    return re.sub(r"\[\s+([-\d,\s]+?)\s+\]", lambda row: f"[{' '.join(row[1].split())}]", text) + "\n"


def shorten(names, most: int = 30) -> str:
    """Names in a row; of very many, the first."""
    names = list(names)
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def ran_under(found: dict | None) -> list[tuple[str, str]]:
    """The first lines: which versions a rehearsal had, and what was kept from it."""
    if not found:
        return []
    differs = found["differs"]
    said = f"not the grader's {phrase(GRADER_VERSIONS, differs)}" if differs else "the grader's versions"
    rows = [("ran under", f"{phrase({name: found[name] for name in GRADER_VERSIONS})}: {said}")]
    if found["hidden"]:
        rows.append(("hidden", f"what the grader lacks: {shorten(found['hidden'], 12)}"))
    return rows


def facts(report: dict) -> list[tuple[str, str]]:
    """The short lines at the top of both reports: (what, how much)."""
    zip_, rehearsal = report["zip"], report.get("rehearsal")
    rows = [*ran_under(report.get("environment")), ("zip", f"{zip_['path']}, {zip_['bytes'] / 1e6:.1f} MB"),
            ("sha256", zip_["sha256"] or "not computed: too large")]  # fmt: skip
    if "files" in report:
        rows.append(("files", shorten(report["files"])))
    if report.get("left_out"):
        rows.append(("left out", shorten([f"{name} ({why})" for name, why in report["left_out"].items()])))
    if not rehearsal:
        return rows
    rows.append(("rehearsal", f"{rehearsal['status']} (profile {rehearsal['profile']}, rules of {rehearsal['era']})"))
    rows.append(("shut in", rehearsal["isolation"]))
    for name, job in rehearsal["jobs"].items():
        stopped = f", stopped: {job['stopped_by']} limit" if job["stopped_by"] else f", exit status {job['exit_code']}"
        rows.append((name, f"{job['seconds']:.1f} s, {job['peak_memory_mb']} MB{stopped}"))
    expected = report.get("forecast")
    if expected:
        spare = rehearsal["time_limit_s"] - expected["seconds"]
        text = f"{expected['images']} images: about {expected['seconds']:.0f} s, {spare:.0f} s within the limit; "
        rows.append(("forecast", text + f"{expected['memory_mb']:.0f} MB"))
    quota = report["quota"]
    text = f"{quota['bytes_per_upload'] / 1e6:.0f} MB an upload; {quota['uploads_that_fit']} fit into "
    return [*rows, ("quota", text + f"{quota['quota_bytes'] / 1e9:.0f} GB"), ("logs", rehearsal["logs"])]


def names(report: dict) -> list[str]:
    """Names of the classes; their labels in reports without."""
    return report.get("classes") or [str(label) for label in range(len(report["confusion"]))]


def classes(report: dict) -> list[tuple[str, ...]]:
    """Rows of the table of classes: name, cells, precision, recall, F1."""
    import numpy as np

    from grader.scoring_program.scoring import per_class

    rows = per_class(np.array(report["confusion"]))
    numbers = zip(rows["support"], rows["precision"], rows["recall"], rows["f1"], strict=True)
    return [
        (name, str(n), f"{p:.4f}", f"{r:.4f}", f"{f:.4f}")
        for name, (n, p, r, f) in zip(names(report), numbers, strict=True)
    ]


def terminal(report: dict, console) -> None:
    """Print a report, readable at 80 columns. `console`: rich.console.Console."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for row in facts(report):
        grid.add_row(row[0], Text(row[1]))
    console.print(grid)
    if "scores" in report:
        table = Table(box=box.SIMPLE, pad_edge=False)
        for name in ("class", "cells", "precision", "recall", "F1"):
            table.add_column(name, justify="left" if name == "class" else "right")
        for row in classes(report):
            table.add_row(*row)
        console.print(table)
        scores = {name.replace("_", " "): f"{value:.4f}" for name, value in report["scores"].items()}
        console.print(Text.assemble((f"accuracy {scores.pop('accuracy')}", "bold"),
                                    f" on {report['heldout']['images']} held-out cells, through the zip"))  # fmt: skip
        console.print(", ".join(" ".join(item) for item in scores.items()))
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
    height, width, _ = image.shape
    rows = b"".join(b"\0" + image[y].tobytes() for y in range(height))

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)  # 8 bits, RGB
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")
    return "data:image/png;base64," + base64.b64encode(b"\x89PNG\r\n\x1a\n" + data).decode()


def scored(report: dict, images, table) -> list[str]:
    """The page's part on the scores: confusion matrix, classes, mistakes. table(rows, head) makes one of HTML."""
    import numpy as np

    from grader.scoring_program.scoring import confusion_svg

    scores = [(name.replace("_", " "), f"{value:.4f}") for name, value in report["scores"].items()]
    parts = [f"<h2>{report['heldout']['images']} held-out cells</h2>", table(scores)]
    parts += ["<h2>Confusion matrix</h2>", confusion_svg(np.array(report["confusion"]), names(report))]
    parts += ["<h2>Classes</h2>", table(classes(report), ("class", "cells", "precision", "recall", "F1"))]
    mistakes = report["mistakes"]
    parts.append(f"<h2>Mistakes: {len(mistakes)}{f', the first {SHOWN}' if len(mistakes) > SHOWN else ''}</h2>")
    for row, true, predicted in mistakes[:SHOWN]:
        true, predicted = (markup.escape(names(report)[label]) for label in (true, predicted))
        caption = f"{true}, taken for {predicted} (row {row})"
        parts.append(f'<figure><img src="{png(images[row])}" alt=""><figcaption>{caption}</figcaption></figure>')
    return parts


def html(report: dict, images=None) -> str:
    """The report as one page; `images` (n, height, width, 3) uint8 are the held-out cells, to show the mistakes."""
    text = markup.escape

    def table(rows, head=()) -> str:
        top = "".join(f"<th>{text(cell)}</th>" for cell in head)
        body = "".join("<tr>" + "".join(f"<td>{text(cell)}</td>" for cell in row) + "</tr>" for row in rows)
        return f"<table>{f'<tr>{top}</tr>' if head else ''}{body}</table>"

    parts = [
        f"<h1 class={report['verdict']}>{text(report['zip']['path'])}: {text(report['words'])}</h1>",
        table(facts(report)),
    ]
    for found in report["findings"]:
        parts.append(f"<p class={found['level']}><b>{found['code']}</b> {text(found['message'])}</p>")
    log = report.get("rehearsal", {}).get("log_end")
    if log:
        parts.append(f"<pre>{text(chr(10).join(log))}</pre>")
    if "scores" in report:
        parts += scored(report, images, table)
    elif "rehearsal" in report and "heldout" not in report:
        parts.append(f"<p class=warning>{text(GET_DATA)}</p>")
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        "<title>Submission report</title><style>:root{color-scheme:light}"
        "body{font:15px/1.5 system-ui,sans-serif;margin:2em auto;max-width:56em;padding:0 1em}"
        "td,th{padding:.1em 1em .1em 0;text-align:left;vertical-align:top;overflow-wrap:anywhere}"
        "td:first-child{white-space:nowrap}.good{color:#15703a}.refused{color:#a50f15}.runs,.unknown{color:#8a5a00}"
        "p.error,p.warning{border-left:4px solid #a50f15;padding-left:.8em}p.warning{border-color:#c98a00}"
        "pre{background:#f4f4f4;padding:1em;overflow:auto}svg{max-width:100%;height:auto}"
        "figure{display:inline-block;width:130px;margin:0 8px 12px 0;vertical-align:top;font-size:12px}"
        f"</style>{''.join(parts)}</html>\n"
    )
