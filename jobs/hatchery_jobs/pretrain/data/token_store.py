"""The token store: memory-mapped shards read by the number of a row, a document or a pair.

Nothing is read before it is used, and nothing is kept in memory but a few numbers for each shard. Rows, documents and
pairs of a split are numbered through all corpora, one after the other.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, Final, get_args

import numpy as np
from numpy.typing import NDArray

from hatchery_jobs.pretrain.data.index import INDEX, CorpusIndex, Split, TokenIndex
from hatchery_jobs.pretrain.data.packing import ITEM
from hatchery_jobs.pretrain.data.types import Rows, Tokens


class TokenStore:
    """The rows, documents and pairs of a folder of tokens."""

    def __init__(self, folder: Path, sequence_tokens: int) -> None:
        """Opens the folder for rows of `sequence_tokens` inputs and as many targets."""
        self.index: Final = TokenIndex.model_validate_json((folder / INDEX).read_bytes())
        self._length = sequence_tokens
        self._parts = {
            split: [_Part(folder, self.index, corpus, split, sequence_tokens) for corpus in self.index.corpora]
            for split in get_args(Split)
        }
        self._row_ends = {s: np.cumsum([part.rows for part in parts]) for s, parts in self._parts.items()}
        self._document_ends = {s: np.cumsum([part.documents for part in parts]) for s, parts in self._parts.items()}

    def counts(self, split: Split) -> list[int]:
        """Rows of each corpus; in a store of pairs, its pairs."""
        if self.index.packing == "pairs":
            return [part.documents // 2 for part in self._parts[split]]
        return [part.rows for part in self._parts[split]]

    def sequences(self, split: Split) -> int:
        """Rows of all corpora; in a store of pairs, all pairs."""
        return sum(self.counts(split))

    def rows(self, split: Split, numbers: Sequence[int] | Tokens, *, positions: bool = False) -> Rows:
        """Rows by number.

        Args:
            split: the split.
            numbers: B numbers below `sequences`.
            positions: whether documents are told apart.
        """
        where = np.asarray(numbers, dtype=np.int64)
        if self.index.packing == "bestFit":
            return self._packed(split, where, positions=positions)
        tokens = np.empty((len(where), self._length + 1), dtype=np.int64)
        for row, (part, number) in zip(tokens, self._find(self._row_ends[split], split, where), strict=True):
            part.window(number * self._length, row)
        return Rows(tokens, positions=stream_positions(tokens, self.index.eos_id) if positions else None)

    def documents(self, split: Split, numbers: Sequence[int] | Tokens) -> list[Tokens]:
        """Documents by number, each with its end-of-text token; in a store of pairs, pair i is 2i and 2i + 1."""
        where = np.asarray(numbers, dtype=np.int64)
        return [part.document(number) for part, number in self._find(self._document_ends[split], split, where)]

    def pairs(self, split: Split, numbers: Sequence[int] | Tokens) -> list[tuple[Tokens, Tokens]]:
        """Comment and code of pairs by number, without end-of-text tokens."""
        both = self.documents(split, (np.asarray(numbers, dtype=np.int64)[:, None] * 2 + np.arange(2)).ravel())
        return [(comment[:-1], code[:-1]) for comment, code in zip(both[::2], both[1::2], strict=True)]

    def _find(self, ends: Tokens, split: Split, numbers: Tokens) -> Iterator[tuple["_Part", int]]:
        corpora = np.searchsorted(ends, numbers, side="right")
        firsts = np.concatenate([[0], ends])
        for corpus, number in zip(corpora.tolist(), (numbers - firsts[corpora]).tolist(), strict=True):
            yield self._parts[split][corpus], number

    def _packed(self, split: Split, numbers: Tokens, *, positions: bool) -> Rows:
        shape = (len(numbers), self._length + 1)
        tokens = np.full(shape, self.index.eos_id, dtype=np.int64)
        learnt, places = np.zeros(shape, dtype=np.bool_), np.zeros(shape, dtype=np.int64)
        for row, (part, number) in enumerate(self._find(self._row_ends[split], split, numbers)):
            part.packed(number, tokens[row], learnt[row], places[row])
        return Rows(tokens, learnt[:, 1:], places[:, :-1] if positions else None)


class _Part:
    """One split of one corpus."""

    def __init__(self, folder: Path, index: TokenIndex, corpus: CorpusIndex, split: Split, length: int) -> None:
        self._folder = folder
        self._dtype = np.dtype(index.dtype).newbyteorder("<")
        self._shards = corpus.splits[split].shards
        self._maps: dict[tuple[int, str], NDArray[Any]] = {}
        self._token_ends = list(accumulate(shard.tokens for shard in self._shards))
        self._document_ends = list(accumulate(shard.documents for shard in self._shards))
        self._row_ends = list(accumulate(shard.rows or 0 for shard in self._shards))
        self.documents = sum(shard.documents for shard in self._shards)
        # each token but the first is a target once; a shorter tail is left out
        joined = max(0, sum(shard.tokens for shard in self._shards) - 1) // length
        self.rows = joined if index.row_tokens is None else sum(shard.rows or 0 for shard in self._shards)

    def window(self, start: int, into: Tokens) -> None:
        """The tokens from `start` of the joined stream on, which may cross shards."""
        done = 0
        while done < len(into):
            shard, offset = _locate(self._token_ends, start + done)
            some = self._map(shard, "tokens", self._dtype)[offset : offset + len(into) - done]
            into[done : done + len(some)] = some
            done += len(some)

    def document(self, number: int) -> Tokens:
        """A document."""
        shard, offset = _locate(self._document_ends, number)
        begin, end = self._map(shard, "documents", np.dtype("<u8"))[offset : offset + 2].tolist()
        return self._map(shard, "tokens", self._dtype)[begin:end].astype(np.int64)

    def packed(self, number: int, tokens: Tokens, learnt: NDArray[np.bool_], places: Tokens) -> None:
        """Fills a row of T + 1 tokens, which targets count, and the position of each token in its document."""
        shard, offset = _locate(self._row_ends, number)
        first, end = self._map(shard, "rows", np.dtype("<u8"))[offset : offset + 2].tolist()
        source = self._map(shard, "tokens", self._dtype)
        at = 1
        for start, length, seen in self._map(shard, "items", ITEM)[first:end].tolist():
            at = 0 if length == len(tokens) else at  # the token before a full row is its own
            tokens[at : at + length] = source[start : start + length]
            learnt[at + seen : at + length] = True
            places[at : at + length] = np.arange(length)
            at += length
        places[at:] = np.arange(len(tokens) - at)

    def _map(self, shard: int, kind: str, dtype: np.dtype[Any]) -> NDArray[Any]:
        if (shard, kind) not in self._maps:
            path = self._folder / f"{self._shards[shard].name}.{kind}"
            # a plain array over the same pages: slices of the other kind cost more than what they read
            self._maps[shard, kind] = np.memmap(path, dtype=dtype, mode="r").view(np.ndarray)
        return self._maps[shard, kind]


def stream_positions(tokens: Tokens, eos_id: int) -> Tokens:
    """Position of each input (B, T) of a joined stream (B, T + 1) in its document, or in what the row shows of it."""
    inputs = tokens[:, :-1]
    columns = np.arange(inputs.shape[1])
    begins = np.zeros(inputs.shape, dtype=np.int64)
    begins[:, 1:] = np.where(inputs[:, :-1] == eos_id, columns[1:], 0)
    return columns - np.maximum.accumulate(begins, axis=1)


def _locate(ends: list[int], number: int) -> tuple[int, int]:
    """Which of several shards has a number, and the number within it."""
    shard = bisect_right(ends, number)
    return shard, number - (ends[shard - 1] if shard else 0)
