"""MinHash kernels against sets, closed forms and the S-curve."""

import random

import numpy as np
import pytest
from tests.bench.corpus import standard_library
from tests.bench.corpus_reference import WORD, shingles
from tests.bench.corpus_reference import jaccard as slow_jaccard

from hatchery_jobs.corpus.dedup import minhash
from hatchery_jobs.corpus.dedup.minhash import Signer, jaccard, shingle_hashes, shingle_sets, windows, word_hashes


def word_text(words):
    return " ".join(words).encode()


def related(count, common, size, seed):
    """Pairs of texts of distinct words of which `common` of `size` are shared."""
    source = random.Random(seed)
    for _ in range(count):
        words = [f"w{n}" for n in source.sample(range(10**9), 2 * size - common)]
        left, right = words[:size], words[size - common :]
        source.shuffle(left)
        source.shuffle(right)
        yield word_text(left), word_text(right)


@pytest.mark.parametrize(
    "texts", [[b""], [b"", b"a", b""], [b"a b", b"b a", b"a_b a.b"], ["née 中文 a\u00a0b".encode()]]
)
def test_words_are_those_of_the_regular_expression(texts):
    hashes, counts = word_hashes(texts)
    words = [WORD.findall(text) for text in texts]
    assert counts.tolist() == list(map(len, words))
    flat = [word for text in words for word in text]
    for a, left in enumerate(flat):
        for b, right in enumerate(flat):
            assert (hashes[a] == hashes[b]) == (left == right)


def test_a_word_s_hash_does_not_depend_on_its_neighbours_or_place():
    alone = word_hashes([b"word"])[0][0]
    assert alone in word_hashes([b"x" * 5000 + b" ", b"a word here"])[0]


@pytest.mark.parametrize("ngram", [1, 2, 5])
def test_shingle_sets_are_those_of_the_slow_version_on_real_files(ngram):
    texts = [item.utf8 for item in standard_library(step=40)]
    sets = shingle_sets(texts, ngram)
    slow = [shingles(text, ngram) for text in texts]
    assert [len(s) for s in sets] == [len(s) for s in slow]
    for a in range(0, len(texts) - 1, 3):
        assert jaccard(sets[a], sets[a + 1]) == pytest.approx(slow_jaccard(slow[a], slow[a + 1]))


@pytest.mark.parametrize("count", [0, 1, 4, 5, 6])
def test_a_text_has_a_shingle_for_every_run_of_words(count):
    _, shingle_counts, word_counts = shingle_hashes([b"x y z", word_text(map(str, range(count))), b"a"], 5)
    assert shingle_counts.tolist() == [0, max(0, count - 4), 0]
    assert word_counts.tolist() == [3, count, 1]


def test_texts_do_not_share_shingles_across_their_border():
    together = shingle_hashes([b"a b c", b"d e f"], 2)[0]
    apart = np.concatenate([shingle_hashes([b"a b c"], 2)[0], shingle_hashes([b"d e f"], 2)[0]])
    assert together.tolist() == apart.tolist()


def test_batches_do_not_change_shingles(monkeypatch):
    texts = [item.utf8 for item in standard_library(step=100) if len(item.utf8) < 4000]
    whole = shingle_sets(texts, 5)
    monkeypatch.setattr(minhash, "WINDOW_BYTES", 5000)
    assert len(list(windows(texts))) > 1
    assert all(map(np.array_equal, whole, shingle_sets(texts, 5)))


def test_a_text_longer_than_a_window_is_cut_at_the_same_place_every_time(monkeypatch):
    monkeypatch.setattr(minhash, "WINDOW_BYTES", 64)
    text = word_text(f"word{n}" for n in range(100))
    alone = shingle_sets([text], 3)[0]
    assert np.array_equal(alone, shingle_sets([b"before", text, b"after"], 3)[1])
    slow = shingles(text, 3)
    assert abs(len(alone) - len(slow)) <= len(text) // 64 + 1  # a cut word is two
    assert [end - start for start, end in windows([b"a", text, b"b"])] == [1, 1, 1]


@pytest.mark.parametrize("common", [20, 60, 90])
def test_signatures_collide_with_the_probability_of_the_jaccard_similarity(common):
    similarity = common / (200 - common)
    signer = Signer.make(14, 8, 1)
    pairs, hits = 300, 0
    for left, right in related(pairs, common, 100, seed=common):
        hashes, counts, _ = shingle_hashes([left, right], 1)
        first, second = signer.signatures(hashes, counts)
        hits += int((first == second).sum())
    trials = pairs * 112
    assert abs(hits / trials - similarity) < 4.5 * (similarity * (1 - similarity) / trials) ** 0.5


@pytest.mark.parametrize("common", [67, 76, 82, 89])
def test_band_keys_find_pairs_along_the_s_curve(common):
    similarity = common / (200 - common)
    expected = 1 - (1 - similarity**8) ** 14
    signer = Signer.make(14, 8, 7)
    pairs, found = 400, 0
    for left, right in related(pairs, common, 100, seed=common):
        hashes, counts, _ = shingle_hashes([left, right], 1)
        keys = signer.band_keys(signer.signatures(hashes, counts))
        found += bool((keys[:, 0] == keys[:, 1]).any())
    assert abs(found / pairs - expected) < 4 * (expected * (1 - expected) / pairs) ** 0.5


def test_signatures_are_the_smallest_values_of_each_text():
    signer = Signer.make(2, 2, 3)
    hashes, counts, _ = shingle_hashes([b"a b c", b"d", b"e f"], 1)
    parts = np.split(hashes >> np.uint64(32), np.cumsum(counts)[:-1])
    expected = [
        [
            min((int(h) * int(m) + int(a)) % 2**32 for h in part)
            for m, a in zip(signer.multipliers, signer.addends, strict=True)
        ]
        for part in parts
    ]
    assert signer.signatures(hashes, counts).tolist() == expected


def test_seeds_make_different_functions():
    assert not np.array_equal(Signer.make(2, 2, 1).multipliers, Signer.make(2, 2, 2).multipliers)
    assert np.array_equal(Signer.make(2, 2, 1).multipliers, Signer.make(2, 2, 1).multipliers)
