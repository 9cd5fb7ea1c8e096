"""Writes a shard: tokens as they come, then where documents begin and how they are packed."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from hatchery_jobs.pretrain.data.index import Shard, token_type
from hatchery_jobs.pretrain.data.packing import pack
from hatchery_jobs.runtime import sha256_file


class ShardWriter:
    """Writes one shard, which is complete when `close` says what is in it; memory grows by eight bytes a document."""

    def __init__(self, folder: Path, name: str, vocab_size: int, row_tokens: int | None) -> None:
        """A shard in a folder, packed into rows of `row_tokens` unless that is None."""
        self._folder = folder
        self._name = name
        self._dtype = np.dtype(token_type(vocab_size)).newbyteorder("<")
        self._row_tokens = row_tokens
        self._lengths: list[NDArray[np.int64]] = []
        self._text_bytes = 0
        self._stream = (folder / f"{name}.tokens").open("wb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def write(self, tokens: NDArray[np.uint32], lengths: NDArray[np.int64], text_bytes: int) -> None:
        """Appends documents, which lie in `tokens` one after the other, each with its end-of-text token."""
        tokens.astype(self._dtype).tofile(self._stream)
        self._lengths.append(lengths)
        self._text_bytes += text_bytes

    def close(self) -> Shard:
        """Writes what is known at the end."""
        self._stream.close()
        lengths = np.concatenate([np.zeros(1, dtype=np.int64), *self._lengths])
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
