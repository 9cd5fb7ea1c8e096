"""The formats by their name in the spec, and which one reads a file."""

from pathlib import PurePosixPath
from typing import Final

from hatchery_jobs.readers.formats.base import FileFormat
from hatchery_jobs.readers.formats.csv import CSV
from hatchery_jobs.readers.formats.jsonl import JSONL
from hatchery_jobs.readers.formats.parquet import PARQUET
from hatchery_jobs.readers.formats.whole import CODE, TEXT

FORMATS: Final = {"code": CODE, "text": TEXT, "jsonl": JSONL, "csv": CSV, "parquet": PARQUET}
"""Every value of `files.format` but `auto`."""


def format_name(url: str, requested: str) -> str:
    """The format of a file: the one requested, else the owner of its extension, else `code`."""
    if requested != "auto":
        return requested
    suffix = PurePosixPath(url.removesuffix(".gz")).suffix.lower()
    return next((name for name, entry in FORMATS.items() if suffix in entry.suffixes), "code")


def find_format(url: str, requested: str) -> FileFormat:
    """The format that reads a file."""
    return FORMATS[format_name(url, requested)]


def is_single_document(url: str, requested: str) -> bool:
    """Whether a file is one document rather than rows of documents."""
    return find_format(url, requested).single_document
