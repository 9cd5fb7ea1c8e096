"""How much text a row has and how much is written of it, known before torch is imported."""

from typing import Final

from hatchery_api.resources.pretrain import MaskedSpec, PretrainRunSpec, Seq2seqSpec
from hatchery_jobs.pretrain.objectives.spans import Corruption

PAIR_SHARE: Final = 4
"""The target of a pair is taken to be this part of a sequence, until the true lengths are known."""


def learns_pairs(spec: PretrainRunSpec) -> bool:
    """Whether the feed must be one of pairs."""
    return spec.objective.seq2seq is not None and spec.objective.seq2seq.task != "spanCorruption"


def row_tokens(spec: PretrainRunSpec) -> int:
    """Tokens of text in one row of the feed, so that with all that is added it is `data.sequenceLength` long."""
    tokens = spec.data.sequence_length
    match spec.objective.type:
        case "causal":
            return tokens
        case "masked":
            settings = spec.objective.masked or MaskedSpec()
            return tokens - (3 if settings.next_sentence else 2)  # [CLS] A [SEP] B [SEP], or [CLS] A [SEP]
        case _:
            return Corruption.fitting(spec.objective.seq2seq or Seq2seqSpec(), tokens).row_tokens


def target_tokens(spec: PretrainRunSpec) -> int:
    """Tokens a decoder writes for one row; 0 for models without one."""
    if spec.objective.type != "seq2seq":
        return 0
    if learns_pairs(spec):
        return max(1, spec.data.sequence_length // PAIR_SHARE)
    return Corruption.fitting(spec.objective.seq2seq or Seq2seqSpec(), spec.data.sequence_length).target_tokens
