"""Texts a tokenizer is looked at with: word lists, probes and a sample program."""

import keyword
from collections.abc import Mapping
from typing import Final

WORD_LISTS: Final[Mapping[str, tuple[str, ...]]] = {"python": tuple(keyword.kwlist), "none": ()}
"""Words that should be single tokens, by `spec.evaluate.keywords`."""

PROBES: Final = (
    "",
    " ",
    "  two spaces, a tab\tand a trailing one ",
    "def f(x):\n\tif x:\r\n        return  x\n\n\n",
    "naïve café, Ελληνικά, русский, עברית, हिन्दी",
    "漢字かな交じり文、한국어 — “quotes” … ",
    "🎉👩‍👩‍👧‍👦🏳️‍🌈 e\u0301 \ufeff\u200b\u2028",
    "".join(chr(code) for code in range(0x20)) + "\x7f\x80\x9f\xa0",
    "".join(chr(code) for code in range(0xA1, 0x180)),
    "1234567890 0x1F 3.14e-10 ==== !!!! <|x|> \\n",
    "\U0010ffff\ue000\uffff",
)
"""Texts that decoding must give back: whitespace, scripts, emoji, control characters, the ends of Unicode."""

PROGRAM: Final = '''class Shelf:
    """A row of books."""

    def __init__(self, books: list[str]) -> None:
        self.books = sorted(books)

    def find(self, start: str) -> str | None:
        for book in self.books:
            if book.startswith(start):
                return book
        return None
'''
"""A short Python program for the card."""
