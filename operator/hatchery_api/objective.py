"""What a language model learns to predict."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from hatchery_api.base import Model, cel


class Masked(Model):
    """Masked language modelling: of the chosen tokens 80 % become the mask token, 10 % a random one, 10 % stay."""

    probability: Annotated[float, Field(gt=0, lt=1)] = 0.15
    """Share of the tokens that are predicted."""

    whole_word: bool = False
    """Choose all tokens of a word or none."""

    next_sentence: bool = False
    """Learn also whether two segments follow each other: half do, half are from elsewhere."""


class Seq2seq(Model):
    """An encoder reads one text, a decoder writes another."""

    task: Literal["spanCorruption", "commentToCode", "codeToComment"] = "spanCorruption"
    """`spanCorruption`: restore spans that sentinel tokens replace; the others: pairs of a comment and its code,
    found in the corpus."""

    noise_density: Annotated[float, Field(gt=0, lt=1)] = 0.15
    """Share of the tokens in corrupted spans."""

    mean_span_tokens: Annotated[float, Field(ge=1, le=64)] = 3.0
    """Mean length of a corrupted span."""


class Objective(Model):
    """What the model learns to predict."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            ("!has(self.masked) || self.type == 'masked'", "masked belongs to type masked"),
            ("!has(self.seq2seq) || self.type == 'seq2seq'", "seq2seq belongs to type seq2seq"),
        )
    )

    type: Literal["causal", "masked", "seq2seq"] = "causal"
    """`causal`: the next token; `masked`: hidden tokens; `seq2seq`: another text."""

    masked: Masked | None = None
    """Settings of `masked`; default: 15 % of single tokens."""

    seq2seq: Seq2seq | None = None
    """Settings of `seq2seq`; default: spanCorruption."""
