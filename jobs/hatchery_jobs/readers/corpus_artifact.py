"""The documents of a corpus artifact, as the stages that come after it read them."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import pyarrow.parquet as pq

from hatchery_api.conditions import Reason
from hatchery_jobs.runtime import DataError

BATCH_CHARS: Final = 4_000_000
"""A batch of documents ends with the one that reaches this; encoded, a character needs some 30 bytes of memory."""

READ_ROWS: Final = 64
"""Rows read from a file at once."""


def split_files(corpus: Path, split: str) -> tuple[Path, ...]:
    """The files of a split.

    Raises:
        DataError: the corpus has no such split.
    """
    files = tuple(sorted((corpus / "data").glob(f"{split}-*.parquet")))
    if not files:
        raise DataError(
            Reason.EMPTY_CORPUS, f"{corpus}: no data/{split}-*.parquet; build the corpus with a {split} split"
        )
    return files


def read_texts(files: Sequence[Path]) -> Iterator[tuple[int, int, str]]:
    """Every document with the index of its file and its row there."""
    for index, path in enumerate(files):
        with pq.ParquetFile(path) as file:
            batches = file.iter_batches(READ_ROWS, columns=["text"])
            texts = (text for batch in batches for text in batch.column(0).to_pylist())
            yield from ((index, row, text) for row, text in enumerate(texts))
