"""Fast encoding beside the tokenizer's own."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.bench.library import learn_merges, sources
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from hatchery_jobs.pretrain.data.text_encoder import EncoderMismatch, FileEncoder, byte_letters, fast_encoder

EOS = "<|endoftext|>"
CODE = Regex(r"\n+ *|\p{N}{1,3}|[^\s\p{N}]+|\s")
TEXTS = [
    "def f(x):\n    return x * 12345  # don't, it's 3.14\n\n\n",
    "  leading and trailing  \n\t ",
    "größer als ½ Ⅻ ٣٤ 中文 émoji 🎉🏽 \u00a0\u2003x\u0085y\x1cz",
    f"a {EOS} b{EOS}",
    "",
]
SETTINGS = settings(max_examples=150, deadline=None)
PRE_TOKENIZERS = {
    "plain": pre_tokenizers.ByteLevel(add_prefix_space=False),
    "one in a sequence": pre_tokenizers.Sequence([pre_tokenizers.ByteLevel(add_prefix_space=False)]),
    "digits": pre_tokenizers.Sequence([pre_tokenizers.Digits(True), pre_tokenizers.ByteLevel(add_prefix_space=False)]),
    "split": pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(CODE, "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    ),
}
OTHER = {
    "prefix space": pre_tokenizers.ByteLevel(add_prefix_space=True),
    "merged split": pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(CODE, "merged_with_next"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    ),
    "whole text": pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    "whitespace": pre_tokenizers.Whitespace(),
    "three": pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(True),
            pre_tokenizers.Punctuation(),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    ),
}


def trained(pre_tokenizer, size=400, **model):
    tokenizer = Tokenizer(models.BPE(**model))
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=[EOS, "<pad>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS * 3, trainer)
    tokenizer.encode_special_tokens = True
    return tokenizer


@pytest.fixture(scope="module", params=PRE_TOKENIZERS)
def tokenizer(request):
    return trained(PRE_TOKENIZERS[request.param])


def exact(tokenizer, texts):
    return [encoding.ids for encoding in tokenizer.encode_batch(texts, add_special_tokens=False)]


def test_both_libraries_give_equal_ids(tokenizer):
    @SETTINGS
    @given(
        st.lists(
            st.text(st.sampled_from("ab'sdtl ré1½٣中\n\t\r\u00a0\x85\x1c.,_<|>🎉") | st.characters(codec="utf-8")),
            max_size=4,
        )
    )
    def equal(texts):
        assert [ids.tolist() for ids in fast.encode(texts)] == exact(tokenizer, texts)

    fast = fast_encoder(tokenizer)
    assert [ids.tolist() for ids in fast.encode(TEXTS)] == exact(tokenizer, TEXTS)
    equal()


def test_four_megabytes_of_sources_it_was_not_trained_on_have_equal_ids_and_come_back():
    texts = sources()
    train, held_out = texts[::4], [text for number, text in enumerate(texts) if number % 4]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = PRE_TOKENIZERS["split"]
    tokenizer.decoder = decoders.ByteLevel()
    learn_merges(tokenizer, train, 2000)
    ends = np.cumsum([len(text.encode()) for text in held_out])
    some = held_out[: int(np.searchsorted(ends, 4_000_000)) + 1]
    fast = fast_encoder(tokenizer)
    for text, ids, slow in zip(some, fast.encode(some), exact(tokenizer, some), strict=True):
        assert np.array_equal(ids, slow)
        assert tokenizer.decode(slow) == text
    assert sum(len(text.encode()) for text in some) > 4_000_000


def test_letters_of_bytes_are_those_of_the_library():
    assert sorted(byte_letters()) == sorted(pre_tokenizers.ByteLevel.alphabet())
    text = "\n\x00 é"
    written = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str(text)[0][0]
    assert written == "".join(byte_letters()[byte] for byte in text.encode())


@pytest.mark.parametrize("name", OTHER)
def test_other_designs_are_left_to_the_tokenizer(name):
    assert fast_encoder(trained(OTHER[name])) is None


def test_a_normalizer_is_left_to_the_tokenizer():
    tokenizer = trained(PRE_TOKENIZERS["plain"])
    tokenizer.normalizer = normalizers.NFC()
    assert fast_encoder(tokenizer) is None


def test_an_added_token_that_is_text_is_left_to_the_tokenizer():
    tokenizer = trained(PRE_TOKENIZERS["plain"])
    tokenizer.add_tokens([AddedToken("print", normalized=False)])
    assert fast_encoder(tokenizer) is None


def test_another_model_is_left_to_the_tokenizer():
    tokenizer = Tokenizer(models.WordLevel({"a": 0}, unk_token="a"))
    tokenizer.pre_tokenizer = PRE_TOKENIZERS["plain"]
    assert fast_encoder(tokenizer) is None


def test_a_byte_without_token_is_left_to_the_tokenizer():
    tokenizer = Tokenizer(models.BPE({"a": 0, "b": 1, "ab": 2}, [("a", "b")]))
    tokenizer.pre_tokenizer = PRE_TOKENIZERS["plain"]
    assert fast_encoder(tokenizer) is None


def reordered():
    """A tokenizer with a token that two pairs spell, of which only one is a merge: the libraries differ."""
    vocab = {letter: number for number, letter in enumerate(byte_letters())}
    merges = [("b", "c"), ("a", "b"), ("ab", "c")]
    vocab |= {"".join(merge): 256 + number for number, merge in enumerate(merges)}
    tokenizer = Tokenizer(models.BPE(vocab, merges))
    tokenizer.pre_tokenizer = PRE_TOKENIZERS["plain"]
    return tokenizer


def test_a_difference_in_the_first_documents_is_noticed():
    tokenizer = reordered()
    encoder = FileEncoder(tokenizer, fast_encoder(tokenizer), 1)
    with pytest.raises(EncoderMismatch):
        encoder.encode(["x", "abc"])
    slow = FileEncoder(tokenizer, None, 1)
    assert [ids.tolist() for ids in slow.encode(["x", "abc"])] == exact(tokenizer, ["x", "abc"])


def test_a_difference_in_later_documents_is_noticed_in_a_sample():
    tokenizer = reordered()
    encoder = FileEncoder(tokenizer, fast_encoder(tokenizer), 1)
    encoder.encode(["x"] * 20)
    encoder.encode(["abc"])  # one alone is rarely chosen
    with pytest.raises(EncoderMismatch):
        encoder.encode(["abc"] * 3000)


def test_lost_text_is_noticed_in_every_document():
    tokenizer = trained(PRE_TOKENIZERS["plain"])
    design = json.loads(tokenizer.to_str())
    design["pre_tokenizer"] = {
        "type": "Sequence",
        "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": r"\w+"}, "behavior": "Isolated", "invert": False},
            {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
        ],
    }
    tokenizer = Tokenizer.from_str(json.dumps(design))
    fast = fast_encoder(tokenizer)
    assert np.concatenate(fast.encode(["all", "words"])).size
    with pytest.raises(EncoderMismatch):
        fast.encode(["all", "words", "but a space"])


def test_nothing_has_no_tokens():
    assert fast_encoder(trained(PRE_TOKENIZERS["plain"])).encode([]) == []
