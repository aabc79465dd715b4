"""Audit a set of cells: find copies, pictures that are not cells, and doubtful labels.

    python -m training.clean data/training_set.npz --output CLEAN.npz --html AUDIT.html

Copies are found by their pixels (`copies`), and pictures that are not cells as outliers (`outlier_scores`): in the
distance of a pretrained network's activations from those of trusted cells (`robust_distances`), or in traces of cutting
and pasting (`traces`). Without the network's weights, only pictures that are repeated many times are found. Label
errors are suspected by confident learning, for a person to judge (`label_errors`).
"""

import argparse
import hashlib
import sys
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from rich.progress import track
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.stats import median_abs_deviation
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.neighbors import NearestNeighbors

from training import audit_page, data, files, shell
from training.data import CLASSES, Cells

BACKBONE = Path("data/pretrained/efficientnetv2b0_notop.weights.h5")
SIGNS = (  # reasons for an outlier: the distance, then the four traces
    "unlike the cells in colour, texture or shape", "a straight edge runs from border to border",
    "a part is filled up, without grain", "one side mirrors the other", "no fine detail: enlarged or blurred",
)  # fmt: skip
REASONS = ("duplicate", "near_duplicate", "conflicting_label", "outlier")

SHIFT = 2  # maximum shift of a copy, in pixels
SAME = 0.88  # minimum correlation of the details of two copies; measured: 0.94 for copies, 0.79 for different cells
REPEATS = 10  # number of copies that makes a picture suspect: no slide yields one that often

LAYERS = ("block1a_project_activation", "block2b_add", "block3b_add", "block4c_add", "block5e_add")
SUPPORT = 500  # minimum number of images for statistics of the bulk of the cells
COMPONENTS = 200  # principal components that describe the bulk
NEIGHBOURS = 20
BOUNDS = (1.5, 1.8, 1.8, 1.8)  # maximum distance of a trusted image, per iteration
FALSE_SHARE = 0.01  # false discovery rate: the maximum share of real cells among the outliers
FALSE_RATE = 0.0015  # false positive rate: the maximum share of outliers among the real cells
LOWEST = np.log(np.finfo(float).tiny)  # the log-probability that stands for 0


@dataclass(frozen=True)
class Audit:
    """Result of the audit.

    kept: (k,) sorted indices. groups: (n,) ids, equal for pictures of one cell, which a split must keep together.
    removed: one record per removed image, sorted by index: "index", "reason", "of" (an index or None), "score", and for
    an outlier "why". suspects: one record per doubtful label, most suspicious first.
    """

    kept: np.ndarray
    groups: np.ndarray
    removed: list[dict]
    suspects: list[dict] = field(default_factory=list)

    def report(self) -> dict:
        """The audit as a dictionary for JSON."""
        return {"kept": len(self.kept), "removed": self.removed, "label_errors": self.suspects}

    def counts(self) -> dict[str, int]:
        """{"original", each reason, "left"}: numbers of images."""
        found = Counter(record["reason"] for record in self.removed)
        return {"original": len(self.groups), **dict.fromkeys(REASONS, 0), **found, "left": len(self.kept)}


def audit(cells: Cells, backbone: str | Path | None = None, drop_label_errors: bool = False,
          activations: np.ndarray | None = None) -> Audit:  # fmt: skip
    """Decides what is kept: one of each set of copies, but none if their labels differ, and no outlier.

    backbone: file of EfficientNetV2B0's ImageNet weights without the classifier, or "imagenet" to let Keras download
    them. Without it, or with fewer than SUPPORT images, only a picture that occurs REPEATS times or under three labels
    is an outlier. activations: output of `features`, if already computed. A record's score follows from its reason: an
    outlier has that of `outlier_scores` (below 0 for nearly all cells; 0 without backbone), a label error that of
    `label_errors`, and a copy its correlation with `of` (1: identical).
    """
    match, suspects = copies(cells.images), []
    scores, signs, limit = np.zeros(len(cells)), np.zeros(len(cells), int), 0.0
    if len(cells) < SUPPORT:
        activations = None
    elif activations is None and backbone is not None:
        activations = features(cells.images, backbone)
    if activations is not None:
        distance, trusted = robust_distances(activations, cells.labels)
        if trusted.any():
            scores, signs = outlier_scores(distance, traces(cells.images), trusted)
            limit = threshold(scores)
    groups = [np.flatnonzero(match.copy == group) for group in np.unique(match.copy)]
    removed = [record for group in groups for record in _judge(group, cells.labels, match, scores, signs, limit)]
    kept = np.setdiff1d(np.arange(len(cells)), [record["index"] for record in removed])
    if activations is not None:
        found = label_errors(activations[kept], cells.labels[kept], match.cell[kept])
        suspects = [record | {"index": int(kept[record["index"]])} for record in found]
    if drop_label_errors:
        removed += [{"index": s["index"], "reason": "label_error", "of": None, "score": s["score"]} for s in suspects]
        kept = np.setdiff1d(kept, [suspect["index"] for suspect in suspects])
    return Audit(kept, match.cell, sorted(removed, key=lambda record: record["index"]), suspects)


