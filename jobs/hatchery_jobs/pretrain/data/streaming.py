"""Training straight from text, without a store: documents are read, encoded and joined while training goes on.

The lead worker reads, in a thread of its own, and gives each update's rows to all. Rows are numbered in the order of
the text and shuffled in blocks of `shuffle.bufferRows`, by a permutation that seed and block decide; so any position
is the same row for any number of workers and after any resume. What this costs: to find a late position, what comes
before it must be read again. Milestones in the run's folder, one every few thousand documents, shorten that to
skipping documents without encoding them. Where a source changes meanwhile, the run cannot go on, and says so.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from hatchery_api.conditions import Reason
from hatchery_jobs.pretrain.data.corpora import Corpus
from hatchery_jobs.pretrain.data.text_encoder import FileEncoder, NotEqual, fast_encoder
from hatchery_jobs.pretrain.data.vocabulary import Vocabulary
from hatchery_jobs.runtime import DataError

MILESTONE_BATCHES: Final = 16
"""Batches of documents between two milestones."""


@dataclass(frozen=True)
class Milestone:
    """A place between two batches of documents."""

    row: int = 0
    """Rows that were complete there."""
    part: int = 0
    """Parts read to their end, over all epochs."""
    batches: int = 0
    """Batches of training documents read of the next part."""
    carry: tuple[int, ...] = ()
    """Tokens read that did not fill a row; the first was learnt unless the text begins with it."""


class RowStream:
    """The rows of corpora that are read one after the other, again and again, in the order of their text."""

    def __init__(
        self, corpora: Sequence[Corpus], vocabulary: Vocabulary, length: int, milestones: Path | None = None
    ) -> None:
        """A stream.

        Args:
            corpora: what is read; the rest of each that fills no row is left out.
            vocabulary: the tokenizer.
            length: T, tokens of a row beside the one before them.
            milestones: file that is kept between attempts.
        """
        self._parts = [(part, part is corpus.parts[-1]) for corpus in corpora for part in corpus.parts]
        self._names = [corpus.name for corpus in corpora]
        self._vocabulary = vocabulary
        self._fast = fast_encoder(vocabulary.tokenizer)
        self._length = length
        self._file = milestones
        self._known = [Milestone(), *_read_milestones(milestones)]

    def rows(self, first: int) -> Iterator[NDArray[np.uint32]]:
        """Rows (N, T + 1) from number `first` on, some at a time, without end."""
        begin = max((m for m in self._known if m.row <= first), key=lambda m: m.row)
        skipped = first - begin.row
        for rows in self._from(begin):
            yield rows[skipped:]
            skipped = max(0, skipped - len(rows))

    def _from(self, begin: Milestone) -> Iterator[NDArray[np.uint32]]:
        row, part, batches = begin.row, begin.part, begin.batches
        carry = np.asarray(begin.carry, dtype=np.uint32)
        while True:
            reader, is_last = self._parts[part % len(self._parts)]
            texts = (some for split, some in reader.batches() if split == "train")
            for some in islice(texts, batches, None):
                rows, carry = self._cut(np.concatenate([carry, self._joined(some, batches)]))
                row, batches = row + len(rows), batches + 1
                if batches % MILESTONE_BATCHES == 0:
                    self._reached(Milestone(row, part, batches, tuple(carry.tolist())))
                yield rows
            part, batches = part + 1, 0
            if is_last:
                carry = carry[:0]
            if not row and part == len(self._parts):
                raise DataError(
                    Reason.NOT_ENOUGH_TEXT,
                    f"{', '.join(self._names)}: no text for one sequence of {self._length + 1} tokens; raise the "
                    "sources or lower spec.data.sequenceLength",
                )

    def _joined(self, texts: list[str], seed: int) -> NDArray[np.uint32]:
        """Tokens of a batch, a function of nothing else, wherever reading began."""
        eos = np.asarray([self._vocabulary.eos_id], dtype=np.uint32)
        try:
            ids = FileEncoder(self._vocabulary.tokenizer, self._fast, seed).encode(texts)
        except NotEqual:
            ids = FileEncoder(self._vocabulary.tokenizer, None, seed).encode(texts)
        return np.concatenate([eos[:0], *(x for some in ids for x in (some, eos))])

    def _cut(self, tokens: NDArray[np.uint32]) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
        """Rows, and what is left; each row begins with the last token of the one before."""
        count = max(0, len(tokens) - 1) // self._length
        windows = np.lib.stride_tricks.sliding_window_view(tokens, self._length + 1)[:: self._length] if count else None
        rows = np.empty((0, self._length + 1), dtype=np.uint32) if windows is None else windows[:count].copy()
        return rows, tokens[count * self._length :]

    def _reached(self, milestone: Milestone) -> None:
        if milestone.row <= self._known[-1].row:
            return
        self._known.append(milestone)
        if self._file is not None:
            with self._file.open("a") as stream:
                stream.write(json.dumps([milestone.row, milestone.part, milestone.batches, milestone.carry]) + "\n")


def _read_milestones(path: Path | None) -> Iterator[Milestone]:
    """What an earlier attempt has written; a line it did not complete is passed over."""
    if path is None or not path.exists():
        return
    for line in path.read_text().splitlines():
        with suppress(ValueError):
            row, part, batches, carry = json.loads(line)
            yield Milestone(row, part, batches, tuple(carry))
