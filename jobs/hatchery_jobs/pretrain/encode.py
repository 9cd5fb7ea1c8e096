"""Stage `encode`: corpora and a tokenizer become memory-mappable tokens and an index.

Every part of a corpus is encoded into a piece of its own. Several pods share the parts: each takes every n-th, then
helps with those that are missing. Any of them completes the artifact; since its bytes depend on the inputs only, it
does not matter which.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, get_args

import numpy as np

from hatchery_api.conditions import Reason
from hatchery_api.pretrain import PretrainRunSpec
from hatchery_api.pretrain_result import PretrainResult
from hatchery_jobs.artifacts import Draft, storage_errors, write_atomically
from hatchery_jobs.context import Context, Outcome
from hatchery_jobs.errors import DataError, Interrupted, RetryableError
from hatchery_jobs.logs import log
from hatchery_jobs.pretrain.data import TokenStore
from hatchery_jobs.pretrain.encoder import FastEncoder, FileEncoder, NotEqual, fast_encoder, utf8_bytes
from hatchery_jobs.pretrain.index import (
    INDEX,
    CorpusIndex,
    Packing,
    Shard,
    Split,
    SplitIndex,
    TokenIndex,
    fingerprint,
    summed,
    token_type,
)
from hatchery_jobs.pretrain.parts import Corpus, Part, corpora
from hatchery_jobs.pretrain.pieces import Piece, Pieces
from hatchery_jobs.pretrain.shape import resolve_shape
from hatchery_jobs.pretrain.shards import ShardWriter
from hatchery_jobs.pretrain.vocabulary import Vocabulary, load_vocabulary

CODE_VERSION: Final = "2"
"""Raised whenever equal inputs would give other shards."""

PIECES: Final = "_pieces"
"""Folder of encoded parts beside the runs' folders; no run can have this name."""

TextToDocuments = Callable[[str], Iterable[str]]
"""What is encoded of a text: the text itself, or the texts of the pairs found in it."""


