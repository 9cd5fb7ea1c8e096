"""The `build` stage of a CorpusBuild: read, filter, remove duplicates, split, write."""

import json
import resource
import shutil
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from hatchery_api.base import parse_quantity
from hatchery_api.conditions import Reason
from hatchery_api.resources.corpus import CorpusBuildSpec, CorpusResult
from hatchery_jobs.corpus.card import dataset_card
from hatchery_jobs.corpus.dedup import DuplicateGroups, content_digest, find_duplicates
from hatchery_jobs.corpus.filters import Filter, compile_filters, first_drop
from hatchery_jobs.corpus.funnel import Funnel
from hatchery_jobs.corpus.publish import ShardPlan, write_shards
from hatchery_jobs.corpus.sources import Quarantine, open_sources, read_documents
from hatchery_jobs.corpus.split import SPLITS, in_validation
from hatchery_jobs.corpus.spool import Spool, SpoolWriter
from hatchery_jobs.corpus.types import U64, OnProgress
from hatchery_jobs.readers import Document, DocumentSource
from hatchery_jobs.runtime import (
    Context,
    DataError,
    Draft,
    Interrupted,
    Outcome,
    SpecError,
    storage_errors,
    write_atomically,
)

CODE_VERSION: Final = "corpus-1"
"""Part of the artifact's key; changes when equal input would give other bytes."""

BATCH_BYTES: Final = 4 << 20
"""Text read into a batch, in bytes."""

BATCH_ROWS: Final = 4096
"""Documents read into a batch, for corpora of short ones."""

_KIBIBYTE: Final = 1024
"""Unit of the resident memory the kernel reports."""


@dataclass(frozen=True)
class Filtered:
    """The documents that passed the filters."""

    spool: Spool
    identities: U64
    """Identity of each."""
    digests: U64
    """`content_digest` of each as two numbers (N, 2)."""
    funnel: Funnel
    """What was dropped, and why."""


def run(context: Context[CorpusBuildSpec]) -> Outcome:
    """Builds the corpus, or returns the existing artifact.

    Raises:
        JobError: a source, a row or the storage is unusable, or no document is left.
    """
    sources = open_sources(context.job)
    draft = context.draft(CODE_VERSION, {source.name: source.fingerprint for source in sources})
    if (done := draft.existing()) is not None:
        result = CorpusResult.model_validate_json((done[1] / "result.json").read_bytes())
        return Outcome(*done, result, cached=True)
    with storage_errors(str(draft.folder)):
        result = _build(context, sources, draft)
    artifact, folder = draft.commit()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _KIBIBYTE
    return Outcome(artifact, folder, result.model_copy(update={"peak_bytes": peak}))


def _build(context: Context[CorpusBuildSpec], sources: list[DocumentSource], draft: Draft) -> CorpusResult:
    spec = context.job.spec
    _clear(draft.folder)
    with storage_errors(str(context.scratch)):
        filtered = _read_and_filter(context, sources, draft.folder)
        groups = _deduplicate(context, filtered)
    funnel = filtered.funnel
    funnel.then("split")
    plans = _split(spec, filtered, groups)
    columns = {"id": filtered.identities, "cluster": groups.clusters}
    splits = write_shards(draft.folder, filtered.spool, plans, columns, _reporter(context, funnel))
    result = CorpusResult(
        funnel=funnel.table(), duplicates=groups.counts, splits=splits, quarantined=funnel.quarantined
    )
    card = dataset_card(context.job.name, spec, result, sources, funnel)
    write_atomically(draft.folder / "README.md", card.encode())
    write_atomically(draft.folder / "result.json", (json.dumps(result.wire(), indent=1) + "\n").encode())
    return result


