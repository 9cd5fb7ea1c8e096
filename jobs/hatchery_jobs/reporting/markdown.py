"""Cards: README.md with the metadata the Hub reads."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import yaml


def markdown_page(metadata: Mapping[str, Any], sections: Iterable[str]) -> str:
    """Front matter and sections; empty metadata values and empty sections are left out."""
    front = yaml.safe_dump({k: v for k, v in metadata.items() if v}, sort_keys=False, allow_unicode=True)
    return "\n\n".join([f"---\n{front}---", *filter(None, sections)]) + "\n"


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; `None.` without rows."""
    lines = [f"| {' | '.join(map(_cell, row))} |" for row in rows]
    if not lines:
        return "None."
    return "\n".join([f"| {' | '.join(map(_cell, head))} |", f"|{'---|' * len(head)}", *lines])


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").splitlines())


def fenced(text: str, language: str = "text") -> str:
    """A code block, whose fence is longer than any run of backticks in the text."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}{language}\n{text}\n{fence}"


def split_languages(languages: Iterable[str]) -> tuple[list[str], list[str]]:
    """ISO codes, the only languages that the Hub accepts, and the others, which become tags."""
    codes: list[str] = []
    others: list[str] = []
    for language in languages:
        (codes if re.fullmatch(r"[a-z]{2,3}", language) else others).append(language)
    return codes, others
