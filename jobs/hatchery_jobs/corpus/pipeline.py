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
from hatchery_api.resources.corpus import CorpusBuildSpec, CorpusResult, Duplicates
from hatchery_jobs.corpus.card import dataset_card
from hatchery_jobs.corpus.dedup.exact import content_digest, first_of_equals
from hatchery_jobs.corpus.dedup.minhash import U64
from hatchery_jobs.corpus.dedup.near import Mask, Tick, keepers, near_clusters
from hatchery_jobs.corpus.filters import Filter, compile_filters, first_drop
from hatchery_jobs.corpus.funnel import Funnel
from hatchery_jobs.corpus.publish import Plan, write_shards
from hatchery_jobs.corpus.sources import Quarantine, open_sources, read_documents
from hatchery_jobs.corpus.split import SPLITS, in_validation
from hatchery_jobs.corpus.spool import Positions, Spool, SpoolWriter
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
"""Changes whenever equal input would give other bytes."""

BATCH_BYTES: Final = 4 << 20
"""Text in memory while reading."""

BATCH_ROWS: Final = 4096
"""Documents in memory while reading, for corpora of short ones."""

_KIBIBYTE: Final = 1024
"""Unit of the resident memory the kernel reports."""


@dataclass(frozen=True)
class Filtered:
    """All documents that passed the filters."""

    spool: Spool
    identities: U64
    """Identity of each."""
    digests: U64
    """`content_digest` of each as two numbers (N, 2)."""
    funnel: Funnel
    """Where the others went."""


@dataclass(frozen=True)
class Groups:
    """Which documents are duplicates of which."""

    kept: Mask
    """Whether each document stays."""
    clusters: U64
    """Identity of the cluster of each document: the smallest of its members."""
    duplicates: Duplicates


def run(context: Context[CorpusBuildSpec]) -> Outcome:
    """Builds the corpus, or finds it built.

    Raises:
        JobError: a source, a row or the storage stands in the way, or no document is left.
    """
    origins = open_sources(context.job)
    draft = context.draft(CODE_VERSION, {origin.name: origin.fingerprint for origin in origins})
    if (done := draft.existing()) is not None:
        result = CorpusResult.model_validate_json((done[1] / "result.json").read_bytes())
        return Outcome(*done, result, cached=True)
    with storage_errors(str(draft.folder)):
        result = _build(context, origins, draft)
    artifact, folder = draft.commit()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _KIBIBYTE
    return Outcome(artifact, folder, result.model_copy(update={"peak_bytes": peak}))


def _build(context: Context[CorpusBuildSpec], origins: list[DocumentSource], draft: Draft) -> CorpusResult:
    spec = context.job.spec
    _clear(draft.folder)
    with storage_errors(str(context.scratch)):
        filtered = _read_and_filter(context, origins, draft.folder)
        groups = _deduplicate(context, filtered)
    funnel = filtered.funnel
    funnel.then("split")
    plans = _split(spec, filtered, groups)
    columns = {"id": filtered.identities, "cluster": groups.clusters}
    splits = write_shards(draft.folder, filtered.spool, plans, columns, _ticker(context, funnel))
    result = CorpusResult(
        funnel=funnel.table(), duplicates=groups.duplicates, splits=splits, quarantined=funnel.set_aside
    )
    card = dataset_card(context.job.name, spec, result, origins, funnel)
    write_atomically(draft.folder / "README.md", card.encode())
    write_atomically(draft.folder / "result.json", (json.dumps(result.wire(), indent=1) + "\n").encode())
    return result


