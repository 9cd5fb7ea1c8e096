"""Exact duplicates: equal text, or equal text without whitespace."""

import hashlib
from typing import Literal

import numpy as np

from hatchery_jobs.corpus.types import U64, Mask, Positions
from hatchery_jobs.readers import Document


def content_digest(document: Document, normalize: Literal["none", "whitespace"]) -> bytes:
    """16 bytes that are equal for equal documents; among 10^10 documents a false match has probability 10^-19."""
    text = "".join(document.text.split()).encode() if normalize == "whitespace" else document.utf8
    return hashlib.sha256(text).digest()[:16]


def first_of_equals(digests: U64, identities: U64) -> Positions:
    """For every document the equal one that is kept: the one of smallest identity, among those the first.

    Args:
        digests: `content_digest` of every document as two numbers (N, 2).
        identities: identity of every document (N,).
    """
    order = np.lexsort((identities, digests[:, 1], digests[:, 0]))  # stable: equal ids stay in reading order
    ranked = digests[order]
    return group_heads(order, (ranked[1:] != ranked[:-1]).any(axis=1))


def group_heads(order: Positions, changes: Mask) -> Positions:
    """For every document the first of its group.

    Args:
        order: the documents sorted by group (N,).
        changes: whether the group changes between neighbours in `order` (N - 1,).
    """
    starts = np.ones(len(order), np.bool_)
    starts[1:] = changes
    heads = np.empty(len(order), np.int64)
    heads[order] = order[np.flatnonzero(starts)][np.cumsum(starts) - 1]
    return heads
