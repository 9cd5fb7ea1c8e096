"""JSON Lines: one object a line; blank lines are skipped, but counted."""

import json
from collections.abc import Iterator
from typing import Final

from hatchery_jobs.readers.formats.base import FileFormat, OpenFile, Row, listed


def _read(file: OpenFile) -> Iterator[Row]:
    offset = 0
    for number, line in enumerate(file.stream, 1):
        if line.strip():
            yield _row(file, number, line, offset)
        offset += len(line)


def _row(file: OpenFile, number: int, line: bytes, offset: int) -> Row:
    try:
        row = json.loads(line.decode(file.spec.encoding).removeprefix("\ufeff"))
    except UnicodeError as error:
        return file.bad_bytes(number, error, offset)
    except json.JSONDecodeError as error:
        return file.fault(
            number, f"invalid JSON: {error.msg}", "write one JSON object on every line", offset + error.pos
        )
    if not isinstance(row, dict):
        problem = f"the line is a JSON {type(row).__name__}, not an object"
        return file.fault(number, problem, "write one JSON object on every line", offset)
    field = file.spec.text_field
    if field not in row:
        return file.fault(number, f"no field {field!r}; the row has {listed(list(row))}", "set textField", offset)
    return file.checked(number, row[field], offset)


JSONL: Final = FileFormat(_read, (".jsonl", ".ndjson", ".json"))
"""Rows are numbered by line, from 1."""
