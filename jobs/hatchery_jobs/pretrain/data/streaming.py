"""Training straight from text: documents are read, tokenized and joined during training, without a token store.

The lead worker reads in a background thread and broadcasts each update's rows. Rows are numbered in the order of the
text and shuffled in blocks of `shuffle.bufferRows` by a permutation that depends on the seed and the block alone, so a
position is the same row for any number of workers and after any resume. The price is paid on resume: finding a late
position means reading everything before it. Milestones in the run's folder, one every few thousand documents, reduce
that to skipping documents without tokenizing them. A source that changes meanwhile makes the run fail.
"""

import json
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final

import numpy as np

from hatchery_api.conditions import Reason
from hatchery_jobs.pretrain.data.corpora import Corpus
from hatchery_jobs.pretrain.data.sampler import Interleave, SequenceOrder, derived_seed
from hatchery_jobs.pretrain.data.text_encoder import EncoderMismatch, FileEncoder, TokenIds, fast_encoder
from hatchery_jobs.pretrain.data.token_store import TokenStore, stream_positions
from hatchery_jobs.pretrain.data.types import Rows, Tokens
from hatchery_jobs.pretrain.data.vocabulary import Vocabulary
from hatchery_jobs.runtime import DataError

MILESTONE_BATCHES: Final = 16
"""Batches of documents between two milestones."""

PREFETCH_BLOCKS: Final = 2
"""Blocks of rows read ahead."""

CLOSE_SECONDS: Final = 5.0
"""Longest wait for the reader thread to end: the worker still has to save its state within the grace period."""

Broadcast = Callable[[Tokens | None], Tokens]
"""Collective call: the lead passes rows, every worker gets them."""


@dataclass(frozen=True)
class Milestone:
    """A position between two batches of documents."""

    row: int = 0
    """Rows complete there."""
    part: int = 0
    """Parts read to their end, over all epochs."""
    batches: int = 0
    """Batches of training documents read from the next part."""
    carry: tuple[int, ...] = ()
    """Tokens that do not fill a row yet; the first was already a target, unless the text begins with it."""


class RowStream:
    """Rows of corpora read one after the other, over and over, in the order of their text."""

    def __init__(
        self, corpora: Sequence[Corpus], vocabulary: Vocabulary, length: int, milestones: Path | None = None
    ) -> None:
        """A stream.

        Args:
            corpora: what to read; the tail of each that fills no row is dropped.
            vocabulary: the tokenizer.
            length: T, tokens of a row beside the one before them.
            milestones: file kept between attempts.
        """
        self._parts = [(part, part is corpus.parts[-1]) for corpus in corpora for part in corpus.parts]
        self._names = [corpus.name for corpus in corpora]
        self._vocabulary = vocabulary
        self._fast = fast_encoder(vocabulary.tokenizer)
        self._length = length
        self._file = milestones
        self._known = [Milestone(), *_read_milestones(milestones)]

    def rows(self, first: int) -> Iterator[TokenIds]:
        """Rows (N, T + 1) in batches, starting with number `first`, without end."""
        begin = max((m for m in self._known if m.row <= first), key=lambda m: m.row)
        skipped = first - begin.row
        for rows in self._from(begin):
            yield rows[skipped:]
            skipped = max(0, skipped - len(rows))

    def _from(self, begin: Milestone) -> Iterator[TokenIds]:
        row, part, batches = begin.row, begin.part, begin.batches
        carry = np.asarray(begin.carry, dtype=np.uint32)
        while True:
            reader, is_last = self._parts[part % len(self._parts)]
            texts = (batch for split, batch in reader.batches() if split == "train")
            for batch in islice(texts, batches, None):
                rows, carry = self._cut(np.concatenate([carry, self._tokenize(batch, batches)]))
                row, batches = row + len(rows), batches + 1
                if batches % MILESTONE_BATCHES == 0:
                    self._save(Milestone(row, part, batches, tuple(carry.tolist())))
                yield rows
            part, batches = part + 1, 0
            if is_last:
                carry = carry[:0]
            if not row and part == len(self._parts):
                raise DataError(
                    Reason.NOT_ENOUGH_TEXT,
                    f"{', '.join(self._names)}: too little text for one sequence of {self._length + 1} tokens; raise "
                    "the sources or lower spec.data.sequenceLength",
                )

    def _tokenize(self, texts: list[str], seed: int) -> TokenIds:
        """Tokens of a batch: a pure function of its texts and number, wherever reading began."""
        eos = np.asarray([self._vocabulary.eos_id], dtype=np.uint32)
        try:
            ids = FileEncoder(self._vocabulary.tokenizer, self._fast, seed).encode(texts)
        except EncoderMismatch:
            ids = FileEncoder(self._vocabulary.tokenizer, None, seed).encode(texts)
        return np.concatenate([eos[:0], *(x for document in ids for x in (document, eos))])

    def _cut(self, tokens: TokenIds) -> tuple[TokenIds, TokenIds]:
        """Rows and the remaining tokens; each row begins with the last token of the one before."""
        count = max(0, len(tokens) - 1) // self._length
        windows = np.lib.stride_tricks.sliding_window_view(tokens, self._length + 1)[:: self._length] if count else None
        rows = np.empty((0, self._length + 1), dtype=np.uint32) if windows is None else windows[:count].copy()
        return rows, tokens[count * self._length :]

    def _save(self, milestone: Milestone) -> None:
        if milestone.row <= self._known[-1].row:
            return
        self._known.append(milestone)
        if self._file is not None:
            with self._file.open("a") as stream:
                stream.write(json.dumps([milestone.row, milestone.part, milestone.batches, milestone.carry]) + "\n")


