import pytest

from hatchery_api.conditions import Reason
from hatchery_api.resources.tokenizer import PreTokenizer, SpecialTokens, TokenizerBlocks, TokenizerBuildSpec
from hatchery_jobs.runtime.errors import SpecError
from hatchery_jobs.tokenizer.blocks import (
    ALPHABET,
    PROBES,
    check_vocab_size,
    special_roles,
    special_tokens,
    trained,
    untrained,
)


def blocks(*types: PreTokenizer | str, **others: object) -> TokenizerBlocks:
    items = [PreTokenizer(type=item) if isinstance(item, str) else item for item in types]
    return TokenizerBlocks.model_validate({"pre_tokenizers": items, **others})


def spec(**fields: object) -> TokenizerBuildSpec:
    return TokenizerBuildSpec.model_validate({"corpusRef": {"name": "c"}, "build": {}, **fields})


def test_alphabet_is_all_bytes() -> None:
    assert len(set(ALPHABET)) == 256


def test_pre_tokenizers_split_as_named() -> None:
    digits = untrained(blocks(PreTokenizer(type="Digits"), "ByteLevel"), None)
    assert [piece for piece, _ in digits.pre_tokenizer.pre_tokenize_str("a 12")] == ["a", "Ġ", "1", "2"]
    lines = PreTokenizer(type="Split", pattern=r"\n", behavior="merged_with_next")
    indents = untrained(blocks(lines, PreTokenizer(type="ByteLevel", use_regex=False)), None)
    assert [piece for piece, _ in indents.pre_tokenizer.pre_tokenize_str("a b\n  c")] == ["aĠb", "ĊĠĠc"]


def test_the_last_pre_tokenizer_must_be_byte_level() -> None:
    with pytest.raises(SpecError, match=r"spec\.build\.preTokenizers: the last one is Digits") as caught:
        untrained(blocks("ByteLevel", "Digits"), None)
    assert caught.value.reason == Reason.INVALID_SPEC


@pytest.mark.parametrize(
    "first",
    [
        "Whitespace",
        "WhitespaceSplit",
        "ByteLevel",
        PreTokenizer(type="Split", pattern=" ", behavior="removed"),
    ],
)
def test_pre_tokenizers_that_lose_text_are_refused_before_training(first: PreTokenizer | str) -> None:
    with pytest.raises(SpecError, match=r"spec\.build\.preTokenizers: the design is lossy"):
        untrained(blocks(first, "ByteLevel"), None)


def test_a_bad_pattern_is_named() -> None:
    with pytest.raises(
        SpecError, match=r"spec\.build\.preTokenizers\[1\]\.pattern: '\(\[' is not a valid regular expression"
    ):
        untrained(blocks("Digits", PreTokenizer(type="Split", pattern="(["), "ByteLevel"), None)


def test_vocabulary_holds_bytes_and_special_tokens_at_least() -> None:
    check_vocab_size(spec(vocabSize=260, specialTokens={"extra": ["a", "b", "c"]}))
    with pytest.raises(SpecError, match=r"spec\.vocabSize: 260 cannot hold .* set 261"):
        check_vocab_size(spec(vocabSize=260, specialTokens={"extra": ["a", "b", "c", "d"]}))


def test_roles_default_to_the_end_token() -> None:
    tokens = SpecialTokens(unk="<unk>", pad="<pad>", extra=["<x>", "<pad>"])
    assert special_roles(tokens) == {
        "eos_token": "<|endoftext|>",
        "bos_token": "<|endoftext|>",
        "pad_token": "<pad>",
        "unk_token": "<unk>",
    }
    assert special_tokens(tokens) == ["<|endoftext|>", "<pad>", "<unk>", "<x>"]


def test_roles_of_encoders_and_sentinels_are_tokens_too() -> None:
    tokens = SpecialTokens(pad="<pad>", mask="<mask>", cls="<s>", sep="</s>", sentinels=2, extra=["<x>"])
    assert special_tokens(tokens) == [
        *("<|endoftext|>", "<pad>", "<mask>", "<s>", "</s>", "<extra_id_0>", "<extra_id_1>", "<x>")
    ]
    assert special_roles(tokens)["mask_token"] == "<mask>"


def test_every_text_comes_back_whatever_was_trained_on() -> None:
    tokenizer = trained(untrained(TokenizerBlocks(), None), spec(vocabSize=260), [["nothing but letters"]])
    for probe in PROBES:
        assert tokenizer.decode(tokenizer.encode(probe).ids, skip_special_tokens=False) == probe


def test_normalizers_are_applied_in_order() -> None:
    tokenizer = untrained(blocks("ByteLevel", normalizers=["NFD", "StripAccents", "Lowercase"]), None)
    assert tokenizer.normalizer.normalize_str("Éa") == "ea"
