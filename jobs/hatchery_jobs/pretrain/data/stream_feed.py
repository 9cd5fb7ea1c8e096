"""What the loop reads when it trains straight from text: the lead's rows, shuffled in blocks and given to all."""

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from hatchery_api.conditions import Reason
from hatchery_api.resources.pretrain import PretrainRunSpec
from hatchery_jobs.pretrain.data.corpora import Corpus, corpora, open_sources, training_only
from hatchery_jobs.pretrain.data.feed import corpus_weights
from hatchery_jobs.pretrain.data.sampler import SequenceOrder, Turns, derived_seed
from hatchery_jobs.pretrain.data.streaming import RowStream
from hatchery_jobs.pretrain.data.token_store import TokenStore, stream_positions
from hatchery_jobs.pretrain.data.types import Rows, Tokens
from hatchery_jobs.pretrain.data.vocabulary import Vocabulary
from hatchery_jobs.runtime import Context, DataError

BLOCKS_AHEAD: Final = 2
"""Blocks of rows that are read before they are needed."""

CLOSE_SECONDS: Final = 5.0
"""Longest wait for the reading to end: a worker must save its state in the time that is left."""

Broadcast = Callable[[Tokens | None], Tokens]
"""A collective: the lead gives rows and all get them."""


def stream_feed(
    context: Context[PretrainRunSpec],
    store: TokenStore,
    vocabulary: Vocabulary,
    broadcast: Broadcast,
    folder: Path | None,
) -> "StreamFeed":
    """The feed of a run with `loading: streaming`.

    Args:
        context: the train stage; its inputs are read by the lead only.
        store: what the encode stage has left.
        vocabulary: the tokenizer.
        broadcast: gives the lead's rows to all workers.
        folder: on the lead, where milestones are kept between attempts; None on the other workers.

    Raises:
        DataError: a source is no longer what it was when the run began.
    """
    spec = context.job.spec
    seed, weights = spec.data.shuffle.seed, corpus_weights(spec)
    streams = None
    if folder is not None:
        found = [training_only(corpus) for corpus in _unchanged(context, store)]
        groups = [found] if weights is None else [[corpus] for corpus in found]
        streams = [
            ShuffledBlocks(
                RowStream(group, vocabulary, spec.data.sequence_length, folder / f"stream-{number}.jsonl"),
                derived_seed(seed, number),
                spec.data.shuffle.buffer_rows,
            )
            for number, group in enumerate(groups)
        ]
    turns = None if weights is None else Turns(seed, weights)
    return StreamFeed(store, streams, turns, broadcast, positions=spec.data.document_mask)


def _unchanged(context: Context[PretrainRunSpec], store: TokenStore) -> list[Corpus]:
    """The corpora as the encode stage found them."""
    before = store.index.corpora
    found = corpora(context, open_sources(context.job, {n: c.revision for n, c in enumerate(before)}))
    for number, (corpus, was) in enumerate(zip(found, before, strict=True)):
        if corpus.digest != was.digest:
            raise DataError(
                Reason.UNREADABLE_INPUT,
                f"spec.corpora[{number}]: {corpus.name} is no longer what it was when the run began; a run cannot go "
                "on with other text: restore the files or start a new run",
            )
    return found


class ShuffledBlocks:
    """The rows of a stream by their place in a shuffled order; a thread reads ahead of what is asked for."""

    def __init__(self, stream: RowStream, seed: int, block_rows: int) -> None:
        self._stream = stream
        self._seed = seed
        self._size = block_rows
        self._blocks: dict[int, NDArray[np.uint32]] = {}
        self._next = 0
        self._reader: _Ahead | None = None

    def __getitem__(self, places: Tokens) -> Tokens:
        """Rows (N, T + 1) at ascending places."""
        blocks, within = np.divmod(places, self._size)
        self._fetch(int(blocks[0]), int(blocks[-1]))
        rows = []
        for block in np.unique(blocks).tolist():
            numbers = self._order(block)(within[blocks == block])
            rows.append(self._blocks[block][numbers])
        return np.concatenate(rows).astype(np.int64)

    def close(self) -> None:
        """Ends the reading."""
        if self._reader is not None:
            self._reader.close()

    def _order(self, block: int) -> SequenceOrder:
        return SequenceOrder(derived_seed(self._seed, block), self._size)

    def _fetch(self, first: int, last: int) -> None:
        if self._reader is None or (first < self._next and first not in self._blocks) or first > self._next:
            self.close()
            self._blocks, self._next = {}, first
            self._reader = _Ahead(self._cut(first))
        while self._next <= last:
            self._blocks[self._next] = self._reader.next()
            self._next += 1
        self._blocks = {block: rows for block, rows in self._blocks.items() if block >= first}

    def _cut(self, block: int) -> Iterator[NDArray[np.uint32]]:
        held: list[NDArray[np.uint32]] = []
        for rows in self._stream.rows(block * self._size):
            held.append(rows)
            while sum(map(len, held)) >= self._size:
                joined = np.concatenate(held)
                yield joined[: self._size]
                held = [joined[self._size :]]


