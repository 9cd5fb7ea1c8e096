"""Text as blocks of tokens: documents joined by the token that ends them, cut to equal lengths."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

_LEAD_BITS: Final = 0xC0
"""Bits of a byte of UTF-8 that tell whether a character begins with it."""

_INSIDE: Final = 0x80
"""Their value in a byte that is not the first of its character."""

Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Block:
    """A run of tokens."""

    ids: Numbers
    """Tokens, `(T,)`."""
    text_bytes: Numbers
    """Bytes of UTF-8 text each token stands for, `(T,)`; 0 for the one that ends a document."""
    documents: int
    """Documents read when the block was complete."""


def token_bytes(text: str, offsets: Iterable[tuple[int, int]]) -> Numbers:
    """Bytes of UTF-8 each token stands for; they add up to the text, save whitespace no token covers at its end.

    A character split over several tokens counts for the first; skipped characters count for the next token. So the
    sum is right for every kind of tokenizer.
    """
    ends = np.array([end for _, end in offsets], np.int64)
    raw = np.frombuffer(text.encode(), np.uint8)
    characters = np.append(np.flatnonzero((raw & _LEAD_BITS) != _INSIDE), len(raw))
    reached = np.maximum.accumulate(characters[ends])
    return np.diff(reached, prepend=0)


@dataclass
class _Rest:
    """Tokens that do not fill a block yet."""

    ids: list[Numbers] = field(default_factory=list)
    text_bytes: list[Numbers] = field(default_factory=list)
    tokens: int = 0

    def add(self, ids: Numbers, text_bytes: Numbers) -> None:
        """Appends the tokens of a document."""
        self.ids.append(ids)
        self.text_bytes.append(text_bytes)
        self.tokens += len(ids)

    def blocks(self, length: int, documents: int) -> Iterator[Block]:
        """Full blocks; what is left stays."""
        ids, text_bytes = np.concatenate(self.ids), np.concatenate(self.text_bytes)
        full = self.tokens // length * length
        for start in range(0, full, length):
            yield Block(ids[start : start + length], text_bytes[start : start + length], documents)
        self.ids, self.text_bytes, self.tokens = [ids[full:]], [text_bytes[full:]], self.tokens - full


def blocks(tokenizer: Any, batches: Iterable[list[str]], length: int, end_id: int) -> Iterator[Block]:
    """Blocks of `length` tokens; the last one may be shorter. Memory holds one batch of documents."""
    rest, documents = _Rest(), 0
    end = np.array([end_id], np.int64)
    for texts in batches:
        encodings = tokenizer.backend_tokenizer.encode_batch(texts, add_special_tokens=False)
        for text, encoding in zip(texts, encodings, strict=True):
            rest.add(np.append(encoding.ids, end).astype(np.int64), np.append(token_bytes(text, encoding.offsets), 0))
        documents += len(texts)
        yield from rest.blocks(length, documents)
    if rest.tokens:
        yield from rest.blocks(rest.tokens, documents)
