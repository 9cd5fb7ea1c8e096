"""The token store: the files of encoded corpora, how they are written, and how rows are read from them.

A store is a folder with `index.json` and shards. A shard holds the tokens of one part of one split of a corpus, in two
or four files of one name: `.tokens` (unsigned little-endian integers), `.documents` (uint64: where each document
begins, and where the last one ends) and, packed by best fit, `.items` and `.rows` (see `packing`).

Shards are memory-mapped: nothing is read before it is used, and only a few numbers per shard stay in memory. Rows,
documents and pairs of a split are numbered through all corpora in order.
"""

import hashlib
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self, get_args

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from hatchery_api.base import Record
from hatchery_jobs.pretrain.data.packing import ITEM, pack
from hatchery_jobs.pretrain.data.types import Rows, Tokens
from hatchery_jobs.runtime import sha256_file

INDEX: Final = "index.json"
"""File of the index in a token store."""

UINT16_VOCABULARY: Final = 65_536
"""Largest vocabulary whose ids fit into 16 bits."""

Split = Literal["train", "validation"]
"""A split of the corpus."""

Packing = Literal["concat", "bestFit", "pairs"]
"""How tokens are read: as a joined stream, in packed rows, or as pairs of documents."""

PLAIN_FILES: Final = ("tokens", "documents")
"""Extensions of the files of a shard."""

PACKED_FILES: Final = (*PLAIN_FILES, "items", "rows")
"""Extensions of the files of a packed shard."""


class Shard(Record):
    """The tokens of one part of one split of a corpus."""

    name: str
    """Name of its files in the folder, without extension."""
    documents: int
    """Documents, each followed by the end-of-text token."""
    tokens: int
    """Tokens, end-of-text tokens included."""
    text_bytes: int
    """Bytes of the text as UTF-8."""
    rows: int | None = None
    """Packed rows; None: not packed."""
    digest: str
    """sha256 over the sha256 of its files."""

    @property
    def files(self) -> list[str]:
        """Names of its files."""
        return [f"{self.name}.{kind}" for kind in (PLAIN_FILES if self.rows is None else PACKED_FILES)]


class SplitIndex(Record):
    """One split of one corpus, or of all."""

    documents: int
    """Documents, each followed by the end-of-text token."""
    tokens: int
    """Tokens, end-of-text tokens included."""
    text_bytes: int
    """Bytes of the text as UTF-8."""
    rows: int | None = None
    """Packed rows; None: not packed."""
    padding: float | None = None
    """Share of the packed rows without targets; None: not packed."""
    shards: list[Shard] = []
    """Its shards in their order."""


class CorpusIndex(Record):
    """A corpus and its tokens."""

    name: str
    """Name in the spec."""
    digest: str
    """Digest of its artifact, or fingerprint of its files or dataset."""
    revision: str | None = None
    """Commit of a dataset."""
    splits: dict[Split, SplitIndex]
    """Its splits."""

    @property
    def documents(self) -> int:
        """Documents of the train split."""
        return self.splits["train"].documents


class TokenIndex(Record):
    """Content of a token store."""

    dtype: Annotated[str, Field(pattern="^uint(16|32)$")]
    """Little-endian integer type of the tokens."""
    vocab_size: int
    """Tokens of the vocabulary; every id is below it."""
    eos_id: int
    """Id of the end-of-text token."""
    packing: Packing = "concat"
    """How the tokens are read."""
    row_tokens: int | None = None
    """Tokens in a packed row; None: rows are cut to any length."""
    streamed: bool = False
    """Whether train splits are read during training; the store then lacks them."""
    fingerprint: str = ""
    """sha256 over the digests of all shards: equal for equal tokens in equal order."""
    corpora: list[CorpusIndex]
    """The corpora in the order of the spec."""

    @property
    def splits(self) -> dict[Split, SplitIndex]:
        """The splits, each over all corpora."""
        names: tuple[Split, ...] = ("train", "validation")
        return {s: summed([x for c in self.corpora for x in c.splits[s].shards], self.row_tokens) for s in names}


def summed(shards: list[Shard], row_tokens: int | None) -> SplitIndex:
    """One split made of shards."""
    tokens = sum(shard.tokens for shard in shards)
    rows = None if row_tokens is None else sum(shard.rows or 0 for shard in shards)
    return SplitIndex(
        documents=sum(shard.documents for shard in shards),
        tokens=tokens,
        text_bytes=sum(shard.text_bytes for shard in shards),
        rows=rows,
        padding=round(1 - tokens / (rows * row_tokens), 6) if rows and row_tokens else None,
        shards=shards,
    )


