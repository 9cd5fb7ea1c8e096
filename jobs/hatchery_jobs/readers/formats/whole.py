"""Files of code and plain text: the file is the document."""

from collections.abc import Iterator
from typing import Final

from hatchery_jobs.readers.formats.base import FileFormat, OpenFile, Row


def _read(file: OpenFile) -> Iterator[Row]:
    data = file.stream.read()
    try:
        yield 1, data.decode(file.spec.encoding).removeprefix("\ufeff")
    except UnicodeError as error:
        yield file.bad_bytes(1, error, 0)


CODE: Final = FileFormat(_read, single_document=True)
"""Source code; also every file whose extension no format owns."""

TEXT: Final = FileFormat(_read, (".txt", ".md"), single_document=True)
"""Plain text."""
