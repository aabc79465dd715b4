"""The README keeps to the files: its numbers are the JSON's, its commands and links exist."""

import re

from conftest import ROOT

from results import make_tables

TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def test_tables_are_what_the_results_give():
    assert make_tables.render(TEXT) == TEXT


def test_a_number_changed_by_hand_is_put_right():
    number = re.search(r"\| clean cells \| (\d\d\.\d\d)", TEXT)[1]
    assert make_tables.render(TEXT.replace(number, "12.34")) == TEXT


def test_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)#:]+)\)", TEXT):
        assert (ROOT / target).exists(), target


def test_modules_of_the_commands_exist():
    for module in set(re.findall(r"python -m ((?:training|grader|results)[.\w]*)", TEXT)):
        assert (ROOT / (module.replace(".", "/") + ".py")).exists(), module
