"""File formats: each reader turns an open file into texts and faults, row by row, in constant memory."""

import csv
import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import IO, Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from hatchery_api.resources.corpus import Files
from hatchery_jobs.readers.documents import Fault
from hatchery_jobs.readers.listing import SourceFile, is_passing

_BY_SUFFIX: Final = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
    ".txt": "text",
    ".md": "text",
}
"""Format by extension; every other file is one document."""

_LONGEST_FIELD_CHARS: Final = 2**31 - 1
"""Limit of a csv field; the library's own, 131,072, is below the size of many source files."""

_ROWS_AT_ONCE: Final = 512
"""Rows of parquet decoded at once."""

_SHOWN_COLUMNS: Final = 12
"""Column names listed in a message."""

Item = tuple[int, str] | Fault
"""A row number with its text, or what is wrong."""


@dataclass(frozen=True)
class Opened:
    """A file being read."""

    url: str
    files: Files
    raw: IO[bytes]
    stream: IO[bytes]
    """`raw`, decompressed."""

    def fault(self, row: int | None, problem: str, remedy: str, offset: int | None = None) -> Fault:
        """A fault of this file."""
        return Fault(self.url, row, offset, problem, remedy)


def read_file(file: SourceFile, files: Files) -> Iterator[Item]:
    """Texts and faults of one file, in its order.

    Raises:
        OSError: disk or network failed in a way that may pass.
    """
    row = 0
    try:
        with file.open() as raw:
            packed = files.compression == "gzip" or (files.compression == "auto" and file.url.endswith(".gz"))
            stream = gzip.GzipFile(fileobj=raw) if packed else raw
            opened = Opened(file.url, files, raw, stream)  # type: ignore[arg-type]
            try:
                for item in _READERS[format_of(file.url, files.format)](opened):
                    row = item[0] if isinstance(item, tuple) else item.row or row
                    yield item
            except (EOFError, zlib.error, gzip.BadGzipFile) as error:
                yield opened.fault(
                    row + 1,
                    f"the gzip data is damaged or cut off: {error}",
                    "copy the file again, or set compression: none if it is not compressed",
                    raw.tell(),
                )
    except OSError as error:
        if is_passing(error):
            raise
        remedy = "make it readable for group 10001 (fsGroup of the pods)" if isinstance(error, PermissionError) else ""
        yield Fault(file.url, None, None, error.strerror or str(error), remedy or "check the file")


def format_of(url: str, asked: str) -> str:
    """The format of a file: the one asked for, else by extension."""
    name = PurePosixPath(url.removesuffix(".gz"))
    return asked if asked != "auto" else _BY_SUFFIX.get(name.suffix.lower(), "code")


def is_single_document(url: str, asked: str) -> bool:
    """Whether a file is one document rather than rows of documents."""
    return _READERS[format_of(url, asked)] is _read_whole


def _read_whole(file: Opened) -> Iterator[Item]:
    data = file.stream.read()
    try:
        yield 1, data.decode(file.files.encoding).removeprefix("\ufeff")
    except UnicodeError as error:
        yield _bad_bytes(file, 1, error, 0)


def _read_jsonl(file: Opened) -> Iterator[Item]:
    offset = 0
    for number, line in enumerate(file.stream, 1):
        if line.strip():
            yield _json_row(file, number, line, offset)
        offset += len(line)


def _json_row(file: Opened, number: int, line: bytes, offset: int) -> Item:
    try:
        row = json.loads(line.decode(file.files.encoding).removeprefix("\ufeff"))
    except UnicodeError as error:
        return _bad_bytes(file, number, error, offset)
    except json.JSONDecodeError as error:
        return file.fault(number, f"no JSON: {error.msg}", "every line must be one JSON object", offset + error.pos)
    if not isinstance(row, dict):
        return file.fault(number, f"the line is a JSON {type(row).__name__}", "every line must be an object", offset)
    field = file.files.text_field
    if field not in row:
        return file.fault(number, f"there is no field {field!r}, only {_names(list(row))}", "set textField", offset)
    return _checked(file, number, row[field], offset)


def _read_csv(file: Opened) -> Iterator[Item]:
    csv.field_size_limit(_LONGEST_FIELD_CHARS)
    tabs = file.files.delimiter == "," and file.url.removesuffix(".gz").endswith(".tsv")
    # bytes that are no text pass as surrogates, so that one bad row does not end the file
    lines = io.TextIOWrapper(file.stream, file.files.encoding, errors="surrogateescape", newline="")
    rows = csv.reader(lines, delimiter="\t" if tabs else file.files.delimiter, strict=True)
    number = 0
    try:
        header = [name.removeprefix("\ufeff") for name in next(rows, [])]
        if file.files.text_field not in header:
            yield _no_column(file, header)
            return
        column = header.index(file.files.text_field)
        for number, row in enumerate(rows, 1):
            if row:
                yield _csv_row(file, number, row, column, rows.line_num)
    except (csv.Error, UnicodeError) as error:
        yield file.fault(number + 1, f"no csv: {error} (line {rows.line_num})", "check the quotes and spec's delimiter")
    finally:
        lines.detach()


def _csv_row(file: Opened, number: int, row: list[str], column: int, line: int) -> Item:
    if len(row) <= column:
        problem = f"{len(row)} fields, {file.files.text_field!r} would be number {column + 1} (line {line})"
        return file.fault(number, problem, "check the delimiter and the quotes")
    return _checked(file, number, row[column], None)


def _read_parquet(file: Opened) -> Iterator[Item]:
    field = file.files.text_field
    try:
        table = pq.ParquetFile(file.stream)
        if field not in table.schema_arrow.names:
            yield _no_column(file, table.schema_arrow.names)
            return
        number = 0
        for batch in table.iter_batches(_ROWS_AT_ONCE, columns=[field]):
            for value in batch.column(0).to_pylist():
                number += 1
                yield _checked(file, number, value, None)
    except (pa.ArrowInvalid, UnicodeDecodeError) as error:
        yield file.fault(None, f"no parquet: {str(error).splitlines()[0]}", "copy or write the file again")


def _checked(file: Opened, number: int, value: Any, offset: int | None) -> Item:
    field = file.files.text_field
    if not isinstance(value, str):
        what = "null" if value is None else type(value).__name__
        return file.fault(number, f"field {field!r} is {what}, not text", "set textField to a column of text", offset)
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            problem = f"field {field!r} is no text at character {error.start}: bytes or half characters outside Unicode"
            return file.fault(number, problem, "set encoding, or mend the row", offset)
    return number, value


def _bad_bytes(file: Opened, number: int, error: UnicodeError, offset: int) -> Fault:
    problem = f"bytes that are not {file.files.encoding}"
    start = error.start if isinstance(error, UnicodeDecodeError) else 0
    return file.fault(number, problem, "set encoding, for example latin-1, or mend the file", offset + start)


def _no_column(file: Opened, names: list[str]) -> Fault:
    return file.fault(
        None, f"there is no column {file.files.text_field!r}, only {_names(names)}", "set textField to one of them"
    )


def _names(names: list[str]) -> str:
    shown = ", ".join(map(repr, names[:_SHOWN_COLUMNS]))
    return shown + (", …" if len(names) > _SHOWN_COLUMNS else "") if names else "nothing"


_READERS: Final[dict[str, Callable[[Opened], Iterator[Item]]]] = {
    "code": _read_whole,
    "text": _read_whole,
    "jsonl": _read_jsonl,
    "csv": _read_csv,
    "parquet": _read_parquet,
}
