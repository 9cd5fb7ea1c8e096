"""Corpora of a run, as the parts that are encoded one at a time."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Final, Protocol, get_args

from hatchery_api.contract import JobInput
from hatchery_api.resources.pretrain import PretrainRunSpec, TrainingCorpus
from hatchery_jobs.pretrain.data.token_store import Split
from hatchery_jobs.readers import (
    Document,
    DocumentSource,
    FileSource,
    SourceFile,
    count_documents,
    is_single_document,
    open_source,
    read_batches,
    split_files,
    uniform_hash,
    unreadable,
)
from hatchery_jobs.runtime import log, open_input, read_manifest

BATCH_DOCUMENTS: Final = 512
"""Documents per batch: enough work for all cores, little enough for memory."""

FILES_PER_PART: Final = 1024
"""Single-document files that form one part."""

VALIDATION_PARTS: Final = 64
"""Parts of a streamed source that are searched for validation documents."""

VALIDATION_ROWS: Final = 100_000
"""Rows searched in each of them: a streamed dataset may be too large to read whole before training."""


class CorpusPart(Protocol):
    """Documents that are encoded together."""

    @property
    def digest(self) -> str:
        """Changes when the documents do."""

    @property
    def documents(self) -> int:
        """Number of documents, 0 where it is unknown before reading."""

    def batches(self) -> Iterator[tuple[Split, list[str]]]:
        """Texts with their split, always in the same order."""


@dataclass(frozen=True)
class Corpus:
    """One entry of `spec.corpora`."""

    name: str
    """Name in the spec."""
    digest: str
    """Digest of the artifact, or fingerprint of the files or dataset."""
    parts: tuple[CorpusPart, ...]
    """Parts in order."""
    revision: str | None = None
    """Commit of a dataset."""


@dataclass(frozen=True)
class ParquetPart:
    """One parquet file of a corpus artifact."""

    corpus: str
    path: Path
    split: Split
    digest: str
    """sha256 of the file, and its split."""

    @property
    def documents(self) -> int:
        """Rows according to the file's footer."""
        return count_documents(self.path, self.corpus)

    def batches(self) -> Iterator[tuple[Split, list[str]]]:
        """The column `text`.

        Raises:
            DataError: the file cannot be read.
        """
        for texts in read_batches(self.path, BATCH_DOCUMENTS, self.corpus):
            yield self.split, texts


@dataclass(frozen=True)
class SourcePart:
    """A dataset, or files that are read one after the other."""

    source: DocumentSource
    is_lenient: bool
    """Whether unreadable rows are skipped."""
    validation_share: float
    """Share of the documents that goes to the validation split."""
    digest: str

    @property
    def documents(self) -> int:
        """0: unknown before reading."""
        return 0

    def batches(self, max_rows: int | None = None) -> Iterator[tuple[Split, list[str]]]:
        """Texts with their split, which a hash of the text decides: equal texts share a split.

        Args:
            max_rows: rows after which reading ends; None: read all.

        Raises:
            DataError: a file or row cannot be used.
            RetryableError: a store cannot be reached.
        """
        batch: dict[Split, list[str]] = {split: [] for split in get_args(Split)}
        skipped = 0
        for _, item in islice(self.source.items(), max_rows):
            if isinstance(item, Document):
                is_validation = uniform_hash(item.identity, 0, "validation") < self.validation_share
                split: Split = "validation" if is_validation else "train"
                texts = batch[split]
                texts.append(item.text)
                if len(texts) == BATCH_DOCUMENTS:
                    yield split, texts.copy()
                    texts.clear()
            elif self.is_lenient:
                skipped += 1
            else:
                raise unreadable(self.source.field, item)
        yield from ((split, texts) for split, texts in batch.items() if texts)
        if skipped:
            log("set-aside", source=self.source.name, rows=skipped)


@dataclass(frozen=True)
class ValidationPart:
    """The validation documents at the beginning of a part."""

    part: SourcePart

    @property
    def digest(self) -> str:
        """Digest of the part, and how far it is read."""
        return f"{self.part.digest}:{VALIDATION_ROWS}"

    @property
    def documents(self) -> int:
        """0: unknown before reading."""
        return 0

    def batches(self) -> Iterator[tuple[Split, list[str]]]:
        """Texts of the validation split within the first rows."""
        return (batch for batch in self.part.batches(VALIDATION_ROWS) if batch[0] == "validation")


