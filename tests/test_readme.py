"""The pages keep to the files: their numbers are the JSON's, their commands and links exist."""

import re

import pytest
from conftest import ROOT

from evaluation import tables
from evaluation.__main__ import NAMES, main

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


def test_a_number_changed_by_hand_is_found_and_put_right(tmp_path, monkeypatch):
    text = (ROOT / "docs" / "MODEL_CARD.md").read_text(encoding="utf-8")
    page = tmp_path / "page.md"
    page.write_text(re.sub(r"\| basophil \| \d+\.\d\d", "| basophil | 12.34", text), encoding="utf-8")
    monkeypatch.setattr(tables, "PAGES", [page])
    with pytest.raises(SystemExit, match="page.md is not what results/ gives"):
        main(["tables", "--check"])
    assert "12.34" in page.read_text(encoding="utf-8")
    main(["tables"])
    assert page.read_text(encoding="utf-8") == text
    main(["tables", "--check"])


def links(path) -> list[tuple[str, str]]:
    """(file, anchor) of a page's relative links and pictures; either may be empty."""
    return re.findall(r"\]\(([^)#:]*)(?:#([^)]*))?\)", path.read_text(encoding="utf-8"))


def headings(path) -> set[str]:
    """The anchors that GitHub makes of a page's headings."""
    found = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in found}


def broken(path) -> list[str]:
    """The relative links of a page that lead to no file, or to no heading in it."""
    wrong = []
    for target, anchor in links(path):
        page = path.parent / target if target else path
        if not page.exists() or (anchor and anchor not in headings(page)):
            wrong.append(f"{target}#{anchor}" if anchor else target)
    return wrong


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(path):
    assert not broken(path)


def test_broken_links_are_found(tmp_path):
    (tmp_path / "there.md").write_text("# One heading, here\n")
    page = tmp_path / "page.md"
    page.write_text("[a](there.md) [b](there.md#one-heading-here) [c](https://not.checked/x) ## d\n")
    assert links(page) and not broken(page)
    page.write_text("[a](gone.md) ![b](no/picture.png) [c](there.md#no-such) [d](#nor-this) [e](there.md)")
    assert broken(page) == ["gone.md", "no/picture.png", "there.md#no-such", "#nor-this"]


def test_each_table_stands_once_and_its_marks_stand_alone():
    text = "\n".join(path.read_text(encoding="utf-8") for path in PAGES)
    for name in tables.BLOCKS:
        assert len(re.findall(rf"^<!-- {name} -->$", text, re.MULTILINE)) == 1, name
        assert len(re.findall(rf"^<!-- /{name} -->$", text, re.MULTILINE)) == 1, name  # text after it is no Markdown


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_modules_of_the_commands_exist(path):
    text = path.read_text()
    assert set(re.findall(r"python -m\s+evaluation (\w+)", text)) <= {*NAMES, "all"}
    for module in set(re.findall(r"python -m\s+((?:training|grader|evaluation|results)[.\w]*)", text)):
        place = ROOT / module.replace(".", "/")
        assert place.with_suffix(".py").exists() or (place / "__main__.py").exists(), module


def test_the_front_page_is_short():
    assert len(TEXT.encode()) <= 8192
