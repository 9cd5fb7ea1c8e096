"""TokenizerBuild: a tokenizer trained on a corpus, with its quality measured."""

from typing import Annotated, Final, Literal

from pydantic import ConfigDict, Field

from hatchery_api.base import Model, Record, ResourceName, Seed, Url, cel, exactly_one
from hatchery_api.placement import Card, RunSpec
from hatchery_api.status import Result, RunStatus

SENTINEL: Final = "<extra_id_{}>"
"""Text of the sentinel with a number, with the names of T5."""

SpecialToken = Annotated[str, Field(min_length=1, max_length=64)]
"""The text of a special token."""


class CorpusRef(Model):
    """A split of a CorpusBuild in the same namespace."""

    name: ResourceName
    """Name of the CorpusBuild."""

    split: Literal["train", "validation"] = "train"
    """Split to read."""


class TokenizerSample(Model):
    """The part of the corpus the tokenizer is trained on."""

    documents: Annotated[int, Field(ge=1)] = 200_000
    """Documents at most, chosen by the seed."""

    document_chars: Annotated[int, Field(ge=1)] = 100_000
    """Characters of one document at most, so that no single file owns the merges."""

    seed: Seed = 1
    """Seed of the choice."""


class BaseTokenizer(Model):
    """An existing design that is retrained: its pipeline stays, its vocabulary is new."""

    base: Url
    """A Hub repository, a path, or `claim://name/path` of a saved tokenizer."""

    revision: Annotated[str, Field(min_length=1, max_length=128)] = "main"
    """Revision of a Hub repository."""


class PreTokenizer(Model):
    """One pre-tokenizer, with the names of the tokenizers library."""

    model_config = ConfigDict(
        json_schema_extra=cel(("self.type != 'Split' || has(self.pattern)", "type Split needs a pattern"))
    )

    type: Literal["ByteLevel", "Digits", "Split", "Whitespace", "WhitespaceSplit", "Punctuation"]
    """Class in the tokenizers library."""

    pattern: Annotated[str, Field(min_length=1, max_length=512)] | None = None
    """Regular expression of Split."""

    behavior: Literal["isolated", "removed", "merged_with_previous", "merged_with_next", "contiguous"] = "isolated"
    """What Split does with a match."""

    individual_digits: bool = True
    """Whether Digits makes every digit a token."""

    use_regex: bool = True
    """Whether ByteLevel splits words by GPT-2's expression; false after a Split of your own."""


class TokenizerBlocks(Model):
    """A design from building blocks, with the names of the tokenizers library."""

    normalizers: Annotated[
        list[Literal["NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents"]], Field(max_length=8)
    ] = []
    """Applied in order; none keeps the text as it is, which code needs."""

    pre_tokenizers: Annotated[
        list[PreTokenizer],
        Field(
            min_length=1,
            max_length=8,
            json_schema_extra=cel(
                ("self[self.size() - 1].type == 'ByteLevel'", "the last one must be of type ByteLevel")
            ),
        ),
    ] = [PreTokenizer(type="ByteLevel")]
    """Applied in order; the last one must be ByteLevel."""

    model: Literal["BPE"] = "BPE"
    """Subword model."""


class SpecialTokens(Model):
    """Special tokens by role."""

    eos: SpecialToken = "<|endoftext|>"
    """End of a document; also put between documents when a model is trained."""
    bos: SpecialToken | None = None
    """Begin of a document; default: the same as eos."""
    unk: SpecialToken | None = None
    """Unknown text; byte-level tokenizers need none."""
    pad: SpecialToken | None = None
    """Padding; default: the same as eos. Encoders and encoder-decoders need one of its own."""
    mask: SpecialToken | None = None
    """Stands for a hidden token; objective `masked` needs it."""
    cls: SpecialToken | None = None
    """Begins a text for an encoder; default there: bos."""
    sep: SpecialToken | None = None
    """Ends a text for an encoder; default there: eos. With cls, both are put around every text that is encoded."""
    sentinels: Annotated[int, Field(ge=1, le=1000)] | None = None
    """Number of tokens `<extra_id_0>`, `<extra_id_1>` and so on, which stand for spans; task `spanCorruption` needs
    as many as a sequence has spans."""
    extra: Annotated[list[SpecialToken], Field(max_length=64)] = []
    """Further ones."""


class TokenizerEvaluate(Model):
    """How the tokenizer is measured."""

    documents: Annotated[int, Field(ge=1)] = 500
    """Held-out documents at most (validation split)."""

    keywords: Literal["python", "none"] = "python"
    """Word list that is checked to be single tokens."""


class TokenizerBuildSpec(RunSpec):
    """Trains a tokenizer on a corpus."""

    model_config = ConfigDict(json_schema_extra=cel(exactly_one("from", "build")))

    corpus_ref: CorpusRef
    """The corpus to train on."""

    sample: TokenizerSample = TokenizerSample()
    """The part that is used."""

    from_: Annotated[BaseTokenizer | None, Field(alias="from")] = None
    """Retrain an existing design."""

    build: TokenizerBlocks | None = None
    """Build a design block by block."""

    vocab_size: Annotated[int, Field(ge=260, le=1_000_000)] = 32_768
    """Tokens in the vocabulary, special tokens included."""

    min_frequency: Annotated[int, Field(ge=0)] = 2
    """Occurrences a merge needs."""

    special_tokens: SpecialTokens = SpecialTokens()
    """Special tokens by role; used with `build`. A retrained base keeps its own."""

    evaluate: TokenizerEvaluate = TokenizerEvaluate()
    """How it is measured."""

    card: Card = Card()
    """Texts of the card."""


class TokenizerMetrics(Record):
    """Quality on held-out text; a word is a run of non-whitespace."""

    fertility: float
    """Tokens per word."""
    continued_words: float
    """Share of words that are split into two or more tokens."""
    unknown: float
    """Share of tokens that are the unknown token."""
    rare: float
    """Share of tokens whose id was seen fewer than ten times in training."""
    unused_vocabulary: float
    """Share of the vocabulary that never occurs."""
    chars_per_token: float
    """Characters per token."""
    bytes_per_token: float
    """Bytes of UTF-8 per token."""
    round_trip: float
    """Share of documents that decoding gives back unchanged."""


class TokenizerResult(Result):
    """What a finished TokenizerBuild reports."""

    vocab_size: int | None = None
    """Tokens in the vocabulary as built."""

    metrics: TokenizerMetrics | None = None
    """Quality on held-out text."""

    missing_keywords: Annotated[list[str], Field(max_length=128)] | None = None
    """Keywords that are no single token."""

    documents: int | None = None
    """Documents it was trained on."""


class TokenizerBuildStatus(RunStatus, TokenizerResult):
    """Status of a TokenizerBuild."""
