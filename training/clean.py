"""The audit: finds what is false in a set of cells and keeps what is real.

    python -m training.clean data/training_set.npz [--output CLEAN.npz] [--json AUDIT.json] [--html AUDIT.html]
    python -m tests.dirty --json results/audit_benchmark.json       how well it does on dirtier files

    from training import clean, data
    cells = data.read("data/training_set.npz")
    audit = clean.audit(cells, backbone="data/pretrained/efficientnetv2b0_notop.weights.h5")
    cells = cells.take(audit.kept)

Three questions, one after the other:

1. Which pictures are copies? Pixels decide (`copies`).
2. Which are no cells? A pretrained network's activations, and how far they lie from those of the cells that can be
   trusted (`foreignness`), and what cutting and pasting leave in the pixels (`traces`); what is far out in either is
   an outlier (`strangeness`, `boundary`). Without the network's weights only repetition can tell.
3. Which labels look wrong? Confident learning, for a person to judge (`label_errors`).
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from training import files, shell
from training.data import CLASSES, IMAGE_SIZE, Cells, read

BACKBONE = Path("data/pretrained/efficientnetv2b0_notop.weights.h5")
SIGNS = (  # of an outlier: its distance, then its traces
    "unlike the cells in colour, texture or shape", "a straight edge runs from border to border",
    "a part is filled up, without grain", "one side mirrors the other", "no fine detail: enlarged or blurred",
)  # fmt: skip
REASONS = ("duplicate", "near_duplicate", "conflicting_label", "outlier")

SHIFT = 2  # pixels that a copy may be off by
SAME = 0.88  # correlation of two pictures' details that makes them one: copies reach 0.94, different cells 0.79
REPEATS = 10  # copies of one picture that make it suspect: no slide yields one that often

LAYERS = ("block1a_project_activation", "block2b_add", "block3b_add", "block4c_add", "block5e_add")
SUPPORT = 500  # images that a statement about the bulk of the cells needs
COMPONENTS = 200  # principal components that describe the bulk
NEIGHBOURS = 20
BOUNDS = (1.5, 1.8, 1.8, 1.8)  # distances up to which the trusted set takes images in, step by step
FALSE_SHARE = 0.01  # of the images called outliers, at most this share should be real cells
FALSE_RATE = 0.0015  # and of the real cells, at most this share


@dataclass(frozen=True)
class Audit:
    """What the audit decided.

    kept: (k,) sorted indices. groups: (n,) ids, the same for pictures of one cell, so that a split never parts them.
    removed: one record per removed image, by index. suspects: one record per doubtful label, most suspicious first.
    """

    kept: np.ndarray
    groups: np.ndarray
    removed: list[dict]
    suspects: list[dict] = field(default_factory=list)

    def report(self) -> dict:
        """{"kept": k, "removed": [{"index", "reason", "of", "score"}, ...], "label_errors": [...]}, ready for JSON.

        An outlier's record has a "why", too, in words.
        """
        return {"kept": len(self.kept), "removed": self.removed, "label_errors": self.suspects}

    def counts(self) -> dict[str, int]:
        """{"original", each reason, "left"}: how many images."""
        found = {reason: 0 for reason in REASONS}
        for record in self.removed:
            found[record["reason"]] = found.get(record["reason"], 0) + 1
        return {"original": len(self.groups), **found, "left": len(self.kept)}


def audit(
    cells: Cells,
    backbone: str | Path | None = None,
    seed: int = 0,
    progress: bool = False,
    drop_label_errors: bool = False,
    activations: np.ndarray | None = None,
) -> Audit:
    """Decides what stays: one of each set of copies, none where copies disagree on the label, no planted picture.

    backbone: file of EfficientNetV2B0's ImageNet weights without the classifier, or "imagenet" to let Keras fetch
    them. Without one, a picture is an outlier if it comes REPEATS times or under three labels or more.
    activations: what `features` gives for the images, if it is at hand already. The score of a record is, for copies,
    the correlation with `of` (1: identical), for outliers their `strangeness` (nearly all cells are below 0).
    """
    match = copies(cells.images, progress)
    strange, signs, limit = np.zeros(len(cells)), np.zeros(len(cells), int), np.inf
    if activations is None and backbone is not None and len(cells) >= SUPPORT:
        activations = features(cells.images, backbone, progress)
    if activations is not None and len(cells) >= SUPPORT:
        distance, trusted = foreignness(activations, cells.labels, seed, progress)
        if trusted.any():
            strange, signs = strangeness(distance, traces(cells.images, progress), trusted)
            limit = boundary(strange)
    groups = [np.flatnonzero(match.copy == group) for group in np.unique(match.copy)]
    removed = [record for group in groups for record in _judge(group, cells.labels, match, strange, signs, limit)]
    suspects = []
    if activations is not None:
        stay = np.setdiff1d(np.arange(len(cells)), [record["index"] for record in removed])
        suspects = label_errors(activations[stay], cells.labels[stay], match.cell[stay], seed)
        for record in suspects:
            record["index"] = int(stay[record["index"]])
        if drop_label_errors:
            removed += [
                {"index": s["index"], "reason": "label_error", "of": None, "score": s["score"]} for s in suspects
            ]
    removed.sort(key=lambda record: record["index"])
    kept = np.setdiff1d(np.arange(len(cells)), [record["index"] for record in removed])
    return Audit(kept, match.cell, removed, suspects)


def _judge(group: np.ndarray, labels: np.ndarray, match: Copies, strange: np.ndarray, signs: np.ndarray,
           limit: float) -> list[dict]:  # fmt: skip
    """Records of what goes of one group of copies, given by their sorted indices; labels, strange, signs: of all."""
    repeated = len(group) >= REPEATS or len(np.unique(labels[group])) > 2
    typical = np.isfinite(limit) and np.median(strange[group]) < limit / 2
    if np.median(strange[group]) > limit or (repeated and not typical):
        reason, gone = "outlier", group
    elif len(np.unique(labels[group])) > 1:
        reason, gone = "conflicting_label", group
    else:
        reason, gone = "duplicate", group[1:]
    records = []
    for i in gone.tolist():
        other = next((int(j) for j in group if j != i and (i == group[0] or j < i)), None)
        if reason == "conflicting_label":
            other = next(int(j) for j in group if labels[j] != labels[i])
        score = strange[i] if reason == "outlier" and np.isfinite(limit) else match.score[i]
        exact = reason != "duplicate" or match.identical[i] == match.identical[group[0]]
        name = reason if exact else "near_duplicate"
        records.append({"index": i, "reason": name, "of": other, "score": round(float(score), 4)})
        if reason == "outlier":
            times = f"one picture {len(group)} times, under {len(np.unique(labels[group]))} labels"
            records[-1]["why"] = SIGNS[signs[i]] if np.median(strange[group]) > limit else times
    return records


# --- copies ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Copies:
    """Group ids (n,), each the index of a group's first member. score: (n,) correlation with the match that was found.

    identical: same pixels. copy: the same picture, up to SHIFT pixels, brightness, compression, flips and turns.
    cell: those, and pictures of the same cell that are framed a few pixels further apart.
    """

    identical: np.ndarray
    copy: np.ndarray
    cell: np.ndarray
    score: np.ndarray


def copies(images: np.ndarray, progress: bool = False) -> Copies:
    """Finds the copies among images (n, 96, 96, 3) uint8: candidates by thumbnail, then confirmed at pixel level.

    A candidate is among the three most similar thumbnails before it (16x16, local contrast, under the eight flips and
    turns). It is confirmed if the details of the two pictures (Gaussians of 1 and 3 pixels, subtracted) correlate at
    SAME or more when one is slid over the other by a few pixels. Brightness and contrast cancel out in both steps.
    """
    import cv2

    n = len(images)
    seen: dict[bytes, int] = {}
    digests = (hashlib.sha256(np.ascontiguousarray(image)).digest() for image in images)
    identical = np.array([seen.setdefault(digest, i) for i, digest in enumerate(digests)], int)
    unique = np.unique(identical)
    looks = [_look(images[i]) for i in _track(unique, "looking at details", progress)]
    details, thumbs = (np.stack(parts) for parts in zip(*looks, strict=True))
    copy, cell, score = identical.copy(), identical.copy(), np.ones(n)
    margin = 2 * SHIFT
    for a, b, turn in _track(_candidates(thumbs, progress), "comparing pixels", progress):
        one = np.ascontiguousarray(_turned(details[a], turn)[margin:-margin, margin:-margin])
        if min(one.std(), details[b].std()) < 0.1:
            continue  # nothing to compare: a blank
        found = cv2.matchTemplate(details[b], one, cv2.TM_CCOEFF_NORMED)
        _, best, _, (x, y) = cv2.minMaxLoc(found)
        if best >= SAME:
            _join(cell, unique[a], unique[b])
            if max(abs(x - margin), abs(y - margin)) <= SHIFT:
                _join(copy, unique[a], unique[b])
                score[identical == unique[a]] = min(best, 1)
    roots = [np.array([_root(links, i) for i in range(n)], int) for links in (copy, cell)]
    return Copies(identical, *roots, score)


def _look(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(details (92, 92), thumbnail (16, 16) of local contrast, of norm 1) of an image, float32."""
    import cv2

    grey = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY).astype(np.float32)
    grey = grey[SHIFT:-SHIFT, SHIFT:-SHIFT]  # a shifted copy's edge is made up
    thumb = cv2.resize(cv2.GaussianBlur(grey, (0, 0), 2), (16, 16), interpolation=cv2.INTER_AREA)
    thumb -= cv2.GaussianBlur(thumb, (0, 0), 3)
    details = cv2.GaussianBlur(grey, (0, 0), 1) - cv2.GaussianBlur(grey, (0, 0), 3)
    return details, thumb / max(np.linalg.norm(thumb), 1e-3)


