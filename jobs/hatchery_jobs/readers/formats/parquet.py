"""Parquet: one document a row."""

from collections.abc import Iterator
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from hatchery_jobs.readers.formats.base import FileFormat, OpenFile, Row

_BATCH_ROWS: Final = 512
"""Rows decoded at a time."""


def _read(file: OpenFile) -> Iterator[Row]:
    field = file.spec.text_field
    try:
        table = pq.ParquetFile(file.stream)
        if field not in table.schema_arrow.names:
            yield file.missing_column(table.schema_arrow.names)
            return
        number = 0
        for batch in table.iter_batches(_BATCH_ROWS, columns=[field]):
            for value in batch.column(0).to_pylist():
                number += 1
                yield file.checked(number, value)
    except (pa.ArrowInvalid, UnicodeDecodeError) as error:
        problem = f"not a readable parquet file: {str(error).splitlines()[0]}"
        yield file.fault(None, problem, "copy or write the file again")


PARQUET: Final = FileFormat(_read, (".parquet",))
"""Rows are numbered from 1."""
