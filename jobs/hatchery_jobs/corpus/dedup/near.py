"""Near-duplicates: equal band keys propose pairs, exact Jaccard similarity decides, connected pairs form a cluster.

Memory is bounded by the batches and a few dozen bytes a document: band keys are on scratch disk, one band is in memory
at a time, and pairs are compared in groups.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np

from hatchery_api.resources.corpus import NearDedup
from hatchery_jobs.corpus.dedup.exact import group_heads
from hatchery_jobs.corpus.dedup.minhash import Signer, jaccard, shingle_hashes, shingle_sets, windows
from hatchery_jobs.corpus.spool import Spool
from hatchery_jobs.corpus.types import I64, U64, Mask, OnProgress, Positions

_COMPARED_BYTES: Final = 16 << 20
"""Text compared at a time; its shingle sets take about twice as much memory."""

_ALL_PAIRS: Final = 64
"""Largest bucket whose pairs are all candidates. In a larger one every document is compared with the first only: pairs
grow quadratically, and a bucket of thousands is one boilerplate text."""

_LEFT: Final = np.uint64(32)
"""A pair is one number: the smaller member in the upper half, the larger in the lower."""

_RIGHT: Final = np.uint64(2**32 - 1)


@dataclass(frozen=True)
class BandKeys:
    """Band keys of all documents that have enough words."""

    members: Positions
    """Positions of these documents in the spool."""
    matrix: Any
    """Keys (bands, documents) on disk."""
    signed: Mask
    """Columns of the matrix that belong to `members`."""

    def __iter__(self) -> Iterator[U64]:
        for band in self.matrix:
            yield band[self.signed]


class UnionFind:
    """Union-find over integers; a cluster's smallest member represents it."""

    def __init__(self, size: int) -> None:
        self._parents = np.arange(size, dtype=np.int64)

    def join(self, left: I64, right: I64) -> None:
        """Joins the clusters of each pair."""
        for a, b in zip(left.tolist(), right.tolist(), strict=True):
            first, second = sorted((self._root(a), self._root(b)))
            self._parents[second] = first

    def roots(self) -> I64:
        """Smallest member of every number's cluster."""
        while not np.array_equal(shorter := self._parents[self._parents], self._parents):
            self._parents = shorter
        return self._parents

    def _root(self, number: int) -> int:
        parents = self._parents
        while (parent := int(parents[number])) != number:
            parents[number] = parents[parent]
            number = parent
        return number


def near_clusters(spool: Spool, kept: Mask, spec: NearDedup, scratch: Path, on_progress: OnProgress) -> Positions:
    """For every document the first one of its cluster; one without near-duplicates, or not kept, is its own cluster."""
    keys = sign(spool, kept, spec, scratch, on_progress)
    clusters = UnionFind(len(keys.members))
    stars = _distinct(map(star_pairs, keys))
    join_similar = partial(
        _join_similar, clusters=clusters, members=keys.members, spool=spool, spec=spec, on_progress=on_progress
    )
    join_similar(stars)
    roots = clusters.roots().copy()
    others = np.setdiff1d(_distinct(remaining_pairs(band, roots) for band in keys), stars, assume_unique=True)
    join_similar(others)
    first = np.arange(len(spool), dtype=np.int64)
    first[keys.members] = keys.members[clusters.roots()]
    return first


def sign(spool: Spool, kept: Mask, spec: NearDedup, scratch: Path, on_progress: OnProgress) -> BandKeys:
    """Band keys of the kept documents with at least `min_words` words and one shingle."""
    signer = Signer.make(spec.bands, spec.rows, spec.seed)
    positions = np.flatnonzero(kept)
    shape = (spec.bands, max(1, len(positions)))
    matrix = np.memmap(scratch / "bands.u64", np.uint64, "w+", shape=shape)
    signed = np.zeros(shape[1], np.bool_)
    done = 0
    for first, batch in spool.batches():
        texts = batch.column(0).filter(kept[first : first + len(batch)]).to_pylist()
        for start, end in windows(texts):
            hashes, counts, words = shingle_hashes(texts[start:end], spec.ngram)
            enough = (counts > 0) & (words >= spec.min_words)
            columns = done + start + np.flatnonzero(enough)
            signed[columns] = True
            matrix[:, columns] = signer.band_keys(signer.signatures(hashes[np.repeat(enough, counts)], counts[enough]))
        done += len(texts)
        on_progress(done, len(positions), "documents signed")
    return BandKeys(positions[signed[: len(positions)]], matrix, signed)