def _read_milestones(path: Path | None) -> Iterator[Milestone]:
    """Milestones of earlier attempts; a line cut short by a kill is skipped."""
    if path is None or not path.exists():
        return
    for line in path.read_text().splitlines():
        with suppress(ValueError):
            row, part, batches, carry = json.loads(line)
            yield Milestone(row, part, batches, tuple(carry))


class ShuffledBlocks:
    """Rows of a stream by position in shuffled order, read ahead by a thread."""

    def __init__(self, stream: RowStream, seed: int, block_rows: int) -> None:
        self._stream = stream
        self._seed = seed
        self._size = block_rows
        self._blocks: dict[int, TokenIds] = {}
        self._next = 0
        self._prefetcher: _Prefetcher | None = None

    def __getitem__(self, positions: Tokens) -> Tokens:
        """Rows (N, T + 1) at ascending positions."""
        blocks, within = np.divmod(positions, self._size)
        self._fetch(int(blocks[0]), int(blocks[-1]))
        rows = []
        for block in np.unique(blocks).tolist():
            numbers = self._order(block)(within[blocks == block])
            rows.append(self._blocks[block][numbers])
        return np.concatenate(rows).astype(np.int64)

    def close(self) -> None:
        """Stops the reader thread."""
        if self._prefetcher is not None:
            self._prefetcher.close()

    def _order(self, block: int) -> SequenceOrder:
        return SequenceOrder(derived_seed(self._seed, block), self._size)

    def _fetch(self, first: int, last: int) -> None:
        if self._prefetcher is None or (first < self._next and first not in self._blocks) or first > self._next:
            self.close()
            self._blocks, self._next = {}, first
            self._prefetcher = _Prefetcher(self._read_blocks(first))
        while self._next <= last:
            self._blocks[self._next] = self._prefetcher.next()
            self._next += 1
        self._blocks = {block: rows for block, rows in self._blocks.items() if block >= first}

    def _read_blocks(self, block: int) -> Iterator[TokenIds]:
        pending: list[TokenIds] = []
        for rows in self._stream.rows(block * self._size):
            pending.append(rows)
            while sum(map(len, pending)) >= self._size:
                joined = np.concatenate(pending)
                yield joined[: self._size]
                pending = [joined[self._size :]]


class _Prefetcher:
    """Reads an iterator ahead in a thread."""

    def __init__(self, items: Iterator[TokenIds]) -> None:
        self._queue: queue.Queue[TokenIds | Exception] = queue.Queue(PREFETCH_BLOCKS)
        self._error: Exception | None = None
        self._is_closed = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(items,), daemon=True)
        self._thread.start()

    def next(self) -> TokenIds:
        """The next item; re-raises an error of the iterator."""
        item = self._error or self._queue.get()
        if isinstance(item, Exception):
            self._error = item
            raise item
        return item

    def close(self) -> None:
        """Stops the thread at its next item; a thread blocked on the network is abandoned."""
        self._is_closed.set()
        with suppress(queue.Empty):
            while True:
                self._queue.get_nowait()
        self._thread.join(CLOSE_SECONDS)

    def _run(self, items: Iterator[TokenIds]) -> None:
        try:
            for item in items:
                self._queue.put(item)
                if self._is_closed.is_set():
                    return
        except Exception as error:  # noqa: BLE001 - re-raised in `next`
            self._queue.put(error)


class StreamSource:
    """Rows of text that the lead reads; `begin` exchanges the rows of an update once."""

    def __init__(
        self,
        store: TokenStore,
        streams: Sequence[ShuffledBlocks] | None,
        interleave: Interleave | None,
        broadcast: Broadcast,
        *,
        positions: bool = False,
    ) -> None:
        """A source over streams.

        Args:
            store: the validation split.
            streams: on the lead, one over all corpora, or one per corpus where they have weights; else None.
            interleave: which corpus each position belongs to, where corpora have weights.
            broadcast: collective that sends the lead's rows to all workers.
            positions: whether rows carry each token's position in its document.
        """
        self._store = store
        self._streams = streams
        self._interleave = interleave
        self._broadcast = broadcast
        self._positions = positions
        self._first = 0
        self._rows: Tokens | None = None

    @property
    def validation_rows(self) -> int:
        """Rows of the validation split."""
        return self._store.sequences("validation")

    def begin(self, first: int, count: int) -> None:
        """Gets the rows of the next update; all workers pass the same numbers.

        Raises:
            JobError: on the lead, the text cannot be read.
        """
        own = None if self._streams is None else self._read(np.arange(first, first + count))
        self._first, self._rows = first, self._broadcast(own)

    def training(self, first: int, count: int) -> Rows:
        """Rows of the update that `begin` announced."""
        begin = first - self._first
        if self._rows is None or begin < 0 or begin + count > len(self._rows):
            raise ValueError(f"positions {first} to {first + count - 1} are outside the update that was begun")
        tokens = self._rows[begin : begin + count]
        return Rows(tokens, positions=stream_positions(tokens, self._store.index.eos_id) if self._positions else None)

    def validation(self, first: int, count: int) -> Rows:
        """Rows of the validation split by number."""
        return self._store.rows("validation", range(first, first + count), positions=self._positions)

    def close(self) -> None:
        """Stops the reader threads."""
        for stream in self._streams or ():
            stream.close()

    def _read(self, positions: Tokens) -> Tokens:
        streams = self._streams or ()
        if self._interleave is None:
            return streams[0][positions]
        corpora, visits = self._interleave(positions)
        by_corpus = {corpus: streams[corpus][visits[corpora == corpus]] for corpus in np.unique(corpora).tolist()}
        rows = np.empty((len(positions), next(iter(by_corpus.values())).shape[1]), dtype=np.int64)
        for corpus, corpus_rows in by_corpus.items():
            rows[corpora == corpus] = corpus_rows
        return rows
