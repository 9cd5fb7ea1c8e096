"""Writes the corpus as numbered parquet files, whose bytes depend only on the documents."""

from collections.abc import Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from hatchery_api.resources.corpus import SplitSize
from hatchery_jobs.corpus.spool import Spool
from hatchery_jobs.corpus.types import I64, U64, OnProgress, Positions
from hatchery_jobs.readers import hex_id

SCHEMA: Final = pa.schema(
    [
        ("text", pa.string()),
        ("id", pa.string()),
        ("source", pa.string()),
        ("path", pa.string()),
        ("row", pa.int64()),
        ("bytes", pa.int64()),
        ("cluster", pa.string()),
    ]
)
"""Columns of the corpus."""

_ZSTD_LEVEL: Final = 3
"""Pinned, so that artifacts do not change with the library's default."""


@dataclass(frozen=True)
class ShardPlan:
    """Assigns the documents of one split to shards."""

    split: str
    positions: Positions
    """The split's documents, in reading order."""
    shards: Positions
    """Index of the shard of each, ascending."""
    count: int
    """Number of shards."""

    @classmethod
    def make(cls, split: str, positions: Positions, sizes: I64, shard_bytes: int) -> "ShardPlan":
        """Shards of about `shard_bytes` of text; documents stay whole, so a shard may exceed it by one document."""
        starts = np.cumsum(sizes[positions]) - sizes[positions]
        numbers = np.unique(starts // shard_bytes, return_inverse=True)[1]
        return cls(split, positions, numbers, int(numbers.max(initial=-1)) + 1)

    def size(self, spool: Spool) -> SplitSize:
        """Size of the split."""
        text_bytes = int(spool.sizes[self.positions].sum())
        return SplitSize(rows=len(self.positions), bytes=text_bytes, shards=self.count)

    def path(self, folder: Path, shard: int) -> Path:
        """File of a shard."""
        return folder / "data" / f"{self.split}-{shard:05d}-of-{self.count:05d}.parquet"


def write_shards(
    folder: Path, spool: Spool, plans: list[ShardPlan], identities: Mapping[str, U64], on_progress: OnProgress
) -> dict[str, SplitSize]:
    """Writes all shards of all splits in one pass; returns the sizes of the splits that are not empty.

    Args:
        folder: the artifact's folder.
        spool: the documents.
        plans: one for each split.
        identities: for the columns `id` and `cluster`, the number of every document of the spool.
        on_progress: called after every batch.
    """
    (folder / "data").mkdir(exist_ok=True)
    with ExitStack() as stack:
        writers = [stack.enter_context(closing(_SplitWriter(folder, plan, identities))) for plan in plans]
        for first, batch in spool.batches():
            for writer in writers:
                writer.write(first, batch)
            on_progress(first + len(batch), len(spool), "documents written")
    return {plan.split: plan.size(spool) for plan in plans if plan.count}


class _SplitWriter:
    """Writes the shards of one split, one after the other."""

    def __init__(self, folder: Path, plan: ShardPlan, identities: Mapping[str, U64]) -> None:
        self._folder = folder
        self._plan = plan
        self._identities = identities
        self._shard = -1
        self._file: pq.ParquetWriter | None = None

    def write(self, first: int, batch: Any) -> None:
        """Writes the batch's documents of the split; those of one shard form a row group."""
        plan = self._plan
        start, end = np.searchsorted(plan.positions, [first, first + len(batch)])
        positions, shards = plan.positions[start:end], plan.shards[start:end]
        for shard in np.unique(shards).tolist():
            chosen = positions[shards == shard]
            self._open(shard).write_batch(_rows(batch, chosen - first, chosen, self._identities))

    def close(self) -> None:
        """Completes the open shard."""
        if self._file is not None:
            self._file.close()

    def _open(self, shard: int) -> pq.ParquetWriter:
        if shard != self._shard:
            self.close()
            self._shard, self._file = shard, _writer(self._plan.path(self._folder, shard))
        return self._file


def _rows(batch: Any, rows: Positions, positions: Positions, identities: Mapping[str, U64]) -> Any:
    part = batch.take(pa.array(rows))
    columns = {name: part.column(name) for name in ("source", "path", "row")}
    columns["text"] = part.column("text").cast(pa.large_string()).cast(pa.string())
    columns["bytes"] = pc.binary_length(part.column("text"))
    for name, numbers in identities.items():
        columns[name] = pa.array(map(hex_id, numbers[positions].tolist()), pa.string())
    return pa.record_batch([columns[name] for name in SCHEMA.names], schema=SCHEMA)


def _writer(path: Path) -> pq.ParquetWriter:
    return pq.ParquetWriter(
        path,
        SCHEMA,
        compression="zstd",
        compression_level=_ZSTD_LEVEL,
        use_dictionary=["source", "path"],
        # content-defined pages let the Hub store the unchanged part of a changed shard once
        use_content_defined_chunking=True,
        write_page_index=True,
    )
