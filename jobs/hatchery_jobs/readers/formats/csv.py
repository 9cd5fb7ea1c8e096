"""Delimited text with a header, csv and tsv."""

import csv
import io
from collections.abc import Iterator
from typing import Final

from hatchery_jobs.readers.formats.base import FileFormat, OpenFile, Row

_MAX_FIELD_CHARS: Final = 2**31 - 1
"""Limit of a field; the library's default, 131,072, is below the size of many source files."""


def _read(file: OpenFile) -> Iterator[Row]:
    csv.field_size_limit(_MAX_FIELD_CHARS)
    spec = file.spec
    is_tsv = spec.delimiter == "," and file.url.removesuffix(".gz").endswith(".tsv")
    # undecodable bytes pass as surrogates, so that one bad row does not end the file
    lines = io.TextIOWrapper(file.stream, spec.encoding, errors="surrogateescape", newline="")
    rows = csv.reader(lines, delimiter="\t" if is_tsv else spec.delimiter, strict=True)
    number = 0
    try:
        header = [name.removeprefix("\ufeff") for name in next(rows, [])]
        if spec.text_field not in header:
            yield file.missing_column(header)
            return
        column = header.index(spec.text_field)
        for number, row in enumerate(rows, 1):
            if row:
                yield _row(file, number, row, column, rows.line_num)
    except (csv.Error, UnicodeError) as error:
        problem = f"invalid csv: {error} (line {rows.line_num})"
        yield file.fault(number + 1, problem, "check the quotes and the source's delimiter")
    finally:
        lines.detach()


def _row(file: OpenFile, number: int, row: list[str], column: int, line: int) -> Row:
    if len(row) <= column:
        problem = f"{len(row)} fields, but {file.spec.text_field!r} is number {column + 1} (line {line})"
        return file.fault(number, problem, "check the delimiter and the quotes")
    return file.checked(number, row[column])


CSV: Final = FileFormat(_read, (".csv", ".tsv"))
"""Rows are numbered by record, from 1, without the header."""