def _clear(folder: Path) -> None:
    """Removes the output of an interrupted attempt, whose spool was lost with its pod."""
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def _read_and_filter(context: Context[CorpusBuildSpec], sources: list[DocumentSource], folder: Path) -> Filtered:
    """Reads every document once; those that pass the filters go to the spool, their digests stay in memory."""
    spec = context.job.spec
    filters = compile_filters(spec.filters)
    funnel = Funnel([item.step for item in filters])
    quarantine = Quarantine(folder / "quarantine.jsonl")
    lenient = [s.name for s in spec.sources if s.files is not None and s.files.on_bad_row == "quarantine"]
    identities, digests = array("Q"), bytearray()
    total = sum(source.files for source in sources)
    report = _reporter(context, funnel)
    with SpoolWriter(context.scratch / "spool.arrow") as writer:
        for files_done, documents in _batches(read_documents(sources, dict.fromkeys(lenient, quarantine))):
            passed = [document for document in documents if _passes(document, filters, funnel)]
            identities.extend(document.identity for document in passed)
            for document in passed:
                digests += content_digest(document, spec.dedup.exact.normalize)
            writer.append(passed)
            report(files_done, total, "files read")
    report(total, total, "files read")
    funnel.quarantined = quarantine.count
    _require_documents(len(identities), funnel)
    numbers = np.frombuffer(identities, np.uint64)
    return Filtered(writer.open(), numbers, np.frombuffer(digests, np.uint64).reshape(-1, 2), funnel)


def _batches(documents: Iterator[tuple[int, Document]]) -> Iterator[tuple[int, list[Document]]]:
    """Documents in batches, each with the number of files read before its last document."""
    batch: list[Document] = []
    size = done = 0
    for done, document in documents:
        batch.append(document)
        size += len(document.utf8)
        if size >= BATCH_BYTES or len(batch) >= BATCH_ROWS:
            yield done, batch
            batch, size = [], 0
    yield done, batch


def _passes(document: Document, filters: list[Filter], funnel: Funnel) -> bool:
    size = len(document.utf8)
    funnel.read(size)
    drop = first_drop(filters, document)
    if drop is not None:
        funnel.drop(*drop, rows=1, size=size)
    return drop is None


def _deduplicate(context: Context[CorpusBuildSpec], filtered: Filtered) -> DuplicateGroups:
    spec, spool, funnel = context.job.spec.dedup, filtered.spool, filtered.funnel
    report = _reporter(context, funnel)
    groups = find_duplicates(
        spool, filtered.identities, filtered.digests, spec, scratch=context.scratch, on_progress=report
    )
    for enabled, step, reason, dropped in (
        (spec.exact.enabled, "exactDuplicate", "exact_duplicate", groups.exact),
        (spec.near is not None, "nearDuplicate", "near_duplicate", groups.near),
    ):
        if enabled:
            funnel.then(step, reason, int(dropped.sum()), int(spool.sizes[dropped].sum()))
    return groups


def _split(spec: CorpusBuildSpec, filtered: Filtered, groups: DuplicateGroups) -> list[ShardPlan]:
    positions = np.flatnonzero(groups.kept)
    chosen = in_validation(spec.split, filtered.identities[positions], groups.clusters[positions])
    size = int(parse_quantity(spec.output.shard_bytes))
    if size < 1:
        raise SpecError(
            Reason.INVALID_SPEC,
            f"spec.output.shardBytes: {spec.output.shard_bytes} is less than one byte; use for example 256Mi",
        )
    splits = (positions[~chosen], positions[chosen])
    return [
        ShardPlan.make(name, members, filtered.spool.sizes, size) for name, members in zip(SPLITS, splits, strict=True)
    ]


def _require_documents(count: int, funnel: Funnel) -> None:
    if count == 0:
        raise DataError(
            Reason.EMPTY_CORPUS,
            f"no document is left: {funnel.sentence()}; relax the filters that drop most, or add sources",
        )


def _reporter(context: Context[CorpusBuildSpec], funnel: Funnel) -> OnProgress:
    """Reports progress after every batch, and stops the build on SIGTERM."""

    def report(done: int, total: int, unit: str) -> None:
        """Called after every batch."""
        context.progress.update(done, total, unit, {"documents": funnel.rows})
        if context.stop.is_set():
            raise Interrupted(f"SIGTERM at {done} of {total} {unit}; the next pod starts over")

    return report
