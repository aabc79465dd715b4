"""The audit: each kind of false picture is found, and hardly a cell is lost; the command says and writes it."""

import json
import re

import cv2
import dirty
import numpy as np
import pytest

from training import audit_page, clean, data


@pytest.mark.slow
def test_whole_file_by_pixels(training_set):
    cells = data.Cells(training_set[0], training_set[1][:, 0].astype(np.int64))
    result = clean.audit(cells)
    found = {reason: [r["index"] for r in result.removed if r["reason"] == reason] for reason in clean.REASONS}
    assert found["outlier"] == list(range(11959, 13759))
    assert (len(found["duplicate"]), len(found["near_duplicate"]), len(found["conflicting_label"])) == (16, 1, 2)
    assert set(cells.labels[found["near_duplicate"]]) == {5} and set(cells.labels[found["conflicting_label"]]) == {1, 6}
    assert len(result.kept) == result.report()["kept"] == 11959 - 19
    assert len(result.removed) == len({record["index"] for record in result.removed})


@pytest.fixture(scope="session")
def small(heldout):
    """60 cells; 60 repeats 3, 61 is 5 turned, 62 repeats 7 under another label, 63-74 one picture twelve times."""
    images, labels = heldout[0][:60], heldout[1][:60, 0].astype(np.int64)
    noise = np.random.default_rng(0).integers(0, 256, (96, 96, 3), np.uint8)
    images = np.stack([*images, images[3], np.rot90(images[5]), images[7], *[noise] * 12])
    return data.Cells(images, np.array([*labels, labels[3], labels[5], (labels[7] + 1) % 8, *np.arange(12) % 8]))


@pytest.fixture
def folder(small, tmp_path):
    np.savez(tmp_path / "in.npz", images=small.images, labels=small.labels[:, None].astype(np.uint8))
    return tmp_path


def run(folder, *options):
    clean.main([str(folder / "in.npz"), "--backbone", "none", *map(str, options)])


def test_command_writes_what_it_found(small, folder, capsys):
    outputs = [folder / name for name in ("out.npz", "a.json", "a.html", "b.json", "b.html")]
    run(folder, "--output", outputs[0], "--json", outputs[1], "--html", outputs[2])
    run(folder, "--json", outputs[3], "--html", outputs[4])
    assert outputs[1].read_bytes() == outputs[3].read_bytes() and outputs[2].read_bytes() == outputs[4].read_bytes()

    found = json.loads(outputs[1].read_text())
    removed = {record["index"]: (record["reason"], record["of"]) for record in found["removed"]}
    expected = {7: ("conflicting_label", 62), 60: ("duplicate", 3), 61: ("near_duplicate", 5)}
    assert {i: removed[i] for i in removed if i < 63} == expected | {62: ("conflicting_label", 7)}
    assert all(removed[i][0] == "outlier" for i in range(63, 75))
    assert {record["score"] for record in found["removed"] if record["reason"] == "outlier"} == {0}  # not judged
    assert found["kept"] == 75 - 16 and found["label_errors"] == []
    kept = np.setdiff1d(np.arange(75), list(removed))
    with np.load(outputs[0]) as file:
        assert (file["images"] == small.images[kept]).all() and file["labels"].dtype == np.uint8
        assert file["labels"].shape == (59, 1) and (file["labels"][:, 0] == small.labels[kept]).all()
    printed = capsys.readouterr()
    assert re.search(r"outlier +12\n", printed.out) and re.search(r"left +59\n", printed.out)
    assert "only repeated ones" in printed.err


