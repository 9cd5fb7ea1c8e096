import re
from collections import Counter

import numpy as np
import pytest
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, trainers

from hatchery_api.conditions import Reason
from hatchery_api.resources.tokenizer import TokenizerBlocks, TokenizerBuildSpec, TokenizerMetrics
from hatchery_jobs.runtime.errors import DataError
from hatchery_jobs.tokenizer.blocks import trained, untrained
from hatchery_jobs.tokenizer.measures.keywords import missing_keywords
from hatchery_jobs.tokenizer.measures.metrics import count_ids, measure_tokenizer, tokens_per_word
from hatchery_jobs.tokenizer.sample import SampledDocument

HELD_OUT = [
    "def f(x):\n    return x  # naïve\n",
    "漢字 かな\u3000交じり 🎉👩‍👩‍👧‍👦\tend ",
    "",
    "   \n\t ",
    "word",
    "\x00\x1f control\x85characters \u2028 here",
]


@pytest.fixture(scope="module")
def tokenizer(programs: list[str]) -> Tokenizer:
    spec = TokenizerBuildSpec.model_validate({"corpusRef": {"name": "c"}, "build": {}, "vocabSize": 500})
    return trained(untrained(TokenizerBlocks(), None), spec, [programs])


def slow_measures(tokenizer: Tokenizer, train: list[str], held_out: list[str]) -> TokenizerMetrics:
    """The same measures, one token at a time, from nothing but single encodings."""
    seen = Counter(i for text in train for i in tokenizer.encode(text, add_special_tokens=False).ids)
    used: Counter[int] = Counter()
    words = continued = 0
    for text in held_out:
        encoding = tokenizer.encode(text, add_special_tokens=False)
        used.update(encoding.ids)
        for word in re.finditer(r"\S+", text):
            places = set(range(*word.span()))
            touching = sum(bool(places & set(range(start, end))) for start, end in encoding.offsets)
            words += 1
            continued += touching >= 2
    tokens = sum(used.values())
    return TokenizerMetrics(
        fertility=tokens / words,
        continued_words=continued / words,
        unknown=0.0,
        rare=sum(n for i, n in used.items() if seen[i] < 10) / tokens,
        unused_vocabulary=sum(i not in used for i in range(tokenizer.get_vocab_size())) / tokenizer.get_vocab_size(),
        chars_per_token=sum(map(len, held_out)) / tokens,
        bytes_per_token=sum(len(text.encode()) for text in held_out) / tokens,
        round_trip=1.0,
    )


def documents(texts: list[str]) -> list[list[SampledDocument]]:
    return [[SampledDocument(f"row {i}", text)] for i, text in enumerate(texts)]


def test_measures_equal_the_slow_ones(tokenizer: Tokenizer, programs: list[str]) -> None:
    held_out = [*HELD_OUT, *programs[::7]]
    seen = count_ids(tokenizer, [programs[:10], programs[10:20]])
    fast = measure_tokenizer(
        tokenizer, [[SampledDocument("", t) for t in held_out[:4]], *documents(held_out[4:])], seen
    )
    slow = slow_measures(tokenizer, programs[:20], held_out)
    assert fast.model_dump() == pytest.approx(slow.model_dump(), rel=1e-12)
    assert 0 < fast.rare < 1
    assert 0 < fast.unused_vocabulary < 1


def test_counts_are_of_single_ids(tokenizer: Tokenizer) -> None:
    counts = count_ids(tokenizer, [["QQ~"], ["~", ""]])
    assert (counts[tokenizer.token_to_id("Q")], counts[tokenizer.token_to_id("~")]) == (2, 2)
    assert counts.sum() == 4


def test_a_token_over_two_words_counts_for_both() -> None:
    assert list(tokens_per_word("ab cd  e", [(0, 1), (1, 4), (4, 5), (5, 8)])) == [2, 2, 1]


def test_text_without_words_or_tokens_has_none() -> None:
    assert len(tokens_per_word(" \n", [])) == 0


def test_keywords_are_found_with_or_without_a_space(tokenizer: Tokenizer) -> None:
    vocabulary = tokenizer.get_vocab()
    missing = missing_keywords(tokenizer, "python")
    assert "nonlocal" in missing
    assert "self" not in missing
    for word in set(missing) ^ {"def", "if", "in"}:
        assert (word in vocabulary or f"Ġ{word}" in vocabulary) == (word not in missing)
    assert missing_keywords(tokenizer, "none") == []


def test_unknown_tokens_are_counted_and_are_no_keyword() -> None:
    tokenizer = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.train_from_iterator(["def f"], trainers.WordLevelTrainer(special_tokens=["[UNK]"], show_progress=False))
    seen = count_ids(tokenizer, [["def f"]])
    found = measure_tokenizer(tokenizer, documents(["def def other f"]), seen)
    assert found.unknown == 0.25
    assert len(missing_keywords(tokenizer, "python")) == 34


def test_a_token_that_takes_spaces_breaks_the_round_trip_and_the_row_is_named(tokenizer: Tokenizer) -> None:
    greedy = Tokenizer.from_str(tokenizer.to_str())
    greedy.add_special_tokens([AddedToken("<mask>", lstrip=True)])
    seen = np.zeros(greedy.get_vocab_size(), np.int64)
    with pytest.raises(DataError, match=r"row 1: decoding does not restore the text from character 1 on") as caught:
        measure_tokenizer(greedy, documents(["fine", "a <mask>"]), seen)
    assert caught.value.reason == Reason.UNREADABLE_INPUT


def test_a_normalizer_lowers_the_round_trip_but_is_no_error(programs: list[str]) -> None:
    spec = TokenizerBuildSpec.model_validate({"corpusRef": {"name": "c"}, "build": {}, "vocabSize": 300})
    lower = trained(untrained(TokenizerBlocks(normalizers=["Lowercase"]), None), spec, [programs])
    seen = np.zeros(lower.get_vocab_size(), np.int64)
    assert measure_tokenizer(lower, documents(["ABC", "abc"]), seen).round_trip == 0.5
