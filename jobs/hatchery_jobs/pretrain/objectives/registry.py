"""The objective of a spec."""

from typing import cast

import torch

from hatchery_api.resources.pretrain import MaskedSpec, PretrainRunSpec, Seq2seqSpec
from hatchery_jobs.pretrain.data.row_lengths import learns_pairs, row_tokens
from hatchery_jobs.pretrain.data.types import DataSource, PairSource
from hatchery_jobs.pretrain.data.vocabulary import Vocabulary
from hatchery_jobs.pretrain.objectives import masked, seq2seq
from hatchery_jobs.pretrain.objectives.base import Objective
from hatchery_jobs.pretrain.objectives.causal import Causal


def build_objective(
    spec: PretrainRunSpec,
    vocabulary: Vocabulary,
    feed: DataSource | PairSource,
    device: torch.device,
    tokens_per_byte: float | None = None,
) -> Objective:
    """What turns rows into batches and a model's output into a loss.

    Args:
        spec: of the run.
        vocabulary: of its tokenizer.
        feed: rows of `row_tokens(spec)` tokens; a PairFeed where `learns_pairs(spec)`.
        device: where batches go.
        tokens_per_byte: of the validation split, where it is known.

    Raises:
        DataError: the tokenizer lacks a special token the objective needs.
    """
    sequence_tokens, seed = spec.data.sequence_length, spec.data.shuffle.seed
    if spec.objective.type == "causal":
        return Causal(cast("DataSource", feed), device, sequence_tokens, tokens_per_byte)
    if spec.objective.type == "masked":
        settings = spec.objective.masked or MaskedSpec()
        return masked.Masked.of(
            settings, cast("DataSource", feed), vocabulary, device, row_tokens=row_tokens(spec), seed=seed
        )
    task = spec.objective.seq2seq or Seq2seqSpec()
    padding = seq2seq.Padding(sequence_tokens, spec.data.dynamic_padding, spec.data.pad_to_multiple_of)
    if not learns_pairs(spec):
        return seq2seq.SpanCorruption.of(task, cast("DataSource", feed), vocabulary, padding, device=device, seed=seed)
    to_code = task.task == "commentToCode"
    return seq2seq.Pairs(cast("PairSource", feed), to_code, seq2seq.Ids.of(vocabulary), padding, device)
