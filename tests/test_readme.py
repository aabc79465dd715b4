"""The pages keep to the files: their numbers are the JSON's, their commands and links exist."""

import re

import pytest
from conftest import ROOT

from evaluation import tables

TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [*tables.PAGES, ROOT / "CONTRIBUTING.md"]


@pytest.mark.parametrize("path", tables.PAGES, ids=lambda path: path.name)
def test_tables_are_what_the_results_give(path):
    text = path.read_text(encoding="utf-8")
    assert tables.render(text) == text


def test_a_block_that_is_left_open_or_unknown_is_refused():
    for text in ("<!-- card -->\n", "<!-- car -->\n<!-- /car -->\n"):
        with pytest.raises(ValueError, match="must be one of"):
            tables.render(text)


def test_a_number_changed_by_hand_is_put_right():
    text = (ROOT / "docs" / "RESULTS.md").read_text(encoding="utf-8")
    number = re.search(r"\| clean cells \| (\d\d\.\d\d)", text)[1]
    assert tables.render(text.replace(number, "12.34")) == text


def links(path) -> list[str]:
    """The relative targets of a page's links and pictures."""
    return re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(path):
    for target in links(path):
        assert (path.parent / target).exists(), target


def test_links_are_found(tmp_path):
    (tmp_path / "page.md").write_text("[a](b.md) ![c](d/e.png) [f](https://g.h) [i](j.md#k)")
    assert links(tmp_path / "page.md") == ["b.md", "d/e.png", "j.md"]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_modules_of_the_commands_exist(path):
    for module in set(re.findall(r"python -m ((?:training|grader|evaluation|results)[.\w]*)", path.read_text())):
        assert (ROOT / (module.replace(".", "/") + ".py")).exists(), module


def test_the_front_page_is_short():
    assert len(TEXT.encode()) <= 8192
