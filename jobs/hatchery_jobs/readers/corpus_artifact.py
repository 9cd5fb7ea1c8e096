"""The one reader of corpus artifacts: the files of a split, sorted by name, and their texts in row order."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from hatchery_api.conditions import Reason
from hatchery_jobs.runtime import DataError

BATCH_CHARS: Final = 4_000_000
"""A batch of documents ends with the one that reaches this; encoded, a character needs some 30 bytes of memory."""

READ_ROWS: Final = 64
"""Rows decoded from a file at a time."""

_COLUMN: Final = "text"

_Item = TypeVar("_Item")


def split_files(corpus: Path, split: str) -> tuple[Path, ...]:
    """The files of a split in reading order; empty when the corpus lacks the split."""
    return tuple(sorted((corpus / "data").glob(f"{split}-*.parquet")))


def count_documents(path: Path, corpus: str = "") -> int:
    """Rows of a file, from its footer.

    Raises:
        DataError: the file is not parquet.
    """
    with _read_errors(path, corpus), pq.ParquetFile(path) as file:
        return int(file.metadata.num_rows)


def read_batches(path: Path, rows: int = READ_ROWS, corpus: str = "") -> Iterator[list[str]]:
    """The texts of a file in batches of at most `rows` rows, without nulls.

    Args:
        path: the file.
        rows: rows decoded at a time.
        corpus: name of the corpus, for messages.

    Raises:
        DataError: the file is not parquet or has no column `text`.
    """
    for texts in _read_column(path, rows, corpus):
        yield [text for text in texts if text is not None]


@dataclass(frozen=True)
class CorpusSplit:
    """One split of a corpus artifact."""

    files: tuple[Path, ...]
    """Its files in reading order."""

    @property
    def documents(self) -> int:
        """Documents of the split, from the footers of its files."""
        return sum(map(count_documents, self.files))

    def texts(self) -> Iterator[tuple[int, int, str]]:
        """Every document with the index of its file and its row there."""
        for index, path in enumerate(self.files):
            texts = (text for batch in _read_column(path, READ_ROWS) for text in batch)
            yield from ((index, row, text) for row, text in enumerate(texts) if text is not None)

    def batches(self) -> Iterator[list[str]]:
        """The documents in batches of about `BATCH_CHARS`."""
        return batch_by_chars((text for _, _, text in self.texts()), len)


def open_split(corpus: Path, split: str) -> CorpusSplit:
    """A split that must exist.

    Raises:
        DataError: the corpus has no such split.
    """
    if not (files := split_files(corpus, split)):
        raise DataError(
            Reason.EMPTY_CORPUS, f"{corpus}: no data/{split}-*.parquet; build the corpus with a {split} split"
        )
    return CorpusSplit(files)


def batch_by_chars(items: Iterable[_Item], chars: Callable[[_Item], int]) -> Iterator[list[_Item]]:
    """Batches that end with the item that reaches `BATCH_CHARS`."""
    batch: list[_Item] = []
    size = 0
    for item in items:
        batch.append(item)
        size += chars(item)
        if size >= BATCH_CHARS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _read_column(path: Path, rows: int, corpus: str = "") -> Iterator[list[str | None]]:
    with _read_errors(path, corpus), pq.ParquetFile(path) as file:
        for batch in file.iter_batches(rows, columns=[_COLUMN]):
            yield batch.column(_COLUMN).to_pylist()


@contextmanager
def _read_errors(path: Path, corpus: str) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowInvalid, KeyError) as error:
        name = f"corpus {corpus}" if corpus else "corpus"
        raise DataError(
            Reason.UNREADABLE_INPUT,
            f"{path}: not a parquet file with a column `{_COLUMN}` ({error}); rebuild the {name}",
        ) from error
