"""Text as blocks of tokens: documents joined by the end token and cut to equal lengths."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

_LEAD_MASK: Final = 0xC0
"""Mask of the bits in a UTF-8 byte that tell whether it starts a character."""

_CONTINUATION: Final = 0x80
"""Value of these bits in a continuation byte."""

Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Block:
    """A run of tokens."""

    ids: Numbers
    """Tokens, `(T,)`."""
    text_bytes: Numbers
    """Bytes of UTF-8 text each token covers, `(T,)`; 0 for the end token."""
    documents: int
    """Documents read when the block was complete."""


def token_bytes(text: str, offsets: Iterable[tuple[int, int]]) -> Numbers:
    """Bytes of UTF-8 each token covers; they add up to the text, less trailing whitespace that no token covers.

    A character split over several tokens counts for the first; skipped characters count for the next token. The sum is
    therefore right for every kind of tokenizer.
    """
    ends = np.array([end for _, end in offsets], np.int64)
    raw = np.frombuffer(text.encode(), np.uint8)
    characters = np.append(np.flatnonzero((raw & _LEAD_MASK) != _CONTINUATION), len(raw))
    reached = np.maximum.accumulate(characters[ends])
    return np.diff(reached, prepend=0)


@dataclass
class _Buffer:
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
        """Yields full blocks and keeps the remainder."""
        ids, text_bytes = np.concatenate(self.ids), np.concatenate(self.text_bytes)
        full = self.tokens // length * length
        for start in range(0, full, length):
            yield Block(ids[start : start + length], text_bytes[start : start + length], documents)
        self.ids, self.text_bytes, self.tokens = [ids[full:]], [text_bytes[full:]], self.tokens - full


def blocks(tokenizer: Any, batches: Iterable[list[str]], length: int, end_id: int) -> Iterator[Block]:
    """Blocks of `length` tokens; the last one may be shorter. Memory holds one batch of documents."""
    buffer, documents = _Buffer(), 0
    end = np.array([end_id], np.int64)
    for texts in batches:
        encodings = tokenizer.backend_tokenizer.encode_batch(texts, add_special_tokens=False)
        for text, encoding in zip(texts, encodings, strict=True):
            buffer.add(np.append(encoding.ids, end).astype(np.int64), np.append(token_bytes(text, encoding.offsets), 0))
        documents += len(texts)
        yield from buffer.blocks(length, documents)
    if buffer.tokens:
        yield from buffer.blocks(buffer.tokens, documents)
