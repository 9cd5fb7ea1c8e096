"""Deduplication: exact duplicates by digest, near-duplicates by MinHash and exact Jaccard similarity.

Only `corpus` may import it.
"""

from hatchery_jobs.corpus.dedup.exact import content_digest
from hatchery_jobs.corpus.dedup.step import DuplicateGroups, find_duplicates

__all__ = ["DuplicateGroups", "content_digest", "find_duplicates"]
