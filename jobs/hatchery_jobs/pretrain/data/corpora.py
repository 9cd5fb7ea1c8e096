"""The parts of corpora that are encoded one by one."""

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
from hatchery_jobs.runtime import Context, log, read_manifest

BATCH_DOCUMENTS: Final = 512
"""Documents read at once: enough for all cores, little enough to stay in memory."""

FILES_TOGETHER: Final = 1024
"""Files of one document each that are encoded together."""

MEASURED_PARTS: Final = 64
"""Parts of a streamed source whose documents for validation are encoded."""

MEASURED_DOCUMENTS: Final = 100_000
"""Documents of such a part that are read for it: a dataset that is streamed may be too large to be read at once."""


class Part(Protocol):
    """Documents that are encoded together."""

    @property
    def digest(self) -> str:
        """Changes when its documents do."""

    @property
    def documents(self) -> int:
        """Documents, as far as known beforehand; else 0."""

    def batches(self) -> Iterator[tuple[Split, list[str]]]:
        """Texts, with the split they belong to, always in the same order."""


@dataclass(frozen=True)
class Corpus:
    """One entry of `spec.corpora`."""

    name: str
    """What the spec calls it."""
    digest: str
    """Digest of its artifact, or fingerprint of its files or dataset."""
    parts: tuple[Part, ...]
    """Its parts in order."""
    revision: str | None = None
    """Commit of a dataset."""


@dataclass(frozen=True)
class CorpusFile:
    """One parquet file of a corpus artifact."""

    corpus: str
    path: Path
    split: Split
    digest: str
    """sha256 of the file and its split."""

    @property
    def documents(self) -> int:
        """Rows, from the file's footer."""
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

    origin: DocumentSource
    is_lenient: bool
    """Whether what cannot be read is left out."""
    validation_share: float
    """Share of the documents that is measured and not learnt."""
    digest: str

    @property
    def documents(self) -> int:
        """Nobody knows."""
        return 0

    def batches(self, most: int | None = None) -> Iterator[tuple[Split, list[str]]]:
        """Documents, of which a hash of the text says in which split they are; equal texts are in the same one.

        Args:
            most: rows after which reading ends; None: all are read.

        Raises:
            DataError: a file or row cannot be used.
            RetryableError: a store cannot be reached.
        """
        batch: dict[Split, list[str]] = {split: [] for split in get_args(Split)}
        aside = 0
        for _, item in islice(self.origin.items(), most):
            if isinstance(item, Document):
                is_measured = uniform_hash(item.identity, 0, "validation") < self.validation_share
                texts = batch["validation" if is_measured else "train"]
                texts.append(item.text)
                if len(texts) == BATCH_DOCUMENTS:
                    yield "validation" if is_measured else "train", texts.copy()
                    texts.clear()
            elif self.is_lenient:
                aside += 1
            else:
                raise unreadable(self.origin.field, item)
        yield from ((split, texts) for split, texts in batch.items() if texts)
        if aside:
            log("set-aside", source=self.origin.name, rows=aside)


def corpus_role(number: int) -> str:
    """Role of the input artifact of a corpus."""
    return f"corpus-{number}" if number else "corpus"


def open_sources(
    job: JobInput[PretrainRunSpec], revisions: Mapping[int, str | None] | None = None
) -> dict[int, Corpus]:
    """The corpora that are files or datasets, as they are now, by their number in the spec.

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
        origin = open_source(f"spec.corpora[{number}]", _source_name(corpus), corpus.files, hub, job.hub.endpoint)
        if origin is not None:
            found[number] = _source_corpus(origin, corpus, job.spec.data.validation_share)
    return found


def _source_name(corpus: TrainingCorpus) -> str:
    return corpus.hub.dataset if corpus.hub else ", ".join(corpus.files.urls) if corpus.files else ""


def _source_corpus(origin: DocumentSource, corpus: TrainingCorpus, share: float) -> Corpus:
    settings = (corpus.hub or corpus.files or corpus).wire()
    # where it is read from and by whom changes nothing about the text
    how = {k: v for k, v in settings.items() if k not in {"urls", "revision", "endpoint", "tokenSecret"}}
    lenient = corpus.files is not None and corpus.files.on_bad_row == "quarantine"
    parts = tuple(SourcePart(o, lenient, share, _digest(o.fingerprint, how, share)) for o in _split_origin(origin))
    revision = origin.fingerprint if corpus.hub else None
    return Corpus(origin.name, _digest(origin.fingerprint, how, share), parts, revision)


def _digest(*facts: Any) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _split_origin(origin: DocumentSource) -> Iterator[DocumentSource]:
    """Files of rows one by one, files that are one document each by many, a dataset as it is."""
    if not isinstance(origin, FileSource):
        yield origin
        return
    together: list[SourceFile] = []
    for file in origin.found:
        if is_single_document(file.url, origin.spec.format):
            together.append(file)
            if len(together) == FILES_TOGETHER:
                yield replace(origin, found=together)
                together = []
        else:
            yield replace(origin, found=[file])
    if together:
        yield replace(origin, found=together)


def corpora(context: Context[PretrainRunSpec], sources: Mapping[int, Corpus]) -> list[Corpus]:
    """All corpora of a run, in the order of its spec; the input artifacts among them are verified."""
    numbers = range(len(context.job.spec.corpora))
    return [sources.get(number) or _artifact_corpus(context, corpus_role(number)) for number in numbers]


def _artifact_corpus(context: Context[PretrainRunSpec], role: str) -> Corpus:
    """A corpus that a CorpusBuild made; its manifest knows the digest of every file."""
    record, folder = context.job.input(role), context.input(role)
    found = read_manifest(folder)
    digests = {entry["path"]: entry["sha256"] for entry in found[0]["files"]} if found else {}
    parts = [
        CorpusFile(record.name, path, split, f"{split}:{digests[path.relative_to(folder).as_posix()]}")
        for split in get_args(Split)
        for path in split_files(folder, split)
    ]
    return Corpus(record.name, record.digest, tuple(parts))


def validation_only(corpus: Corpus) -> Corpus:
    """What of a corpus is encoded when its train split is streamed; of a source, what its beginning holds."""
    files = [part for part in corpus.parts if isinstance(part, CorpusFile) and part.split == "validation"]
    begun = [part for part in corpus.parts if isinstance(part, SourcePart)][:MEASURED_PARTS]
    return replace(corpus, parts=(*files, *(Measured(part) for part in begun)))


def training_only(corpus: Corpus) -> Corpus:
    """A corpus without the files that hold nothing to learn."""
    parts = (part for part in corpus.parts if not isinstance(part, CorpusFile) or part.split == "train")
    return replace(corpus, parts=tuple(parts))


@dataclass(frozen=True)
class Measured:
    """The documents for validation at the beginning of a part."""

    part: SourcePart

    @property
    def digest(self) -> str:
        """Digest of the part, and how far it is read."""
        return f"{self.part.digest}:{MEASURED_DOCUMENTS}"

    @property
    def documents(self) -> int:
        """Nobody knows."""
        return 0

    def batches(self) -> Iterator[tuple[Split, list[str]]]:
        """Texts of the validation split among the first documents."""
        return (batch for batch in self.part.batches(MEASURED_DOCUMENTS) if batch[0] == "validation")
