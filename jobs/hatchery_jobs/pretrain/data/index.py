"""What is in a folder of tokens, and who says so: `index.json`.

Every shard is made of one part of a corpus and is two or four files of one name: `.tokens` (unsigned little-endian
integers), `.documents` (uint64: where each document begins, and where the last one ends) and, packed by best fit,
`.items` and `.rows` (see `packing`).
"""

import hashlib
from typing import Annotated, Final, Literal

from pydantic import Field

from hatchery_api.base import Record

INDEX: Final = "index.json"
"""The index of a folder of token shards."""

UINT16_VOCABULARY: Final = 65_536
"""Largest vocabulary whose ids fit 16 bits."""

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
    """Documents, each ended by the end-of-text token."""
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
    """Documents, each ended by the end-of-text token."""
    tokens: int
    """Tokens, end-of-text tokens included."""
    text_bytes: int
    """Bytes of the text as UTF-8."""
    rows: int | None = None
    """Packed rows; None: not packed."""
    padding: float | None = None
    """Share of the packed rows that holds nothing to learn; None: not packed."""
    shards: list[Shard] = []
    """Its shards in their order."""


class CorpusIndex(Record):
    """A corpus and its tokens."""

    name: str
    """What the spec calls it."""
    digest: str
    """Digest of its artifact, or fingerprint of its files or dataset."""
    revision: str | None = None
    """Commit of a dataset."""
    splits: dict[Split, SplitIndex]
    """Its splits."""

    @property
    def documents(self) -> int:
        """Documents that are learnt."""
        return self.splits["train"].documents


class TokenIndex(Record):
    """What is in a folder of tokens."""

    dtype: Annotated[str, Field(pattern="^uint(16|32)$")]
    """Little-endian integer type of the tokens."""
    vocab_size: int
    """Every id is below it."""
    eos_id: int
    """Id of the end-of-text token."""
    packing: Packing = "concat"
    """How the tokens are read."""
    row_tokens: int | None = None
    """Tokens in a packed row; None: rows are cut to any length."""
    streamed: bool = False
    """Whether the train splits are read while training; there are no tokens of them here."""
    fingerprint: str = ""
    """sha256 over the digests of all shards: equal for equal tokens in equal order."""
    corpora: list[CorpusIndex]
    """The corpora in the order of the spec."""

    @property
    def splits(self) -> dict[Split, SplitIndex]:
        """The splits of all corpora together."""
        names: tuple[Split, ...] = ("train", "validation")
        return {s: summed([x for c in self.corpora for x in c.splits[s].shards], self.row_tokens) for s in names}


def summed(shards: list[Shard], row_tokens: int | None) -> SplitIndex:
    """Shards as one split."""
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


def fingerprint(shards: list[Shard]) -> str:
    """sha256 over the digests of shards in their order."""
    return hashlib.sha256("".join(shard.digest for shard in shards).encode()).hexdigest()


def token_type(vocab_size: int) -> str:
    """Name of the smallest integer type for a vocabulary."""
    return "uint16" if vocab_size <= UINT16_VOCABULARY else "uint32"
