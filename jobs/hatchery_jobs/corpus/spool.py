"""The filtered documents on local disk: written once in reading order, read by the later steps."""

from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from hatchery_jobs.corpus.types import Positions
from hatchery_jobs.readers import Document

_SCHEMA: Final = pa.schema(
    [
        ("text", pa.large_binary()),
        ("source", pa.string()),
        ("path", pa.string()),
        ("row", pa.int64()),
    ]
)


class SpoolWriter:
    """Writes batches of documents."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._ends: list[int] = [0]
        self._sizes = array("q")
        options = pa.ipc.IpcWriteOptions(compression="lz4")
        self._writer = pa.ipc.new_file(str(path), _SCHEMA, options=options)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._writer.close()

    def append(self, documents: Sequence[Document]) -> None:
        """Adds a batch; an empty one is ignored."""
        if not documents:
            return
        columns = [
            [document.utf8 for document in documents],
            [document.source for document in documents],
            [document.path for document in documents],
            [document.row for document in documents],
        ]
        arrays = [pa.array(values, field.type) for values, field in zip(columns, _SCHEMA, strict=True)]
        self._writer.write_batch(pa.record_batch(arrays, schema=_SCHEMA))
        self._ends.append(self._ends[-1] + len(documents))
        self._sizes.extend(len(document.utf8) for document in documents)

    def open(self) -> "Spool":
        """Opens the closed file for reading."""
        return Spool(self._path, np.array(self._ends, np.int64), np.frombuffer(self._sizes, np.int64))


class Spool:
    """The documents of one build by position."""

    def __init__(self, path: Path, ends: Positions, sizes: npt.NDArray[np.int64]) -> None:
        self.sizes = sizes
        """Size of every document in bytes of UTF-8."""
        self._reader = pa.ipc.open_file(pa.memory_map(str(path)))
        self._ends = ends

    def __len__(self) -> int:
        return int(self._ends[-1])

    def batches(self) -> Iterator[tuple[int, Any]]:
        """Every record batch with the position of its first document."""
        for number, first in enumerate(self._ends[:-1]):
            yield int(first), self._reader.get_batch(number)

    def texts(self, positions: Positions) -> list[bytes]:
        """The texts at sorted positions; decompresses every batch once."""
        found: list[bytes] = []
        numbers = np.searchsorted(self._ends, positions, side="right") - 1
        for number in np.unique(numbers):
            rows = positions[numbers == number] - self._ends[number]
            found += self._reader.get_batch(int(number)).column(0).take(pa.array(rows)).to_pylist()
        return found
