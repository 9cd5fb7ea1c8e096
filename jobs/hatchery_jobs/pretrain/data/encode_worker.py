"""Encodes the parts of all corpora into the shard cache, shared between the pods of the encode stage."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Final, get_args

import numpy as np

from hatchery_api.conditions import Reason
from hatchery_api.resources.pretrain import PretrainRunSpec
from hatchery_jobs.pretrain.data.corpora import (
    Corpus,
    CorpusPart,
    corpus_role,
    open_source_corpora,
    resolve_corpora,
    validation_only,
)
from hatchery_jobs.pretrain.data.shard_cache import CacheEntry, ShardCache
from hatchery_jobs.pretrain.data.text_encoder import (
    EncoderMismatch,
    FastEncoder,
    FileEncoder,
    TokenIds,
    fast_encoder,
    utf8_bytes,
)
from hatchery_jobs.pretrain.data.token_store import (
    INDEX,
    CorpusIndex,
    Packing,
    Shard,
    ShardWriter,
    Split,
    TokenIndex,
    summed,
    token_type,
    tokens_fingerprint,
)
from hatchery_jobs.pretrain.data.types import Tokens
from hatchery_jobs.pretrain.data.vocabulary import Vocabulary, load_vocabulary
from hatchery_jobs.runtime import Context, Interrupted, RetryableError, log, storage_errors, write_atomically

CODE_VERSION: Final = "2"
"""Raised whenever equal inputs would give different shards."""

CACHE_FOLDER: Final = "_pieces"
"""Folder of the shard cache beside the runs' folders; no run can have this name."""

TextToDocuments = Callable[[str], Iterable[str]]
"""Splits a text into the documents to encode: the comment and code of every pair in it."""


@dataclass(frozen=True)
class EncodePlan:
    """Everything that decides the tokens of a run."""

    vocabulary: Vocabulary
    tokenizer_digest: str
    packing: Packing
    row_tokens: int | None
    """Tokens in a packed row; None: not packed."""
    streamed: bool
    """Whether only the validation split is encoded."""
    sources: Mapping[int, Corpus]
    """Corpora that are files or datasets, by their number in the spec."""

    @classmethod
    def of(cls, context: Context[PretrainRunSpec], *, reads_pairs: bool) -> "EncodePlan":
        """The plan of a spec; lists its files and datasets.

        Args:
            context: the encode stage.
            reads_pairs: whether the objective learns from pairs of comment and code.

        Raises:
            JobError: a source does not exist, or the tokenizer cannot be used.
        """
        data = context.job.spec.data
        return cls(
            vocabulary=load_vocabulary(context.input("tokenizer")),
            tokenizer_digest=context.job.input("tokenizer").digest,
            packing="pairs" if reads_pairs else data.packing,
            row_tokens=data.sequence_length if data.packing == "bestFit" else None,
            streamed=data.loading == "streaming",
            sources=open_source_corpora(context.job),
        )

    @property
    def code_version(self) -> str:
        """Version of the code that writes the shards."""
        return CODE_VERSION

    @property
    def facts(self) -> dict[str, Any]:
        """The part of the spec that decides the tokens."""
        return {"packing": self.packing, "rowTokens": self.row_tokens, "streamed": self.streamed}

    @property
    def source_digests(self) -> dict[str, str]:
        """Digests of the sources by role."""
        return {corpus_role(number): corpus.digest for number, corpus in self.sources.items()}

    def key(self, part: CorpusPart) -> str:
        """Cache key of an encoded part."""
        facts = [CODE_VERSION, part.digest, self.tokenizer_digest, self.packing, self.row_tokens]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]


def _pair_documents(packing: Packing) -> TextToDocuments | None:
    if packing != "pairs":
        return None
    from hatchery_jobs.pretrain.data.pairs import mine_pairs

    return lambda text: chain.from_iterable(mine_pairs(text))