@dataclass(frozen=True)
class Plan:
    """What decides the tokens, beside the text."""

    vocabulary: Vocabulary
    tokenizer_digest: str
    packing: Packing
    row_tokens: int | None
    """Tokens in a packed row; None: not packed."""
    task: str | None
    """How pairs are found; None: no pairs."""

    @property
    def facts(self) -> dict[str, Any]:
        """The part of the spec in it."""
        return {"packing": self.packing, "rowTokens": self.row_tokens, "task": self.task}

    def key(self, part: Part) -> str:
        """Key of the piece a part becomes."""
        canonical = json.dumps([CODE_VERSION, part.digest, self.tokenizer_digest, self.facts], sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()[:32]


def run(context: Context[PretrainRunSpec]) -> Outcome:
    """Encodes all corpora in the order of the spec, each document followed by the end-of-text token.

    Raises:
        DataError: a split is shorter than one sequence, or a file cannot be read.
        SpecError: the model of the spec cannot be built; better said now than after hours of encoding.
        Interrupted: the pod was asked to end.
    """
    spec = context.job.spec
    plan = make_plan(context)
    draft = context.draft(CODE_VERSION, spec=plan.facts)
    shape = resolve_shape(spec.model, spec.data.sequence_length, plan.vocabulary.size)
    result = PretrainResult(
        parameters=shape.parameters,
        tokens_per_step=spec.batch.sequences * spec.data.sequence_length,
        steps=spec.schedule.steps,
    )
    if (found := draft.existing()) is not None:
        check_length(TokenStore(found[1], spec.data.sequence_length), spec.data.sequence_length)
        return Outcome(*found, result, cached=True)
    parent = context.job.output.root.rstrip("/").rpartition("/")[0]
    owner = f"{context.job.uid}-{_pod()}"
    work = Work(context, plan, corpora(context), Pieces(f"{parent}/{PIECES}", context.scratch, owner))
    work.encode(*_share())
    own = replace(draft, folder=draft.folder / str(_pod()))
    with storage_errors(str(own.folder)):
        shutil.rmtree(own.folder, ignore_errors=True)
        own.folder.mkdir(parents=True)
        index = work.assemble(own)
        write_atomically(own.folder / INDEX, (index.model_dump_json(by_alias=True, indent=1) + "\n").encode())
    check_length(TokenStore(own.folder, spec.data.sequence_length), spec.data.sequence_length)
    artifact, folder = own.commit()
    with suppress(OSError):  # other pods are still at it
        draft.folder.rmdir()
    return Outcome(artifact, folder, result)


def make_plan(context: Context[PretrainRunSpec]) -> Plan:
    """What the spec says about tokens."""
    spec = context.job.spec
    seq2seq = spec.objective.seq2seq
    task = seq2seq.task if spec.objective.type == "seq2seq" and seq2seq else None
    task = None if task == "spanCorruption" else task
    return Plan(
        vocabulary=load_vocabulary(context.input("tokenizer")),
        tokenizer_digest=context.job.input("tokenizer").digest,
        packing="pairs" if task else spec.data.packing,
        row_tokens=spec.data.sequence_length if spec.data.packing == "bestFit" else None,
        task=task,
    )


def text_to_documents(task: str | None) -> TextToDocuments | None:
    """What is encoded of a text; None: the text itself."""
    if task is None:
        return None
    from hatchery_jobs.pretrain.pairs import mine_pairs

    turn = 1 if task == "commentToCode" else -1
    return lambda text: (side for pair in mine_pairs(text) for side in pair[::turn])


def _pod() -> int:
    return int(os.environ.get("HATCHERY_NODE_INDEX") or 0)


def _share() -> tuple[int, int]:
    """This pod's number, and the number of pods."""
    return _pod(), int(os.environ.get("HATCHERY_NODES") or 1)


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
        self._parts = {self.plan.key(part): part for corpus in self.corpora for part in corpus.parts}
        self._expected = {key: part.documents for key, part in self._parts.items()}
        self._fast = fast_encoder(self.plan.vocabulary.tokenizer)
        self._documents = text_to_documents(self.plan.task)

    def encode(self, pod: int, pods: int) -> None:
        """Makes this pod's share of the pieces, then those that are still missing; afterwards all are complete."""
        keys = list(self._parts)
        for key in keys[pod::pods]:
            self._complete(key, alone=True)
        # begin where others are furthest from
        for key in [*keys[pod:], *keys[:pod]]:
            self._complete(key, alone=False)

    def assemble(self, draft: Draft) -> TokenIndex:
        """Puts all shards into the artifact's folder."""
        indices = []
        for number, corpus in enumerate(self.corpora):
            shards: dict[Split, list[Shard]] = {split: [] for split in get_args(Split)}
            for part in corpus.parts:
                key = self.plan.key(part)
                names = {s: f"{number}-{s}-{len(shards[s]):05d}" for s in self.done[key].shards}
                for split, shard in self._copied(key, draft.folder, names).items():
                    shards[split].append(shard)
            splits = {split: summed(some, self.plan.row_tokens) for split, some in shards.items()}
            indices.append(CorpusIndex(name=corpus.name, digest=corpus.digest, splits=splits))
        return TokenIndex(
            dtype=token_type(self.plan.vocabulary.size),
            vocab_size=self.plan.vocabulary.size,
            eos_id=self.plan.vocabulary.eos_id,
            packing=self.plan.packing,
            row_tokens=self.plan.row_tokens,
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
        self._report(0)

    def _encode(self, key: str, *, alone: bool) -> Piece | None:
        """A piece made of a part; None when another pod has made it meanwhile."""
        for fast in [self._fast, None] if self._fast else [None]:
            try:
                with self.pieces.making(key) as folder:
                    writers: dict[Split, ShardWriter] = {}
                    for split, tokens, lengths, text_bytes in self._encoded(key, fast):
                        if not alone and self.pieces.find(key) is not None:
                            return None
                        if split not in writers:
                            size = self.plan.vocabulary.size
                            writers[split] = ShardWriter(folder, split, size, self.plan.row_tokens)
                        writers[split].write(tokens, lengths, text_bytes)
                    return self.pieces.keep(key, folder, {split: w.close() for split, w in writers.items()})
            except NotEqual:
                log("slow-encoding", key=key, why="the fast encoder gives other ids for this tokenizer and text")
        raise AssertionError("the tokenizer itself is always equal")

    def _encoded(self, key: str, fast: FastEncoder | None) -> Iterator[tuple[Split, Any, Any, int]]:
        """Tokens, lengths of documents and bytes of text of each batch of a part."""
        encoder = FileEncoder(self.plan.vocabulary.tokenizer, fast, int(key[:8], 16))
        eos = np.asarray([self.plan.vocabulary.eos_id], dtype=np.uint32)
        done = 0
        for split, read in self._parts[key].batches():
            if self.context.stop.is_set():
                finished = sum(self._expected[key] for key in self.done)
                raise Interrupted(f"asked to end after {finished + done} documents; finished files are kept")
            texts = read if self._documents is None else [d for text in read for d in self._documents(text)]
            ids = encoder.encode(texts)
            lengths = np.asarray([len(some) + 1 for some in ids], dtype=np.int64)
            ends = [x for some in ids for x in (some, eos)]
            yield split, np.concatenate(ends) if ends else eos[:0], lengths, sum(map(utf8_bytes, texts))
            done += len(read)
            self._report(done)

    def _report(self, current: int) -> None:
        done = current + sum(self._expected[key] for key in self.done)
        self.context.progress.update(done, max(done, sum(self._expected.values())), "documents")


def check_length(store: TokenStore, sequence_tokens: int) -> None:
    """Sees to it that there is something to learn from each corpus, and to measure.

    Raises:
        DataError: there is not.
    """
    index = store.index
    for corpus, rows in zip(index.corpora, store.counts("train"), strict=True):
        if not rows:
            raise _too_little(index, f"corpus {corpus.name}: the train", corpus.splits["train"], sequence_tokens)
    if not store.sequences("validation"):
        raise _too_little(index, "the validation", index.splits["validation"], sequence_tokens)


def _too_little(index: TokenIndex, which: str, split: SplitIndex, sequence_tokens: int) -> DataError:
    remedy = "the sources of the CorpusBuild" if "train" in which else "split.validation of the CorpusBuild"
    if index.packing == "pairs":
        message = f"{which} split has no pair of a comment and its code: raise {remedy}"
    else:
        message = (
            f"{which} split has {split.tokens} tokens in {split.documents} documents; one sequence takes "
            f"{sequence_tokens + 1}: raise {remedy} or lower spec.data.sequenceLength"
        )
    return DataError(Reason.NOT_ENOUGH_TEXT, message)
