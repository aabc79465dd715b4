"""A competition as a bundle: this one, and a made-up one of three classes at 32 pixels with its own model and kit."""

import zipfile
from pathlib import Path

import numpy as np
import pytest
import yaml

import build_submission
from grader import bundle, competition, worker
from tests.submissions import GOOD, make_zip, model, npz

ROOT = Path(build_submission.__file__).parent
BEADS = ["red bead", "green bead", "blue bead"]
BEAD_LABELS = "(means @ self.colours.T).argmax(axis=1)"
BEAD_MODEL = model(
    init='self.colours = np.load(os.path.join(os.path.dirname(os.path.abspath(__file__)), "colours.npy"))',
    predict=f"means = np.reshape([image.mean(axis=(0, 1)) for image in X], (-1, 3))\nreturn {BEAD_LABELS}",
    top="import os",
)
BEAD_YAML = """
title: Beads
description: "Which colour has the bead?"
data: Made by hand, CC0.
starting_kit: kit/
public_data: public.npz
phases:
  - name: Development
    start: 2027-01-10
    end: "2027-02-01 00:00:00"
    max_submissions_per_day: 3
    execution_time_limit: 120
  - name: Final
    start: "2027-02-01 12:00:00"
    max_submissions: 2
    execution_time_limit: 300
"""


def beads(path, n=60, seed=0, side=32, **more):
    """An npz of n beads, each in its class's colour on noise."""
    rng, labels = np.random.default_rng(seed), np.arange(n) % 3
    images = rng.integers(0, 90, (n, side, side, 3))
    images[:, 4:28, 4:28] += 120 * np.eye(3, dtype=int)[labels][:, None, None]
    np.savez(path, **{"images": images.astype(np.uint8), "labels": labels, "classes": np.array(BEADS), **more})
    return path


@pytest.fixture
def pack(command):
    """pack(*options) -> (exit status, what is printed) of a bundle b.zip of the made-up competition, whose parts are
    in the working directory: held-out, final and public cells, kit, YAML file."""
    Path("kit").mkdir()
    Path("kit/model.py").write_text(BEAD_MODEL)
    np.save("kit/colours.npy", np.eye(3))
    Path("beads.yaml").write_text(BEAD_YAML)
    for seed, name in enumerate(("heldout", "final", "public")):
        beads(f"{name}.npz", seed=seed)

    def go(*options):
        return command("--bundle", "b.zip", "--competition", "beads.yaml", "--heldout", "heldout.npz", *options)[:2]

    return go


def unpack(path: str) -> tuple[Path, dict]:
    """The folder of an unpacked bundle, and its competition.yaml."""
    folder = Path(path).with_suffix("")
    with zipfile.ZipFile(path) as file:
        file.extractall(folder)
    return folder, yaml.safe_load((folder / "competition.yaml").read_text())


def is_whole(folder: Path, made: dict) -> None:
    """What Codabench asks of a bundle."""
    assert made["version"] == 2 and made["title"] and not competition.OURS & set(made)
    for name in (made["image"], made["terms"], *(page["file"] for page in made["pages"])):
        assert (folder / name).stat().st_size > 0
        assert not name.endswith(".md") or "{{" not in (folder / name).read_text()
    for index, task in enumerate(made["tasks"]):
        assert task["index"] == index
        for part in ("ingestion_program", "scoring_program", "input_data", "reference_data"):
            assert task[part].endswith("/") and any((folder / task[part]).iterdir())
    for index, phase in enumerate(made["phases"]):
        assert phase["index"] == index and set(phase["tasks"]) <= set(range(len(made["tasks"])))
        assert phase["hide_prediction_output"] is True and isinstance(phase["start"], str)
    [board] = made["leaderboards"]
    assert [column["key"] for column in board["columns"]] == worker.columns()
    assert all(len(column["key"]) <= 36 for column in board["columns"]) and len(board["key"]) <= 36
    assert not [path for path in folder.rglob("*") if "__pycache__" in path.parts or path.name.startswith(".")]


