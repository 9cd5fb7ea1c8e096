"""Exact duplicates against a dictionary."""

import random

import numpy as np
import pytest

from hatchery_jobs.corpus.dedup.exact import content_digest, first_of_equals
from hatchery_jobs.readers.documents import Document


def document(text):
    return Document("s", "p", 1, text)


def decide(texts, normalize):
    documents = [document(text) for text in texts]
    digests = np.frombuffer(b"".join(content_digest(d, normalize) for d in documents), np.uint64).reshape(-1, 2)
    identities = np.array([d.identity for d in documents], np.uint64)
    return [texts[keeper] for keeper in first_of_equals(digests, identities)], documents


@pytest.mark.parametrize("normalize", ["none", "whitespace"])
def test_keepers_are_those_of_a_dictionary_whatever_the_order(normalize):
    source = random.Random(5)
    words = ["a b", "ab", "a\nb", "a\u2003b", "c", "", " ", "c "]
    outcomes = set()
    for _ in range(20):
        texts = [*source.choices(words, k=30), *words]
        source.shuffle(texts)
        kept, documents = decide(texts, normalize)
        smallest = {}
        for item in documents:
            key = "".join(item.text.split()) if normalize == "whitespace" else item.text
            smallest[key] = min(smallest.get(key, item), item, key=lambda d: d.identity)
        keys = ["".join(t.split()) if normalize == "whitespace" else t for t in texts]
        assert kept == [smallest[key].text for key in keys]
        outcomes.add(frozenset(kept))
    assert len(outcomes) == 1


def test_of_identical_documents_the_first_is_kept():
    digests = np.array([[1, 1], [2, 2], [1, 1], [1, 2], [1, 1]], np.uint64)
    assert first_of_equals(digests, np.array([7, 8, 7, 9, 7], np.uint64)).tolist() == [0, 1, 0, 3, 0]
