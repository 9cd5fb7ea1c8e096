"""Chooses documents of a corpus: by seed and content, so the order of files and rows does not matter."""

import hashlib
import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from hatchery_api.conditions import Reason
from hatchery_jobs.readers.corpus_artifact import BATCH_CHARS, read_texts
from hatchery_jobs.runtime import DataError

MAX_CHARS: Final = 2**31 - 1
"""Characters of a sample at most: the tokenizers library counts pairs of tokens in signed 32-bit numbers."""


class Document(NamedTuple):
    """A document and where it is."""

    where: str
    """File and row, for messages."""
    text: str
    """Its text."""


@dataclass(frozen=True)
class Sample:
    """A choice of documents."""

    files: tuple[Path, ...]
    """Files of the split."""
    rows: frozenset[tuple[int, int]]
    """Chosen documents: index of the file, row within it."""
    document_chars: int
    """Characters of one document that are used at most."""

    def __len__(self) -> int:
        return len(self.rows)

    def batches(self) -> Iterator[list[Document]]:
        """The chosen documents, cut to their length, a batch at a time."""
        batch: list[Document] = []
        chars = 0
        for file, row, text in read_texts(self.files):
            if (file, row) in self.rows:
                batch.append(Document(f"{self.files[file].name} row {row}", text[: self.document_chars]))
                chars += len(batch[-1].text)
            if chars >= BATCH_CHARS:
                yield batch
                batch, chars = [], 0
        if batch:
            yield batch


def choose(files: Sequence[Path], documents: int, seed: int, document_chars: int = MAX_CHARS) -> Sample:
    """At most so many non-empty documents: those whose text, hashed with the seed, comes first.

    Reads every text once; memory grows with the number of chosen documents only.

    Raises:
        DataError: there is no text.
    """
    ranks = (
        (_rank(text, seed), file, row, min(len(text), document_chars)) for file, row, text in read_texts(files) if text
    )
    ranked = heapq.nsmallest(documents, ranks)
    rows: set[tuple[int, int]] = set()
    left_chars = MAX_CHARS
    for _, file, row, chars in ranked:
        left_chars -= chars
        if left_chars < 0 and rows:
            break
        rows.add((file, row))
    if not rows:
        raise DataError(Reason.EMPTY_CORPUS, f"{files[0].parent}: no text in {len(files)} files of the split")
    return Sample(tuple(files), frozenset(rows), document_chars)


def _rank(text: str, seed: int) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=8, key=seed.to_bytes(8, "big")).digest()
