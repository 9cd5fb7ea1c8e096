"""TokenizerBuild: a tokenizer trained on a corpus and measured."""

from typing import Annotated, Final, Literal

from pydantic import ConfigDict, Field

from hatchery_api.base import Model, Record, ResourceName, Seed, Url, cel, exactly_one
from hatchery_api.placement import Card, RunSpec
from hatchery_api.status import Result, RunStatus

SENTINEL: Final = "<extra_id_{}>"
"""Text of a sentinel token by its number, named as in T5."""

SpecialToken = Annotated[str, Field(min_length=1, max_length=64)]
"""Text of a special token."""


class CorpusRef(Model):
    """A split of a CorpusBuild in the same namespace."""

    name: ResourceName
    """Name of the CorpusBuild."""

    split: Literal["train", "validation"] = "train"
    """Split to read."""


class TokenizerSample(Model):
    """Sample of the corpus to train on."""

    documents: Annotated[int, Field(ge=1)] = 200_000
    """Most documents, chosen by the seed."""

    document_chars: Annotated[int, Field(ge=1)] = 100_000
    """Most characters of a document, so that no single file dominates the merges."""

    seed: Seed = 1
    """Seed of the sample."""


class BaseTokenizer(Model):
    """An existing tokenizer to retrain: its pipeline is kept, its vocabulary is new."""

    base: Url
    """A Hub repository, a path, or `claim://name/path` of a saved tokenizer."""

    revision: Annotated[str, Field(min_length=1, max_length=128)] = "main"
    """Revision of a Hub repository."""


class PreTokenizer(Model):
    """A pre-tokenizer, named as in the tokenizers library."""

    model_config = ConfigDict(
        json_schema_extra=cel(("self.type != 'Split' || has(self.pattern)", "type Split needs a pattern"))
    )

    type: Literal["ByteLevel", "Digits", "Split", "Whitespace", "WhitespaceSplit", "Punctuation"]
    """Class in the tokenizers library."""

    pattern: Annotated[str, Field(min_length=1, max_length=512)] | None = None
    """Regular expression for Split."""

    behavior: Literal["isolated", "removed", "merged_with_previous", "merged_with_next", "contiguous"] = "isolated"
    """What Split does with a match."""

    individual_digits: bool = True
    """Digits makes every digit a token."""

    use_regex: bool = True
    """ByteLevel splits words by GPT-2's expression; set false after a custom Split."""


class TokenizerBlocks(Model):
    """A tokenizer of components named as in the tokenizers library."""

    normalizers: Annotated[
        list[Literal["NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents"]], Field(max_length=8)
    ] = []
    """Normalizers, applied in order; none leaves the text unchanged, as code needs."""

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
    """Pre-tokenizers, applied in order; the last one must be ByteLevel."""

    model: Literal["BPE"] = "BPE"
    """Subword model."""


class SpecialTokens(Model):
    """Special tokens by role."""

    eos: SpecialToken = "<|endoftext|>"
    """End of a document; training puts it between documents."""
    bos: SpecialToken | None = None
    """Beginning of a document; default: eos."""
    unk: SpecialToken | None = None
    """Unknown text; not needed by byte-level tokenizers."""
    pad: SpecialToken | None = None
    """Padding; default: eos. Encoders and encoder-decoders need a separate one."""
    mask: SpecialToken | None = None
    """Replaces a masked token; needed by objective `masked`."""
    cls: SpecialToken | None = None
    """Begins a text for an encoder; default: bos."""
    sep: SpecialToken | None = None
    """Ends a text for an encoder; default: eos. With cls, both surround every encoded text."""
    sentinels: Annotated[int, Field(ge=1, le=1000)] | None = None
    """Number of tokens `<extra_id_0>`, `<extra_id_1>` and so on, which replace spans; task `spanCorruption` needs one
    per span of a sequence."""
    extra: Annotated[list[SpecialToken], Field(max_length=64)] = []
    """Further special tokens."""


class TokenizerEvaluate(Model):
    """Evaluation of the tokenizer."""

    documents: Annotated[int, Field(ge=1)] = 500
    """Most documents of the validation split."""

    keywords: Literal["python", "none"] = "python"
    """Word list whose words should be single tokens."""


class TokenizerBuildSpec(RunSpec):
    """Trains a tokenizer on a corpus."""

    model_config = ConfigDict(json_schema_extra=cel(exactly_one("from", "build")))

    corpus_ref: CorpusRef
    """Corpus to train on."""

    sample: TokenizerSample = TokenizerSample()
    """Sample of the corpus to train on."""

    from_: Annotated[BaseTokenizer | None, Field(alias="from")] = None
    """Retrain an existing tokenizer."""

    build: TokenizerBlocks | None = None
    """Build a tokenizer from components."""

    vocab_size: Annotated[int, Field(ge=260, le=1_000_000)] = 32_768
    """Tokens in the vocabulary, special tokens included."""

    min_frequency: Annotated[int, Field(ge=0)] = 2
    """Fewest occurrences of a merge."""

    special_tokens: SpecialTokens = SpecialTokens()
    """Special tokens by role, for `build`; a retrained tokenizer keeps its own."""

    evaluate: TokenizerEvaluate = TokenizerEvaluate()
    """Evaluation of the tokenizer."""

    card: Card = Card()
    """Texts of the card."""


class TokenizerMetrics(Record):
    """Quality on the validation split; a word is a run of non-whitespace."""

    fertility: float
    """Tokens per word."""
    continued_words: float
    """Share of words split into two or more tokens."""
    unknown: float
    """Share of tokens that are the unknown token."""
    rare: float
    """Share of tokens whose id occurs fewer than ten times in the training sample."""
    unused_vocabulary: float
    """Share of the vocabulary that never occurs."""
    chars_per_token: float
    """Characters per token."""
    bytes_per_token: float
    """Bytes of UTF-8 per token."""
    round_trip: float
    """Share of documents that decoding restores exactly."""


class TokenizerResult(Result):
    """What a finished TokenizerBuild reports."""

    vocab_size: int | None = None
    """Tokens in the vocabulary."""

    metrics: TokenizerMetrics | None = None
    """Quality on the validation split."""

    missing_keywords: Annotated[list[str], Field(max_length=128)] | None = None
    """Keywords split into several tokens."""

    documents: int | None = None
    """Documents trained on."""


class TokenizerBuildStatus(RunStatus, TokenizerResult):
    """Status of a TokenizerBuild."""