def tokens_fingerprint(shards: list[Shard]) -> str:
    """sha256 over the digests of shards in their order."""
    return hashlib.sha256("".join(shard.digest for shard in shards).encode()).hexdigest()


def token_type(vocab_size: int) -> str:
    """Name of the smallest integer type that holds a vocabulary's ids."""
    return "uint16" if vocab_size <= UINT16_VOCABULARY else "uint32"


class ShardWriter:
    """Writes one shard, which `close` completes. Memory grows by eight bytes per document."""

    def __init__(self, folder: Path, name: str, vocab_size: int, row_tokens: int | None) -> None:
        """Starts a shard, packed into rows of `row_tokens` unless that is None."""
        self._folder = folder
        self._name = name
        self._dtype = np.dtype(token_type(vocab_size)).newbyteorder("<")
        self._row_tokens = row_tokens
        self.sequence_tokenss: list[NDArray[np.int64]] = []
        self._text_bytes = 0
        self._stream = (folder / f"{name}.tokens").open("wb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def write(self, tokens: NDArray[np.uint32], lengths: NDArray[np.int64], text_bytes: int) -> None:
        """Appends documents, concatenated in `tokens`, each with its end-of-text token."""
        tokens.astype(self._dtype).tofile(self._stream)
        self.sequence_tokenss.append(lengths)
        self._text_bytes += text_bytes

    def close(self) -> Shard:
        """Writes the document and row offsets, and returns the shard's index entry."""
        self._stream.close()
        lengths = np.concatenate([np.zeros(1, dtype=np.int64), *self.sequence_tokenss])
        np.cumsum(lengths).astype("<u8").tofile(self._folder / f"{self._name}.documents")
        rows = None
        if self._row_tokens is not None:
            items, row_firsts = pack(lengths[1:], self._row_tokens)
            items.tofile(self._folder / f"{self._name}.items")
            row_firsts.astype("<u8").tofile(self._folder / f"{self._name}.rows")
            rows = len(row_firsts) - 1
        shard = Shard(
            name=self._name,
            documents=len(lengths) - 1,
            tokens=int(lengths.sum()),
            text_bytes=self._text_bytes,
            rows=rows,
            digest="",
        )
        return shard.model_copy(update={"digest": files_digest(self._folder, shard.files)})


def files_digest(folder: Path, names: Sequence[str]) -> str:
    """sha256 over the sha256 of files in their order."""
    return hashlib.sha256("".join(sha256_file(folder / name) for name in names).encode()).hexdigest()


class TokenStore:
    """Reads rows, documents and pairs of a token store."""

    def __init__(self, folder: Path, sequence_tokens: int) -> None:
        """Opens a folder to read rows of `sequence_tokens` inputs and as many targets."""
        self.index: Final = TokenIndex.model_validate_json((folder / INDEX).read_bytes())
        self.sequence_tokens: Final = sequence_tokens
        self._parts = {
            split: [_CorpusSplit(folder, self.index, corpus, split, sequence_tokens) for corpus in self.index.corpora]
            for split in get_args(Split)
        }
        self._row_ends = {s: np.cumsum([part.rows for part in parts]) for s, parts in self._parts.items()}
        self._document_ends = {s: np.cumsum([part.documents for part in parts]) for s, parts in self._parts.items()}

    def counts(self, split: Split) -> list[int]:
        """Rows per corpus; pairs in a store of pairs."""
        if self.index.packing == "pairs":
            return [part.documents // 2 for part in self._parts[split]]
        return [part.rows for part in self._parts[split]]

    def sequences(self, split: Split) -> int:
        """Rows of all corpora; pairs in a store of pairs."""
        return sum(self.counts(split))

    @property
    def tokens_per_byte(self) -> float | None:
        """Tokens per byte of the validation split's text; None without text."""
        split = self.index.splits["validation"]
        return split.tokens / split.text_bytes if split.text_bytes else None

    def rows(self, split: Split, numbers: Sequence[int] | Tokens, *, positions: bool = False) -> Rows:
        """Rows by number.

        Args:
            split: the split.
            numbers: B numbers below `sequences`.
            positions: whether to fill in the position of each token in its document.
        """
        where = np.asarray(numbers, dtype=np.int64)
        if self.index.packing == "bestFit":
            return self._packed(split, where, positions=positions)
        tokens = np.empty((len(where), self.sequence_tokens + 1), dtype=np.int64)
        for row, (part, number) in zip(tokens, self._find(self._row_ends[split], split, where), strict=True):
            part.window(number * self.sequence_tokens, row)
        return Rows(tokens, positions=stream_positions(tokens, self.index.eos_id) if positions else None)

    def documents(self, split: Split, numbers: Sequence[int] | Tokens) -> list[Tokens]:
        """Documents by number, each with its end-of-text token. Pair i is documents 2i and 2i + 1."""
        where = np.asarray(numbers, dtype=np.int64)
        return [part.document(number) for part, number in self._find(self._document_ends[split], split, where)]

    def pairs(self, split: Split, numbers: Sequence[int] | Tokens) -> list[tuple[Tokens, Tokens]]:
        """Comment and code of pairs by number, without end-of-text tokens."""
        both = self.documents(split, (np.asarray(numbers, dtype=np.int64)[:, None] * 2 + np.arange(2)).ravel())
        return [(comment[:-1], code[:-1]) for comment, code in zip(both[::2], both[1::2], strict=True)]

    def _find(self, ends: Tokens, split: Split, numbers: Tokens) -> Iterator[tuple["_CorpusSplit", int]]:
        corpora = np.searchsorted(ends, numbers, side="right")
        firsts = np.concatenate([[0], ends])
        for corpus, number in zip(corpora.tolist(), (numbers - firsts[corpora]).tolist(), strict=True):
            yield self._parts[split][corpus], number

    def _packed(self, split: Split, numbers: Tokens, *, positions: bool) -> Rows:
        shape = (len(numbers), self.sequence_tokens + 1)
        tokens = np.full(shape, self.index.eos_id, dtype=np.int64)
        is_target, places = np.zeros(shape, dtype=np.bool_), np.zeros(shape, dtype=np.int64)
        for row, (part, number) in enumerate(self._find(self._row_ends[split], split, numbers)):
            part.packed(number, tokens[row], is_target[row], places[row])
        return Rows(tokens, is_target[:, 1:], places[:, :-1] if positions else None)


class _CorpusSplit:
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
        # each token but the first is a target once; a tail shorter than a row is dropped
        joined = max(0, sum(shard.tokens for shard in self._shards) - 1) // length
        self.rows = joined if index.row_tokens is None else sum(shard.rows or 0 for shard in self._shards)

    def window(self, start: int, into: Tokens) -> None:
        """Fills `into` from the joined stream at `start`; the window may cross shards."""
        done = 0
        while done < len(into):
            shard, offset = _locate(self._token_ends, start + done)
            tokens = self._map(shard, "tokens", self._dtype)[offset : offset + len(into) - done]
            into[done : done + len(tokens)] = tokens
            done += len(tokens)

    def document(self, number: int) -> Tokens:
        """A document."""
        shard, offset = _locate(self._document_ends, number)
        begin, end = self._map(shard, "documents", np.dtype("<u8"))[offset : offset + 2].tolist()
        return self._map(shard, "tokens", self._dtype)[begin:end].astype(np.int64)

    def packed(self, number: int, tokens: Tokens, is_target: NDArray[np.bool_], positions: Tokens) -> None:
        """Fills a row of T + 1 tokens, its targets, and the position of each token in its document."""
        shard, offset = _locate(self._row_ends, number)
        first, end = self._map(shard, "rows", np.dtype("<u8"))[offset : offset + 2].tolist()
        source = self._map(shard, "tokens", self._dtype)
        at = 1
        for start, length, context in self._map(shard, "items", ITEM)[first:end].tolist():
            at = 0 if length == len(tokens) else at  # a full row begins with its own preceding token
            tokens[at : at + length] = source[start : start + length]
            is_target[at + context : at + length] = True
            positions[at : at + length] = np.arange(length)
            at += length
        positions[at:] = np.arange(len(tokens) - at)

    def _map(self, shard: int, kind: str, dtype: np.dtype[Any]) -> NDArray[Any]:
        if (shard, kind) not in self._maps:
            path = self._folder / f"{self._shards[shard].name}.{kind}"
            # a plain array over the same pages: slicing a memmap costs more than reading the slice
            self._maps[shard, kind] = np.memmap(path, dtype=dtype, mode="r").view(np.ndarray)
        return self._maps[shard, kind]


def stream_positions(tokens: Tokens, eos_id: int) -> Tokens:
    """Positions (B, T) of a joined stream's tokens (B, T + 1) in their documents, as far as the row shows them."""
    inputs = tokens[:, :-1]
    columns = np.arange(inputs.shape[1])
    begins = np.zeros(inputs.shape, dtype=np.int64)
    begins[:, 1:] = np.where(inputs[:, :-1] == eos_id, columns[1:], 0)
    return columns - np.maximum.accumulate(begins, axis=1)


def _locate(ends: list[int], number: int) -> tuple[int, int]:
    """The shard that holds a number, and the number within that shard."""
    shard = bisect_right(ends, number)
    return shard, number - (ends[shard - 1] if shard else 0)
