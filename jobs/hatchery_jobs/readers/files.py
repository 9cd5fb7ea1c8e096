"""Files as a source of documents."""

import gzip
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, cast

from hatchery_api.conditions import Reason
from hatchery_api.resources.corpus import Files
from hatchery_jobs.readers.documents import Document, Fault
from hatchery_jobs.readers.formats import OpenFile, Row, find_format
from hatchery_jobs.readers.listing import SourceFile, fingerprint_files, is_transient
from hatchery_jobs.runtime import RetryableError


@dataclass(frozen=True)
class FileSource:
    """The files of a source."""

    field: str
    """Path of the source in the spec, for messages."""
    name: str
    spec: Files
    found: list[SourceFile]

    @property
    def fingerprint(self) -> str:
        """sha256 over URL and version of every file."""
        return fingerprint_files(self.found)

    @property
    def files(self) -> int:
        """Files to read."""
        return len(self.found)

    @property
    def description(self) -> str:
        """The URLs of the spec."""
        return ", ".join(f"`{url}`" for url in self.spec.urls)

    def items(self) -> Iterator[tuple[int, Document | Fault]]:
        """Documents and faults of every file, each with the number of files read before it."""
        for done, file in enumerate(self.found):
            try:
                for row in read_file(file, self.spec):
                    yield done, row if isinstance(row, Fault) else Document(self.name, file.url, *row)
            except OSError as error:
                raise RetryableError(
                    Reason.UNREADABLE_INPUT,
                    f"{self.field}: {file.url}: {error}; retrying, check network and storage",
                ) from error


def read_file(file: SourceFile, spec: Files) -> Iterator[Row]:
    """Rows and faults of one file, in its order.

    Raises:
        OSError: a disk or network failed in a way that may pass.
    """
    number = 0
    try:
        with file.open() as raw:
            is_gzip = spec.compression == "gzip" or (spec.compression == "auto" and file.url.endswith(".gz"))
            stream = cast("IO[bytes]", gzip.GzipFile(fileobj=raw)) if is_gzip else raw
            opened = OpenFile(file.url, spec, stream)
            try:
                for row in find_format(file.url, spec.format).read(opened):
                    number = row[0] if isinstance(row, tuple) else row.row or number
                    yield row
            except (EOFError, zlib.error, gzip.BadGzipFile) as error:
                yield opened.fault(
                    number + 1,
                    f"gzip data is corrupt or truncated: {error}",
                    "copy the file again, or set compression: none if it is not compressed",
                    raw.tell(),
                )
    except OSError as error:
        if is_transient(error):
            raise
        remedy = "make it readable for group 10001 (fsGroup of the pods)" if isinstance(error, PermissionError) else ""
        yield Fault(file.url, None, None, error.strerror or str(error), remedy or "check the file")
