"""The pages keep to the files: their numbers are the JSON's, their commands and links exist."""

import re

import pytest
from conftest import ROOT

from results import make_tables

TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", make_tables.PAGES, ids=lambda path: path.name)
def test_tables_are_what_the_results_give(path):
    text = path.read_text(encoding="utf-8")
    assert make_tables.render(text) == text


def test_a_block_that_is_left_open_or_unknown_is_refused():
    for text in ("<!-- card -->\n", "<!-- car -->\n<!-- /car -->\n"):
        with pytest.raises(ValueError, match="must be one of"):
            make_tables.render(text)


def test_a_number_changed_by_hand_is_put_right():
    number = re.search(r"\| clean cells \| (\d\d\.\d\d)", TEXT)[1]
    assert make_tables.render(TEXT.replace(number, "12.34")) == TEXT


def test_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)#:]+)\)", TEXT):
        assert (ROOT / target).exists(), target


def test_modules_of_the_commands_exist():
    for module in set(re.findall(r"python -m ((?:training|grader|results)[.\w]*)", TEXT)):
        assert (ROOT / (module.replace(".", "/") + ".py")).exists(), module