class _Ahead:
    """Items of an iterator, fetched by a thread before they are asked for."""

    def __init__(self, items: Iterator[NDArray[np.uint32]]) -> None:
        self._queue: queue.Queue[NDArray[np.uint32] | Exception] = queue.Queue(BLOCKS_AHEAD)
        self._error: Exception | None = None
        self._is_closed = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(items,), daemon=True)
        self._thread.start()

    def next(self) -> NDArray[np.uint32]:
        """The next item; an error of the iterator is raised here."""
        item = self._error or self._queue.get()
        if isinstance(item, Exception):
            self._error = item
            raise item
        return item

    def close(self) -> None:
        """Ends the thread at its next item; one that waits for a network is left behind."""
        self._is_closed.set()
        with suppress(queue.Empty):
            while True:
                self._queue.get_nowait()
        self._thread.join(CLOSE_SECONDS)

    def _run(self, items: Iterator[NDArray[np.uint32]]) -> None:
        try:
            for item in items:
                self._queue.put(item)
                if self._is_closed.is_set():
                    return
        except Exception as error:  # noqa: BLE001 - told where the items are used
            self._queue.put(error)


class StreamFeed:
    """Rows from text that the lead reads; each update's rows are exchanged once, in `begin`."""

    def __init__(
        self,
        store: TokenStore,
        streams: Sequence[ShuffledBlocks] | None,
        turns: Turns | None,
        broadcast: Broadcast,
        *,
        positions: bool = False,
    ) -> None:
        """A feed.

        Args:
            store: the validation split.
            streams: on the lead, one for all corpora, or one for each where they have weights; else None.
            turns: whose turn it is at a position, where corpora have weights.
            broadcast: gives the lead's rows to all workers.
            positions: whether documents are told apart.
        """
        self._store = store
        self._streams = streams
        self._turns = turns
        self._broadcast = broadcast
        self._positions = positions
        self._first = 0
        self._rows: Tokens | None = None

    @property
    def validation_rows(self) -> int:
        """Rows of the validation split."""
        return self._store.sequences("validation")

    def begin(self, first: int, count: int) -> None:
        """Gets the rows of the next update; all workers call it with the same numbers.

        Raises:
            JobError: on the lead, the text cannot be read.
        """
        mine = None if self._streams is None else self._read(np.arange(first, first + count))
        self._first, self._rows = first, self._broadcast(mine)

    def training(self, first: int, count: int) -> Rows:
        """Rows of the update that was begun."""
        begin = first - self._first
        if self._rows is None or begin < 0 or begin + count > len(self._rows):
            raise ValueError(f"positions {first} to {first + count - 1} are not in the update that was begun")
        return self._as_rows(self._rows[begin : begin + count])

    def validation(self, first: int, count: int) -> Rows:
        """Rows of the validation split by number."""
        return self._store.rows("validation", range(first, first + count), positions=self._positions)

    def close(self) -> None:
        """Ends the reading."""
        for stream in self._streams or ():
            stream.close()

    def _as_rows(self, tokens: Tokens) -> Rows:
        return Rows(tokens, positions=stream_positions(tokens, self._store.index.eos_id) if self._positions else None)

    def _read(self, positions: Tokens) -> Tokens:
        streams = self._streams or ()
        if self._turns is None:
            return streams[0][positions]
        corpora, visits = self._turns(positions)
        parts = {corpus: streams[corpus][visits[corpora == corpus]] for corpus in np.unique(corpora).tolist()}
        rows = np.empty((len(positions), next(iter(parts.values())).shape[1]), dtype=np.int64)
        for corpus, some in parts.items():
            rows[corpora == corpus] = some
        return rows
