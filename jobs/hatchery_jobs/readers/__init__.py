"""Reads documents: from files in every supported format, from datasets of the Hub, and from corpus artifacts.

Every stage may import it. It imports no stage, and `datasets` only inside its functions.
"""

from hatchery_jobs.readers.corpus_artifact import (
    CorpusSplit,
    batch_by_chars,
    count_documents,
    open_split,
    read_batches,
    split_files,
)
from hatchery_jobs.readers.documents import Document, Fault, hex_id, uniform_hash
from hatchery_jobs.readers.files import FileSource
from hatchery_jobs.readers.formats import is_single_document
from hatchery_jobs.readers.listing import SourceFile
from hatchery_jobs.readers.sources import DocumentSource, open_source, unreadable

__all__ = [
    "CorpusSplit",
    "Document",
    "DocumentSource",
    "Fault",
    "FileSource",
    "SourceFile",
    "batch_by_chars",
    "count_documents",
    "hex_id",
    "is_single_document",
    "open_source",
    "open_split",
    "read_batches",
    "split_files",
    "uniform_hash",
    "unreadable",
]