def _judge(group: np.ndarray, labels: np.ndarray, match: "Copies", scores: np.ndarray, signs: np.ndarray,
           limit: float) -> list[dict]:  # fmt: skip
    """Records of the images to remove from a group of copies (sorted indices). labels, scores, signs: (n,), of all
    images. limit: the score beyond which an image is an outlier; 0 if there are no scores."""

    def record(index: int, reason: str, others: np.ndarray, score: np.ndarray) -> dict:
        of = int(others[0]) if len(others) else None
        return {"index": int(index), "reason": reason, "of": of, "score": round(float(score[index]), 4)}

    names, middle = np.unique(labels[group]), np.median(scores[group])
    strange, repeated = middle > limit, len(group) >= REPEATS or len(names) > 2
    if strange or (repeated and middle >= limit / 2):
        why = f"one picture {len(group)} times, under {len(names)} labels"
        found = [record(i, "outlier", group[group != i], scores) for i in group]
        return [entry | {"why": SIGNS[signs[entry["index"]]] if strange else why} for entry in found]
    if len(names) > 1:
        return [record(i, "conflicting_label", group[labels[group] != labels[i]], match.score) for i in group]
    same = match.identical == match.identical[group[0]]
    return [record(i, "duplicate" if same[i] else "near_duplicate", group, match.score) for i in group[1:]]


# --- copies


@dataclass(frozen=True)
class Copies:
    """Group ids (n,), each the index of the group's first member. score: (n,) correlation with the match found.

    identical: same pixels. copy: same picture except for a shift of up to SHIFT pixels, brightness, compression, flips
    and quarter turns. cell: also pictures of the same cell with a larger shift, of a few pixels.
    """

    identical: np.ndarray
    copy: np.ndarray
    cell: np.ndarray
    score: np.ndarray


def copies(images: np.ndarray) -> Copies:
    """Finds the copies among images (n, 96, 96, 3) uint8: candidates by thumbnail, then confirmed at pixel level.

    An image's candidates are the three most similar earlier thumbnails (16x16, local contrast, over the eight flips and
    quarter turns). A candidate is confirmed if the details of the two pictures (difference of Gaussians, sigma 1 and 3
    pixels) correlate at SAME or more at some shift of a few pixels.
    """
    digests = [hashlib.sha256(image.tobytes()).hexdigest() for image in images]
    _, first, same = np.unique(digests, return_index=True, return_inverse=True)
    identical, unique = first[same], np.sort(first)
    looks = [_look(images[i]) for i in _track(unique, "looking at details")]
    details, thumbs = (np.stack(parts) for parts in zip(*looks, strict=True))
    copy, cell = list(enumerate(identical)), list(enumerate(identical))  # pairs of indices
    score, margin = np.ones(len(images)), 2 * SHIFT
    for a, b, turn in _candidates(thumbs):
        one = _turned(details[a], turn)[margin:-margin, margin:-margin]
        if min(one.std(), details[b].std()) < 0.1:
            continue  # a blank image has no details
        _, best, _, place = cv2.minMaxLoc(cv2.matchTemplate(details[b], one, cv2.TM_CCOEFF_NORMED))
        if best >= SAME:
            cell.append((unique[a], unique[b]))
            if np.abs(np.subtract(place, margin)).max() <= SHIFT:
                copy.append((unique[a], unique[b]))
                score[identical == unique[a]] = min(best, 1)
    return Copies(identical, _joined(copy, len(images)), _joined(cell, len(images)), score)