class EncodeWorker:
    """One pod's work on the parts of all corpora."""

    def __init__(self, context: Context[PretrainRunSpec], plan: EncodePlan, pod: int = 0, pods: int = 1) -> None:
        """A worker.

        Args:
            context: the encode stage; its input artifacts are verified here.
            plan: what to encode.
            pod: this pod's number.
            pods: pods that share the work.
        """
        self.plan = plan
        self._context, self._pod, self._pods = context, pod, pods
        corpora = resolve_corpora(context.job, plan.sources, context.scratch)
        self._corpora = [validation_only(corpus) for corpus in corpora] if plan.streamed else corpora
        parent = context.job.output.root.rstrip("/").rpartition("/")[0]
        self._cache = ShardCache(f"{parent}/{CACHE_FOLDER}", context.scratch, f"{context.job.uid}-{pod}")
        self._entries: dict[str, CacheEntry] = {}
        self._parts = {plan.key(part): part for corpus in self._corpora for part in corpus.parts}
        self._expected = {key: part.documents for key, part in self._parts.items()}
        self._done_documents = 0
        self._fast = fast_encoder(plan.vocabulary.tokenizer)
        self._pair_documents = _pair_documents(plan.packing)

    def encode(self) -> None:
        """Encodes every n-th part, then the parts that other pods have not finished; afterwards all are cached."""
        keys = list(self._parts)
        for key in keys[self._pod :: self._pods]:
            self._complete(key, own=True)
        # start where the other pods are furthest from
        for key in [*keys[self._pod :], *keys[: self._pod]]:
            self._complete(key, own=False)

    def assemble(self, folder: Path) -> TokenIndex:
        """Puts all shards and their index into the artifact's folder."""
        indices = []
        for number, corpus in enumerate(self._corpora):
            shards: dict[Split, list[Shard]] = {split: [] for split in get_args(Split)}
            for part in corpus.parts:
                key = self.plan.key(part)
                names = {s: f"{number}-{s}-{len(shards[s]):05d}" for s in self._entries[key].shards}
                for split, shard in self._copy(key, folder, names).items():
                    shards[split].append(shard)
            splits = {split: summed(of_split, self.plan.row_tokens) for split, of_split in shards.items()}
            indices.append(CorpusIndex(name=corpus.name, digest=corpus.digest, revision=corpus.revision, splits=splits))
        index = TokenIndex(
            dtype=token_type(self.plan.vocabulary.size),
            vocab_size=self.plan.vocabulary.size,
            eos_id=self.plan.vocabulary.eos_id,
            packing=self.plan.packing,
            row_tokens=self.plan.row_tokens,
            streamed=self.plan.streamed,
            fingerprint=tokens_fingerprint([s for c in indices for split in c.splits.values() for s in split.shards]),
            corpora=indices,
        )
        write_atomically(folder / INDEX, (index.model_dump_json(by_alias=True, indent=1) + "\n").encode())
        return index

    def _copy(self, key: str, folder: Path, names: dict[Split, str]) -> dict[Split, Shard]:
        """The shards of an entry under new names in a folder; a damaged entry is encoded again, once."""
        for _ in range(2):
            entry = self._entries[key]
            copied = {split: self._cache.copy(key, entry, split, folder, name) for split, name in names.items()}
            intact = {split: shard for split, shard in copied.items() if shard is not None}
            if len(intact) == len(copied):
                return intact
            log("damaged-piece", key=key)
            self._cache.discard(key)
            del self._entries[key]
            self._complete(key, own=True)
        raise RetryableError(
            Reason.STORAGE_ERROR,
            f"entry {key} of the shard cache changed while it was read; check the health of the volume in spec.storage",
        )

    def _complete(self, key: str, *, own: bool) -> None:
        if key in self._entries:
            return
        entry = self._cache.find(key)
        while entry is None:
            entry = self._encode(key, own=own) or self._cache.find(key)
        self._entries[key] = entry
        self._done_documents += self._expected[key] or sum(shard.documents for shard in entry.shards.values())
        self._report(0)

    def _encode(self, key: str, *, own: bool) -> CacheEntry | None:
        """Encodes a part; None when another pod finishes it first."""
        for fast in [self._fast, None] if self._fast else [None]:
            try:
                with self._cache.staging(key) as folder, ExitStack() as opened:
                    writers: dict[Split, ShardWriter] = {}
                    for split, tokens, lengths, text_bytes in self._tokenize(key, fast):
                        if not own and self._cache.find(key) is not None:
                            return None
                        with storage_errors(str(folder)):
                            if split not in writers:
                                size, rows = self.plan.vocabulary.size, self.plan.row_tokens
                                writers[split] = opened.enter_context(ShardWriter(folder, split, size, rows))
                            writers[split].write(tokens, lengths, text_bytes)
                    with storage_errors(str(folder)):
                        shards = {split: writer.close() for split, writer in writers.items()}
                    return self._cache.put(key, folder, shards)
            except EncoderMismatch:
                log("slow-encoding", key=key, why="the fast encoder gives other ids for this tokenizer and text")
        raise AssertionError("unreachable: encoding without the fast encoder never raises EncoderMismatch")

    def _tokenize(self, key: str, fast: FastEncoder | None) -> Iterator[tuple[Split, TokenIds, Tokens, int]]:
        """Tokens, document lengths and bytes of text of each batch of a part."""
        encoder = FileEncoder(self.plan.vocabulary.tokenizer, fast, int(key[:8], 16))
        eos = np.asarray([self.plan.vocabulary.eos_id], dtype=np.uint32)
        done = 0
        for split, texts in self._parts[key].batches():
            if self._context.stop.is_set():
                raise Interrupted(f"stopped after {self._done_documents + done} documents; finished files are kept")
            documents = (
                texts if self._pair_documents is None else [d for text in texts for d in self._pair_documents(text)]
            )
            ids = encoder.encode(documents)
            lengths = np.asarray([len(document) + 1 for document in ids], dtype=np.int64)
            joined = [x for document in ids for x in (document, eos)]
            yield split, np.concatenate(joined) if joined else eos[:0], lengths, sum(map(utf8_bytes, documents))
            done += len(texts)
            self._report(done)

    def _report(self, current: int) -> None:
        """Reports the progress of all pods, assuming equal shares."""
        total = sum(self._expected.values())
        done = (self._done_documents + current) * self._pods
        self._context.progress.update(min(done, total) if total else done, max(total, 1), "documents")
