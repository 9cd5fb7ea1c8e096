"""The training objective of a PretrainRun: its settings, and the model families that can learn it."""

from typing import Annotated, Final, Literal

from pydantic import ConfigDict, Field

from hatchery_api.base import Model, cel

ObjectiveType = Annotated[
    Literal["causal", "masked", "seq2seq"],
    Field(description="What to predict: `causal`: the next token; `masked`: masked tokens; `seq2seq`: another text."),
]
Architecture = Literal["gpt2", "llama", "bert", "roberta", "t5"]
FAMILIES: Final[dict[ObjectiveType, tuple[Architecture, ...]]] = {
    "causal": ("gpt2", "llama"),
    "masked": ("bert", "roberta"),
    "seq2seq": ("t5",),
}
"""Every objective with the model families that can learn it."""

FAMILY_CHOICES: Final = ", ".join(f"{' or '.join(families)} for {name}" for name, families in FAMILIES.items())
"""The families of each objective in words."""

FAMILY_RULE: Final = (
    f"{ {objective: list(families) for objective, families in FAMILIES.items()} }[self.objective.type]"
    ".exists(a, a == self.model.architecture)",
    f"model.architecture must be {FAMILY_CHOICES}",
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

    type: ObjectiveType = "causal"

    masked: MaskedSpec | None = None
    """Settings of `masked`; default: 15 % of single tokens."""

    seq2seq: Annotated[Seq2seqSpec | None, Field(alias="seq2seq")] = None
    """Settings of `seq2seq`; default: spanCorruption."""
