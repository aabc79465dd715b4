"""Cards as files: written, read, summarised, and compared cell by cell."""

import json
from copy import deepcopy

import numpy as np
import pytest
from small import PLAN, Fake, card_of, cells

from evaluation import cards, corruptions
from training import data


def edited(card: dict, corruption: str, right: int) -> dict:
    """A copy whose first `right` predictions under one corruption are correct, and the others wrong."""
    copy = deepcopy(card)
    for entry in copy["conditions"]:
        if entry["corruption"] == corruption:
            labels = cards.labels_of(card, entry["cells"])
            entry["predicted"] = "".join(map(str, [*labels[:right], *(labels[right:] + 1) % 8]))
    return copy


def differences(card: dict, baseline: dict) -> dict[str, float]:
    return {name: cards.interval(gain)[0] for name, gain in cards.gains(card, baseline).items()}


def test_the_card_holds_what_it_was_computed_from():
    card = card_of()
    order = np.array(card["cells"]["order"])
    for entry in card["conditions"][::4]:
        count = entry["cells"]
        images = cells().images[order[:count]]
        if entry["corruption"] != "clean":
            images = corruptions.corrupt_batch(images, entry["corruption"], entry["severity"])
        expected = Fake().predict_proba(images)
        assert np.array_equal(cards.predictions_of(entry), expected.argmax(axis=1))
        assert np.abs(cards.confidence_of(entry) - expected.max(axis=1)).max() < 1e-5
        assert np.array_equal(cards.labels_of(card, count), cells().labels[order[:count]])
        right = cards.predictions_of(entry) == cards.labels_of(card, count)
        assert entry["accuracy"] == pytest.approx(right.mean(), abs=1e-6)


def test_the_summary_gives_every_family_one_voice():
    card = card_of()
    summary, means = card["summary"], []
    for family, members in corruptions.FAMILIES.items():
        mean = np.mean([e["accuracy"] for e in card["conditions"] if e["corruption"] in members])
        assert summary["families"][family]["accuracy"] == pytest.approx(mean, abs=1e-6)
        means.append(mean)
    assert summary["corrupted"]["accuracy"] == pytest.approx(np.mean(means), abs=1e-5)
    assert summary["clean"]["accuracy"] == card["conditions"][0]["accuracy"]
    worst = summary["confusion_pairs"]["clean"][0]
    t, p = (data.CLASSES.index(worst[key]) for key in ("true", "predicted"))
    counts = cards.pooled_confusion(card, card["conditions"][:1])
    assert t != p and worst["share"] == pytest.approx(counts[t, p] / counts[t].sum(), abs=1e-6)


def test_a_card_is_read_as_it_was_written_and_nothing_else_is(tmp_path):
    cards.write_card(card_of(), tmp_path / "card.json")
    assert cards.read_card(tmp_path / "card.json") == card_of()
    old = json.dumps({**card_of(), "schema": 0})
    no_card = {"{": "read as a card", "[]": "is not a card of", '{"schema": 1}': "is not a card of", old: "of schema 1"}
    for text, message in no_card.items():
        (tmp_path / "broken.json").write_text(text)
        with pytest.raises(ValueError, match=message):
            cards.read_card(tmp_path / "broken.json")
    with pytest.raises(ValueError, match="is missing"):
        cards.read_card(tmp_path / "gone.json")


def test_paired_differences():
    ours, theirs = edited(card_of(), "clean", 30), edited(card_of(), "clean", 20)
    mean, low, high = cards.interval(cards.gains(ours, theirs)["clean"])
    assert mean == 0.25 and 0.05 < low < 0.25 < high < 0.45
    rows = differences(ours, theirs)
    assert {name for name, gain in rows.items() if gain} == {"clean"}
    wider = [*(f"composite {s}" for s in range(1, 6)), *(f"family {f}" for f in corruptions.FAMILIES), "corrupted"]
    assert set(rows) == {*(name for name, *_ in PLAN), *wider}
    assert differences(theirs, ours)["clean"] == -0.25


def test_a_family_counts_once_in_the_corrupted_mean_and_a_strength_once_in_the_composite():
    rows = differences(edited(card_of(), "cutout", 8), edited(card_of(), "cutout", 0))
    assert rows["cutout"] == 1 and rows["family occlusion"] == 0.5 and rows["corrupted"] == 0.1
    spoiled = edited(card_of(), "composite", 0)
    spoiled["conditions"][2:6] = card_of()["conditions"][2:6]  # strength 1 alone
    rows = differences(card_of(), spoiled)
    assert rows["composite"] == pytest.approx(rows["composite 1"] / 5, abs=1e-5) and rows["composite 1"] > 0


def test_cards_of_different_sizes_meet_on_common_cells():
    smaller = deepcopy(card_of())
    for entry in smaller["conditions"][6:]:
        entry["cells"], entry["predicted"] = 4, entry["predicted"][:4]
    del smaller["conditions"][-1]
    found = cards.gains(card_of(), smaller)
    assert len(found["jpeg"]) == 4 and len(found["clean"]) == 40 and "grid_mask" not in found
    assert not any(gain.any() for gain in found.values())


@pytest.mark.parametrize("key", ["heldout_sha256", "corruptions_sha256"])
def test_other_cells_and_other_corruptions_are_not_compared(key):
    other = {**card_of(), "provenance": {**card_of()["provenance"], key: "0"}}
    with pytest.raises(ValueError, match="different"):
        cards.gains(card_of(), other)
