"""The pages keep to the files: their numbers are the JSON's, their commands and links exist."""

import re

import pytest
from conftest import ROOT

TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", make_tables.PAGES, ids=lambda path: path.name)
def test_tables_are_what_the_results_give(path):
    text = path.read_text(encoding="utf-8")
    assert make_tables.render(text) == text


def test_a_block_that_is_left_open_or_unknown_is_refused():
    for text in ("<!-- card -->\n", "<!-- car -->\n<!-- /car -->\n"):
        with pytest.raises(ValueError, match="must be one of"):
            make_tables.render(text)


def test_what_is_said_of_the_training():
    def stage(recipe, epochs, seen=False, **more):
        names = ("seen_validation", "seen_augmented_validation") if seen else ("validation", "augmented_validation")
        scores = {name: {"accuracy": 0.5} for name in names}
        return {"settings": {"recipe": recipe, "validation_too": seen}, "epochs_done": epochs, "scores": scores, **more}

    first = stage("a", 3)
    assert make_tables.training(first | {"note": "So."}) == (
        "The weights in the repository are those of `a` (3 epochs). On the cells split off for validation, `a` scores "
        "50.00% clean and 50.00% augmented. So."
    )
    parts = [stage("b", 2, used=False), stage("c", 4, True, started_from=first), stage("d", 5, True)]
    for kind in ("soup", "ensemble"):
        assert make_tables.training(stage("b", 9) | {kind: {"ingredients": parts}}) == (
            "The weights in the repository are the average of `c` (4 epochs, on all cells that are not held out, after "
            "3 of `a`) and `d` (5 epochs, on all cells that are not held out)."
        )


def test_what_is_said_of_an_average_of_averages():
    def stage(recipe, **more):
        scores = {name: {"accuracy": 0.25} for name in ("validation", "augmented_validation")}
        return {"settings": {"recipe": recipe}, "epochs_done": 2, "scores": scores, **more}

    both = stage("c") | {"soup": {"ingredients": [stage("a"), stage("b")]}}
    whole = stage("e") | {"soup": {"ingredients": [both, stage("d", started_from=both)]}}
    assert make_tables.training(whole) == (
        "The weights in the repository are an average: 0.25 of `a` (2 epochs), 0.25 of `b` (2 epochs) and 0.5 of `d` "
        "(2 epochs, after the average so far). On the cells split off for validation, `a` scores 25.00% clean and "
        "25.00% augmented."
    )
    last = stage("f", started_from=whole, pixels=112)
    last["scores"] = {"seen_validation": {"accuracy": 0.5}}
    assert make_tables.training(last) == (
        "The weights in the repository are those of `f` (2 epochs, at 112 pixels, after the average so far). That "
        "average held 0.25 of `a` (2 epochs), 0.25 of `b` (2 epochs) and 0.5 of `d` (2 epochs, after the average so "
        "far). On the cells split off for validation, `a` scores 25.00% clean and 25.00% augmented."
    )


def test_a_number_changed_by_hand_is_put_right():
    number = re.search(r"\| clean cells \| (\d\d\.\d\d)", TEXT)[1]
    assert make_tables.render(TEXT.replace(number, "12.34")) == TEXT


def test_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)#:]+)\)", TEXT):
        assert (ROOT / target).exists(), target


def test_modules_of_the_commands_exist():
    for module in set(re.findall(r"python -m ((?:training|grader|results)[.\w]*)", TEXT)):
        assert (ROOT / (module.replace(".", "/") + ".py")).exists(), module