def test_this_competition(command, tmp_path):
    assert command("--bundle", "b.zip", "--heldout", npz(tmp_path / "cells.npz"))[0] == 0
    folder, made = unpack("b.zip")
    is_whole(folder, made)
    [phase] = made["phases"]
    assert phase["execution_time_limit"] == worker.Limits().seconds and (folder / "starting_kit/model.py").is_file()
    overview = (folder / "pages/overview.md").read_text()
    assert "neutrophil" in overview and "Keras 3.4.1" in overview
    assert "harder" not in (folder / "pages/data.md").read_text()
    images, labels = np.load(folder / "input_data/images.npy"), np.load(folder / "reference_data/labels.npy")
    kit = {path.name: path.read_bytes() for path in (folder / "starting_kit").iterdir()}
    for name, files, accuracy in (("good", GOOD, 1.0), ("kit", kit, None)):
        (tmp_path / name).mkdir()
        ran = worker.run_submission(
            make_zip(tmp_path / "s.zip", files), images, labels, tmp_path / name, profile="an2dl",
            ingestion=folder / "ingestion_program", scoring=folder / "scoring_program",
        )  # fmt: skip
        assert ran.status == "Finished" and ran.scores["accuracy"] == (accuracy or ran.scores["accuracy"])


def test_a_made_up_one(pack):
    status, out = pack("--final", "final.npz")
    assert status == 0 and "warning" not in out
    folder, made = unpack("b.zip")
    is_whole(folder, made)
    first, last = made["phases"]
    assert made["title"] == "Beads" and first["tasks"] == [0] and last["tasks"] == [1]
    assert first["start"] == "2027-01-10 00:00:00" and "end" not in last
    assert first["max_submissions_per_day"] == 3 and last["max_submissions_per_day"] == 10  # competition.yaml's
    assert (folder / last["starting_kit"] / "colours.npy").is_file()
    assert (folder / first["public_data"] / "public.npz").read_bytes() == Path("public.npz").read_bytes()
    pages = "".join((folder / page["file"]).read_text() for page in made["pages"])
    said = "| 2 | blue bead |", "(n, 32, 32, 3)", "32 x 32 pixels", "integers 0-2", "0 to 2", "120 or 300", "CC0"
    assert not [words for words in said if words not in pages]
    assert not [word for word in ("blood", "Acevedo", "96", "basophil") if word in pages]
    for end, name in (("", "heldout"), ("_final", "final")):
        with np.load(f"{name}.npz") as file:
            assert (np.load(folder / f"input_data{end}/images.npy") == file["images"]).all()
            assert (np.load(folder / f"reference_data{end}/labels.npy") == file["labels"]).all()
        assert np.load(folder / f"reference_data{end}/classes.npy").tolist() == BEADS
    before = Path("b.zip").read_bytes()
    assert pack("--final", "final.npz")[0] == 0 and Path("b.zip").read_bytes() == before


@pytest.mark.parametrize("cells, least", [("heldout.npz", 1), ("b.zip", 0.4)])
def test_a_submission_to_the_made_up_one_is_good(command, pack, cells, least):
    assert pack("--corrupt", "1")[0] == 0
    status, out, made = command("--source", "kit", "--heldout", cells)
    assert status == 0 and made["classes"] == BEADS and "green bead" in out and "of 8" not in out
    assert made["scores"]["accuracy"] >= least
    assert np.shape(made["confusion"]) == (3, 3) and made["verdict"] == "good"
    assert "blue bead" in Path("report.html").read_text()


