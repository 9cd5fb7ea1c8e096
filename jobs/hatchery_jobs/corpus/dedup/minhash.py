"""MinHash kernels: word shingles, signatures and band keys, vectorised over batches of bytes.

A word is a run of letters, digits, underscores and bytes from 128 up, which keeps the words of every script. A word's
hash is a polynomial over its bytes modulo 2^64, taken from one prefix sum over the batch; a shingle's hash is a
polynomial over the hashes of its words.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from hatchery_jobs.corpus.types import I64, U32, U64
from hatchery_jobs.hashing import mix64

WINDOW_BYTES: Final = 1 << 18
"""Bytes hashed at a time: small enough for the arrays to stay in a core's cache. A longer text is hashed window by
window, and words that cross a boundary are cut there, in every run alike."""

_BASE: Final = 0x9E3779B97F4A7C15 - 2
"""Base of the polynomials; 3 modulo 8, so that its powers differ in all but the lowest bits."""

_STEP: Final = np.uint64(0xD6E8FEB86659FD93)
_WORD_BYTES: Final = np.array([chr(i).isalnum() or i == ord("_") or i >= 128 for i in range(256)])  # noqa: PLR2004
_HIGH_HALF: Final = np.uint64(32)


def _powers(base: int, count: int) -> U64:
    powers = np.full(count, base % 2**64, np.uint64)
    powers[0] = 1
    return np.multiply.accumulate(powers)


_POWERS: Final = _powers(_BASE, WINDOW_BYTES)
_INVERSES: Final = _powers(pow(_BASE, -1, 2**64), WINDOW_BYTES)
_BYTE_VALUES: Final = np.where(
    _WORD_BYTES, np.random.Generator(np.random.PCG64(1)).integers(1, 2**63, 256, np.uint64), np.uint64(0)
)


def windows(texts: Sequence[bytes]) -> Iterator[tuple[int, int]]:
    """Slices of the texts that fit into one window; a longer text has a slice of its own."""
    start = size = 0
    for end, text in enumerate(texts):
        if end > start and size + len(text) + 1 > WINDOW_BYTES:
            yield start, end
            start, size = end, 0
        size += len(text) + 1
    if start < len(texts):
        yield start, len(texts)


def word_hashes(texts: Sequence[bytes]) -> tuple[U64, I64]:
    """Hashes of all words in order, and the word count of each text; the texts are one slice of `windows`."""
    if len(texts) == 1 and len(texts[0]) > WINDOW_BYTES:
        pieces = [texts[0][i : i + WINDOW_BYTES] for i in range(0, len(texts[0]), WINDOW_BYTES)]
        hashes = np.concatenate([word_hashes([piece])[0] for piece in pieces])
        return hashes, np.array([len(hashes)], np.int64)
    buffer = np.frombuffer(b"\n".join(texts), np.uint8)
    edges = np.flatnonzero(np.diff(_WORD_BYTES[buffer], prepend=False, append=False))
    starts, ends = edges[0::2], edges[1::2]
    prefix = np.zeros(len(buffer) + 1, np.uint64)
    np.cumsum(_BYTE_VALUES[buffer] * _POWERS[: len(buffer)], out=prefix[1:])
    hashes = mix64((prefix[ends] - prefix[starts]) * _INVERSES[starts])
    text_ends = np.cumsum([len(text) + 1 for text in texts])
    return hashes, np.diff(np.searchsorted(starts, text_ends), prepend=0)


def shingle_hashes(texts: Sequence[bytes], ngram: int) -> tuple[U64, I64, I64]:
    """Hashes of all runs of `ngram` words within a text, with the shingle count and the word count of each text."""
    words, counts = word_hashes(texts)
    shingle_counts = np.maximum(counts - ngram + 1, 0)
    if len(words) < ngram:
        return np.empty(0, np.uint64), shingle_counts, counts
    size = len(words) - ngram + 1
    hashes = words[:size].copy()
    for offset in range(1, ngram):
        hashes *= _STEP
        hashes += words[offset : offset + size]
    last = np.repeat(np.cumsum(counts) - ngram, counts)[:size]
    return mix64(hashes[np.arange(size) <= last]), shingle_counts, counts


def shingle_sets(texts: Sequence[bytes], ngram: int) -> list[U64]:
    """The set of shingles of each text, as sorted hashes; two different shingles collide with probability 10^-19."""
    sets: list[U64] = []
    for start, end in windows(texts):
        hashes, counts, _ = shingle_hashes(texts[start:end], ngram)
        sets += [np.unique(part) for part in np.split(hashes, np.cumsum(counts)[:-1])]
    return sets


def jaccard(left: U64, right: U64) -> float:
    """Jaccard similarity of two sets given as sorted arrays."""
    common = len(np.intersect1d(left, right, assume_unique=True))
    return common / max(1, len(left) + len(right) - common)


@dataclass(frozen=True)
class Signer:
    """Hash functions of one seed: the smallest `multiplier * hash + addend` modulo 2^32 over a text's shingles."""

    multipliers: U32
    addends: U32
    bands: int

    @classmethod
    def make(cls, bands: int, rows: int, seed: int) -> "Signer":
        """`bands * rows` hash functions."""
        generator = np.random.Generator(np.random.PCG64(seed))
        numbers = generator.integers(0, 2**32, (2, bands * rows), np.uint32)
        return cls(numbers[0] | np.uint32(1), numbers[1], bands)

    def signatures(self, hashes: U64, counts: I64) -> U32:
        """Signatures (texts, hash functions) of texts that have at least one shingle each."""
        values = (hashes >> _HIGH_HALF).astype(np.uint32)
        starts = np.cumsum(counts) - counts
        permuted = np.empty_like(values)
        signatures = np.empty((len(self.multipliers), len(counts)), np.uint32)
        for number, (multiplier, addend) in enumerate(zip(self.multipliers, self.addends, strict=True)):
            np.multiply(values, multiplier, out=permuted)
            np.add(permuted, addend, out=permuted)
            np.minimum.reduceat(permuted, starts, out=signatures[number])
        return signatures.T

    def band_keys(self, signatures: U32) -> U64:
        """One key a band (bands, texts); equal keys mean equal rows, except with probability 10^-19."""
        grouped = signatures.reshape(len(signatures), self.bands, len(self.multipliers) // self.bands)
        keys = np.zeros(grouped.shape[:2], np.uint64)
        for row in range(grouped.shape[2]):
            keys = mix64(keys + grouped[:, :, row] + _STEP)
        return keys.T
