"""The audit as one HTML page that needs no other file, for a person to judge."""

from __future__ import annotations

import base64
from html import escape

import numpy as np

from training.data import CLASSES, Cells, digest

CHALLENGE = "a6b2cfb3cef8326e599ceeec5a2b00c11d73774f5e5ba27058dc341b7f1224d5"  # digest of the challenge's file
LIONIA = {"original": 13759, "duplicate": 2915, "outlier": 314, "left": 10530}  # a team's report on that file
COUNTED = {
    "original": "original", "duplicate": "duplicates", "near_duplicate": "near duplicates",
    "conflicting_label": "conflicting labels", "outlier": "outliers", "label_error": "label errors", "left": "left",
}  # fmt: skip
SECTIONS = {
    "outlier": ("Outliers", "No cells, or not as they should be; the strangest first."),
    "conflicting_label": ("Conflicting labels", "One picture under several labels. None of them stays."),
    "near_duplicate": (
        "Near duplicates",
        "The same picture, shifted, turned, brightened or recompressed: left what goes, right what it is a copy of, "
        "with the correlation of the two. Sure copies first.",
    ),
    "duplicate": ("Duplicates", "The same pixels: left what goes, right what it is a copy of."),
    "label_error": ("Label errors", "Removed as asked; the most doubtful first."),
}
DOUBT = (
    "For a person to judge; none is removed unless asked, the most doubtful come first. The doubt is the decimal "
    "logarithm of how much likelier the other class is, by a discriminant analysis of the other cells: 2 means a "
    "hundred times. Such an analysis exaggerates, so that the order says more than the number."
)
MORE = """
td, th { padding: .15em 0 .15em 1.2em; text-align: right; border-bottom: 1px solid var(--line) }
td:first-child, th:first-child { padding-left: 0; text-align: left }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
.pairs { grid-template-columns: repeat(auto-fill, minmax(220px, 1fr)) }
.pairs figure { display: flex; gap: 10px } .pairs figcaption { width: 100px }
@media (max-width: 600px) { td, th { padding-left: .6em; font-size: 14px } }
"""


def page(cells: Cells, result, name: str, most: int = 200) -> str:
    """The page. result: a `clean.Audit` of the cells. name: of their file. most: pictures shown in each section."""
    from model import STYLE

    parts = [f"<h1>Audit of {escape(name)}</h1>", counts_table(result.counts(), digest(cells) == CHALLENGE)]
    parts.append(f"<h2>Classes</h2>{classes_table(cells.labels, cells.labels[result.kept])}")
    for reason in SECTIONS:
        records = [record for record in result.removed if record["reason"] == reason]
        if records:
            parts += section(cells, result.groups, reason, records, most)
    if result.suspects:
        parts += [f"<h2>Suspected label errors ({len(result.suspects):,})</h2><p class=soft>{DOUBT}</p>"]
        figures = [
            figure((cells.images[s["index"]], f"row {s['index']}", f"labelled <b>{CLASSES[s['label']]}</b>, rather "
                    f"<b>{CLASSES[s['suggested']]}</b>?", f"doubt {s['score']:.1f}"))
            for s in result.suspects[:most]
        ]  # fmt: skip
        parts += ["<div class=cells>", *figures, "</div>", more(len(result.suspects) - most)]
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><title>Audit of {escape(name)}</title>'
        f"<style>{STYLE}{MORE}</style>" + "\n".join(parts) + "</html>\n"
    )


def table(head, rows) -> str:
    """An HTML table of rows of text."""
    lines = ["".join(f"<th>{cell}</th>" for cell in head), *("".join(f"<td>{c}</td>" for c in row) for row in rows)]
    return "<table>" + "".join(f"<tr>{line}</tr>" for line in lines) + "</table>"


def counts_table(number: dict[str, int], challenge: bool) -> str:
    """How many pictures went and why; for the challenge's own file beside what a team's report says of it."""
    rows = [[text, f"{number[key]:,}", f"{LIONIA[key]:,}" if key in LIONIA else ""]
            for key, text in COUNTED.items() if key in number]  # fmt: skip
    return (
        table(("", "this audit", "LionIA"), rows) if challenge else table(("", "pictures"), [row[:2] for row in rows])
    )


def classes_table(*labels: np.ndarray) -> str:
    """Number and share of each class before and after."""
    counts = [np.bincount(part, minlength=len(CLASSES)) for part in labels]
    rows = [[name, *(text for part in counts for text in (f"{part[c]:,}", f"{part[c] / max(part.sum(), 1):.1%}"))]
            for c, name in enumerate(CLASSES)]  # fmt: skip
    return table(("class", "before", "", "after", ""), rows)


def section(cells: Cells, groups: np.ndarray, reason: str, records: list[dict], most: int) -> list[str]:
    """One reason's pictures: of those that are copies of one another the first."""
    title, said = SECTIONS[reason]
    same: dict[int, list[dict]] = {}
    for record in sorted(records, key=lambda record: -record["score"]):
        same.setdefault(int(groups[record["index"]]), []).append(record)
    pairs = reason in ("conflicting_label", "near_duplicate", "duplicate")
    parts = [f"<h2>{title} ({len(records):,})</h2><p class=soft>{said}</p>"]
    parts.append(f'<div class="cells{" pairs" * pairs}">')
    for found in list(same.values())[:most]:
        index, other = found[0]["index"], found[0]["of"]
        rows = f"row {index}" + (f" and {len(found) - 1} more" if len(found) > 1 else "")
        labels = np.unique(cells.labels[[r["index"] for r in found]])
        names = ", ".join(f"<b>{CLASSES[c]}</b>" for c in labels) if len(labels) < 4 else f"<b>{len(labels)} ways</b>"
        if not pairs:
            parts.append(figure((cells.images[index], rows, f"labelled {names}", found[0].get("why", ""))))
            continue
        alike = f"correlation {found[0]['score']:.2f}" if reason == "near_duplicate" else ""
        beside = (cells.images[other], f"row {other}", f"<b>{CLASSES[cells.labels[other]]}</b>")
        parts.append(figure((cells.images[index], rows, names, alike), beside))
    return [*parts, "</div>", more(len(same) - most)]


def figure(*pictures: tuple) -> str:
    """Pictures side by side, each with its lines below: (image, line, ...)."""
    shown = (f"<figcaption>{encoded(image)}<br>{'<br>'.join(filter(None, lines))}</figcaption>"
             for image, *lines in pictures)  # fmt: skip
    return f"<figure>{''.join(shown)}</figure>"


def more(number: int) -> str:
    return f"<p>and {number:,} more, in the JSON</p>" if number > 0 else ""


def encoded(image: np.ndarray) -> str:
    """RGB (96, 96, 3) uint8 as an HTML picture."""
    import cv2

    jpeg = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])[1]
    return f'<img alt="" src="data:image/jpeg;base64,{base64.b64encode(jpeg.tobytes()).decode()}">'
