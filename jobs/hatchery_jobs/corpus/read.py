"""Opens the sources of a build and reads their documents, one source after the other in the order of their names."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from hatchery_api.conditions import Reason
from hatchery_api.contract import JobInput
from hatchery_api.corpus import CorpusBuildSpec, Files
from hatchery_jobs.corpus.documents import Document, Fault
from hatchery_jobs.corpus.formats import read_file
from hatchery_jobs.corpus.hub_source import find_origin
from hatchery_jobs.corpus.listing import SourceFile, fingerprint, list_files
from hatchery_jobs.errors import DataError, RetryableError


class Origin(Protocol):
    """A source that was found."""

    @property
    def name(self) -> str:
        """Name of the source."""

    @property
    def fingerprint(self) -> str:
        """Changes when the source's content does."""

    @property
    def files(self) -> int:
        """Files to read; 0 when nobody knows."""

    @property
    def description(self) -> str:
        """Where the documents come from, for the card."""

    def items(self) -> Iterator[tuple[int, Document | Fault]]:
        """Documents and faults, each with the number of files done before it."""


@dataclass(frozen=True)
class FilesOrigin:
    """Files that were found."""

    name: str
    spec: Files
    found: list[SourceFile]

    @property
    def fingerprint(self) -> str:
        """sha256 over path and version of every file."""
        return fingerprint(self.found)

    @property
    def files(self) -> int:
        """Files to read."""
        return len(self.found)

    @property
    def description(self) -> str:
        """The URLs as the spec has them."""
        return ", ".join(f"`{url}`" for url in self.spec.urls)

    def items(self) -> Iterator[tuple[int, Document | Fault]]:
        """Documents and faults of every file."""
        for done, file in enumerate(self.found):
            try:
                for item in read_file(file, self.spec):
                    yield done, item if isinstance(item, Fault) else Document(self.name, file.url, *item)
            except OSError as error:
                raise RetryableError(
                    Reason.UNREADABLE_INPUT,
                    f"spec.sources[{self.name}]: {file.url}: {error}; it is tried again, check network and storage",
                ) from error


class Quarantine:
    """What could not be read and was set aside, one JSON object a line; the file exists only when there is any."""

    def __init__(self, path: Path) -> None:
        self.count = 0
        self._path = path

    def add(self, source: str, fault: Fault) -> None:
        """Sets one row or file aside."""
        entry = {"source": source, "path": fault.path, "row": fault.row, "byte": fault.offset_bytes}
        with self._path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({**entry, "problem": fault.problem}) + "\n")
        self.count += 1


def open_origins(job: JobInput[CorpusBuildSpec]) -> list[Origin]:
    """The sources of a build, sorted by name, so that their order in the spec means nothing.

    Raises:
        JobError: one of them does not exist or cannot be listed.
    """
    origins: list[Origin] = []
    for source in sorted(job.spec.sources, key=lambda source: source.name):
        if source.files is not None:
            origins.append(FilesOrigin(source.name, source.files, list_files(source.name, source.files)))
        elif source.hub is not None:
            origins.append(find_origin(source.name, source.hub, source.hub.endpoint or job.hub.endpoint))
    return origins


def read_documents(origins: list[Origin], quarantine: dict[str, Quarantine]) -> Iterator[tuple[int, Document]]:
    """All documents, each with the number of files done before it.

    Args:
        origins: the sources.
        quarantine: where faults of a source go; a source without one ends the build with its first fault.

    Raises:
        DataError: a file or row cannot be used.
        RetryableError: a store cannot be reached.
    """
    before = 0
    for origin in origins:
        for done, item in origin.items():
            if isinstance(item, Document):
                yield before + done, item
            elif origin.name in quarantine:
                quarantine[origin.name].add(origin.name, item)
            else:
                raise unreadable(origin.name, item)
        before += origin.files


def unreadable(source: str, fault: Fault) -> DataError:
    """The error for a fault that nobody asked to set aside."""
    return DataError(
        Reason.UNREADABLE_INPUT,
        f"spec.sources[{source}]: {fault.where}: {fault.problem}; {fault.remedy}, or set onBadRow: quarantine to go on "
        "without it",
    )
