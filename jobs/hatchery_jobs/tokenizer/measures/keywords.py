"""Keywords that a tokenizer should encode as single tokens."""

import keyword
from collections.abc import Mapping
from typing import Final

from tokenizers import Tokenizer

from hatchery_jobs.tokenizer.measures.metrics import encode, unknown_id

KEYWORDS: Final[Mapping[str, tuple[str, ...]]] = {"python": tuple(keyword.kwlist), "none": ()}
"""Word lists by `spec.evaluate.keywords`."""


def missing_keywords(tokenizer: Tokenizer, keywords: str) -> list[str]:
    """The words of a list that are not a single token, neither alone nor after a space."""
    return [
        word
        for word in KEYWORDS[keywords]
        if not (_is_single_token(tokenizer, word) or _is_single_token(tokenizer, f" {word}"))
    ]


def _is_single_token(tokenizer: Tokenizer, text: str) -> bool:
    ids = encode(tokenizer, [text])[0].ids
    return len(ids) == 1 and ids[0] != unknown_id(tokenizer)
