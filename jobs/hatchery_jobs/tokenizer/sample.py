"""Samples documents by seed and content, independently of the order of files and rows."""

import hashlib
import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

from hatchery_api.conditions import Reason
from hatchery_jobs.readers import CorpusSplit, batch_by_chars
from hatchery_jobs.runtime import DataError

MAX_CHARS: Final = 2**31 - 1
"""Limit of a sample in characters: the tokenizers library counts pairs of tokens in signed 32-bit integers."""


class SampledDocument(NamedTuple):
    """A document of a sample."""

    where: str
    """File and row, for messages."""
    text: str
    """Its text, cut to the sample's `document_chars`."""


@dataclass(frozen=True)
class DocumentSample:
    """The documents of a split that were sampled."""

    split: CorpusSplit
    """The split they come from."""
    rows: frozenset[tuple[int, int]]
    """Sampled documents: index of the file, row within it."""
    document_chars: int
    """Characters used of one document at most."""

    def __len__(self) -> int:
        return len(self.rows)

    def batches(self) -> Iterator[list[SampledDocument]]:
        """The sampled documents in reading order, in batches of bounded size."""
        documents = (
            SampledDocument(f"{self.split.files[file].name} row {row}", text[: self.document_chars])
            for file, row, text in self.split.texts()
            if (file, row) in self.rows
        )
        return batch_by_chars(documents, lambda document: len(document.text))


def sample_split(split: CorpusSplit, documents: int, seed: int, document_chars: int = MAX_CHARS) -> DocumentSample:
    """Samples at most `documents` non-empty documents: those whose keyed hash of the text is smallest.

    Reads the split once; memory grows with the sample only.

    Raises:
        DataError: the split has no text.
    """
    ranks = (
        (_rank(text, seed), file, row, min(len(text), document_chars)) for file, row, text in split.texts() if text
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
        raise DataError(
            Reason.EMPTY_CORPUS, f"{split.files[0].parent}: the {len(split.files)} files of the split hold no text"
        )
    return DocumentSample(split, frozenset(rows), document_chars)


def _rank(text: str, seed: int) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=8, key=seed.to_bytes(8, "big")).digest()
