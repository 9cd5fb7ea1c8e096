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
    """Masked language modelling: 80 % of the chosen tokens become the mask token, 10 % a random one, 10 % stay."""

    probability: Annotated[float, Field(gt=0, lt=1)] = 0.15
    """Share of the tokens to predict."""

    whole_word: bool = False
    """Choose all tokens of a word or none."""

    next_sentence: bool = False
    """Also predict whether the second segment follows the first (bert); half do, half are random."""


class Seq2seqSpec(Model):
    """Sequence to sequence: an encoder reads one text, a decoder writes another."""

    task: Literal["spanCorruption", "commentToCode", "codeToComment"] = "spanCorruption"
    """`spanCorruption`: restore spans that sentinel tokens replace. The others learn pairs of a comment and its code:
    docstrings of Python, comments above code in other languages."""

    noise_density: Annotated[float, Field(gt=0, lt=1)] = 0.15
    """Share of the tokens in corrupted spans; for spanCorruption."""

    mean_span_tokens: Annotated[float, Field(ge=1, le=64)] = 3.0
    """Mean tokens of a corrupted span; for spanCorruption."""


class ObjectiveSpec(Model):
    """What the model learns to predict."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            ("!has(self.masked) || self.type == 'masked'", "masked requires type masked"),
            ("!has(self.seq2seq) || self.type == 'seq2seq'", "seq2seq requires type seq2seq"),
        )
    )

    type: Literal["causal", "masked", "seq2seq"] = "causal"
    """What to predict: `causal`: the next token; `masked`: masked tokens; `seq2seq`: another text."""

    masked: MaskedSpec | None = None
    """Settings of `masked`; default: 15 % of single tokens."""

    seq2seq: Annotated[Seq2seqSpec | None, Field(alias="seq2seq")] = None
    """Settings of `seq2seq`; default: spanCorruption."""