@pytest.mark.parametrize(
    "wrong, code, words",
    [("return np.eye(3)[{}]", "OUT01", "one-hot"), ("return {} + 1", "OUT04", "return labels 0 to 2"),
     pytest.param("return ({} + 1) % 3", "PRO09", "(k + 1) % 3", marks=pytest.mark.slow),
     pytest.param("return 0 * {}", "PRO08", "always answering red bead", marks=pytest.mark.slow)],
)  # fmt: skip
def test_mistakes_are_told_in_its_own_terms(command, pack, wrong, code, words):
    assert BEAD_MODEL.count(f"return {BEAD_LABELS}") == 1
    Path("kit/model.py").write_text(BEAD_MODEL.replace(f"return {BEAD_LABELS}", wrong.format(BEAD_LABELS)))
    _, _, made = command("--source", "kit", "--heldout", "heldout.npz")
    assert words in {found["code"]: found["message"] for found in made["findings"]}[code]


def test_corrupted_images_are_of_a_seed_and_said_to_be_harder(pack):
    images = {}
    for name, options in (("one", "--corrupt 4 --seed 1"), ("same", "--corrupt 4 --seed 1"),
                          ("other", "--corrupt 4 --seed 2"), ("clean", "")):  # fmt: skip
        assert pack(*options.split())[0] == 0
        folder, _ = unpack("b.zip")
        images[name] = np.load(folder / "input_data/images.npy")
        assert ("harder" in (folder / "pages/data.md").read_text()) == (name != "clean")
    assert "--seed " in pack("--corrupt", "4")[1]  # a random one is printed
    drawn = np.load(unpack("b.zip")[0] / "input_data/images.npy")
    assert (drawn != images["one"]).mean() > 0.5
    assert (images["one"] == images["same"]).all() and images["one"].shape == images["clean"].shape
    assert all((images["one"] != images[name]).mean() > 0.5 for name in ("other", "clean"))
    Path("b.zip").unlink()
    beads("large.npz", 6, side=128)
    status, out = pack("--heldout", "large.npz", "--corrupt", 1)
    assert status == 2 and "up to 96x96" in out and not Path("b.zip").exists()
    assert pack("--heldout", "large.npz")[0] == 0


def test_the_example_in_the_docs_is_taken(tmp_path):
    page = (ROOT / "docs/ORGANISERS.md").read_text()
    (tmp_path / "data").mkdir()
    (tmp_path / "data/training_set.npz").touch()
    (tmp_path / "grader").symlink_to(ROOT / "grader")
    (tmp_path / "mine.yaml").write_text(page.partition("```yaml\n")[2].partition("```")[0])
    cells = competition.read_cells(npz(tmp_path / "cells.npz"))
    made = competition.complete(competition.read(tmp_path / "mine.yaml"), [cells])
    assert [phase["name"] for phase in made["phases"]] == ["Development", "Final"]
    assert all("{{" + word + "}}" in page for word in bundle.placeholders(made, cells, False))


@pytest.mark.parametrize("split", bundle.PUBLIC)
def test_a_public_split_is_warned_of_and_its_near_twin_is_not(split):
    labels = np.random.default_rng(0).permutation(np.arange(8).repeat(bundle.PUBLIC[split]))
    cells = competition.Cells(np.zeros((len(labels), 2, 2, 3), np.uint8), labels, competition.read()["classes"])
    made = competition.complete({}, [cells])
    whole = bundle.warnings(made, [cells])
    assert [split in warning for warning in whole] == [True] and "public" in whole[0]
    assert bundle.warnings(made, [cells._replace(labels=labels[1:])]) == []


def test_cells_that_participants_know_are_warned_of(pack):
    assert "60 cells to score on are in public_data" in pack("--heldout", "public.npz", "--final", "final.npz")[1]
    assert "60 cells are in both" in pack("--heldout", "final.npz", "--final", "final.npz")[1]
    assert "all phases are scored on the same cells" in pack()[1]
    Path("beads.yaml").write_text(BEAD_YAML.replace("2027-", "2017-") + '    end: "2017-03-01"\n')
    assert "the last phase has ended" in pack("--final", "final.npz")[1]


