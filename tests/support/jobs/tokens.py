"""Token stores made of given documents."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from hatchery_jobs.pretrain.data.token_store import (
    INDEX,
    CorpusIndex,
    Packing,
    ShardWriter,
    Split,
    TokenIndex,
    TokenStore,
    summed,
    tokens_fingerprint,
)

EOS = 0

Documents = Sequence[Sequence[int]]
"""Token ids without end-of-text tokens."""


def write_store(
    folder: Path,
    corpora: Sequence[Mapping[Split, Sequence[Documents]]],
    *,
    length: int = 8,
    packing: Packing = "concat",
    vocab_size: int = 60_000,
) -> TokenStore:
    """A store of corpora, each with documents by split and shard."""
    rows = length if packing == "bestFit" else None
    indices = []
    for number, corpus in enumerate(corpora):
        splits = {}
        for split in ("train", "validation"):
            shards = []
            for part, documents in enumerate(corpus.get(split, ())):
                writer = ShardWriter(folder, f"{number}-{split}-{part:05d}", vocab_size, rows)
                for document in documents:
                    writer.write(np.asarray([*document, EOS], dtype=np.uint32), np.asarray([len(document) + 1]), 1)
                shards.append(writer.close())
            splits[split] = summed(shards, rows)
        indices.append(CorpusIndex(name=f"c{number}", digest="d", splits=splits))
    everything = [shard for c in indices for s in c.splits.values() for shard in s.shards]
    index = TokenIndex(
        dtype="uint16" if vocab_size <= 2**16 else "uint32",
        vocab_size=vocab_size,
        eos_id=EOS,
        packing=packing,
        row_tokens=rows,
        fingerprint=tokens_fingerprint(everything),
        corpora=indices,
    )
    (folder / INDEX).write_text(index.model_dump_json(by_alias=True))
    return TokenStore(folder, length)
