"""What cards are made of renders as written, whatever the text in it."""

import pytest
import yaml

from hatchery_jobs.reporting import fenced, markdown_page, markdown_table, split_languages


def test_cells_cannot_break_a_table():
    table = markdown_table(["a", "b"], [["x|y", "two\nlines"], ["", "z"]])
    assert table.splitlines() == ["| a | b |", "|---|---|", "| x\\|y | two lines |", "|  | z |"]


def test_a_table_without_rows_says_so():
    assert markdown_table(["a"], []) == "None."


@pytest.mark.parametrize("text", ["plain", "```python\nx\n```", "a ````` b", "`"])
def test_a_fence_is_longer_than_any_within(text):
    first, *inside, last = fenced(text, "python").split("\n")
    assert "\n".join(inside) == text
    assert first == f"{last}python"
    assert set(last) == {"`"}
    assert last not in text


def test_a_page_has_front_matter_and_the_sections_that_have_content():
    page = markdown_page({"license": "mit", "tags": [], "language": ["hé"]}, ["# one", "", "two"])
    _, front, body = page.split("---\n", 2)
    assert yaml.safe_load(front) == {"license": "mit", "language": ["hé"]}
    assert body == "\n# one\n\ntwo\n"


def test_languages_are_codes_or_tags():
    assert split_languages(["en", "python", "deu", "C++", "EN"]) == (["en", "deu"], ["python", "C++", "EN"])
