"""The audit: finds what is false in a set of cells and keeps what is real.

    from training import clean, data
    cells = data.read("data/training_set.npz")
    audit = clean.audit(cells)
    cells = cells.take(audit.kept)
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from training.data import Cells

REPEATS = 10  # a picture found this often is planted: no slide yields the same pixels ten times


@dataclass(frozen=True)
class Audit:
    """kept: (k,) sorted indices. groups: (n,) ids, copies share one. removed: one record per removed image."""

    kept: np.ndarray
    groups: np.ndarray
    removed: list[dict]

    def report(self) -> dict:
        """{"kept": k, "removed": [{"index", "reason", "of", "score"}, ...]}, ready for JSON."""
        return {"kept": len(self.kept), "removed": self.removed}


def identical(images: np.ndarray) -> np.ndarray:
    """(n,) group ids: the index of the first image with exactly the same pixels."""
    first: dict[bytes, int] = {}
    return np.array([first.setdefault(hashlib.sha256(image.tobytes()).digest(), i) for i, image in enumerate(images)])


def audit(cells: Cells, backbone: str | Path | None = None, seed: int = 0, progress: bool = False) -> Audit:
    """Decides what stays: one of each set of copies, none where copies disagree on the label, no planted picture.

    A picture found REPEATS times or more, or under three labels or more, is planted (outlier), and none of it stays.
    Fewer copies under two labels are a cell that two people labelled differently (conflicting_label).
    """
    groups = identical(cells.images)
    removed = []
    for group, count in zip(*np.unique(groups, return_counts=True), strict=True):
        if count == 1:
            continue
        members = np.flatnonzero(groups == group)
        labels = len(np.unique(cells.labels[members]))
        if count >= REPEATS or labels > 2:
            reason, gone = "outlier", members
        elif labels == 2:
            reason, gone = "conflicting_label", members
        else:
            reason, gone = "duplicate", members[1:]
        for i in gone:
            other = members[0] if i != members[0] else members[1]
            removed.append({"index": int(i), "reason": reason, "of": int(other), "score": float(count)})
    removed.sort(key=lambda record: record["index"])
    kept = np.setdiff1d(np.arange(len(cells)), [record["index"] for record in removed])
    return Audit(kept, groups, removed)
