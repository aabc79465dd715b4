"""The audit as one self-contained HTML page, for a person to judge."""

import base64
from html import escape

import cv2
import numpy as np

from training.data import CLASSES, Cells

MOST = 200  # pictures per section
SECTIONS = {  # reason: (title, text below it)
    "outlier": ("Outliers", "Not cells, or damaged ones; the most unusual first."),
    "conflicting_label": ("Conflicting labels", "One picture under several labels; all of them are removed."),
    "near_duplicate": ("Near duplicates", "The same picture, shifted, turned, brightened or recompressed. Left: "
                       "removed; right: the picture it copies, with their correlation. The highest comes first."),
    "duplicate": ("Duplicates", "The same pixels. Left: removed; right: the picture it copies."),
}  # fmt: skip
DOUBT = (
    "For a person to judge: they are kept unless --remove-label-errors is given. The most doubtful come first. Doubt "
    "is the decimal logarithm of the ratio of the two classes' probabilities, by a discriminant analysis of the other "
    "cells: 2 means a hundred times. Such an analysis is overconfident: trust the order more than the number."
)
PAGE = """<!doctype html><html lang="en"><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1"><title>Audit of %s</title><style>%s
td, th { padding: .15em 0 .15em 1.2em; text-align: right; border-bottom: 1px solid var(--line) }
td:first-child, th:first-child { padding-left: 0; text-align: left }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
.pairs { grid-template-columns: repeat(auto-fill, minmax(220px, 1fr)) }
.pairs figure { display: flex; gap: 10px } .pairs figcaption { width: 100px }
@media (max-width: 600px) { td, th { padding-left: .6em; font-size: 14px } }
</style><h1>Audit of %s</h1>%s</html>
"""


def page(cells: Cells, result, name: str) -> str:
    """The page as HTML. result: a `clean.Audit` of the cells. name: their file's."""
    from model import STYLE

    counts = [(key.replace("_", " "), f"{number:,}") for key, number in result.counts().items()]
    sets = cells.labels, cells.labels[result.kept]
    before, after = (np.bincount(labels, minlength=len(CLASSES)) for labels in sets)
    classes = [
        (label, f"{old:,}", f"{old / before.sum():.1%}", f"{new:,}", f"{new / max(after.sum(), 1):.1%}")
        for label, old, new in zip(CLASSES, before, after, strict=True)
    ]
    parts = [table(("", "pictures"), counts), "<h2>Classes</h2>"]
    parts.append(table(("class", "before", "", "after", ""), classes))
    for reason, (title, said) in SECTIONS.items():
        records = [record for record in result.removed if record["reason"] == reason]
        groups: dict[int, list[dict]] = {}
        for record in sorted(records, key=lambda record: -record["score"]):
            groups.setdefault(result.groups[record["index"]], []).append(record)
        figures = [judged(cells, found) for found in groups.values()]
        parts.append(section(title, len(records), said, figures, "" if reason == "outlier" else " pairs"))
    figures = [
        figure((cells.images[s["index"]], f"row {s['index']}", f"labelled <b>{CLASSES[s['label']]}</b>, rather "
                f"<b>{CLASSES[s['suggested']]}</b>?", f"doubt {s['score']:.1f}"))
        for s in result.suspects
    ]  # fmt: skip
    parts.append(section("Suspected label errors", len(figures), DOUBT, figures))
    return PAGE % (escape(name), STYLE, escape(name), "\n".join(parts))


def table(head, rows) -> str:
    """An HTML table of rows of text."""
    lines = ["".join(f"<th>{cell}</th>" for cell in head), *("".join(f"<td>{c}</td>" for c in row) for row in rows)]
    return "<table>" + "".join(f"<tr>{line}</tr>" for line in lines) + "</table>"


def section(title: str, number: int, said: str, figures: list[str], look: str = "") -> str:
    """A heading with a number, text, and the first MOST figures; nothing without figures. look: further CSS classes."""
    if not figures:
        return ""
    more = f"<p>and {len(figures) - MOST:,} more, in the JSON</p>" if len(figures) > MOST else ""
    head = f'<h2>{title} ({number:,})</h2><p class=soft>{said}</p><div class="cells{look}">'
    return "\n".join([head, *figures[:MOST], "</div>", more])


def judged(cells: Cells, found: list[dict]) -> str:
    """The figure for a group's records: the picture of the first; unless an outlier, what it is a copy of beside it."""
    reason, index, other, score = (found[0][key] for key in ("reason", "index", "of", "score"))
    rows = f"row {index}" + (f" and {len(found) - 1} more" if len(found) > 1 else "")
    labels = np.unique(cells.labels[[record["index"] for record in found]])
    names = ", ".join(f"<b>{CLASSES[c]}</b>" for c in labels) if len(labels) < 4 else f"<b>{len(labels)} ways</b>"
    if reason == "outlier":
        return figure((cells.images[index], rows, f"labelled {names}", found[0]["why"]))
    alike = f"correlation {score:.2f}" if reason == "near_duplicate" else ""
    beside = (cells.images[other], f"row {other}", f"<b>{CLASSES[cells.labels[other]]}</b>")
    return figure((cells.images[index], rows, names, alike), beside)


def figure(*pictures: tuple) -> str:
    """An HTML figure of pictures side by side. Each is (image (96, 96, 3) uint8 RGB, line of text below it, ...)."""
    shown = []
    for image, *lines in pictures:
        jpeg = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])[1].tobytes()
        source = f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"
        shown.append(f'<figcaption><img alt="" src="{source}"><br>{"<br>".join(filter(None, lines))}</figcaption>')
    return f"<figure>{''.join(shown)}</figure>"