def test_page_shows_each_reason_and_needs_no_other_file(small, folder):
    run(folder, "--html", folder / "a.html")
    text = (folder / "a.html").read_text()
    for title in ("Outliers", "Conflicting labels", "Near duplicates", "Duplicates"):
        assert f"<h2>{title}" in text
    sources = re.findall(r'src="([^"]*)"', text)
    assert len(sources) == 2 + 2 + 2 + 1 and all(source.startswith("data:image/jpeg;base64,") for source in sources)
    assert "http" not in text and "row 63 and 11 more" in text and "one picture 12 times, under 8 labels" in text
    assert "width=device-width" in text and "prefers-color-scheme: dark" in text
    assert re.search(r"row 61<br><b>[a-z ]+</b><br>correlation 1.00.*row 5<br>", text)
    assert "<td>original</td><td>75</td></tr>" in text
    before, after = (np.bincount(part, minlength=8) for part in (small.labels, small.labels[clean.audit(small).kept]))
    for c, name in enumerate(data.CLASSES):
        row = re.search(rf"<td>{name}</td><td>(\d+)</td><td>[\d.]+%</td><td>(\d+)</td>", text)
        assert (int(row[1]), int(row[2])) == (before[c], after[c])


def test_page_shows_doubtful_labels_most_suspicious_first_and_escapes_the_name(small, monkeypatch):
    doubts = [(9, 1, 2, 12.34), (4, 0, 3, 0.2)]
    suspects = [dict(zip(("index", "label", "suggested", "score"), doubt, strict=True)) for doubt in doubts]
    kept = np.arange(len(small))
    result = clean.Audit(kept, kept, [], suspects)
    text = audit_page.page(small, result, "<script>.npz")
    first = text.index("row 9<br>labelled <b>eosinophil</b>, rather <b>erythroblast</b>?<br>doubt 12.3")
    assert first < text.index("row 4<br>labelled <b>basophil</b>, rather <b>immature granulocyte</b>?<br>doubt 0.2")
    assert "<script>" not in text and "&lt;script&gt;.npz" in text
    monkeypatch.setattr(audit_page, "MOST", 1)
    text = audit_page.page(small, result, "a")
    assert "row 4<" not in text and "and 1 more, in the JSON" in text


def test_existing_outputs_survive_a_failure(folder, monkeypatch):
    outputs = [folder / name for name in ("out.npz", "a.json")]
    for path in outputs:
        path.write_text("old")

    def full_disk(path, **arrays):
        path.write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(np, "savez", full_disk)
    with pytest.raises(SystemExit, match="No space left"):
        run(folder, "--output", outputs[0], "--json", outputs[1])
    assert [path.read_text() for path in outputs] == ["old", "old"]
    assert set(folder.iterdir()) == {folder / "in.npz", *outputs}


def test_conversions_are_stated(small, folder, capsys):
    np.savez(folder / "in.npz", images=(small.images[:9] / 255).astype(np.float32), labels=np.eye(8)[small.labels[:9]])
    run(folder)
    stated = capsys.readouterr().err
    assert "multiplied by 255" in stated and "one-hot" in stated


@pytest.mark.parametrize(
    "options, message",
    [
        (["in.npz", "--json", "nowhere/a.json"], "nowhere is not a folder"),
        (["in.npz", "--output", "clean"], "clean must end in .npz"),
        (["in.npz", "--output", "in.npz"], "in.npz is the input"),
        (["in.npz", "--backbone", "missing.h5"], "missing.h5 is missing"),
        ([], "required: CELLS"),
    ],
)
def test_what_cannot_be_done_is_said_and_nothing_is_written(folder, monkeypatch, capsys, options, message):
    monkeypatch.chdir(folder)
    before = (folder / "in.npz").read_bytes()
    with pytest.raises(SystemExit) as ended:
        clean.main(options)
    assert message in f"{ended.value}{capsys.readouterr().err}"
    assert [path.name for path in folder.iterdir()] == ["in.npz"] and (folder / "in.npz").read_bytes() == before


# --- judging by traces -----------------------------------------------------------------------------------------------


def cells_like(rng, n):
    """Dark soft discs on light ground with some grain, (n, 96, 96, 3) uint8."""
    y, x = np.mgrid[:96, :96]
    middle, radius = rng.uniform(38, 58, (n, 2, 1, 1)), rng.uniform(20, 32, (n, 1, 1))
    away = np.hypot(y - middle[:, 0], x - middle[:, 1])
    images = 210 - 90 / (1 + np.exp((away - radius) / 1.5))[..., None] * rng.uniform(0.6, 1, (n, 1, 1, 3))
    return np.clip(np.rint(images + rng.normal(0, 4, images.shape)), 0, 255).astype(np.uint8)


