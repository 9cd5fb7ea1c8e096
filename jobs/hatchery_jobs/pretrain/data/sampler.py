"""The order of rows over a run: pure functions of the seed and the position, in constant time at any position."""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from hatchery_jobs.hashing import GOLDEN, mix64
from hatchery_jobs.pretrain.data.types import Tokens

FEISTEL_ROUNDS: Final = 6
"""Rounds of the permutation. Four mix well; two more cost nothing next to a training step."""

BLOCK: Final = 1024
"""Positions in a block of the mixture. Every corpus has exactly its share of each block."""


class SequenceOrder:
    """A stateless permutation of all sequences for every epoch: a keyed Feistel network over sequence numbers.

    Numbers beyond `sequences` pass through the network again until one is below (cycle walking), which keeps it a
    permutation. Lookup takes constant time, so resuming at step 10^6 costs as much as at step 10.
    """

    def __init__(self, seed: int, sequences: int) -> None:
        """An order of `sequences` sequences."""
        if sequences < 1:
            raise ValueError("SequenceOrder needs at least one sequence")
        self.sequences: Final = sequences
        self._seed = np.uint64(seed)
        self._half_bits = np.uint64(max(1, ((sequences - 1).bit_length() + 1) // 2))
        self._mask = np.uint64((1 << int(self._half_bits)) - 1)

    def __call__(self, positions: Sequence[int] | Tokens | range) -> Tokens:
        """Sequence numbers at positions of the run; position 0 starts the first epoch."""
        where = np.asarray(positions, dtype=np.int64)
        keys = splitmix64(self._seed + splitmix64((where // self.sequences).astype(np.uint64)))
        numbers = self._permute((where % self.sequences).astype(np.uint64), keys)
        while (beyond := numbers >= self.sequences).any():
            numbers[beyond] = self._permute(numbers[beyond], keys[beyond])
        return numbers.astype(np.int64)

    def _permute(self, numbers: NDArray[np.uint64], keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
        left, right = numbers >> self._half_bits, numbers & self._mask
        for round_number in range(FEISTEL_ROUNDS):
            mixed = splitmix64(keys + right * np.uint64(FEISTEL_ROUNDS) + np.uint64(round_number))
            left, right = right, left ^ (mixed & self._mask)
        return (left << self._half_bits) | right


class Interleave:
    """Which corpus each position belongs to: one pattern of `BLOCK` positions, repeated, with exact shares."""

    def __init__(self, seed: int, weights: Sequence[float]) -> None:
        """Interleaves corpora by weight."""
        self._quotas = quotas(weights)
        pattern = np.repeat(np.arange(len(weights)), self._quotas)
        self._pattern = pattern[SequenceOrder(seed, BLOCK)(range(BLOCK))]
        counts = np.cumsum(self._pattern == np.arange(len(weights))[:, None], axis=1)
        self._before = counts[self._pattern, np.arange(BLOCK)] - 1

    def __call__(self, positions: Tokens) -> tuple[Tokens, Tokens]:
        """Corpus at each position, and how many earlier positions it has."""
        blocks, within = np.divmod(positions, BLOCK)
        corpora = self._pattern[within]
        return corpora, blocks * self._quotas[corpora] + self._before[within]


class Mixture:
    """The order of the rows of several corpora, numbered one corpus after the other.

    Without weights, each epoch is one permutation of all rows. With weights, corpora are interleaved, and each epoch of
    a corpus is a permutation of its rows: a small corpus with a large weight is repeated more often than a large one,
    but no row comes twice before all rows of its corpus came once.
    """

    def __init__(self, seed: int, rows: Sequence[int], weights: Sequence[float] | None = None) -> None:
        """The order of corpora with `rows` rows each.

        Raises:
            ValueError: there are no rows, or the number of weights differs from that of corpora.
        """
        if weights is not None and len(weights) != len(rows):
            raise ValueError(f"{len(weights)} weights for {len(rows)} corpora")
        self._firsts = np.cumsum([0, *rows[:-1]], dtype=np.int64)
        self._interleave = None if weights is None else Interleave(seed, weights)
        groups = [sum(rows)] if weights is None else rows
        self._orders = [SequenceOrder(derived_seed(seed, n), count) for n, count in enumerate(groups)]

    def __call__(self, positions: Sequence[int] | Tokens | range) -> Tokens:
        """Row numbers at positions of the run."""
        where = np.asarray(positions, dtype=np.int64)
        if self._interleave is None:
            return self._orders[0](where)
        corpora, visits = self._interleave(where)
        numbers = np.empty(len(where), dtype=np.int64)
        for corpus in np.unique(corpora).tolist():
            here = corpora == corpus
            numbers[here] = self._firsts[corpus] + self._orders[corpus](visits[here])
        return numbers


def derived_seed(seed: int, number: int) -> int:
    """Seed for corpus or block `number`. Number 0 keeps the seed, so a weight changes nothing for a single corpus."""
    if not number:
        return seed
    both = np.asarray([seed % 2**64, number], dtype=np.uint64)
    return int(splitmix64(both[:1] + splitmix64(both[1:]))[0])


def quotas(weights: Sequence[float]) -> Tokens:
    """Positions of each corpus in a block by the largest-remainder method, at least one each."""
    exact = np.asarray(weights, dtype=np.float64) / sum(weights) * BLOCK
    shares = np.floor(exact).astype(np.int64)
    largest = np.argsort(shares - exact, kind="stable")
    shares[largest[: BLOCK - int(shares.sum())]] += 1
    while (empty := shares == 0).any():
        shares[np.argmax(empty)] = 1
        shares[np.argmax(shares)] -= 1
    return shares


def splitmix64(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """One step of SplitMix64."""
    with np.errstate(over="ignore"):
        return mix64(numbers + np.uint64(GOLDEN))
