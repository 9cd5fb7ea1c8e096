"""Best-fit-decreasing packing: documents that fit into a row are never cut, and rows are nearly full.

A row holds T tokens and one before them: an end-of-text token, from which a document's first token is predicted, as
in a joined stream. An item is a run of tokens in a row. A document of more than T tokens is cut into full rows and a
rest; each part begins with the last token of the part before it, as context but not as a target. So every token of
every document is a target exactly once.
"""

from bisect import bisect_left, insort
from typing import Final

import numpy as np
from numpy.typing import NDArray

ITEM: Final = np.dtype([("start", "<u8"), ("length", "<u4"), ("context", "<u4")])
"""First token in the shard, number of tokens, and how many of the first are targets of another row."""

Lengths = NDArray[np.int64]
"""Numbers of tokens, or of items."""


def pack(lengths: Lengths, row_tokens: int) -> tuple[NDArray[np.void], NDArray[np.uint64]]:
    """Packs the concatenated documents of a shard.

    Args:
        lengths: tokens of each document, its end-of-text token included.
        row_tokens: T.

    Returns:
        Items in the order of their rows, and the number of the first item of each row followed by the number of items.
        Rows are in the order of the first document that begins in them.
    """
    items = _items(lengths, row_tokens)
    rows = np.empty(len(items), dtype=np.int64)
    packable = items["length"] <= row_tokens
    rows[packable] = best_fit(items["length"][packable].astype(np.int64), row_tokens)
    opened = int(rows[packable].max(initial=-1)) + 1
    rows[~packable] = np.arange(opened, opened + int((~packable).sum()))
    count = int(rows.max(initial=-1)) + 1
    begins = np.full(count, np.iinfo(np.int64).max)
    np.minimum.at(begins, rows, items["start"].astype(np.int64))
    rank = np.empty(count, dtype=np.int64)
    rank[np.argsort(begins, kind="stable")] = np.arange(count)
    rows = rank[rows]
    order = np.argsort(rows, kind="stable")
    ends = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=count))]).astype(np.uint64)
    return items[order], ends


def _items(lengths: Lengths, row_tokens: int) -> NDArray[np.void]:
    """The items of all documents in order."""
    parts = -(-lengths // row_tokens)
    document = np.repeat(np.arange(len(lengths)), parts)
    part = np.arange(len(document)) - np.repeat(np.cumsum(parts) - parts, parts)
    context = (part > 0).astype(np.int64)
    begin = (np.cumsum(lengths) - lengths)[document] + part * row_tokens
    items = np.empty(len(document), dtype=ITEM)
    items["start"] = begin - context
    items["length"] = np.minimum(row_tokens, lengths[document] - part * row_tokens) + context
    items["context"] = context
    return items


def best_fit(lengths: Lengths, room: int) -> Lengths:
    """The bin of each item: longest first, each into the fullest bin that has room for it.

    Items of equal length are placed together: a bin that takes one of them stays the fullest while it has room, so it
    is filled before the next bin. The cost grows with the number of distinct lengths.
    """
    bins = np.empty(len(lengths), dtype=np.int64)
    free = _FreeBins(room)
    order = np.argsort(-lengths, kind="stable")
    for equal in np.split(order, np.flatnonzero(np.diff(lengths[order])) + 1) if len(lengths) else []:
        length, placed = int(lengths[equal[0]]), 0
        while placed < len(equal):
            space, fullest = free.take(length, len(equal) - placed)
            each = space // length
            count = min(len(equal) - placed, len(fullest) * each)
            bins[equal[placed : placed + count]] = fullest[np.arange(count) // each]
            full, rest = divmod(count, each)
            free.give(space - each * length, fullest[:full])
            free.give(space - rest * length, fullest[full : full + 1])
            free.give(space, fullest[full + 1 :])
            placed += count
    return bins


class _FreeBins:
    """Bins with room left, by their free space."""

    def __init__(self, room: int) -> None:
        self._room = room
        self._bins: dict[int, Lengths] = {}
        self._spaces: list[int] = []
        self._opened = 0

    def take(self, length: int, count: int) -> tuple[int, Lengths]:
        """Free space and numbers of the fullest bins that fit an item, or of as many new bins as `count` items need."""
        if (index := bisect_left(self._spaces, length)) < len(self._spaces):
            space = self._spaces.pop(index)
            return space, self._bins.pop(space)
        new = np.arange(self._opened, self._opened + -(-count // (self._room // length)))
        self._opened += len(new)
        return self._room, new

    def give(self, space: int, bins: Lengths) -> None:
        """Returns bins with their remaining space."""
        if not space or not len(bins):
            return
        if space not in self._bins:
            insort(self._spaces, space)
            self._bins[space] = bins
        else:
            self._bins[space] = np.concatenate([self._bins[space], bins])
