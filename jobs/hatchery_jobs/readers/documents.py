"""Documents, faults of unreadable rows and files, and random numbers derived from a document."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Final

_SCALE: Final = 2.0**-64
"""Turns 64 bits into a number in [0, 1)."""


@dataclass(frozen=True)
class Document:
    """One document."""

    source: str
    """Name of its source."""
    path: str
    """URL of its file."""
    row: int
    """Line of jsonl, record of csv and parquet, from 1; 1 where the file is the document."""
    text: str
    """The text; encodable as UTF-8."""

    @cached_property
    def utf8(self) -> bytes:
        """The text as bytes."""
        return self.text.encode()

    @cached_property
    def identity(self) -> int:
        """First 64 bits of the sha256 of the text: equal texts are the same document wherever they are stored."""
        return int.from_bytes(hashlib.sha256(self.utf8).digest()[:8], "big")


@dataclass(frozen=True)
class Fault:
    """An unreadable row or file."""

    path: str
    """URL of the file."""
    row: int | None
    """The row, as in `Document`; None for the whole file."""
    offset_bytes: int | None
    """Offset in the file as stored, compressed or not; None when the format does not tell."""
    problem: str
    """What is wrong, naming the field."""
    remedy: str
    """What to do."""

    @property
    def where(self) -> str:
        """File, row and offset, for messages."""
        row = "" if self.row is None else f", row {self.row}"
        return self.path + row + ("" if self.offset_bytes is None else f", byte {self.offset_bytes}")


def hex_id(identity: int) -> str:
    """An identity as 16 hex digits."""
    return f"{identity:016x}"


def uniform_hash(identity: int, seed: int, purpose: str) -> float:
    """A number in [0, 1), uniform over documents and fixed by identity, seed and purpose."""
    digest = hashlib.sha256(f"{purpose}:{seed}:{identity}".encode()).digest()
    return int.from_bytes(digest[:8], "big") * _SCALE
