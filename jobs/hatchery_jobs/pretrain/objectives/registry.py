"""The objectives: what encode, preflight and report need to know of each, and where its implementation is.

Free of torch. The implementation is named by a string and imported when a worker builds it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any, Final

from hatchery_api.resources.pretrain import MaskedSpec, PretrainRunSpec, Seq2seqSpec
from hatchery_jobs.pretrain.data import DataSource, PairSource, Vocabulary
from hatchery_jobs.pretrain.objectives.base import Objective
from hatchery_jobs.pretrain.objectives.spans import Corruption

if TYPE_CHECKING:
    import torch

PAIR_TARGET_DIVISOR: Final = 4
"""The target of a pair is assumed to take this fraction of a sequence until its true length is known."""


def _sequence_tokens(spec: PretrainRunSpec) -> int:
    return spec.data.sequence_length


@dataclass(frozen=True)
class ObjectiveInfo:
    """An objective without its implementation."""

    adjective: str
    """Kind of language model, as in "A causal language model"."""
    title: str
    """Name of the task on the model card."""
    pipeline_tag: str
    """The Hub's name of the task."""
    auto_class: str
    """Class of transformers that loads the model."""
    implementation: str
    """`module:function` that builds it, with the arguments of `build_objective`."""
    task: Callable[[PretrainRunSpec], str]
    """What the model is trained to do, as an infinitive."""
    unit: str = "token"
    """What the loss is an average over."""
    writes_own_text: bool = False
    """Whether the model answers a prompt with a text of its own instead of continuing it."""
    row_tokens: Callable[[PretrainRunSpec], int] = _sequence_tokens
    """Tokens of text in a row, so that with all that is added a sequence has `data.sequenceLength`."""
    target_tokens: Callable[[PretrainRunSpec], int] = lambda _: 0
    """Tokens that a decoder writes per row; 0 for models without a decoder of their own."""
    reads_pairs: Callable[[PretrainRunSpec], bool] = lambda _: False
    """Whether it reads pairs of comment and code instead of rows."""


def _masked_task(spec: PretrainRunSpec) -> str:
    pairs = spec.objective.masked is not None and spec.objective.masked.next_sentence
    return "to restore masked tokens" + (" and to tell whether two segments follow each other" if pairs else "")


def _masked_row_tokens(spec: PretrainRunSpec) -> int:
    settings = spec.objective.masked or MaskedSpec()
    # [CLS] A [SEP] B [SEP], or [CLS] A [SEP]
    return spec.data.sequence_length - (3 if settings.next_sentence else 2)


def _seq2seq_settings(spec: PretrainRunSpec) -> Seq2seqSpec:
    return spec.objective.seq2seq or Seq2seqSpec()


def _seq2seq_task(spec: PretrainRunSpec) -> str:
    return {
        "spanCorruption": "to restore spans of text that are left out",
        "commentToCode": "to write the code that a comment describes",
        "codeToComment": "to write the comment that describes code",
    }[_seq2seq_settings(spec).task]


def _seq2seq_reads_pairs(spec: PretrainRunSpec) -> bool:
    return _seq2seq_settings(spec).task != "spanCorruption"


def _seq2seq_row_tokens(spec: PretrainRunSpec) -> int:
    return Corruption.fitting(_seq2seq_settings(spec), spec.data.sequence_length).row_tokens


def _seq2seq_target_tokens(spec: PretrainRunSpec) -> int:
    if _seq2seq_reads_pairs(spec):
        return max(1, spec.data.sequence_length // PAIR_TARGET_DIVISOR)
    return Corruption.fitting(_seq2seq_settings(spec), spec.data.sequence_length).target_tokens


OBJECTIVES: Final = {
    "causal": ObjectiveInfo(
        adjective="causal",
        title="Causal language modelling",
        pipeline_tag="text-generation",
        auto_class="AutoModelForCausalLM",
        implementation="hatchery_jobs.pretrain.objectives.causal:build",
        task=lambda _: "to predict the next token",
    ),
    "masked": ObjectiveInfo(
        adjective="masked",
        title="Masked language modelling",
        pipeline_tag="fill-mask",
        auto_class="AutoModelForMaskedLM",
        implementation="hatchery_jobs.pretrain.objectives.masked:build",
        task=_masked_task,
        unit="masked token",
        row_tokens=_masked_row_tokens,
    ),
    "seq2seq": ObjectiveInfo(
        adjective="sequence-to-sequence",
        title="Sequence-to-sequence language modelling",
        pipeline_tag="text2text-generation",
        auto_class="AutoModelForSeq2SeqLM",
        implementation="hatchery_jobs.pretrain.objectives.seq2seq:build",
        task=_seq2seq_task,
        writes_own_text=True,
        row_tokens=_seq2seq_row_tokens,
        target_tokens=_seq2seq_target_tokens,
        reads_pairs=_seq2seq_reads_pairs,
    ),
}
"""Every `spec.objective.type`."""


def objective_info(spec: PretrainRunSpec) -> ObjectiveInfo:
    """What is known of a spec's objective without torch."""
    return OBJECTIVES[spec.objective.type]


def row_tokens(spec: PretrainRunSpec) -> int:
    """Tokens of text in a row of the data source."""
    return objective_info(spec).row_tokens(spec)


def build_objective(
    spec: PretrainRunSpec,
    vocabulary: Vocabulary,
    source: DataSource | PairSource,
    device: "torch.device",
    tokens_per_byte: float | None = None,
) -> Objective:
    """The objective of a spec; imports torch.

    Args:
        spec: of the run.
        vocabulary: of its tokenizer.
        source: rows of `row_tokens(spec)` tokens; a `PairSource` if the objective reads pairs.
        device: where batches go.
        tokens_per_byte: of the validation split, where known.

    Raises:
        DataError: the tokenizer lacks a special token that the objective needs.
    """
    build: Any = resolve_name(objective_info(spec).implementation)
    objective: Objective = build(spec, vocabulary, source, device, tokens_per_byte)
    return objective
