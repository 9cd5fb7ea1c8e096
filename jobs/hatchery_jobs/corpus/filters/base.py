"""The table that filter rules are registered in, and the view of a document that rules read.

Rules work on the whole text: a loop over lines or characters in Python would be the bottleneck of a build.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt

from hatchery_api.base import Model
from hatchery_jobs.readers import Document

RuleT = TypeVar("RuleT", bound=Model)

_NOT_ALPHANUMERIC_ASCII: Final = bytes(i for i in range(128) if not chr(i).isalnum())


class DocumentView:
    """A document with the derived values that several rules read, each computed once."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.text = document.text

    @cached_property
    def lowered(self) -> str:
        """The text in lower case."""
        return self.text.lower()

    @cached_property
    def line_chars(self) -> list[int]:
        """Length of every line in characters, without line ends."""
        return list(map(len, self.text.splitlines()))

    def head(self, lines: int) -> str:
        """The first lines, in lower case."""
        # every line end that splitlines knows lies within the first pieces between newlines
        pieces = self.text.split("\n", lines)[:lines]
        return "\n".join("\n".join(pieces).splitlines()[:lines]).lower()

    @property
    def alphanumeric_share(self) -> float:
        """Share of letters and digits among the characters; 0 for an empty text."""
        if self.text.isascii():
            return len(self.document.utf8.translate(None, _NOT_ALPHANUMERIC_ASCII)) / max(1, len(self.text))
        characters = np.frombuffer(self.text.encode("utf-32-le"), np.uint32)
        return float(np.count_nonzero(_is_alphanumeric()[characters])) / len(self.text)


@cache
def _is_alphanumeric() -> npt.NDArray[np.bool_]:
    """`str.isalnum` of every code point."""
    return np.fromiter((chr(point).isalnum() for point in range(sys.maxunicode + 1)), np.bool_, sys.maxunicode + 1)


@dataclass(frozen=True)
class RegisteredRule:
    """What a rule model does."""

    check: Callable[[Any, DocumentView], str | None]
    """Takes the rule's settings and a document; returns the reason to drop it, or None to keep it."""
    reasons: dict[str, str]
    """Reasons it may return, each with its meaning for the dataset card."""


class RuleTable(dict[type[Model], RegisteredRule]):
    """Rule models with their functions and reasons."""

    def add(
        self, model: type[RuleT], **reasons: str
    ) -> Callable[[Callable[[RuleT, DocumentView], str | None]], Callable[[RuleT, DocumentView], str | None]]:
        """Decorates the function of a rule model; `reasons` are those it may return, with their meanings."""

        def _register(
            check: Callable[[RuleT, DocumentView], str | None],
        ) -> Callable[[RuleT, DocumentView], str | None]:
            self[model] = RegisteredRule(check, reasons)
            return check

        return _register
