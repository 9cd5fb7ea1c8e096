"""What flows through the stage: documents, what could not be read, and chance that is a function of the document."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Final

_SCALE: Final = 2.0**-64
"""Turns 64 bits into a number in [0, 1)."""


@dataclass(frozen=True)
class Document:
    """One document as it was read."""

    source: str
    """Name of its source."""
    path: str
    """File it came from, as a URL."""
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
        """First 64 bits of the sha256 of the text: equal texts are one document wherever they lie."""
        return int.from_bytes(hashlib.sha256(self.utf8).digest()[:8], "big")


@dataclass(frozen=True)
class Fault:
    """A row or a file that cannot be used."""

    path: str
    """The file, as a URL."""
    row: int | None
    """The row, as in `Document`; None for the whole file."""
    offset_bytes: int | None
    """Where in the file, before decompression for compressed files; None when the format does not say."""
    problem: str
    """What is wrong, with the field."""
    remedy: str
    """What to do."""

    @property
    def where(self) -> str:
        """File, row and offset, for messages."""
        row = "" if self.row is None else f", row {self.row}"
        return self.path + row + ("" if self.offset_bytes is None else f", byte {self.offset_bytes}")


def hex_id(identity: int) -> str:
    """An identity as it is written: 16 hex digits."""
    return f"{identity:016x}"


def uniform_hash(identity: int, seed: int, purpose: str) -> float:
    """A number in [0, 1) that only the document, the seed and the purpose decide, uniform over documents."""
    digest = hashlib.sha256(f"{purpose}:{seed}:{identity}".encode()).digest()
    return int.from_bytes(digest[:8], "big") * _SCALE
