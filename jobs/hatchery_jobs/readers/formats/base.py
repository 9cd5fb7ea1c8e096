"""What formats share: the open file, a format's entry, and the checks of a row."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, Any, Final

from hatchery_api.resources.corpus import Files
from hatchery_jobs.readers.documents import Fault

_LISTED_COLUMNS: Final = 12
"""Column names listed in a message."""

Row = tuple[int, str] | Fault
"""A row number with its text, or what is wrong with it."""


@dataclass(frozen=True)
class OpenFile:
    """A file being read."""

    url: str
    spec: Files
    """How the spec says to read it."""
    stream: IO[bytes]
    """The decompressed content."""

    def fault(self, row: int | None, problem: str, remedy: str, offset: int | None = None) -> Fault:
        """A fault in this file; `offset` in bytes."""
        return Fault(self.url, row, offset, problem, remedy)

    def checked(self, row: int, value: Any, offset: int | None = None) -> Row:
        """The row when `value` is text that UTF-8 can encode, else its fault."""
        field = self.spec.text_field
        if not isinstance(value, str):
            found = "null" if value is None else type(value).__name__
            return self.fault(row, f"field {field!r} is {found}, not text", "set textField to a text column", offset)
        if not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError as error:
                problem = (
                    f"field {field!r} has invalid Unicode at character {error.start} "
                    "(undecodable bytes or a lone surrogate)"
                )
                return self.fault(row, problem, "set encoding, or fix the row", offset)
        return row, value

    def bad_bytes(self, row: int, error: UnicodeError, offset: int) -> Fault:
        """The fault of bytes that the spec's encoding cannot decode; `offset` is where the decoded bytes start."""
        start = error.start if isinstance(error, UnicodeDecodeError) else 0
        problem = f"bytes are not valid {self.spec.encoding}"
        return self.fault(row, problem, "set encoding, for example latin-1, or fix the file", offset + start)

    def missing_column(self, columns: list[str]) -> Fault:
        """The fault of a file without the text column."""
        problem = f"no column {self.spec.text_field!r}; the file has {listed(columns)}"
        return self.fault(None, problem, "set textField to one of them")


@dataclass(frozen=True)
class FileFormat:
    """A file format."""

    read: Callable[[OpenFile], Iterator[Row]]
    """Yields the rows and faults of a file, in its order."""
    suffixes: tuple[str, ...] = ()
    """Extensions that select it with `format: auto`, in lower case."""
    single_document: bool = False
    """Whether a file is one document rather than rows of documents."""


def listed(columns: list[str]) -> str:
    """Column names for a message."""
    if not columns:
        return "none"
    return ", ".join(map(repr, columns[:_LISTED_COLUMNS])) + (", …" if len(columns) > _LISTED_COLUMNS else "")