def corpus_role(number: int) -> str:
    """Role of the input artifact of corpus `number`."""
    return f"corpus-{number}" if number else "corpus"


def open_source_corpora(
    job: JobInput[PretrainRunSpec], revisions: Mapping[int, str | None] | None = None
) -> dict[int, Corpus]:
    """Lists the corpora that are files or datasets, by their number in the spec.

    Args:
        job: the run.
        revisions: commits at which datasets were found before.

    Raises:
        JobError: one of them does not exist or cannot be listed.
    """
    found = {}
    for number, corpus in enumerate(job.spec.corpora):
        commit = (revisions or {}).get(number)
        hub = corpus.hub and corpus.hub.model_copy(update={"revision": commit or corpus.hub.revision})
        name = corpus.hub.dataset if corpus.hub else ", ".join(corpus.files.urls) if corpus.files else ""
        source = open_source(f"spec.corpora[{number}]", name, corpus.files, hub, job.hub.endpoint)
        if source is not None:
            found[number] = _source_corpus(source, corpus, job.spec.data.validation_share)
    return found


def _source_corpus(source: DocumentSource, corpus: TrainingCorpus, share: float) -> Corpus:
    settings = (corpus.hub or corpus.files or corpus).wire()
    # where it is read from and by whom changes nothing about the text
    relevant = {k: v for k, v in settings.items() if k not in {"urls", "revision", "endpoint", "tokenSecret"}}
    lenient = corpus.files is not None and corpus.files.on_bad_row == "quarantine"
    parts = tuple(
        SourcePart(part, lenient, share, _digest(part.fingerprint, relevant, share)) for part in _split_source(source)
    )
    revision = source.fingerprint if corpus.hub else None
    return Corpus(source.name, _digest(source.fingerprint, relevant, share), parts, revision)


def _digest(*facts: Any) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _split_source(source: DocumentSource) -> Iterator[DocumentSource]:
    """Files of rows one at a time, single-document files in groups, a dataset as a whole."""
    if not isinstance(source, FileSource):
        yield source
        return
    group: list[SourceFile] = []
    for file in source.found:
        if is_single_document(file.url, source.spec.format):
            group.append(file)
            if len(group) == FILES_PER_PART:
                yield replace(source, found=group)
                group = []
        else:
            yield replace(source, found=[file])
    if group:
        yield replace(source, found=group)


def resolve_corpora(job: JobInput[PretrainRunSpec], sources: Mapping[int, Corpus], scratch: Path) -> list[Corpus]:
    """All corpora of a run in the order of its spec; verifies those that are input artifacts.

    Args:
        job: the run.
        sources: result of `open_source_corpora`.
        scratch: local disk for copies of artifacts in an object store.
    """
    numbers = range(len(job.spec.corpora))
    return [sources.get(number) or _artifact_corpus(job, corpus_role(number), scratch) for number in numbers]


def _artifact_corpus(job: JobInput[PretrainRunSpec], role: str, scratch: Path) -> Corpus:
    """A corpus made by a CorpusBuild; its manifest has the digest of every file."""
    record = job.input(role)
    folder = open_input(record.uri, record.digest, scratch)
    found = read_manifest(folder)
    digests = {entry["path"]: entry["sha256"] for entry in found[0]["files"]} if found else {}
    parts = [
        ParquetPart(record.name, path, split, f"{split}:{digests[path.relative_to(folder).as_posix()]}")
        for split in get_args(Split)
        for path in split_files(folder, split)
    ]
    return Corpus(record.name, record.digest, tuple(parts))


def validation_only(corpus: Corpus) -> Corpus:
    """What is encoded of a corpus whose train split is streamed; of a source, only its beginning is searched."""
    files = [part for part in corpus.parts if isinstance(part, ParquetPart) and part.split == "validation"]
    sources = [part for part in corpus.parts if isinstance(part, SourcePart)][:VALIDATION_PARTS]
    return replace(corpus, parts=(*files, *(ValidationPart(part) for part in sources)))


def training_only(corpus: Corpus) -> Corpus:
    """A corpus without the files of its validation split."""
    parts = (part for part in corpus.parts if not isinstance(part, ParquetPart) or part.split == "train")
    return replace(corpus, parts=tuple(parts))