def star_pairs(keys: U64) -> U64:
    """Pairs the first document of every key with each other document of that key."""
    order, starts = _buckets(keys)
    lengths = np.diff(starts, append=len(order))
    others = np.ones(len(order), np.bool_)
    others[starts] = False
    return _pairs(np.repeat(order[starts], lengths)[others], order[others])


def remaining_pairs(keys: U64, roots: I64) -> U64:
    """All pairs of documents with equal key that are not yet in one cluster."""
    order, starts = _buckets(keys)
    if not len(order):
        return np.empty(0, np.uint64)
    lengths = np.diff(starts, append=len(order))
    ranked = roots[order]
    mixed = np.minimum.reduceat(ranked, starts) != np.maximum.reduceat(ranked, starts)
    found = [np.empty(0, np.uint64)]
    for start, length in zip(starts[mixed], lengths[mixed], strict=True):
        if length <= _ALL_PAIRS:
            left, right = np.triu_indices(length, 1)
            bucket, labels = order[start : start + length], ranked[start : start + length]
            apart = labels[left] != labels[right]
            found.append(_pairs(bucket[left[apart]], bucket[right[apart]]))
    return np.concatenate(found)


def keepers(first: Positions, sizes: I64, identities: U64) -> Positions:
    """For every document the one of its cluster that is kept: the longest, among those the one of smallest identity."""
    order = np.lexsort((identities, -sizes, first))
    ranked = first[order]
    return group_heads(order, ranked[1:] != ranked[:-1])


def _buckets(keys: U64) -> tuple[I64, I64]:
    """Documents sorted by key, then index, and where each key starts."""
    order = np.argsort(keys, kind="stable")
    ranked = keys[order]
    return order, np.flatnonzero(np.concatenate(([True], ranked[1:] != ranked[:-1]))[: len(order)])


def _pairs(left: I64, right: I64) -> U64:
    return (left.astype(np.uint64) << _LEFT) | right.astype(np.uint64)


def _distinct(bands: Iterator[U64]) -> U64:
    found = np.empty(0, np.uint64)
    for pairs in bands:
        found = np.union1d(found, pairs)
    return found


def _join_similar(
    pairs: U64, *, clusters: UnionFind, members: Positions, spool: Spool, spec: NearDedup, on_progress: OnProgress
) -> None:
    """Compares pairs in groups of bounded size, and joins the clusters of similar ones."""
    left, right = (pairs >> _LEFT).astype(np.int64), (pairs & _RIGHT).astype(np.int64)
    sizes = spool.sizes[members]
    groups = np.cumsum(sizes[left] + sizes[right]) // _COMPARED_BYTES
    for group in np.unique(groups):
        chosen = np.flatnonzero(groups == group)
        wanted, places = np.unique(np.concatenate((left[chosen], right[chosen])), return_inverse=True)
        sets = shingle_sets(spool.texts(members[wanted]), spec.ngram)
        similar = _similar(sets, places.reshape(2, -1), spec.threshold)
        clusters.join(left[chosen[similar]], right[chosen[similar]])
        on_progress(int(chosen[-1]) + 1, len(pairs), "pairs compared")


def _similar(sets: Sequence[U64], places: I64, threshold: float) -> Mask:
    pairs = zip(places[0].tolist(), places[1].tolist(), strict=True)
    return np.array([jaccard(sets[a], sets[b]) >= threshold for a, b in pairs], np.bool_)
