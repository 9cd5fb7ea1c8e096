"""Best-fit-decreasing packing, beside a version that places one item after the other."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from hatchery_jobs.pretrain.data.packing import best_fit, pack

SETTINGS = settings(max_examples=200, deadline=None)


def slow_best_fit(lengths, room):
    """How full the bins are: of two that are equally full either may be chosen, so only contents may differ."""
    bins = []
    for length in sorted(lengths, reverse=True):
        fitting = [b for b in bins if sum(b) + length <= room]
        chosen = max(fitting, key=sum, default=None)
        if chosen is None:
            bins.append([length])
        else:
            chosen.append(length)
    return sorted(map(sum, bins))


@SETTINGS
@given(st.integers(1, 30).flatmap(lambda room: st.tuples(st.just(room), st.lists(st.integers(1, room), max_size=60))))
def test_bins_are_those_of_the_slow_version(case):
    room, lengths = case
    bins = best_fit(np.asarray(lengths, dtype=np.int64), room)
    contents = {}
    for number, length in zip(bins.tolist(), lengths, strict=True):
        contents.setdefault(number, []).append(length)
    assert sorted(map(sum, contents.values())) == slow_best_fit(lengths, room)
    assert sorted(contents) == list(range(len(contents)))


@SETTINGS
@given(st.lists(st.integers(1, 50), max_size=30), st.integers(8, 16))
def test_items_cover_every_token_once_and_rows_never_overflow(lengths, row_tokens):
    items, firsts = pack(np.asarray(lengths, dtype=np.int64), row_tokens)
    learnt = np.zeros(sum(lengths), dtype=int)
    for start, length, seen in items.tolist():
        learnt[start + seen : start + length] += 1
        assert length <= row_tokens or (length == row_tokens + 1 and seen == 1)
    assert (learnt == 1).all()
    for first, end in zip(firsts[:-1].tolist(), firsts[1:].tolist(), strict=True):
        row = items[first:end]
        assert len(row) == 1 or row["length"].sum() <= row_tokens


def test_little_stays_empty_of_rows_of_real_lengths():
    lengths = np.random.default_rng(1).lognormal(6, 1.2, 20_000).astype(np.int64) + 1
    _, firsts = pack(lengths, 1024)
    assert 1 - lengths.sum() / ((len(firsts) - 1) * 1024) < 0.01


def test_nothing_makes_no_rows():
    items, firsts = pack(np.empty(0, dtype=np.int64), 8)
    assert (len(items), firsts.tolist()) == (0, [0])
