"""The pictures: of a card from its JSON alone, of runs, of the corruptions, and the strip on the front page."""

import re

import cv2
import numpy as np
from conftest import ROOT
from small import card_of, cells

from evaluation import cards, corruptions, pictures
from evaluation.__main__ import main


def images_of(axes) -> list[np.ndarray]:
    return [image.get_array() for image in axes.images]


def test_a_card_is_drawn_from_its_json(tmp_path):
    names = ["heatmap.png", "confusion.png", "reliability.png", "mistakes.png"]
    drawn = pictures.plot(card_of(), tmp_path / "a", cells().images)
    assert [path.name for path in drawn] == names
    for path in drawn:
        assert cv2.imread(str(path)).std() > 10


def test_labels_alone_have_no_reliability(tmp_path, monkeypatch):
    bare = {**card_of(), "conditions": [{**entry, "confidence": None} for entry in card_of()["conditions"][:6]]}
    saved = []
    monkeypatch.setattr(pictures, "save", lambda figure, path, **how: saved.append(path.name))
    pictures.plot(bare, tmp_path, cells().images)
    pictures.plot(card_of(), tmp_path)
    assert saved == ["heatmap.png", "confusion.png", "heatmap.png", "confusion.png", "reliability.png"]


def test_the_numbers_drawn_are_the_cards():
    groups = cards.groups_of(card_of())
    grid = images_of(pictures.heatmap(groups).axes[0])[0]
    jpeg = next(e for e in card_of()["conditions"] if e["corruption"] == "jpeg")
    assert grid[0, 2] == jpeg["accuracy"] and np.isnan(grid[0].data[0])  # severity 3 alone was measured
    share = images_of(pictures.confusion(card_of(), groups).axes[0])[0]
    counts = cards.pooled_confusion(card_of(), groups["clean"])
    assert np.allclose(share, 100 * counts / counts.sum(axis=1, keepdims=True))
    figure = pictures.mistakes(card_of(), cells().images)
    wrong = sum(bool(images_of(axes)) for axes in figure.axes)
    assert 0 < wrong <= 24


def test_the_surest_mistake_comes_first_and_each_cell_once():
    figure = pictures.mistakes(card_of(20), cells().images)
    sure = [float(re.search(r"([\d.]+)%", axes.get_title())[1]) for axes in figure.axes if images_of(axes)]
    order, wrong = np.array(card_of(20)["cells"]["order"]), set()
    for entry in card_of(20)["conditions"]:
        mistaken = cards.predictions_of(entry) != cards.labels_of(card_of(20), entry["cells"])
        wrong |= set(order[: entry["cells"]][mistaken].tolist())
    assert sure == sorted(sure, reverse=True) and len(sure) == min(len(wrong), 24) > 10


def test_curves_are_the_history():
    history = [{"epoch": e, **{part: {"loss": 1 / (e + 1), "accuracy": e / 3} for part in ("train", "validation")}}
               for e in range(3)]  # fmt: skip
    loss, accuracy = pictures.curves({"a": {"history": history}, "b": {"history": history[:2]}}).axes
    assert [line.get_label() for line in loss.lines] == ["a, train", "a, validation", "b, train", "b, validation"]
    assert loss.lines[1].get_xydata().tolist() == [[1, 1], [2, 1 / 2], [3, 1 / 3]]
    assert accuracy.lines[2].get_ydata().tolist() == [0, 1 / 3]


def test_the_sheet_shows_every_corruption():
    some = cells().images[:5]
    figure = pictures.sheet(some)
    names = [tick.get_text() for axes in figure.axes for tick in axes.get_yticklabels()]
    assert names == [*corruptions.CORRUPTIONS, "composite"]
    sheet = images_of(figure.axes[0])[0]
    for k in (0, 7):
        row = sheet[96 * k : 96 * k + 96]
        assert np.array_equal(row[:, :96], some[k % 5])
        assert np.array_equal(row[:, 96 * 5 :], corruptions.corrupt(some[k % 5], names[k], 5))


class Constant:
    """Names every picture class 2 with 0.9."""

    def predict_proba(self, X):
        return np.tile(np.eye(8, dtype=np.float32)[2] * 0.9, (len(X), 1))


def test_the_strip_names_each_picture():
    image = cells().images[0]
    axes = pictures.strip(image, Constant()).axes
    assert [a.get_title() for a in axes] == [name.replace("_", " ") for name in pictures.SHOWN]
    assert {a.get_xlabel() for a in axes} == {"erythroblast 90%"}
    assert np.array_equal(images_of(axes[0])[0], image)
    assert np.array_equal(images_of(axes[-1])[0], corruptions.corrupt(image, "composite", 4))


def test_the_command_draws_both(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("model.Model", Constant)
    monkeypatch.setattr(pictures, "sheet", lambda images: pictures.strip(images[0], Constant()))
    np.savez(tmp_path / "cells.npz", images=cells().images, labels=cells().labels[:, None])
    main(["pictures", "--heldout", str(tmp_path / "cells.npz"), "--out", str(tmp_path / "out")])
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["corruptions.png", "strip.png"]
    assert "of class basophil" in capsys.readouterr().out


def test_the_strip_in_the_repository_is_small():
    path = ROOT / "results" / "strip.png"
    assert path.stat().st_size < 150_000 and cv2.imread(str(path)) is not None
