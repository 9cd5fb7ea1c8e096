"""Opens sources: what a spec names becomes a list of files, or a dataset at a commit, that gives documents."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from hatchery_api.conditions import Reason
from hatchery_api.resources.corpus import Files, HubDataset
from hatchery_jobs.readers.documents import Document, Fault
from hatchery_jobs.readers.formats import read_file
from hatchery_jobs.readers.hub_dataset import find_dataset
from hatchery_jobs.readers.listing import SourceFile, fingerprint, list_files
from hatchery_jobs.runtime import DataError, RetryableError


class DocumentSource(Protocol):
    """A source that was found."""

    @property
    def field(self) -> str:
        """Where the spec names it, for messages."""

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
class FileSource:
    """Files that were found."""

    field: str
    """Where the spec names it, for messages."""
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
                    f"{self.field}: {file.url}: {error}; it is tried again, check network and storage",
                ) from error


def open_source(
    field: str, name: str, files: Files | None, hub: HubDataset | None, endpoint: str
) -> DocumentSource | None:
    """The source that a spec names in `field`; None when it names neither files nor a dataset.

    Raises:
        JobError: it does not exist or cannot be listed.
    """
    if files is not None:
        return FileSource(field, name, files, list_files(field, files))
    if hub is not None:
        return find_dataset(field, name, hub, hub.endpoint or endpoint)
    return None


def unreadable(field: str, fault: Fault) -> DataError:
    """The error for a fault that nobody asked to set aside, of a source that the spec names in `field`."""
    return DataError(
        Reason.UNREADABLE_INPUT,
        f"{field}: {fault.where}: {fault.problem}; {fault.remedy}, or set onBadRow: quarantine to go on without it",
    )
