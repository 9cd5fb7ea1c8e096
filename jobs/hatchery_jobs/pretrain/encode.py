"""Stage `encode`: corpora and a tokenizer become memory-mappable token shards and an index."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from hatchery_api.conditions import Reason
from hatchery_api.pretrain import PretrainRunSpec
from hatchery_api.pretrain_result import PretrainResult
from hatchery_jobs.artifacts import storage_errors, write_atomically
from hatchery_jobs.context import Context, Outcome
from hatchery_jobs.errors import DataError, Interrupted
from hatchery_jobs.pretrain.data import INDEX, CorpusSource, Shard, Split, SplitIndex, TokenIndex, token_type
from hatchery_jobs.pretrain.shape import resolve_shape
from hatchery_jobs.pretrain.vocabulary import Vocabulary, load_vocabulary

CODE_VERSION: Final = "1"
"""Raised whenever equal inputs would give other shards."""

BATCH_DOCUMENTS: Final = 512
"""Documents encoded at once: enough for all cores, little enough to stay in memory."""

SHARD_TOKENS: Final = 1 << 27
"""Tokens in a shard: 256 MiB at 16 bits."""


@dataclass
class ShardWriter:
    """Writes one split as shards of equal size."""

    folder: Path
    split: Split
    dtype: np.dtype[np.unsignedinteger]
    shard_tokens: int = SHARD_TOKENS
    shards: list[Shard] = field(default_factory=list)

    def write(self, tokens: np.ndarray) -> None:
        """Appends tokens, in as many shards as they need."""
        while len(tokens):
            if not self.shards or self.shards[-1].tokens == self.shard_tokens:
                self.shards.append(Shard(file=f"{self.split}-{len(self.shards):05d}.bin", tokens=0))
            shard = self.shards[-1]
            part = tokens[: self.shard_tokens - shard.tokens]
            with (self.folder / shard.file).open("ab" if shard.tokens else "wb") as stream:
                part.astype(self.dtype).tofile(stream)
            self.shards[-1] = shard.model_copy(update={"tokens": shard.tokens + len(part)})
            tokens = tokens[len(part) :]


@dataclass(frozen=True)
class Corpus:
    """An input corpus."""

    name: str
    digest: str
    folder: Path

    def files(self, split: Split) -> list[Path]:
        """The parquet files of a split, in order."""
        return sorted((self.folder / "data").glob(f"{split}-*.parquet"))

    def documents(self, split: Split) -> int:
        """Documents of a split, from the files' footers."""
        return sum(pq.ParquetFile(path).metadata.num_rows for path in self.files(split))


def run(context: Context[PretrainRunSpec]) -> Outcome:
    """Encodes all corpora in the order of the spec, each document followed by the end-of-text token.

    Raises:
        DataError: a split is shorter than one sequence, or a file cannot be read.
        SpecError: the model of the spec cannot be built; better said now than after hours of encoding.
        Interrupted: the pod was asked to end.
    """
    spec = context.job.spec
    draft = context.draft(CODE_VERSION)
    vocabulary = load_vocabulary(context.input("tokenizer"))
    shape = resolve_shape(spec.model, spec.data.sequence_length, vocabulary.size)
    result = PretrainResult(
        parameters=shape.parameters,
        tokens_per_step=spec.batch.sequences * spec.data.sequence_length,
        steps=spec.schedule.steps,
    )
    if (found := draft.existing()) is not None:
        return Outcome(*found, result, cached=True)
    with storage_errors(str(draft.folder)):
        index = _encode(context, vocabulary, draft.folder)
        _check_length(index, spec.data.sequence_length)
        write_atomically(draft.folder / INDEX, (index.model_dump_json(by_alias=True, indent=1) + "\n").encode())
    return Outcome(*draft.commit(), result)


def _corpora(context: Context[PretrainRunSpec]) -> list[Corpus]:
    roles = ["corpus", *(f"corpus-{n}" for n in range(1, len(context.job.spec.corpora)))]
    return [Corpus(context.job.input(r).name, context.job.input(r).digest, context.input(r)) for r in roles]


def _encode(context: Context[PretrainRunSpec], vocabulary: Vocabulary, folder: Path) -> TokenIndex:
    corpora = _corpora(context)
    dtype = token_type(vocabulary.size)
    splits: dict[Split, SplitIndex] = {}
    total = sum(corpus.documents(split) for corpus in corpora for split in get_args(Split))
    done = 0
    for split in get_args(Split):
        writer = ShardWriter(folder, split, np.dtype(dtype).newbyteorder("<"))
        documents = text_bytes = 0
        for texts in (t for corpus in corpora for t in _batches(corpus, split)):
            if context.stop.is_set():
                raise Interrupted(f"asked to end after {done} of {total} documents; encoding starts again")
            writer.write(encode_documents(vocabulary, texts.to_pylist()))
            documents += len(texts)
            text_bytes += pc.sum(pc.binary_length(texts)).as_py() or 0
            done += len(texts)
            context.progress.update(done, total, "documents")
        tokens = sum(shard.tokens for shard in writer.shards)
        splits[split] = SplitIndex(documents=documents, tokens=tokens, text_bytes=text_bytes, shards=writer.shards)
    return TokenIndex(
        dtype=dtype,
        vocab_size=vocabulary.size,
        eos_id=vocabulary.eos_id,
        splits=splits,
        corpora=[CorpusSource(name=c.name, digest=c.digest, documents=c.documents("train")) for c in corpora],
    )


def _batches(corpus: Corpus, split: Split) -> Iterator[pa.Array]:
    for path in corpus.files(split):
        try:
            for batch in pq.ParquetFile(path).iter_batches(BATCH_DOCUMENTS, columns=["text"]):
                yield batch.column("text").drop_null()
        except (pa.ArrowInvalid, KeyError) as error:
            raise DataError(
                Reason.UNREADABLE_INPUT,
                f"{path}: no parquet file with a column `text` ({error}); build the corpus {corpus.name} again",
            ) from error


def encode_documents(vocabulary: Vocabulary, texts: list[str]) -> np.ndarray:
    """Token ids of documents in their order, each followed by the end-of-text token."""
    encodings = vocabulary.tokenizer.encode_batch_fast(texts, add_special_tokens=False)
    return np.asarray([n for e in encodings for n in (*e.ids, vocabulary.eos_id)], dtype=np.uint32)


def _check_length(index: TokenIndex, sequence_tokens: int) -> None:
    for split, part in index.splits.items():
        if part.tokens <= sequence_tokens:
            remedy = "split.validation of" if split == "validation" else "the sources of"
            raise DataError(
                Reason.NOT_ENOUGH_TEXT,
                f"the {split} split has {part.tokens} tokens in {part.documents} documents; one sequence takes "
                f"{sequence_tokens + 1}: raise {remedy} the CorpusBuild or lower spec.data.sequenceLength",
            )