@pytest.mark.parametrize("change, words", [
    (("title: Beads", "titel: Beads"), "titel is not a known key"),
    (("title: Beads", "title: 2027"), "title must be text"),
    (("title: Beads", "title: [Beads"), "cannot be read as YAML"),
    (("title: Beads\n", ""), "give them a title and a description"),
    (("title: Beads", "classes: [red bead, green bead]\ntitle: Beads"), "need the same classes"),
    (("title: Beads", "classes: [red, red]\ntitle: Beads"), "two or more different names"),
    (("kit/", "kits/"), "names kits/, but "),
    (("title: Beads", "title: Beads\npages: [overview]"), "does not have the form"),
    (("title: Beads", "title: Beads\nleaderboards: [{columns: [{key: auc}]}]"), "auc is not a score"),
    (("title: Beads", "title: Beads\nleaderboards: [{columns: [{key: accuracy, sort: up}]}]"), "sort is not a known"),
    (("title: Beads", "title: Beads\nleaderboards: [{columns: [{key: accuracy, index: 0}]}]"), "value for title"),
    (("title: Beads", "title: Beads\npages: [{titel: A, file: beads.yaml}]"), "titel is not a known key"),
    (("title: Beads", "title: Beads\npages:"), "give a value for pages"),
    (("2027-02-01 00", "2027-01-01 00"), "must end after its own start"),
    (("  - name: Final", "  - nam: Final"), "nam is not a known key"),
    (("    start: 2027-01-10\n", ""), "needs name and start"),
    (("2027-02-01 12", "2027-01-31 12"), "after the previous phase has ended"),
    (('    end: "2027-02-01 00:00:00"\n', ""), "needs an end"),
    (("2027-01-10", "10 January"), "write times as"),
    (("max_submissions: 2", "max_submissions: two"), "max_submissions must be a whole number"),
    (("phases:", "phases: []\nrest:"), "rest is not a known key"),
])  # fmt: skip
def test_a_wrong_file_is_one_line_that_says_what_to_do(pack, change, words):
    assert change[0] in BEAD_YAML
    Path("beads.yaml").write_text(BEAD_YAML.replace(*change))
    status, out = pack()
    assert status == 2 and words in out and out.count("\n") == 1 and not Path("b.zip").exists()


def test_a_misspelt_placeholder_is_refused_and_its_near_twin_is_filled_in(pack):
    Path("beads.yaml").write_text(BEAD_YAML.replace("title: Beads", "title: Beads\nterms: terms.md"))
    Path("terms.md").write_text("Images are {{shap}}.")
    status, out = pack("--final", "final.npz")
    assert status == 2 and "{{shap}} is not a placeholder" in out and not Path("b.zip").exists()
    Path("terms.md").write_text("Images are {{shape}}.")
    assert pack("--final", "final.npz")[0] == 0


@pytest.mark.parametrize("options, words", [
    ("--competition nowhere.yaml", "nowhere.yaml is not a file"),
    ("--heldout four.npz", "labels must be integers 0 to 2"),
    ("--heldout objects.npz", "not a file of images and labels"),
    ("--final small.npz", "pictures of one size"),
    ("--competition one.yaml --final final.npz", "add a phase"),
    ("--seed 3", "--seed would have no effect without --corrupt"),
    ("--corrupt 6", "invalid choice"),
    ("--bundle final.npz --final final.npz", "final.npz cannot be written (it is another input or output)"),
])  # fmt: skip
def test_what_does_not_go_together_is_refused(pack, options, words):
    beads("four.npz", labels=np.arange(60) % 4)
    beads("objects.npz", classes=np.array([{}, {}, {}]))
    beads("small.npz", side=30)
    Path("one.yaml").write_text(BEAD_YAML.partition("  - name: Final")[0])
    status, out = pack(*options.split())
    assert status == 2 and words in out and out.count("\n") == 1 and not Path("b.zip").exists()