def _turned(pictures: np.ndarray, turn: int) -> np.ndarray:
    """(..., h, w) under one of the eight symmetries of the square."""
    pictures = np.rot90(pictures, turn % 4, axes=(-2, -1))
    return pictures[..., ::-1] if turn >= 4 else pictures


def _candidates(thumbs: np.ndarray, progress: bool, similar: float = 0.7, most: int = 3, block: int = 1024) -> list:
    """[(a, b < a, turn of a)]: for each thumbnail the `most` similar ones before it."""
    n = len(thumbs)
    flat = thumbs.reshape(n, -1)
    best, where = np.full((n, 8 * most), similar, np.float32), np.full((n, 8 * most), -1)
    for start in _track(range(0, n, block), "comparing thumbnails", progress):
        rows = slice(start, min(start + block, n))
        later = np.arange(rows.start, rows.stop)[:, None] <= np.arange(rows.stop)
        for turn in range(8):
            likeness = _turned(thumbs[rows], turn).reshape(-1, flat.shape[1]) @ flat[: rows.stop].T
            likeness[later] = -1
            for k in range(turn * most, (turn + 1) * most):
                top = likeness.argmax(1)
                value = likeness[np.arange(len(top)), top]
                found = value > similar
                best[rows, k][found], where[rows, k][found] = value[found], top[found]
                likeness[np.arange(len(top)), top] = -1
    order = np.argsort(-best, 1, kind="stable")[:, :most]
    return [(a, int(where[a, k]), int(k) // most) for a in range(n) for k in order[a] if where[a, k] >= 0]


def _root(links: np.ndarray, i: int) -> int:
    while links[i] != i:
        links[i] = links[links[i]]
        i = links[i]
    return int(i)


def _join(links: np.ndarray, i: int, j: int) -> None:
    low, high = sorted((_root(links, i), _root(links, j)))
    links[high] = low


# --- outliers --------------------------------------------------------------------------------------------------------


def features(images: np.ndarray, backbone: str | Path, progress: bool = False) -> np.ndarray:
    """images (n, 96, 96, 3) uint8 -> (n, 912) float32: EfficientNetV2B0's activations after each of its first five
    blocks, averaged over the centre, the border and the ring between them.

    Early blocks know colour, noise and blur, later ones shapes; the rings know where a cell belongs. The classifier's
    own features, further up, are made to ignore just that.
    """
    import keras

    if backbone != "imagenet" and not Path(backbone).exists():
        raise ValueError(f"{backbone} is missing; the README says how to get the backbone's weights")
    shape = (IMAGE_SIZE, IMAGE_SIZE, 3)
    weights = "imagenet" if backbone == "imagenet" else None
    network = keras.applications.EfficientNetV2B0(include_top=False, weights=weights, input_shape=shape)
    if weights is None:
        network.load_weights(str(backbone))
    network = keras.Model(network.input, [network.get_layer(name).output for name in LAYERS])
    rows = []
    for start in _track(range(0, len(images), 64), "computing features", progress):
        batch = images[start : start + 64].astype(np.float32)
        maps = [np.asarray(m, np.float32) for m in network.predict_on_batch(batch)]
        rows.append(np.concatenate([m[:, ring].mean(1) for m in maps for ring in _rings(m.shape[1])], 1))
    return np.concatenate(rows)


def _rings(size: int) -> list[np.ndarray]:
    """Three (size, size) masks: the centre third, what lies between, the border of a sixth."""
    away = np.abs(np.arange(size) - (size - 1) / 2)
    away = np.maximum(away[:, None], away)
    centre, border = away < size / 6, away > size / 3
    return [centre, ~centre & ~border, border]


def foreignness(
    activations: np.ndarray, labels: np.ndarray, seed: int = 0, progress: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """How far each image lies from the cells that can be trusted: (n,) distances, 1 for the median cell; (n,) trusted.

    The distance is Mahalanobis's within the principal components of the trusted cells, plus that from their space
    (Moghaddam and Pentland 1997). Planted pictures must not take part in describing what a cell is, or they hide one
    another (masking; Rousseeuw and Van Driessen 1999), so the trusted set grows from the most central third under each
    label. An image joins it if
    - it does not have ten neighbours closer than any cell has, nor is near such: it is not one picture, varied;
    - discriminant analysis, fitted to the others in the set, gives it its label, and most of its neighbours theirs:
      cells show their class, even on a slide of another colour, and pictures planted under random labels do not;
    - it is not far from the set, by a bound that is loosened once and not further: pictures that are all planted under
      the one label they resemble most meet the other two conditions.
    Two halves judge each other, so that no image is judged by itself. Where hardly any image can be trusted, none is,
    and all distances are 1.
    """
    n = len(activations)
    nothing = np.ones(n), np.zeros(n, bool)
    scaled = _tamed(activations)
    if scaled is None:
        return nothing
    near, crowded = _neighbourhood(scaled)
    if crowded.all():
        return nothing
    half = np.random.default_rng(seed).permutation(n) % 2
    distance = np.sqrt((scaled**2).mean(1))
    trusted = _central(distance, labels, crowded)
    inside, outside = np.empty(n), np.empty(n)
    agrees = np.zeros(n, bool)
    for bound in _track((*BOUNDS, None), "judging features", progress):
        if min(trusted[half == 0].sum(), trusted[half == 1].sum()) < SUPPORT // 10:
            return nothing
        for k in (0, 1):
            rows, others = half == k, trusted & (half != k)
            inside[rows], outside[rows] = _subspace_distance(scaled[rows], scaled[others])
            agrees[rows] = _classify(scaled[rows], scaled[others], labels[others]).argmax(1) == labels[rows]
        distance = np.sqrt(inside / np.median(inside[trusted]) + 0.5 * outside / np.median(outside[trusted]))
        distance /= np.median(distance[trusted])
        if bound is not None:
            agrees &= ~crowded
            trusted = agrees & (agrees[near].mean(1) > 0.5) & (distance <= bound)
    return distance, trusted


def _tamed(activations: np.ndarray) -> np.ndarray | None:
    """Activations (n, d) by their medians and deviations, and by log(1 + x), which tames what lies far out; float32.

    None where they do not differ.
    """
    scaled = activations - np.median(activations, 0)
    spread = 1.4826 * np.median(np.abs(scaled), 0)
    if not spread.any():
        return None
    scaled = (scaled / (spread + 1e-6 * spread.max())).astype(np.float32)
    return np.sign(scaled) * np.log1p(np.abs(scaled))


def _neighbourhood(scaled: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Indices (n, NEIGHBOURS + 1) of each row's neighbours, and (n,) whether it or they lie too close for cells."""
    from sklearn.neighbors import NearestNeighbors

    search = NearestNeighbors(n_neighbors=NEIGHBOURS + 1, algorithm="brute").fit(scaled)
    far, near = search.kneighbors(scaled)
    crowded = far[:, REPEATS] < 0.75 * np.median(far[:, REPEATS])
    return near, crowded | (crowded[near].mean(1) > 0.25)


def _central(distance: np.ndarray, labels: np.ndarray, crowded: np.ndarray) -> np.ndarray:
    """(n,) whether an image is in the most central third under its label."""
    trusted = np.zeros(len(labels), bool)
    limit = np.quantile(distance[~crowded], 0.8)
    for label in np.unique(labels):
        same = (labels == label) & ~crowded
        if same.any():
            trusted |= same & (distance <= min(limit, np.quantile(distance[same], 1 / 3)))
    return trusted


def _subspace_distance(rows: np.ndarray, sample: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Squared distances (n,) of rows (n, d) to a sample: within its principal components (whitened), and from them."""
    from scipy.linalg import eigh

    mean, d = sample.mean(0), sample.shape[1]
    k = min(COMPONENTS, len(sample) // 5, d // 2)
    values, vectors = eigh(np.cov(sample.T).astype(np.float64), subset_by_index=(d - k, d - 1))
    rows = rows - mean
    scores = rows @ vectors.astype(np.float32)
    return (scores**2 / values).mean(1), (rows**2).sum(1) - (scores**2).sum(1)


def _classify(rows: np.ndarray, sample: np.ndarray, labels: np.ndarray, shrinkage: float = 0.1) -> np.ndarray:
    """(n, 8) log-probabilities by linear discriminant analysis (Fisher 1936), its covariance shrunk to the identity."""
    from scipy.linalg import cho_factor, cho_solve
    from scipy.special import log_softmax

    counts = np.bincount(labels, minlength=len(CLASSES))
    means = np.stack([sample[labels == c].mean(0) if n else np.zeros(sample.shape[1]) for c, n in enumerate(counts)])
    within = np.cov((sample - means[labels]).T)
    within = (1 - shrinkage) * within + shrinkage * np.trace(within) / len(within) * np.eye(len(within))
    weights = cho_solve(cho_factor(within), means.T)
    with np.errstate(divide="ignore"):  # a class without a cell has probability 0
        scores = rows @ weights - (means.T * weights).sum(0) / 2 + np.log(counts / counts.sum())
    return log_softmax(scores, 1)


def traces(images: np.ndarray, progress: bool = False) -> np.ndarray:
    """Traces of cutting, pasting and enlarging that no microscope leaves: images (n, 96, 96, 3) -> (n, 4) float32.

    Logarithms, each larger where there is more of it; lines are rows or columns, whichever show more:
    - seam: how much more the colour jumps between two neighbouring lines than on both sides of them, on average along
      the line where it jumps most. Optics spread every real edge over several pixels, and no edge of a cell is a
      straight line from border to border.
    - calm: how little the twelfth calmest pair of neighbouring lines differs: a border filled up.
    - mirror: how much more alike the ten lines on both sides of an axis are than neighbouring lines there.
    - blur: how little fine detail there is where there is most of it (the noise mask of Immerkaer 1996; the 90th of
      100 pixels). A part that was enlarged has none.
    """
    import cv2

    mask = np.float32([[1, -2, 1], [-2, 4, -2], [1, -2, 1]])
    rows = np.empty((len(images), 4), np.float32)
    for row, image in zip(rows, _track(images, "looking for seams", progress), strict=True):
        image = image.astype(np.float32)
        found = []
        for lines in (image, image.transpose(1, 0, 2)):
            change = np.abs(np.diff(lines, axis=0)).mean(2)
            jump = np.log((change[1:-1] + 2) / (np.maximum(change[:-2], change[2:]) + 2)).mean(1).max()
            change = change.mean(1)
            third = lines[:, 1::3, 1]  # the same pixels however the picture is turned
            found.append([jump, -np.log(np.sort(change)[11] + 0.02), _mirror(third, change)])
        detail = np.abs(cv2.filter2D(image, -1, mask)).mean(2)
        row[:] = *np.max(found, 0), -np.log(np.quantile(detail, 0.9) + 0.2)
    return rows


def _mirror(lines: np.ndarray, change: np.ndarray, reach: int = 10) -> float:
    """The trace of that name. lines: (96, any), one channel. change: (95,), how much neighbouring ones differ."""
    best = -np.inf
    for width in (2 * reach, 2 * reach + 1):  # the axis between two lines, or on one
        near = np.lib.stride_tricks.sliding_window_view(lines, width, axis=0)
        apart = np.abs(near[..., :reach] - near[..., : -reach - 1 : -1]).mean((1, 2))
        usual = np.lib.stride_tricks.sliding_window_view(change, width - 1).mean(1)
        best = max(best, np.log((usual + 0.2) / (apart + 0.2)).max())
    return best


def rarity(measure: np.ndarray, trusted: np.ndarray) -> np.ndarray:
    """How far out in the trusted cells' upper tail images lie: (n,), 0 where 2% of them begin, a unit e times rarer.

    The tail is taken as exponential: about right for distances, and wider than the tails of traces are.
    """
    start = np.quantile(measure[trusted], 0.98)
    beyond = measure[trusted & (measure > start)] - start
    return (measure - start) / (beyond.mean() if len(beyond) else 0.01)


def untouched(trace: np.ndarray, trusted: np.ndarray) -> np.ndarray:
    """The trusted images (n,) without those far out in a trace, which would hide one another by widening its tail.

    Dropped is what lies over five times the tail's width beyond where its 5% begin, and where less than one cell is
    expected; again and again, for what is left has a narrower tail. The half nearer to the bulk tells the width.
    """
    while True:
        start = np.quantile(trace[trusted], 0.95)
        beyond = trace[trusted & (trace > start)] - start
        if not len(beyond):
            return trusted
        width = np.median(beyond) / np.log(2)
        inside = trusted & (trace <= start + width * max(5, np.log(len(beyond))))
        if inside.sum() == trusted.sum():
            return trusted
        trusted = inside


def strangeness(distance: np.ndarray, found: np.ndarray, trusted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each image the highest rarity, of its distance (n,) or its traces `found` (n, 4); and which of SIGNS that is.

    Distances are taken a quarter wider, for the rare cells that were not trusted. Each trace may give an eighth of the
    false alarms that the distance may, all four together half of them: true traces lie far beyond.
    """
    rarities = [rarity(distance, trusted) / 1.25]
    rarities += [rarity(trace, untouched(trace, trusted)) - np.log(8) for trace in found.T]
    return np.max(rarities, axis=0), np.argmax(rarities, axis=0)


def boundary(strange: np.ndarray) -> float:
    """The rarity (n,) beyond which an image is called an outlier.

    It is where the real cells beyond it are expected to be at most FALSE_SHARE of what lies there (Benjamini and
    Hochberg 1995), or a quarter of one cell in all, and at most FALSE_RATE of the cells.
    """
    outermost = np.sort(strange[strange > 0])[::-1]
    expected = 0.02 * np.exp(-outermost) * len(strange)
    good = expected <= np.maximum(0.25, FALSE_SHARE * np.arange(1, len(outermost) + 1))
    limit = np.nextafter(outermost[good][-1], 0) if good.any() else strange.max()
    return float(max(limit, np.log(0.02 / FALSE_RATE)))


# --- labels ----------------------------------------------------------------------------------------------------------


def label_errors(activations: np.ndarray, labels: np.ndarray, groups: np.ndarray, seed: int = 0) -> list[dict]:
    """Labels that confident learning doubts, most suspicious first: [{"index", "label", "suggested", "score"}, ...].

    Out-of-fold probabilities, copies in one fold. A class is likely for an image if its probability is at least the
    mean over the images labelled so; where the likeliest such class is not the label, the label is doubtful
    (Northcutt, Jiang and Chuang 2021). score: the decimal logarithm of how much likelier the suggestion is, up to 300.
    """
    scaled = ((activations - activations.mean(0)) / (activations.std(0) + 1e-6)).astype(np.float32)
    folds = np.random.default_rng(seed).integers(0, 5, len(labels))[np.unique(groups, return_inverse=True)[1]]
    logs = np.zeros((len(labels), len(CLASSES)))
    for fold in range(5):
        rows = folds == fold
        if rows.any() and not rows.all():
            logs[rows] = _classify(scaled[rows], scaled[~rows], labels[~rows])
    given = np.exp(logs)
    every = np.arange(len(labels))
    own = given[every, labels]
    usual = np.array([own[labels == c].mean() if (labels == c).any() else np.inf for c in range(len(CLASSES))])
    likely = np.where(given >= usual, given, 0)
    suggested = likely.argmax(1)
    score = np.minimum((logs[every, suggested] - logs[every, labels]) / np.log(10), 300)
    doubtful = np.flatnonzero((likely.max(1) > 0) & (suggested != labels) & (score > 0))
    return [
        {"index": int(i), "label": int(labels[i]), "suggested": int(suggested[i]), "score": round(float(score[i]), 2)}
        for i in doubtful[np.argsort(-score[doubtful], kind="stable")]
    ]


# --- command ---------------------------------------------------------------------------------------------------------


def _track(items: Iterable, text: str, progress: bool) -> Iterable:
    """The items, with a progress bar on the terminal."""
    if not progress:
        return items
    from rich.progress import track

    return track(list(items), text)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command's options, `backbone` a path, imagenet or None; ends with one line where they cannot be used."""
    parser = shell.parser("training.clean", __doc__)
    parser.add_argument("input", type=Path, help="npz of the challenge or of MedMNIST, or a folder per class")
    parser.add_argument("--output", type=Path, help="npz to write what stays to, in the challenge's format")
    parser.add_argument("--json", type=Path, help="JSON file to write what was removed and why")
    parser.add_argument("--html", type=Path, help="page to write with pictures, for a person to judge")
    parser.add_argument(
        "--backbone",
        help=f"EfficientNetV2B0's weights without the classifier (default {BACKBONE} if it is there); "
        "imagenet: Keras fetches them; none: only repetition tells what is planted",
    )
    parser.add_argument("--remove-label-errors", action="store_true", help="remove what is reported as a label error")
    parser.add_argument("--seed", type=int, default=0, help="of the halves and folds (default 0)")
    options = parser.parse_args(arguments)
    if options.output is not None and options.output.suffix != ".npz":
        sys.exit(f"{options.output} must end in .npz")
    for path in (options.output, options.json, options.html):
        if path is not None and not path.resolve().parent.is_dir():
            sys.exit(f"{path.parent} is no folder; make it first, or write elsewhere")
        if path is not None and path.resolve() == options.input.resolve():
            sys.exit(f"{path} is the input; write elsewhere")
    backbone = options.backbone or (str(BACKBONE) if BACKBONE.exists() else "none")
    if backbone not in ("none", "imagenet") and not Path(backbone).exists():
        sys.exit(f"{backbone} is missing; the README says how to get the backbone's weights")
    options.backbone = None if backbone == "none" else backbone
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow's notes on the machine would bury the bars
    with shell.plain_errors():
        with warnings.catch_warnings(record=True) as stated:
            warnings.simplefilter("always", UserWarning)
            cells = read(options.input)
        for warning in stated:
            print(warning.message, file=sys.stderr)
        if options.backbone is None:
            print("no backbone: of the planted pictures only those that are repeated will be found", file=sys.stderr)
        elif len(cells) < SUPPORT:
            print(f"fewer than {SUPPORT} images: only repetition will tell what is planted", file=sys.stderr)
        result = audit(cells, options.backbone, options.seed, True, options.remove_label_errors)
        if options.output is not None:
            stay = cells.take(result.kept)
            arrays = {"images": stay.images, "labels": stay.labels.astype(np.uint8)[:, None]}
            files.write_atomically(options.output, lambda path: np.savez(path, **arrays))
        if options.json is not None:
            files.write_json(options.json, result.report())
        if options.html is not None:
            from training.audit_page import page

            files.write_text(options.html, page(cells, result, options.input.name))
    for key, number in result.counts().items():
        print(f"{key.replace('_', ' '):18}{number:7,}")
    print(f"{'suspected labels':18}{len(result.suspects):7,}  (reported, see --html)")


if __name__ == "__main__":
    main()
