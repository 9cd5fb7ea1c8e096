"""Token shards: fixed-size integers in memory-mapped files, and an index that says what is in them.

The training order is a pure function of (seed, position): position p of the run is sequence
`order(seed, p)`, whoever reads it and however often the run was interrupted.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from hatchery_api.base import Record

INDEX: Final = "index.json"
"""The index of a folder of token shards."""

UINT16_VOCABULARY: Final = 65_536
"""Largest vocabulary whose ids fit 16 bits."""

FEISTEL_ROUNDS: Final = 6
"""Rounds of the permutation; four mix well, two more cost nothing beside a training step."""

Split = Literal["train", "validation"]
"""A split of the corpus."""

Tokens = NDArray[np.int64]
"""Token ids, or numbers of sequences."""


class Shard(Record):
    """One file of tokens."""

    file: str
    """Name in the folder."""
    tokens: int
    """Tokens in it."""


class SplitIndex(Record):
    """One split."""

    documents: int
    """Documents, each followed by the end-of-text token."""
    tokens: int
    """Tokens, end-of-text tokens included."""
    text_bytes: int
    """Bytes of the text as UTF-8."""
    shards: list[Shard]
    """Files in their order."""


class CorpusSource(Record):
    """A corpus the tokens came from."""

    name: str
    """Name of the CorpusBuild."""
    digest: str
    """Digest of its artifact."""
    documents: int
    """Documents of its train split."""


class TokenIndex(Record):
    """What is in a folder of token shards."""

    dtype: Annotated[str, Field(pattern="^uint(16|32)$")]
    """Little-endian integer type of the shards."""
    vocab_size: int
    """Every id is below it."""
    eos_id: int
    """Id of the end-of-text token."""
    splits: dict[Split, SplitIndex]
    """The splits."""
    corpora: list[CorpusSource] = []
    """Where the text came from."""


def token_type(vocab_size: int) -> str:
    """Name of the smallest integer type for a vocabulary."""
    return "uint16" if vocab_size <= UINT16_VOCABULARY else "uint32"


class TokenStore:
    """Sequences of a folder of token shards; nothing is read before it is used."""

    def __init__(self, folder: Path, sequence_tokens: int) -> None:
        """Opens the folder for sequences of `sequence_tokens` inputs and as many targets."""
        self.index: Final = TokenIndex.model_validate_json((folder / INDEX).read_bytes())
        self._folder = folder
        self._length = sequence_tokens

    def sequences(self, split: Split) -> int:
        """Whole sequences in a split: each token but the first is a target once, a shorter tail is left out."""
        return max(0, self.index.splits[split].tokens - 1) // self._length

    def rows(self, split: Split, sequences: Sequence[int] | Tokens) -> Tokens:
        """Sequences by number, (rows, tokens + 1): inputs are all columns but the last, targets all but the first."""
        return np.stack([self._read(split, int(n) * self._length, self._length + 1) for n in sequences])

    def _read(self, split: Split, start: int, count: int) -> Tokens:
        shards, ends = self._shards[split]
        parts: list[Tokens] = []
        while count > 0:
            number = int(np.searchsorted(ends, start, side="right"))
            offset = start - (int(ends[number - 1]) if number else 0)
            part = shards[number][offset : offset + count]
            parts.append(part.astype(np.int64))
            start, count = start + len(part), count - len(part)
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    @cached_property
    def _shards(self) -> Mapping[Split, tuple[list[NDArray[np.uint32]], Tokens]]:
        dtype = np.dtype(self.index.dtype).newbyteorder("<")
        return {
            split: (
                [np.memmap(self._folder / s.file, dtype=dtype, mode="r") for s in index.shards],
                np.cumsum([s.tokens for s in index.shards], dtype=np.int64),
            )
            for split, index in self.index.splits.items()
        }


class SequenceOrder:
    """A permutation of all sequences for every epoch, without memory: a keyed Feistel network on the sequence's number.

    Numbers beyond `sequences` are put through the network again until one is below (cycle walking), which keeps it a
    permutation. Any position is found in the same time, so resuming at step 10^6 costs as much as at step 10.
    """

    def __init__(self, seed: int, sequences: int) -> None:
        """An order of `sequences` sequences."""
        if sequences < 1:
            raise ValueError("an order needs at least one sequence")
        self.sequences: Final = sequences
        self._seed = np.uint64(seed)
        self._half_bits = np.uint64(max(1, ((sequences - 1).bit_length() + 1) // 2))
        self._mask = np.uint64((1 << int(self._half_bits)) - 1)

    def __call__(self, positions: Sequence[int] | Tokens | range) -> Tokens:
        """Numbers of the sequences at positions of the run; position 0 begins the first epoch."""
        where = np.asarray(positions, dtype=np.int64)
        keys = _mix(self._seed + _mix((where // self.sequences).astype(np.uint64)))
        numbers = self._permute((where % self.sequences).astype(np.uint64), keys)
        while (beyond := numbers >= self.sequences).any():
            numbers[beyond] = self._permute(numbers[beyond], keys[beyond])
        return numbers.astype(np.int64)

    def _permute(self, numbers: NDArray[np.uint64], keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
        left, right = numbers >> self._half_bits, numbers & self._mask
        for round_number in range(FEISTEL_ROUNDS):
            mixed = _mix(keys + right * np.uint64(FEISTEL_ROUNDS) + np.uint64(round_number))
            left, right = right, left ^ (mixed & self._mask)
        return (left << self._half_bits) | right


def _mix(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finalizer of SplitMix64: a bijection of 64 bits in which every input bit moves every output bit."""
    with np.errstate(over="ignore"):
        z = numbers + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))
