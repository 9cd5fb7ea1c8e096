"""Near-duplicates against all pairs, and in bounded memory."""

import random
import tracemalloc

import numpy as np
import pytest
from tests.bench.corpus_reference import components

from hatchery_api.resources.corpus import NearDedup
from hatchery_jobs.corpus.dedup import near
from hatchery_jobs.corpus.dedup.near import UnionFind, keepers, near_clusters, remaining_pairs, sign, star_pairs
from hatchery_jobs.corpus.spool import SpoolWriter
from hatchery_jobs.readers.documents import Document

SURE = NearDedup(ngram=2, bands=64, rows=1, threshold=0.6, min_words=10)
"""Bands of one row: a pair at 0.6 is missed once in 10^25."""


def quiet(_done, _total, _unit):
    pass


def spool_of(texts, folder, batch=7):
    with SpoolWriter(folder / "spool.arrow") as writer:
        for start in range(0, len(texts), batch):
            writer.append([Document("s", f"{n}", 1, text) for n, text in enumerate(texts[start : start + batch])])
    return writer.open()


def families(seed, count, members):
    """Texts in families: copies of one text with more and more words changed."""
    source = random.Random(seed)
    texts = []
    for _ in range(count):
        words = [source.choice("abcdefghij") + str(source.randrange(500)) for _ in range(source.randrange(5, 80))]
        for member in range(members):
            copy = [f"n{source.randrange(10**6)}" if source.random() < 0.05 * member else word for word in words]
            texts.append(" ".join(copy))
    source.shuffle(texts)
    return texts


def found_clusters(texts, spec, folder, kept=None):
    kept = np.ones(len(texts), np.bool_) if kept is None else kept
    first = near_clusters(spool_of(texts, folder), kept, spec, folder, quiet)
    groups = {}
    for number, root in enumerate(first.tolist()):
        groups.setdefault(root, set()).add(number)
    return sorted((g for g in groups.values() if len(g) > 1), key=min)


@pytest.mark.parametrize("seed", range(4))
def test_clusters_are_those_of_all_pairs(tmp_path, seed):
    texts = families(seed, 25, 5)
    expected = components([text.encode() for text in texts], 2, 0.6, 10)
    assert len(expected) > 5
    assert found_clusters(texts, SURE, tmp_path) == sorted(expected, key=min)


def test_clusters_do_not_depend_on_the_order(tmp_path):
    texts = families(9, 25, 5)
    turned = found_clusters(texts[::-1], SURE, tmp_path)
    as_texts = {frozenset(texts[::-1][n] for n in group) for group in turned}
    assert as_texts == {frozenset(texts[n] for n in group) for group in found_clusters(texts, SURE, tmp_path)}


def test_a_band_match_that_is_not_similar_is_refused(tmp_path):
    loose = SURE.model_copy(update={"threshold": 0.99})
    texts = families(3, 10, 3)
    assert found_clusters(texts, loose, tmp_path) == components([t.encode() for t in texts], 2, 0.99, 10)


def test_documents_that_are_not_kept_take_no_part(tmp_path):
    texts = ["one two three four five six seven eight nine ten eleven"] * 3
    assert found_clusters(texts, SURE, tmp_path, np.array([True, False, True])) == [{0, 2}]


@pytest.mark.parametrize(("words", "clusters"), [(9, 0), (10, 1)])
def test_documents_below_min_words_are_never_near_duplicates(tmp_path, words, clusters):
    assert len(found_clusters([" ".join(map(str, range(words)))] * 2, SURE, tmp_path)) == clusters


def test_documents_without_a_single_shingle_are_never_near_duplicates(tmp_path):
    spec = SURE.model_copy(update={"min_words": 0, "ngram": 5})
    assert found_clusters(["", "", "a b", "a b"], spec, tmp_path) == []


def test_comparing_in_small_groups_changes_nothing(tmp_path, monkeypatch):
    texts = families(4, 20, 5)
    whole = found_clusters(texts, SURE, tmp_path)
    monkeypatch.setattr(near, "_COMPARED_BYTES", 500)
    assert found_clusters(texts, SURE, tmp_path) == whole


def test_star_and_remaining_pairs_are_all_pairs_of_a_bucket():
    keys = np.array([5, 9, 5, 5, 7, 9], np.uint64)
    pairs = lambda codes: {(int(c) >> 32, int(c) & 0xFFFFFFFF) for c in codes}  # noqa: E731
    assert pairs(star_pairs(keys)) == {(0, 2), (0, 3), (1, 5)}
    assert pairs(remaining_pairs(keys, np.arange(6))) == {(0, 2), (0, 3), (2, 3), (1, 5)}
    assert pairs(remaining_pairs(keys, np.array([0, 1, 0, 3, 4, 1]))) == {(0, 3), (2, 3)}


def test_pairs_of_a_large_bucket_grow_with_its_size_only():
    keys = np.zeros(5000, np.uint64)
    assert len(star_pairs(keys)) == 4999
    assert len(remaining_pairs(keys, np.arange(5000))) == 0


def test_no_documents_have_no_pairs():
    assert (
        len(star_pairs(np.empty(0, np.uint64))) == len(remaining_pairs(np.empty(0, np.uint64), np.empty(0, int))) == 0
    )


def test_clusters_are_named_by_their_smallest_member():
    clusters = UnionFind(7)
    clusters.join(np.array([6, 5, 3, 4]), np.array([5, 2, 4, 3]))
    assert clusters.roots().tolist() == [0, 1, 2, 3, 3, 2, 2]


def test_the_longest_is_kept_then_the_smallest_id():
    first = np.array([0, 0, 0, 3, 3, 5])
    sizes = np.array([4, 9, 9, 2, 2, 1])
    identities = np.array([1, 8, 7, 6, 5, 0], np.uint64)
    assert keepers(first, sizes, identities).tolist() == [2, 2, 2, 4, 4, 5]


def peak_bytes(texts, folder):
    folder.mkdir()
    spool = spool_of(texts, folder, batch=20)
    tracemalloc.start()
    try:
        sign(spool, np.ones(len(texts), np.bool_), NearDedup(), folder, quiet)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_is_bounded_by_the_batch_not_by_the_corpus(tmp_path):
    source = random.Random(1)
    texts = [" ".join(f"w{source.randrange(10**6)}" for _ in range(1000)) for _ in range(400)]
    peak_bytes(texts[:20], tmp_path / "warm")
    small, large = peak_bytes(texts[:100], tmp_path / "small"), peak_bytes(texts, tmp_path / "large")
    assert large < 1.2 * small
