"""The deduplication step: which documents stay, and which are duplicates of which."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hatchery_api.resources.corpus import Dedup, Duplicates
from hatchery_jobs.corpus.dedup.exact import first_of_equals
from hatchery_jobs.corpus.dedup.near import keepers, near_clusters
from hatchery_jobs.corpus.spool import Spool
from hatchery_jobs.corpus.types import U64, Mask, OnProgress


@dataclass(frozen=True)
class DuplicateGroups:
    """What deduplication decided about every document of the spool."""

    exact: Mask
    """Whether the document is dropped as an exact duplicate."""
    near: Mask
    """Whether the document is dropped as a near-duplicate."""
    clusters: U64
    """Smallest identity in the document's cluster, which exact duplicates share."""
    counts: Duplicates
    """Totals for the result."""

    @property
    def kept(self) -> Mask:
        """Whether the document stays."""
        return ~(self.exact | self.near)


def find_duplicates(
    spool: Spool, identities: U64, digests: U64, spec: Dedup, *, scratch: Path, on_progress: OnProgress
) -> DuplicateGroups:
    """Finds exact duplicates first, so that near-duplicates are searched among distinct texts only.

    Args:
        spool: the documents.
        identities: identity of every document (N,).
        digests: `content_digest` of every document as two numbers (N, 2).
        spec: `spec.dedup`.
        scratch: local folder for band keys.
        on_progress: called after every batch.
    """
    everyone = np.arange(len(spool), dtype=np.int64)
    equal = first_of_equals(digests, identities) if spec.exact.enabled else everyone
    distinct = equal == everyone
    first = everyone
    if spec.near is not None:
        first = near_clusters(spool, distinct, spec.near, scratch, on_progress)
    first = first[equal]  # an exact duplicate belongs to the cluster of the document kept in its place
    best = keepers(np.where(distinct, first, everyone), spool.sizes, identities)
    kept = distinct & (best == everyone)
    smallest = np.full(len(first), np.iinfo(np.uint64).max)
    np.minimum.at(smallest, first, identities)
    members = np.bincount(first)
    exact, near = ~distinct, distinct & ~kept
    counts = Duplicates(
        exact=int(exact.sum()),
        near=int(near.sum()),
        clusters=int((members > 1).sum()),
        largest=int(members.max()),
    )
    return DuplicateGroups(exact, near, smallest[first], counts)
