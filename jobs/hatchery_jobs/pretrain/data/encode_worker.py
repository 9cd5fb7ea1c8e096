"""The work of the encode stage: which piece each part of the corpora becomes, and how pods share making them."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, Final, get_args

import numpy as np
from numpy.typing import NDArray

from hatchery_api.conditions import Reason
from hatchery_api.resources.pretrain import PretrainRunSpec
from hatchery_jobs.pretrain.data.corpora import Corpus, Part, validation_only
from hatchery_jobs.pretrain.data.shard_cache import Piece, Pieces
from hatchery_jobs.pretrain.data.text_encoder import FastEncoder, FileEncoder, NotEqual, fast_encoder, utf8_bytes
from hatchery_jobs.pretrain.data.token_store import (
    CorpusIndex,
    Packing,
    Shard,
    ShardWriter,
    Split,
    TokenIndex,
    fingerprint,
    summed,
    token_type,
)
from hatchery_jobs.pretrain.data.vocabulary import Vocabulary, load_vocabulary
from hatchery_jobs.runtime import Context, Interrupted, RetryableError, log, storage_errors

CODE_VERSION: Final = "2"
"""Raised whenever equal inputs would give other shards."""

Tokens = NDArray[np.uint32]
"""Token ids of documents, one after the other."""

TextToDocuments = Callable[[str], Iterable[str]]
"""What is encoded of a text: the text itself, or comment and code of each pair in it."""


@dataclass(frozen=True)
class Plan:
    """What decides the tokens, beside the text."""

    vocabulary: Vocabulary
    tokenizer_digest: str
    packing: Packing
    row_tokens: int | None
    """Tokens in a packed row; None: not packed."""
    streamed: bool
    """Whether only the validation split is encoded."""

    @property
    def facts(self) -> dict[str, Any]:
        """The part of the spec in it."""
        return {"packing": self.packing, "rowTokens": self.row_tokens, "streamed": self.streamed}

    def key(self, part: Part) -> str:
        """Key of the piece a part becomes."""
        facts = [CODE_VERSION, part.digest, self.tokenizer_digest, self.packing, self.row_tokens]
        canonical = json.dumps(facts)
        return hashlib.sha256(canonical.encode()).hexdigest()[:32]


def make_plan(context: Context[PretrainRunSpec]) -> Plan:
    """What the spec says about tokens."""
    spec = context.job.spec
    seq2seq = spec.objective.seq2seq
    learns_pairs = seq2seq is not None and seq2seq.task != "spanCorruption"
    return Plan(
        vocabulary=load_vocabulary(context.input("tokenizer")),
        tokenizer_digest=context.job.input("tokenizer").digest,
        packing="pairs" if learns_pairs else spec.data.packing,
        row_tokens=spec.data.sequence_length if spec.data.packing == "bestFit" else None,
        streamed=spec.data.loading == "streaming",
    )


def text_to_documents(packing: Packing) -> TextToDocuments | None:
    """What is encoded of a text; None: the text itself."""
    if packing != "pairs":
        return None
    from hatchery_jobs.pretrain.data.pairs import mine_pairs

    return lambda text: chain.from_iterable(mine_pairs(text))


@dataclass
class Work:
    """Parts to encode and pieces they become."""

    context: Context[PretrainRunSpec]
    plan: Plan
    corpora: list[Corpus]
    pieces: Pieces
    done: dict[str, Piece] = field(default_factory=dict)
    """Pieces that are complete, by key."""

    def __post_init__(self) -> None:
        if self.plan.streamed:
            self.corpora = [validation_only(corpus) for corpus in self.corpora]
        self._parts = {self.plan.key(part): part for corpus in self.corpora for part in corpus.parts}
        self._expected = {key: part.documents for key, part in self._parts.items()}
        self._read = 0
        self._pods = 1
        self._fast = fast_encoder(self.plan.vocabulary.tokenizer)
        self._documents = text_to_documents(self.plan.packing)

    def encode(self, pod: int, pods: int) -> None:
        """Makes this pod's share of the pieces, then those that are still missing; afterwards all are complete."""
        keys, self._pods = list(self._parts), pods
        for key in keys[pod::pods]:
            self._complete(key, alone=True)
        # begin where others are furthest from
        for key in [*keys[pod:], *keys[:pod]]:
            self._complete(key, alone=False)

    def assemble(self, folder: Path) -> TokenIndex:
        """Puts all shards into the artifact's folder; what they are."""
        indices = []
        for number, corpus in enumerate(self.corpora):
            shards: dict[Split, list[Shard]] = {split: [] for split in get_args(Split)}
            for part in corpus.parts:
                key = self.plan.key(part)
                names = {s: f"{number}-{s}-{len(shards[s]):05d}" for s in self.done[key].shards}
                for split, shard in self._copied(key, folder, names).items():
                    shards[split].append(shard)
            splits = {split: summed(some, self.plan.row_tokens) for split, some in shards.items()}
            named = CorpusIndex(name=corpus.name, digest=corpus.digest, revision=corpus.revision, splits=splits)
            indices.append(named)
        return TokenIndex(
            dtype=token_type(self.plan.vocabulary.size),
            vocab_size=self.plan.vocabulary.size,
            eos_id=self.plan.vocabulary.eos_id,
            packing=self.plan.packing,
            row_tokens=self.plan.row_tokens,
            streamed=self.plan.streamed,
            fingerprint=fingerprint([s for c in indices for split in c.splits.values() for s in split.shards]),
            corpora=indices,
        )

    def _copied(self, key: str, folder: Path, names: dict[Split, str]) -> dict[Split, Shard]:
        """The shards of a piece under new names in a folder; a damaged piece is made again, once."""
        for _ in range(2):
            copied = {
                split: self.pieces.copy(key, self.done[key], split, folder, name) for split, name in names.items()
            }
            whole = {split: shard for split, shard in copied.items() if shard is not None}
            if len(whole) == len(copied):
                return whole
            log("damaged-piece", key=key)
            self.pieces.discard(key)
            del self.done[key]
            self._complete(key, alone=True)
        raise RetryableError(
            Reason.STORAGE_ERROR,
            f"piece {key} of the tokens changes while it is read; check the health of the volume in spec.storage",
        )

    def _complete(self, key: str, *, alone: bool) -> None:
        if key in self.done:
            return
        piece = self.pieces.find(key)
        while piece is None:
            piece = self._encode(key, alone=alone) or self.pieces.find(key)
        self.done[key] = piece
        self._read += self._expected[key] or sum(shard.documents for shard in piece.shards.values())
        self._report(0)

    def _encode(self, key: str, *, alone: bool) -> Piece | None:
        """A piece made of a part; None when another pod has made it meanwhile."""
        for fast in [self._fast, None] if self._fast else [None]:
            try:
                with self.pieces.making(key) as folder, ExitStack() as opened:
                    writers: dict[Split, ShardWriter] = {}
                    for split, tokens, lengths, text_bytes in self._encoded(key, fast):
                        if not alone and self.pieces.find(key) is not None:
                            return None
                        with storage_errors(str(folder)):
                            if split not in writers:
                                size, rows = self.plan.vocabulary.size, self.plan.row_tokens
                                writers[split] = opened.enter_context(ShardWriter(folder, split, size, rows))
                            writers[split].write(tokens, lengths, text_bytes)
                    with storage_errors(str(folder)):
                        shards = {split: writer.close() for split, writer in writers.items()}
                    return self.pieces.keep(key, folder, shards)
            except NotEqual:
                log("slow-encoding", key=key, why="the fast encoder gives other ids for this tokenizer and text")
        raise AssertionError("the tokenizer itself is always equal")

    def _encoded(self, key: str, fast: FastEncoder | None) -> Iterator[tuple[Split, Tokens, NDArray[np.int64], int]]:
        """Tokens, lengths of documents and bytes of text of each batch of a part."""
        encoder = FileEncoder(self.plan.vocabulary.tokenizer, fast, int(key[:8], 16))
        eos = np.asarray([self.plan.vocabulary.eos_id], dtype=np.uint32)
        done = 0
        for split, read in self._parts[key].batches():
            if self.context.stop.is_set():
                raise Interrupted(f"asked to end after {self._read + done} documents; finished files are kept")
            texts = read if self._documents is None else [d for text in read for d in self._documents(text)]
            ids = encoder.encode(texts)
            lengths = np.asarray([len(some) + 1 for some in ids], dtype=np.int64)
            ends = [x for some in ids for x in (some, eos)]
            yield split, np.concatenate(ends) if ends else eos[:0], lengths, sum(map(utf8_bytes, texts))
            done += len(read)
            self._report(done)

    def _report(self, current: int) -> None:
        """Says how far all pods are, taking their shares to be equal."""
        total = sum(self._expected.values())
        done = (self._read + current) * self._pods
        self.context.progress.update(min(done, total) if total else done, max(total, 1), "documents")
