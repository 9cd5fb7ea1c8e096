"""Opens the sources of a build and reads their documents, source by source in the order of their names."""

import json
from collections.abc import Iterator
from pathlib import Path

from hatchery_api.contract import JobInput
from hatchery_api.resources.corpus import CorpusBuildSpec
from hatchery_jobs.readers import Document, DocumentSource, Fault, open_source, unreadable


class Quarantine:
    """Log of unreadable rows and files, one JSON object a line; created with the first entry."""

    def __init__(self, path: Path) -> None:
        self.count = 0
        self._path = path

    def add(self, source: str, fault: Fault) -> None:
        """Records one row or file."""
        entry = {"source": source, "path": fault.path, "row": fault.row, "byte": fault.offset_bytes}
        with self._path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({**entry, "problem": fault.problem}) + "\n")
        self.count += 1


def open_sources(job: JobInput[CorpusBuildSpec]) -> list[DocumentSource]:
    """The sources of a build, sorted by name: their order in the spec does not matter.

    Raises:
        JobError: one of them does not exist or cannot be listed.
    """
    sources = sorted(job.spec.sources, key=lambda source: source.name)
    opened = (open_source(f"spec.sources[{s.name}]", s.name, s.files, s.hub, job.hub.endpoint) for s in sources)
    return [source for source in opened if source is not None]


def read_documents(sources: list[DocumentSource], quarantine: dict[str, Quarantine]) -> Iterator[tuple[int, Document]]:
    """All documents, each with the number of files read before it.

    Args:
        sources: the opened sources.
        quarantine: by source, where its faults go; without one the first fault fails the build.

    Raises:
        DataError: a file or row is unreadable.
        RetryableError: a store is unreachable.
    """
    before = 0
    for source in sources:
        for done, item in source.items():
            if isinstance(item, Document):
                yield before + done, item
            elif source.name in quarantine:
                quarantine[source.name].add(source.name, item)
            else:
                raise unreadable(source.field, item)
        before += source.files
