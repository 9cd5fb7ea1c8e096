"""Opens a source of the spec: its files are listed, a dataset is resolved to a commit."""

from collections.abc import Iterator
from typing import Protocol

from hatchery_api.conditions import Reason
from hatchery_api.resources.corpus import Files, HubDataset
from hatchery_jobs.readers.documents import Document, Fault
from hatchery_jobs.readers.files import FileSource
from hatchery_jobs.readers.hub_dataset import find_dataset
from hatchery_jobs.readers.listing import list_files
from hatchery_jobs.runtime import DataError


class DocumentSource(Protocol):
    """An opened source of documents."""

    @property
    def field(self) -> str:
        """Path of the source in the spec, for messages."""

    @property
    def name(self) -> str:
        """Name of the source."""

    @property
    def fingerprint(self) -> str:
        """Changes when the source's content does."""

    @property
    def files(self) -> int:
        """Files to read; 0 when unknown."""

    @property
    def description(self) -> str:
        """Where the documents come from, for the card."""

    def items(self) -> Iterator[tuple[int, Document | Fault]]:
        """Documents and faults, each with the number of files read before it."""


def open_source(
    field: str, name: str, files: Files | None, hub: HubDataset | None, endpoint: str
) -> DocumentSource | None:
    """Opens the source at `field` of the spec; None when it names neither files nor a dataset.

    Raises:
        JobError: it does not exist or cannot be listed.
    """
    if files is not None:
        return FileSource(field, name, files, list_files(field, files))
    if hub is not None:
        return find_dataset(field, name, hub, hub.endpoint or endpoint)
    return None


def unreadable(field: str, fault: Fault) -> DataError:
    """The error for a fault that is not quarantined, in the source at `field` of the spec."""
    return DataError(
        Reason.UNREADABLE_INPUT,
        f"{field}: {fault.where}: {fault.problem}; {fault.remedy}, or set onBadRow: quarantine to skip it",
    )
