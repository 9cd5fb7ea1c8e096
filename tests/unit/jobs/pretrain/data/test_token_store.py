"""The token store."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.jobs.tokens import EOS, write_store

from hatchery_jobs.pretrain.data.loader import StoreSource
from hatchery_jobs.pretrain.data.token_store import stream_positions, token_type

SETTINGS = settings(max_examples=40, deadline=None)


def documents_of(lengths, first=1):
    """Documents whose tokens are all different."""
    ends = np.cumsum([0, *lengths]) + first
    return [list(range(a, b)) for a, b in pairwise(ends)]


def joined(shards):
    return [token for shard in shards for document in shard for token in (*document, EOS)]


def test_token_type_is_the_smallest():
    assert [token_type(n) for n in (2, 65_536, 65_537)] == ["uint16", "uint16", "uint32"]


@pytest.mark.parametrize("vocab_size", [60_000, 2**31])
def test_rows_cross_shards_and_every_token_but_the_first_is_a_target_once(tmp_path, vocab_size):
    shards = [documents_of([3, 9], 1), [], documents_of([1], 50), documents_of([30, 2], 100)]
    factor = 1 if vocab_size == 60_000 else 100_000
    shards = [[[t * factor for t in d] for d in s] for s in shards]
    store = write_store(tmp_path, [{"train": shards}], length=7, vocab_size=vocab_size)
    stream = joined(shards)
    assert store.sequences("train") == (len(stream) - 1) // 7
    assert store.sequences("validation") == 0
    rows = store.rows("train", range(store.sequences("train")))
    assert rows.is_target is None
    assert rows.positions is None
    assert rows.tokens[:, 1:].ravel().tolist() == stream[1 : len(rows.tokens) * 7 + 1]
    assert (rows.tokens[1:, 0] == rows.tokens[:-1, -1]).all()
    backwards = store.rows("train", [2, 0]).tokens
    assert (backwards == rows.tokens[[2, 0]]).all()


def test_rows_and_documents_are_numbered_through_the_corpora(tmp_path):
    first, second = [documents_of([20, 9], 1)], [documents_of([40], 100), documents_of([3], 200)]
    store = write_store(tmp_path, [{"train": first}, {"validation": [[[7]]]}, {"train": second}], length=6)
    assert store.counts("train") == [5, 0, 7]
    rows = store.rows("train", [4, 5]).tokens
    assert rows[0].tolist() == joined(first)[24:31]
    assert rows[1].tolist() == joined(second)[:7]
    assert [d.tolist() for d in store.documents("train", [3, 0, 2])] == [
        [200, 201, 202, EOS], [*range(1, 21), EOS], [*range(100, 140), EOS],
    ]  # fmt: skip
    assert store.documents("validation", [0])[0].tolist() == [7, EOS]


def test_pairs_are_two_documents_each(tmp_path):
    pairs = [[[1], [2, 3]], [[4, 5], [6]], [[7], [8]]]
    shards = [[*pairs[0], *pairs[1]], pairs[2]]
    store = write_store(tmp_path, [{"train": shards[:1]}, {"train": shards[1:]}], packing="pairs")
    assert store.counts("train") == [2, 1]
    found = store.pairs("train", [2, 0, 1])
    assert [[x.tolist() for x in pair] for pair in found] == [pairs[2], pairs[0], pairs[1]]
    feed = StoreSource(store, 1)
    assert feed.validation_rows == 0
    seen = [tuple(map(tuple, pair)) for pair in feed.pairs(3, 3)]
    assert sorted(seen) == sorted(tuple(map(tuple, pair)) for pair in pairs)


def test_the_index_counts_all(tmp_path):
    one, two = [documents_of([3, 5])], [documents_of([8]), documents_of([1])]
    index = write_store(tmp_path, [{"train": one, "validation": two}, {"train": two}]).index
    assert (index.splits["train"].documents, index.splits["train"].tokens) == (4, 10 + 11)
    assert (index.splits["validation"].documents, index.splits["validation"].tokens) == (2, 11)
    assert [c.documents for c in index.corpora] == [2, 2]


@SETTINGS
@given(st.lists(st.lists(st.booleans(), min_size=9, max_size=9), min_size=1, max_size=4))
def test_positions_begin_again_after_each_end(rows):
    tokens = np.where(np.asarray(rows), EOS, 5)
    expected = []
    for row in rows:
        place, places = -1, []
        for number in range(len(row) - 1):
            place = 0 if number == 0 or row[number - 1] else place + 1
            places.append(place)
        expected.append(places)
    assert stream_positions(tokens, EOS).tolist() == expected


@SETTINGS
@given(st.lists(st.lists(st.integers(0, 40), max_size=12), min_size=1, max_size=3), st.integers(8, 20))
def test_packed_rows_hold_every_token_as_a_target_exactly_once(tmp_path_factory, lengths, length):
    folder = tmp_path_factory.mktemp("store")
    shards, first = [], 1
    for some in lengths:
        shards.append(documents_of(some, first))
        first += sum(some)
    store = write_store(folder, [{"train": shards}], length=length, packing="bestFit")
    count = store.sequences("train")
    rows = store.rows("train", range(count), positions=True)
    targets = rows.tokens[:, 1:][rows.is_target]
    assert Counter(targets.tolist()) == Counter(joined(shards))
    contexts = rows.tokens[:, :-1][rows.is_target]
    words = targets != EOS
    begins = {d[0] for s in shards for d in s if d}
    for context, target in zip(contexts[words].tolist(), targets[words].tolist(), strict=True):
        assert context == (EOS if target in begins else target - 1)  # the token before it in its document
    index = store.index.splits["train"]
    assert index.padding == (pytest.approx(1 - index.tokens / (count * length), abs=1e-6) if count else None)
    pieces = [d for s in shards for d in s if 0 < len(d) < length]
    for document in pieces:  # never cut: all its tokens lie in one row, its positions begin with 0
        row, column = np.argwhere(rows.tokens[:, :-1] == document[0])[0]
        assert rows.tokens[row, column : column + len(document) + 1].tolist()[: length - column + 1] == [*document, EOS]
        assert rows.positions[row, column : column + len(document)].tolist() == list(range(len(document)))


def test_rows_of_a_document_longer_than_two(tmp_path):
    store = write_store(tmp_path, [{"train": [[list(range(1, 12)), [20, 21]]]}], length=5, packing="bestFit")
    rows = store.rows("train", range(3), positions=True)
    by_first = {int(row[1]): (row.tolist(), learnt.tolist(), places.tolist())
                for row, learnt, places in zip(rows.tokens, rows.is_target, rows.positions, strict=True)}  # fmt: skip
    assert by_first[1] == ([0, 1, 2, 3, 4, 5], [True] * 5, [0, 0, 1, 2, 3])
    assert by_first[6] == ([5, 6, 7, 8, 9, 10], [True] * 5, [0, 1, 2, 3, 4])
    # the rest of the first document repeats its last token as context
    assert by_first[10] == ([0, 10, 11, 0, 0, 0], [False, True, True, False, False], [0, 0, 1, 2, 0])