def _clear(folder: Path) -> None:
    """Removes what an interrupted attempt left: the spool went with its pod, so everything is written anew."""
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def _read_and_filter(context: Context[CorpusBuildSpec], origins: list[DocumentSource], folder: Path) -> Filtered:
    """Reads everything once; what passes the filters goes to the spool, its digests stay in memory."""
    spec = context.job.spec
    filters = compile_filters(spec.filters)
    funnel = Funnel([item.step for item in filters])
    aside = Quarantine(folder / "quarantine.jsonl")
    lenient = {s.name: aside for s in spec.sources if s.files is not None and s.files.on_bad_row == "quarantine"}
    identities, digests = array("Q"), bytearray()
    total = sum(origin.files for origin in origins)
    tick = _ticker(context, funnel)
    with SpoolWriter(context.scratch / "spool.arrow") as writer:
        for files_done, documents in _batches(read_documents(origins, lenient)):
            passed = [document for document in documents if _passes(document, filters, funnel)]
            identities.extend(document.identity for document in passed)
            for document in passed:
                digests += content_digest(document, spec.dedup.exact.normalize)
            writer.append(passed)
            tick(files_done, total, "files read")
    tick(total, total, "files read")
    funnel.set_aside = aside.count
    _require_documents(len(identities), funnel)
    numbers = np.frombuffer(identities, np.uint64)
    return Filtered(writer.open(), numbers, np.frombuffer(digests, np.uint64).reshape(-1, 2), funnel)


def _batches(documents: Iterator[tuple[int, Document]]) -> Iterator[tuple[int, list[Document]]]:
    """Documents in batches, each with the number of files done before its last one."""
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


def _deduplicate(context: Context[CorpusBuildSpec], filtered: Filtered) -> Groups:
    """Decides who stays; exact duplicates first, so that near-duplicates are sought among different texts only."""
    spec, spool = context.job.spec.dedup, filtered.spool
    everyone = np.arange(len(spool), dtype=np.int64)
    exact = first_of_equals(filtered.digests, filtered.identities) if spec.exact.enabled else everyone
    kept = exact == everyone
    first = everyone
    if spec.near is not None:
        first = near_clusters(spool, kept, spec.near, context.scratch, _ticker(context, filtered.funnel))
    first = first[exact]  # an exact duplicate belongs to the cluster of the document kept in its place
    best = keepers(np.where(kept, first, everyone), spool.sizes, filtered.identities)
    stays = kept & (best == everyone)
    if spec.exact.enabled:
        filtered.funnel.then("exactDuplicate", "exact_duplicate", *_sum(~kept, spool))
    if spec.near is not None:
        filtered.funnel.then("nearDuplicate", "near_duplicate", *_sum(kept & ~stays, spool))
    return Groups(stays, _smallest(first, filtered.identities), _count(kept, stays, first))


def _sum(chosen: Mask, spool: Spool) -> tuple[int, int]:
    return int(chosen.sum()), int(spool.sizes[chosen].sum())


def _smallest(first: Positions, identities: U64) -> U64:
    """Smallest identity within the cluster of each document."""
    smallest = np.full(len(first), np.iinfo(np.uint64).max)
    np.minimum.at(smallest, first, identities)
    return smallest[first]


def _count(kept: Mask, stays: Mask, first: Positions) -> Duplicates:
    members = np.bincount(first)
    return Duplicates(
        exact=int((~kept).sum()),
        near=int((kept & ~stays).sum()),
        clusters=int((members > 1).sum()),
        largest=int(members.max()),
    )


def _split(spec: CorpusBuildSpec, filtered: Filtered, groups: Groups) -> list[Plan]:
    positions = np.flatnonzero(groups.kept)
    chosen = in_validation(spec.split, filtered.identities[positions], groups.clusters[positions])
    size = int(parse_quantity(spec.output.shard_bytes))
    if size < 1:
        raise SpecError(
            Reason.INVALID_SPEC,
            f"spec.output.shardBytes: {spec.output.shard_bytes} is less than one byte; write for example 256Mi",
        )
    sides = (positions[~chosen], positions[chosen])
    return [Plan.make(name, side, filtered.spool.sizes, size) for name, side in zip(SPLITS, sides, strict=True)]


def _require_documents(count: int, funnel: Funnel) -> None:
    if count == 0:
        raise DataError(
            Reason.EMPTY_CORPUS,
            f"no document is left: {funnel.sentence()}; loosen the rules in spec.filters that drop most, or add "
            "sources",
        )


def _ticker(context: Context[CorpusBuildSpec], funnel: Funnel) -> Tick:
    """Progress after every batch, and the place where a pod that is asked to end stops."""

    def tick(done: int, total: int, unit: str) -> None:
        """Called after every batch."""
        context.progress.update(done, total, unit, {"documents": funnel.rows})
        if context.stop.is_set():
            raise Interrupted(f"the corpus build was asked to end at {done} of {total} {unit}; it starts again")

    return tick
