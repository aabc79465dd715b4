"""The audit as one self-contained HTML page, for a person to judge."""

from __future__ import annotations

import base64
from html import escape

import cv2
import numpy as np

from training.data import CLASSES, Cells

SECTIONS = {  # reason: (title, text below it, whether each picture is shown beside the one it is a copy of)
    "outlier": ("Outliers", "No cells, or not as they should be; the strangest first.", False),
    "conflicting_label": ("Conflicting labels", "One picture under several labels. None of them stays.", True),
    "near_duplicate": (
        "Near duplicates",
        "The same picture, shifted, turned, brightened or recompressed: left what goes, right what it is a copy of, "
        "with the correlation of the two. Sure copies first.",
        True,
    ),
    "duplicate": ("Duplicates", "The same pixels: left what goes, right what it is a copy of.", True),
    "label_error": ("Label errors", "Removed as asked; the most doubtful first.", False),
}
DOUBT = (
    "For a person to judge; none is removed unless asked, the most doubtful come first. The doubt is the decimal "
    "logarithm of how much likelier the other class is, by a discriminant analysis of the other cells: 2 means a "
    "hundred times. Such an analysis exaggerates, so that the order says more than the number."
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


def page(cells: Cells, result, name: str, most: int = 200) -> str:
    """The page as HTML. result: a `clean.Audit` of the cells. name: their file's. most: pictures per section."""
    from model import STYLE

    counts = [[key.replace("_", " "), f"{number:,}"] for key, number in result.counts().items()]
    parts = [table(("", "pictures"), counts), "<h2>Classes</h2>"]
    shares = [[name, *share(cells.labels == c), *share(cells.labels[result.kept] == c)]
              for c, name in enumerate(CLASSES)]  # fmt: skip
    parts.append(table(("class", "before", "", "after", ""), shares))
    for reason in SECTIONS:
        if records := [record for record in result.removed if record["reason"] == reason]:
            parts += section(cells, result.groups, reason, records, most)
    figures = [
        figure((cells.images[s["index"]], f"row {s['index']}", f"labelled <b>{CLASSES[s['label']]}</b>, rather "
                f"<b>{CLASSES[s['suggested']]}</b>?", f"doubt {s['score']:.1f}"))
        for s in result.suspects[:most]
    ]  # fmt: skip
    if figures:
        parts += titled("Suspected label errors", len(result.suspects), DOUBT, figures, len(result.suspects) - most)
    return PAGE % (escape(name), STYLE, escape(name), "\n".join(parts))


def table(head, rows) -> str:
    """An HTML table of rows of text."""
    lines = ["".join(f"<th>{cell}</th>" for cell in head), *("".join(f"<td>{c}</td>" for c in row) for row in rows)]
    return "<table>" + "".join(f"<tr>{line}</tr>" for line in lines) + "</table>"


def share(these: np.ndarray) -> tuple[str, str]:
    """How many of (n,) bool are true, and their share."""
    return f"{these.sum():,}", f"{these.sum() / max(len(these), 1):.1%}"


def titled(title: str, number: int, said: str, figures: list[str], left_out: int, look: str = "") -> list[str]:
    """A section: heading with a number, text, figures, and the number left out. look: further CSS classes."""
    more = f"<p>and {left_out:,} more, in the JSON</p>" if left_out > 0 else ""
    head = f'<h2>{title} ({number:,})</h2><p class=soft>{said}</p><div class="cells{look}">'
    return [head, *figures, "</div>", more]


def section(cells: Cells, groups: np.ndarray, reason: str, records: list[dict], most: int) -> list[str]:
    """The section for one reason. Of each group of copies, only the picture with the highest score is shown."""
    title, said, pairs = SECTIONS[reason]
    same: dict[int, list[dict]] = {}
    for record in sorted(records, key=lambda record: -record["score"]):
        same.setdefault(groups[record["index"]], []).append(record)
    figures = []
    for found in list(same.values())[:most]:
        index, other = found[0]["index"], found[0]["of"]
        rows = f"row {index}" + (f" and {len(found) - 1} more" if len(found) > 1 else "")
        labels = np.unique(cells.labels[[r["index"] for r in found]])
        names = ", ".join(f"<b>{CLASSES[c]}</b>" for c in labels) if len(labels) < 4 else f"<b>{len(labels)} ways</b>"
        if pairs:
            alike = f"correlation {found[0]['score']:.2f}" if reason == "near_duplicate" else ""
            beside = (cells.images[other], f"row {other}", f"<b>{CLASSES[cells.labels[other]]}</b>")
            figures.append(figure((cells.images[index], rows, names, alike), beside))
        else:
            figures.append(figure((cells.images[index], rows, f"labelled {names}", found[0].get("why", ""))))
    return titled(title, len(records), said, figures, len(same) - most, " pairs" * pairs)


def figure(*pictures: tuple) -> str:
    """An HTML figure of pictures side by side. Each is (image (96, 96, 3) uint8 RGB, line of text below it, ...)."""
    shown = []
    for image, *lines in pictures:
        jpeg = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])[1].tobytes()
        source = f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"
        shown.append(f'<figcaption><img alt="" src="{source}"><br>{"<br>".join(filter(None, lines))}</figcaption>')
    return f"<figure>{''.join(shown)}</figure>"
