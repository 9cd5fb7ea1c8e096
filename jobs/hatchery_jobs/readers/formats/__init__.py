"""File formats: each turns an open file into rows of text and faults, in constant memory.

One module a format; `registry` names them and says which extensions they own. Only `readers` may import it.
"""

from hatchery_jobs.readers.formats.base import OpenFile, Row
from hatchery_jobs.readers.formats.registry import find_format, is_single_document

__all__ = ["OpenFile", "Row", "find_format", "is_single_document"]
