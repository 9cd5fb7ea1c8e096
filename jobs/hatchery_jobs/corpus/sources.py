"""Opens the sources of a build and reads their documents, one source after the other in the order of their names."""

import json
from collections.abc import Iterator
from pathlib import Path

from hatchery_api.contract import JobInput
from hatchery_api.resources.corpus import CorpusBuildSpec
from hatchery_jobs.readers import Document, DocumentSource, Fault, open_source, unreadable


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


def open_sources(job: JobInput[CorpusBuildSpec]) -> list[DocumentSource]:
    """The sources of a build, sorted by name, so that their order in the spec means nothing.

    Raises:
        JobError: one of them does not exist or cannot be listed.
    """
    sources = sorted(job.spec.sources, key=lambda source: source.name)
    found = (open_source(f"spec.sources[{s.name}]", s.name, s.files, s.hub, job.hub.endpoint) for s in sources)
    return [origin for origin in found if origin is not None]


def read_documents(origins: list[DocumentSource], quarantine: dict[str, Quarantine]) -> Iterator[tuple[int, Document]]:
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
                raise unreadable(origin.field, item)
        before += origin.files
