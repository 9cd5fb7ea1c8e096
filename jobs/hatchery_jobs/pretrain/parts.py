"""The parts of corpora that are encoded one by one."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol, get_args

import pyarrow as pa
import pyarrow.parquet as pq

from hatchery_api.conditions import Reason
from hatchery_api.pretrain import PretrainRunSpec
from hatchery_jobs.artifacts import read_manifest
from hatchery_jobs.context import Context
from hatchery_jobs.errors import DataError
from hatchery_jobs.pretrain.index import Split

BATCH_DOCUMENTS: Final = 512
"""Documents read at once: enough for all cores, little enough to stay in memory."""


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
        with self._opened() as file:
            return int(file.metadata.num_rows)

    def batches(self) -> Iterator[tuple[Split, list[str]]]:
        """The column `text`.

        Raises:
            DataError: the file cannot be read.
        """
        with self._opened() as file:
            try:
                for batch in file.iter_batches(BATCH_DOCUMENTS, columns=["text"]):
                    yield self.split, batch.column("text").drop_null().to_pylist()
            except (pa.ArrowInvalid, KeyError) as error:
                raise self._unreadable(error) from error

    def _opened(self) -> pq.ParquetFile:
        try:
            return pq.ParquetFile(self.path)
        except pa.ArrowInvalid as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: Exception) -> DataError:
        return DataError(
            Reason.UNREADABLE_INPUT,
            f"{self.path}: no parquet file with a column `text` ({error}); build the corpus {self.corpus} again",
        )


def corpora(context: Context[PretrainRunSpec]) -> list[Corpus]:
    """The corpora of a run, in the order of its spec."""
    return [artifact_corpus(context, corpus_role(number)) for number in range(len(context.job.spec.corpora))]


def corpus_role(number: int) -> str:
    """Role of the input artifact of a corpus."""
    return f"corpus-{number}" if number else "corpus"


def artifact_corpus(context: Context[PretrainRunSpec], role: str) -> Corpus:
    """A corpus that a CorpusBuild made; its manifest knows the digest of every file."""
    record, folder = context.job.input(role), context.input(role)
    found = read_manifest(folder)
    digests = {entry["path"]: entry["sha256"] for entry in found[0]["files"]} if found else {}
    parts = [
        CorpusFile(record.name, path, split, f"{split}:{digests[path.relative_to(folder).as_posix()]}")
        for split in get_args(Split)
        for path in sorted((folder / "data").glob(f"{split}-*.parquet"))
    ]
    return Corpus(record.name, record.digest, tuple(parts))