def test_each_trace_tells_what_was_done_to_a_picture():
    """Half of another cell beside it: a seam. A border filled up: calm; reflected: mirror. A part enlarged: blur."""
    real = cells_like(np.random.default_rng(6), 100)
    halves = np.concatenate([real[:10, :, 40:], real[10:20, :, :40] // 2], 2)
    bordered = real[:10].copy()
    bordered[:, :15] = bordered[:, 15:16]
    part = np.stack([cv2.resize(image[10:40, 30:60], (96, 96), interpolation=cv2.INTER_CUBIC) for image in real[:10]])
    reflected = real[:10].copy()
    reflected[:, :20] = reflected[:, 39:19:-1]
    highest = clean.traces(real).max(0)
    for place, false in enumerate((halves, bordered, reflected, part)):
        found = clean.traces(false)
        assert found[:, place].min() > highest[place]
        np.testing.assert_allclose(clean.traces(np.rot90(false, axes=(1, 2))), found, rtol=1e-5, atol=1e-5)


def test_traces_by_hand():
    """Two halves of one colour each, 60 levels apart: one jump of log(62 / 2), no other change, no detail in 90%, and
    no axis about which the picture is more alike than its neighbouring lines are."""
    image = np.zeros((1, 96, 96, 3), np.uint8)
    image[:, :, 48:] = 60
    np.testing.assert_allclose(clean.traces(image), [[np.log(31), -np.log(0.02), 0, -np.log(0.2)]], rtol=1e-6)


def test_rarity_counts_the_tail():
    """An exponential tail: beyond r lie e^-r of the 2%."""
    measure = np.random.default_rng(0).exponential(3, 200_000)
    strange = clean.rarity(measure, np.ones(len(measure), bool))
    assert (strange > 0).mean() == pytest.approx(0.02, rel=0.01)
    assert (strange > 1).mean() == pytest.approx(0.02 * np.exp(-1), rel=0.05)
    assert (clean.rarity(np.ones(9), np.ones(9, bool)) == 0).all()


def test_far_traces_are_outliers_though_they_were_trusted():
    """Fifty of 2,500, in one trace each, all of them trusted: they are found, and hardly any other."""
    rng = np.random.default_rng(2)
    distance, found = rng.gamma(20, 1 / 20, 2500), rng.normal(0, 1, (2500, 4))
    found[np.arange(50), np.arange(50) % 4] += rng.uniform(12, 60, 50)
    strange, signs = clean.outlier_scores(distance, found, np.ones(2500, bool))
    outliers = strange > clean.threshold(strange)
    assert outliers[:50].all() and outliers[50:].sum() <= 3
    assert (signs[:50] == 1 + np.arange(50) % 4).all() and len(clean.SIGNS) == 5


@pytest.mark.parametrize("n", [400, 2000])
def test_small_files_without_traces_lose_next_to_nothing(n):
    lost = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        strange, _ = clean.outlier_scores(rng.gamma(20, 1 / 20, n), rng.normal(0, 1, (n, 4)), rng.random(n) < 0.8)
        lost.append((strange > clean.threshold(strange)).sum())
    assert np.mean(lost) <= 0.002 * n


# --- judging by features ---------------------------------------------------------------------------------------------


def blobs(rng, n, width):
    """n points about eight centres, (n, width), and which centre each belongs to."""
    labels = np.arange(n) % 8
    centres = np.random.default_rng(9).normal(0, 2, (8, width))
    return (centres[labels] + rng.normal(0, 1, (n, width))).astype(np.float32), labels


def called(distance, trusted):
    """(n,): which points are called outliers by their distance alone."""
    strange, _ = clean.outlier_scores(distance, np.zeros((len(distance), 4)), trusted)
    return strange > clean.threshold(strange)


def judged_among(rng, points, labels, planted, names):
    """Robust distances of the points with others planted among them, and (n,) which are trusted, which planted."""
    order = rng.permutation(len(points) + len(planted))
    both, names = np.concatenate([points, planted])[order], np.concatenate([labels, names])[order]
    return *clean.robust_distances(both.astype(np.float32), names), order >= len(points)


def test_far_points_are_outliers_and_near_ones_are_not():
    """5% lie elsewhere, under random labels and each different; the same points alone lose next to none."""
    rng = np.random.default_rng(1)
    points, labels = blobs(rng, 1200, 60)
    assert called(*clean.robust_distances(points, labels)).mean() <= 0.003
    far, names = rng.normal(0, 4, (60, 60)), rng.integers(0, 8, 60)
    distance, trusted, planted = judged_among(rng, points, labels, far, names)
    found = called(distance, trusted)
    assert found[planted].mean() >= 0.97 and found[~planted].mean() <= 0.003


def test_pictures_that_hide_under_the_label_they_resemble_are_found():
    """3% lie off one class's centre, each as far as it likes in a direction no cell takes, and carry its label."""
    rng = np.random.default_rng(5)
    points, labels = blobs(rng, 3000, 60)
    away = rng.normal(size=60)
    hidden, names = blobs(rng, 720, 60)
    hidden = hidden[names == 1] + rng.uniform(20, 36, (90, 1)) * away / np.linalg.norm(away)
    distance, trusted, planted = judged_among(rng, points, labels, hidden, np.full(90, 1))
    assert not trusted[planted].any() and (called(distance, trusted) == planted).all()


def test_nothing_is_judged_where_nothing_can_be_trusted():
    for points in (np.zeros((600, 24), np.float32), np.random.default_rng(3).normal(size=(600, 24))):
        distance, trusted = clean.robust_distances(points, np.random.default_rng(4).integers(0, 8, 600))
        assert (distance == 1).all() and not trusted.any()


def test_one_class_alone_and_a_class_of_one_cell_are_judged(recwarn):
    points = np.random.default_rng(7).normal(size=(600, 60)).astype(np.float32)
    for labels in (np.zeros(600, int), np.arange(600) // 599):
        distance, trusted = clean.robust_distances(points, labels)
        assert trusted.mean() > 0.5 and called(distance, trusted).mean() <= 0.003
        clean.label_errors(points, labels, np.arange(600))
    assert not recwarn.list


def test_wrong_labels_are_found_reported_and_removed_only_when_asked(monkeypatch):
    monkeypatch.setattr(clean, "traces", lambda images: np.zeros((len(images), 4)))  # it takes seconds
    rng = np.random.default_rng(2)
    points, labels = blobs(rng, 600, 60)
    wrong = rng.choice(600, 30, replace=False)
    given = labels.copy()
    given[wrong] = (given[wrong] + rng.integers(1, 8, 30)) % 8
    suspects = clean.label_errors(points, given, np.arange(600))
    found = [record["index"] for record in suspects]
    assert len(set(found) & set(wrong)) >= 29 and len(found) <= 40
    assert sum(record["suggested"] == labels[record["index"]] for record in suspects) >= 29
    scores = [record["score"] for record in suspects]
    assert set(found[:20]) <= set(wrong) and scores == sorted(scores, reverse=True)
    assert len(set(scores)) == len(scores)  # though many of the probabilities are 1

    images = rng.integers(0, 256, (600, 96, 96, 3), np.uint8)
    cells = data.Cells(images, given)
    kept = clean.audit(cells, activations=points)
    assert {record["index"] for record in kept.suspects} >= set(found) - {r["index"] for r in kept.removed}
    assert "label_error" not in {record["reason"] for record in kept.removed}
    dropped = clean.audit(cells, activations=points, drop_label_errors=True)
    gone = {record["index"] for record in dropped.removed if record["reason"] == "label_error"}
    assert gone == {record["index"] for record in kept.suspects} and not gone & set(dropped.kept.tolist())


# --- dirtier files ---------------------------------------------------------------------------------------------------


@pytest.fixture
def backbone():
    if not clean.BACKBONE.exists():
        pytest.skip(f"needs {clean.BACKBONE}, ImageNet weights (see docs/DATA.md)")
    return clean.BACKBONE


@pytest.mark.slow
def test_features_are_of_each_picture_alone(heldout, backbone):
    images = heldout[0][[0, 1, 0]]
    found = clean.features(images, backbone)
    assert found.shape == (3, 912) and found.dtype == np.float32
    np.testing.assert_allclose(found[2], found[0], rtol=1e-4, atol=1e-4)
    assert np.abs(found[1] - found[0]).mean() > 0.01


@pytest.mark.slow
def test_planted_pictures_of_all_kinds_go_and_cells_stay(heldout, backbone):
    """One picture in twelve is planted, each different or repeated, under random labels; by real features."""
    images, labels = heldout[0], heldout[1][:, 0].astype(np.int64)
    rng = np.random.default_rng(11)
    rows = rng.permutation(len(images))
    cells, others = data.Cells(images[rows[:660]], labels[rows[:660]]), images[rows[660:]]
    planted = np.stack([dirty.mixed(rng, others) for _ in range(60)])
    known = clean.features(np.concatenate([cells.images, planted]), backbone)
    row = dirty.judge_outliers(cells, known[:660], planted, known[660:], rng.integers(0, 8, 60), rng)
    assert row["recall"] >= 0.9 and row["lost"] <= 3, row
    row = dirty.judge_clean("cells", cells, known[:660])
    assert row["lost"] <= 2, row


@pytest.mark.parametrize("kind", dirty.ALTERED)
def test_copies_of_all_kinds_go_and_cells_stay(heldout, kind):
    """One picture in six is a copy, every fourth under another label."""
    cells = data.Cells(heldout[0][:300], heldout[1][:300, 0].astype(np.int64))
    row = dirty.judge_copies(cells, dirty.ALTERED[kind], 60, np.random.default_rng(12))
    assert row["recall"] >= 0.98 and row["precision"] >= 0.98, row


@pytest.mark.parametrize("all_goes", [False, True])
def test_measure_shows_an_audit_that_finds_nothing_or_takes_all(small, monkeypatch, all_goes):
    """The figures come from what was planted, not from what the audit says of itself."""

    def audit(cells, activations=None):
        rows = np.arange(len(cells))
        goes = rows if all_goes else rows[:0]
        removed = [{"index": i, "reason": "duplicate", "of": 0, "score": 1.0} for i in goes]
        return clean.Audit(np.setdiff1d(rows, goes), rows, removed)

    monkeypatch.setattr(clean, "audit", audit)
    rng, known = np.random.default_rng(13), np.zeros((len(small), 3))
    planted = np.stack([dirty.text(rng, small.images) for _ in range(5)])
    outliers = dirty.judge_outliers(small, known, planted, known[:5], np.zeros(5, int), rng)
    copies, whole = dirty.judge_copies(small, (), 6, rng), dirty.judge_clean("a", small, known)
    if all_goes:
        assert outliers["recall"] == 1 and outliers["precision"] == round(5 / (5 + len(small)), 4)
        assert copies["precision"] < 0.1 and whole["share"] == 1
    else:
        assert [outliers[key] for key in ("found", "lost", "recall", "precision")] == [0, 0, 0, None]
        assert copies["recall"] == 0 and whole["lost"] == 0


def test_dirty_pictures_are_the_same_each_time(small):
    for make in dirty.PICTURES.values():
        first, again = (make(np.random.default_rng(5), small.images) for _ in range(2))
        assert first.shape == (96, 96, 3) and first.dtype == np.uint8 and (first == again).all()
    for ways in dirty.ALTERED.values():
        copy = dirty.altered(small.images[0], ways, np.random.default_rng(5))
        assert copy.shape == (96, 96, 3) and copy.dtype == np.uint8
        assert (copy == small.images[0]).all() == (not ways)
