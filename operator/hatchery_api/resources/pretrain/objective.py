"""The training objective of a PretrainRun: its settings, and the model families that can learn it."""

from typing import Annotated, Final, Literal

from pydantic import ConfigDict, Field

from hatchery_api.base import Model, cel

FAMILIES: Final = {"causal": ("gpt2", "llama"), "masked": ("bert", "roberta"), "seq2seq": ("t5",)}
"""Model families of each objective."""

FAMILY_RULE: Final = (
    f"{ {objective: list(families) for objective, families in FAMILIES.items()} }[self.objective.type]"
    ".exists(a, a == self.model.architecture)",
    "model.architecture must be "
    + ", ".join(f"{' or '.join(families)} for {objective}" for objective, families in FAMILIES.items()),
)
"""The CEL rule over a PretrainRunSpec that the model's family belongs to the objective."""


class MaskedSpec(Model):
    """Masked language modelling: of the chosen tokens 80 % become the mask token, 10 % a random one, 10 % stay."""

    probability: Annotated[float, Field(gt=0, lt=1)] = 0.15
    """Share of the tokens that are predicted."""

    whole_word: bool = False
    """Choose all tokens of a word or none of them."""

    next_sentence: bool = False
    """Also learn whether two segments follow each other (bert): half do, half are from elsewhere."""


class Seq2seqSpec(Model):
    """An encoder reads one text, a decoder writes another."""

    task: Literal["spanCorruption", "commentToCode", "codeToComment"] = "spanCorruption"
    """`spanCorruption`: restore spans that sentinel tokens replace; the others: pairs of a comment and its code,
    found in the corpus: docstrings of Python, comments above code elsewhere."""

    noise_density: Annotated[float, Field(gt=0, lt=1)] = 0.15
    """Share of the tokens in corrupted spans; spanCorruption alone."""

    mean_span_tokens: Annotated[float, Field(ge=1, le=64)] = 3.0
    """Mean length of a corrupted span, in tokens; spanCorruption alone."""


class ObjectiveSpec(Model):
    """What the model learns to predict."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            ("!has(self.masked) || self.type == 'masked'", "masked belongs to type masked"),
            ("!has(self.seq2seq) || self.type == 'seq2seq'", "seq2seq belongs to type seq2seq"),
        )
    )

    type: Literal["causal", "masked", "seq2seq"] = "causal"
    """`causal`: the next token (gpt2, llama); `masked`: hidden tokens (bert, roberta); `seq2seq`: another text (t5)."""

    masked: MaskedSpec | None = None
    """Settings of `masked`; default: 15 % of single tokens."""

    seq2seq: Annotated[Seq2seqSpec | None, Field(alias="seq2seq")] = None
    """Settings of `seq2seq`; default: spanCorruption."""