def _joined(pairs: list[tuple[int, int]], n: int) -> np.ndarray:
    """Group ids (n,) of images 0..n-1 that are linked by pairs of indices: the first index of each group."""
    links = coo_matrix((np.ones(len(pairs)), np.transpose(pairs)), (n, n))
    group = connected_components(links, directed=False)[1]
    return np.unique(group, return_index=True)[1][group]


def _look(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(details (92, 92), thumbnail (16, 16) of local contrast, of norm 1) of an image, float32."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
    grey = grey[SHIFT:-SHIFT, SHIFT:-SHIFT]  # the border of a shifted copy is filled in
    thumb = cv2.resize(cv2.GaussianBlur(grey, (0, 0), 2), (16, 16), interpolation=cv2.INTER_AREA)
    thumb -= cv2.GaussianBlur(thumb, (0, 0), 3)
    details = cv2.GaussianBlur(grey, (0, 0), 1) - cv2.GaussianBlur(grey, (0, 0), 3)
    return details, thumb / max(np.linalg.norm(thumb), 1e-3)


def _turned(pictures: np.ndarray, turn: int) -> np.ndarray:
    """Pictures (..., h, w) under symmetry `turn`, 0-7, of the square: quarter turns, from 4 on also a flip."""
    pictures = np.rot90(pictures, turn % 4, axes=(-2, -1))
    return pictures[..., ::-1] if turn >= 4 else pictures


def _candidates(thumbs: np.ndarray, similar: float = 0.7, most: int = 3) -> Iterable[tuple[int, int, int]]:
    """Yields (a, b < a, turn of a): for each thumbnail a, the `most` most similar ones before it."""
    flat = thumbs.reshape(len(thumbs), -1)
    for a in _track(range(len(thumbs)), "comparing pictures"):
        likeness = np.stack([_turned(thumbs[a], turn).ravel() for turn in range(8)]) @ flat[:a].T
        turns, others = np.nonzero(likeness > similar)
        for best in np.argsort(-likeness[turns, others], kind="stable")[:most]:
            yield a, others[best], turns[best]


# --- outliers and label errors


def features(images: np.ndarray, backbone: str | Path) -> np.ndarray:
    """images (n, 96, 96, 3) uint8 -> (n, 912) float32: EfficientNetV2B0's activations after each of its first five
    blocks, averaged over the centre, the border and the ring between them."""
    import keras

    whole = keras.applications.EfficientNetV2B0(include_top=False, weights=str(backbone), input_shape=images.shape[1:])
    network = keras.Model(whole.input, [whole.get_layer(name).output for name in LAYERS])
    rows = []
    for start in _track(range(0, len(images), 64), "computing features"):
        maps = network.predict_on_batch(images[start : start + 64].astype(np.float32))
        rows.append(np.concatenate([m[:, ring].mean(1) for m in maps for ring in _rings(m.shape[1])], 1))
    return np.concatenate(rows)


def _rings(size: int) -> list[np.ndarray]:
    """Three (size, size) masks: the central third, the ring around it, the border, a sixth wide."""
    away = np.abs(np.arange(size) - (size - 1) / 2)
    ring = np.digitize(np.maximum(away[:, None], away), (size / 6, size / 3))
    return [ring == place for place in range(3)]


def robust_distances(activations: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distances (n,) of images from the trusted cells, 1 for their median; (n,) whether an image is trusted.

    The distance combines the Mahalanobis distance within the principal components of the trusted cells and the distance
    from their subspace (Moghaddam and Pentland 1997). The trusted set starts as the most central third of each label
    (Rousseeuw and Van Driessen 1999). An image joins if it is near the set, its neighbours are not too close to it, and
    discriminant analysis confirms its label and those of most neighbours. Each half of the images is compared with the
    trusted cells of the other half. If too few images can be trusted, none is, and all distances are 1.
    """
    n = len(activations)
    spread = median_abs_deviation(activations, scale="normal")
    scaled = (activations - np.median(activations, 0)) / (spread + 1e-6 * spread.max() + 1e-30)
    scaled = np.sign(scaled) * np.log1p(np.abs(scaled))
    near, crowded = _neighbourhood(scaled)
    half = np.random.default_rng(0).permutation(n) % 2
    trusted = _central(np.sqrt((scaled**2).mean(1)), labels, crowded)
    inside, outside, agrees = np.empty(n), np.empty(n), np.zeros(n, bool)
    for bound in _track((*BOUNDS, None), "judging features"):
        if min(trusted[half == 0].sum(), trusted[half == 1].sum()) < SUPPORT // 10:
            return np.ones(n), np.zeros(n, bool)
        for rows in (half == 0, half == 1):
            others = trusted & ~rows
            inside[rows], outside[rows] = _subspace_distance(scaled[rows], scaled[others])
            agrees[rows] = _classify(scaled[rows], scaled[others], labels[others]).argmax(1) == labels[rows]
        distance = np.sqrt(inside / np.median(inside[trusted]) + 0.5 * outside / np.median(outside[trusted]))
        distance /= np.median(distance[trusted])
        if bound is not None:
            agrees &= ~crowded
            trusted = agrees & (agrees[near].mean(1) > 0.5) & (distance <= bound)
    return distance, trusted


def _neighbourhood(scaled: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Indices (n, NEIGHBOURS + 1) of each row's nearest rows; (n,) whether these lie too close together for cells."""
    search = NearestNeighbors(n_neighbors=NEIGHBOURS + 1, algorithm="brute").fit(scaled)
    far, near = search.kneighbors(scaled)
    crowded = far[:, REPEATS] <= 0.75 * np.median(far[:, REPEATS])
    return near, crowded | (crowded[near].mean(1) > 0.25)


def _central(distance: np.ndarray, labels: np.ndarray, crowded: np.ndarray) -> np.ndarray:
    """(n,) whether an image is in the most central third of its label."""
    trusted = np.zeros(len(labels), bool)
    for label in np.unique(labels[~crowded]):
        same = (labels == label) & ~crowded
        limit = min(np.quantile(distance[~crowded], 0.8), np.quantile(distance[same], 1 / 3))
        trusted |= same & (distance <= limit)
    return trusted


def _subspace_distance(rows: np.ndarray, sample: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Squared distances (n,) of rows (n, d) to a sample: within its principal subspace (whitened), and from it."""
    components = min(COMPONENTS, len(sample) // 5, sample.shape[1] // 2)
    pca = PCA(components, whiten=True, svd_solver="covariance_eigh").fit(sample)
    within = pca.transform(rows)
    return (within**2).mean(1), ((rows - pca.inverse_transform(within)) ** 2).sum(1)


def _classify(rows: np.ndarray, sample: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(n, 8) log-probabilities, at least LOWEST, by linear discriminant analysis (Fisher 1936) with shrinkage."""
    logs, names = np.full((len(rows), len(CLASSES)), LOWEST), np.unique(labels)
    analysis = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a class may have a single cell
        logs[:, names] = analysis.fit(sample, labels).predict_log_proba(rows) if len(sample) > len(names) > 1 else 0
    return np.maximum(logs, LOWEST)


def traces(images: np.ndarray) -> np.ndarray:
    """Traces of cutting, pasting and enlarging that no microscope leaves: images (n, 96, 96, 3) -> (n, 4) float32.

    All are logarithms that grow with the trace. Lines are rows or columns, whichever give the larger value:
    - seam: largest mean change between two neighbouring lines, relative to the changes on both sides of them.
    - calm: how similar the twelfth most similar pair of neighbouring lines is: a filled border.
    - mirror: how similar the ten lines on both sides of an axis are, relative to neighbouring lines there.
    - blur: how little fine detail there is at the 90th percentile of the pixels (noise mask of Immerkaer 1996).
    """
    mask, rows = np.float32([[1, -2, 1], [-2, 4, -2], [1, -2, 1]]), []
    for image in _track(images, "looking for seams"):
        image = image.astype(np.float32)
        detail = np.abs(cv2.filter2D(image, -1, mask)).mean(2)
        lines = np.max([_line_traces(image), _line_traces(image.transpose(1, 0, 2))], 0)
        rows.append([*lines, -np.log(np.quantile(detail, 0.9) + 0.2)])
    return np.array(rows, np.float32)


def _line_traces(lines: np.ndarray, reach: int = 10) -> tuple[float, float, float]:
    """Seam, calm and mirror along the first axis of an image (96, 96, 3) float32."""
    change = np.abs(np.diff(lines, axis=0)).mean(2)
    seam = np.log((change[1:-1] + 2) / (np.maximum(change[:-2], change[2:]) + 2)).mean(1).max()
    change, mirror = change.mean(1), -np.inf
    third = lines[:, 1::3, 1]  # every third pixel: the same ones under all flips and turns
    for width in (2 * reach, 2 * reach + 1):  # the axis between two lines, or on one
        near = np.lib.stride_tricks.sliding_window_view(third, width, axis=0)
        apart = np.abs(near[..., :reach] - near[..., : -reach - 1 : -1]).mean((1, 2))
        usual = np.lib.stride_tricks.sliding_window_view(change, width - 1).mean(1)
        mirror = max(mirror, np.log((usual + 0.2) / (apart + 0.2)).max())
    return seam, -np.log(np.sort(change)[11] + 0.02), mirror


def rarity(measure: np.ndarray, trusted: np.ndarray) -> np.ndarray:
    """How far images (n,) lie in the upper tail of the trusted cells, modelled as exponential: 0 at their 98th
    percentile, +1 for each factor e in rarity."""
    start = np.quantile(measure[trusted], 0.98)
    beyond = measure[trusted & (measure > start)] - start
    return (measure - start) / (beyond.mean() if len(beyond) else 0.01)


def trimmed(trace: np.ndarray, trusted: np.ndarray) -> np.ndarray:
    """The trusted images (n,) without outliers in a trace, which would widen its tail and so mask one another.

    Dropped are images more than five tail widths beyond the 95th percentile, and where less than one cell is expected.
    This repeats until none is dropped, as the tail gets narrower. The width is estimated from the tail's median.
    """
    before = None
    while not np.array_equal(before, trusted):
        before, start = trusted, np.quantile(trace[trusted], 0.95)
        beyond = trace[trusted & (trace > start)] - start
        if len(beyond):
            reach = np.median(beyond) / np.log(2) * max(5, np.log(len(beyond)))
            trusted = trusted & (trace <= start + reach)
    return trusted


def outlier_scores(distance: np.ndarray, found: np.ndarray, trusted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each image's highest rarity, over its distance (n,) and its traces `found` (n, 4); its index in SIGNS.

    The tail of the distances is taken a quarter wider, for the rare cells that were not trusted. Each trace may cause
    an eighth as many false positives as the distance.
    """
    rarities = [rarity(distance, trusted) / 1.25]
    rarities += [rarity(trace, trimmed(trace, trusted)) - np.log(8) for trace in found.T]
    return np.max(rarities, axis=0), np.argmax(rarities, axis=0)


def threshold(scores: np.ndarray) -> float:
    """The rarity beyond which an image is an outlier. scores: (n,) rarities.

    The expected number of real cells beyond it is at most FALSE_SHARE of the images there (Benjamini and Hochberg
    1995), or a quarter of a cell, and at most FALSE_RATE of all images.
    """
    outermost = np.sort(scores[scores > 0])[::-1]
    expected = 0.02 * np.exp(-outermost) * len(scores)
    good = expected <= np.maximum(0.25, FALSE_SHARE * np.arange(1, len(outermost) + 1))
    limit = np.nextafter(outermost[good][-1], 0) if good.any() else scores.max()
    return float(max(limit, np.log(0.02 / FALSE_RATE)))


def label_errors(activations: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> list[dict]:
    """Labels that confident learning doubts, most suspicious first: [{"index", "label", "suggested", "score"}, ...].

    Probabilities are out of fold; copies share a fold. A class is likely for an image if its probability is at least
    the mean over the images with that label. If the most probable of these classes is not the label, the label is
    doubtful (Northcutt, Jiang and Chuang 2021). score: log10 of the ratio of the two probabilities, at most 308.
    """
    scaled = (activations - activations.mean(0)) / (activations.std(0) + 1e-6)
    folds = np.random.default_rng(0).integers(0, 5, len(labels))[np.unique(groups, return_inverse=True)[1]]
    logs = np.zeros((len(labels), len(CLASSES)))
    for fold in np.unique(folds):
        rows = folds == fold
        logs[rows] = _classify(scaled[rows], scaled[~rows], labels[~rows])
    own = logs[np.arange(len(labels)), labels]
    count = np.bincount(labels, minlength=len(CLASSES))
    usual = np.bincount(labels, np.exp(own), len(CLASSES)) / np.maximum(count, 1)
    likely = np.where(np.exp(logs) >= usual, logs, LOWEST)
    suggested, score = likely.argmax(1), (likely.max(1) - own) / np.log(10)
    return [
        {"index": int(i), "label": int(labels[i]), "suggested": int(suggested[i]), "score": round(float(score[i]), 2)}
        for i in np.argsort(-score, kind="stable")[: (score > 0).sum()]
    ]


# --- command


def _track(items: Iterable, text: str) -> Iterable:
    """The items, with a progress bar on a terminal."""
    return track(list(items), text, disable=not sys.stdout.isatty())


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options. Exits with one line if they are invalid."""
    parser = shell.parser("training.clean", __doc__)
    add = parser.add_argument
    add("input", type=Path, metavar="CELLS", help="npz (the challenge's, MedMNIST's) or a folder per class")
    add("--output", type=shell.new_file, metavar="NPZ", help="write the cells that are kept, in the challenge's format")
    add("--json", type=shell.new_file, metavar="FILE", help="write what was removed, and why, as JSON")
    add("--html", type=shell.new_file, metavar="FILE", help="write a page with pictures, for a person to judge")
    add("--backbone", metavar="FILE", default=str(BACKBONE) if BACKBONE.exists() else "none",
        help="EfficientNetV2B0's weights without the classifier; imagenet: Keras downloads them; none: of pictures"
        f" that are not cells, find only repeated ones (default: {BACKBONE} if it exists)")  # fmt: skip
    add("--remove-label-errors", action="store_true", help="remove what is reported as a label error")
    options = parser.parse_args(arguments)
    if options.output and options.output.suffix != ".npz":
        parser.error(f"{options.output} must end in .npz")
    for path in filter(None, (options.output, options.json, options.html)):
        if path.resolve() == options.input.resolve():
            parser.error(f"{path} is the input; write elsewhere")
    if options.backbone not in ("none", "imagenet") and not Path(options.backbone).exists():
        parser.error(f"{options.backbone} is missing; docs/DATA.md says how to get the backbone's weights")
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    backbone = None if options.backbone == "none" else options.backbone
    with shell.plain_errors():
        with warnings.catch_warnings():  # prints conversions as plain lines
            warnings.showwarning = lambda message, *_: print(message, file=sys.stderr)
            cells = data.read(options.input)
        if backbone is None or len(cells) < SUPPORT:
            why = "no backbone" if backbone is None else f"fewer than {SUPPORT} images"
            print(f"{why}: of pictures that are not cells, only repeated ones will be found", file=sys.stderr)
        result = audit(cells, backbone, options.remove_label_errors)
        if options.output:
            stay = cells.take(result.kept)
            arrays = {"images": stay.images, "labels": stay.labels.astype(np.uint8)[:, None]}
            files.write_atomically(options.output, lambda path: np.savez(path, **arrays))
        if options.json:
            files.write_json(options.json, result.report())
        if options.html:
            files.write_text(options.html, audit_page.page(cells, result, options.input.name))
    for key, number in result.counts().items():
        print(f"{key.replace('_', ' '):18}{number:7,}")
    fate = "removed" if options.remove_label_errors else "they stay; --html FILE shows them"
    print(f"{'suspected labels':18}{len(result.suspects):7,}  ({fate})")


if __name__ == "__main__":
    main()
