"""What a PretrainRun reports."""

from typing import Annotated

from pydantic import Field

from hatchery_api.base import Record
from hatchery_api.format import significant
from hatchery_api.status import Result, RunStatus


class Loss(Record):
    """Cross-entropy in nats per token."""

    train: float | None = None
    """Training loss of the last reported step."""
    eval: float | None = None
    """Latest validation loss."""
    initial: float | None = None
    """Validation loss before the first step."""


class LastCheckpoint(Record):
    """The newest complete checkpoint."""

    step: int
    """Optimizer steps done."""
    time: str
    """When it was written, RFC 3339."""


class PretrainResult(Result):
    """What a PretrainRun reports."""

    parameters: int | None = None
    """Trainable parameters."""
    tokens_per_step: int | None = None
    """Tokens per optimizer step: batch.sequences times data.sequenceLength."""
    step: int | None = None
    """Optimizer steps done."""
    steps: int | None = None
    """Optimizer steps of the whole run."""
    tokens: int | None = None
    """Training tokens, over all steps done."""
    loss: Loss | None = None
    """Cross-entropy."""
    perplexity: float | None = None
    """exp of the validation loss."""
    initial_perplexity: float | None = None
    """exp of the validation loss before the first step."""
    bits_per_byte: float | None = None
    """Validation loss in bits per byte of text, comparable across tokenizers."""
    tokens_per_second: float | None = None
    """Throughput of all workers, without evaluation and checkpoints."""
    last_checkpoint: LastCheckpoint | None = None
    """The newest complete checkpoint."""
    resumed_from: Annotated[list[int], Field(max_length=64)] | None = None
    """Steps the run resumed from."""
    epochs: float | None = None
    """Passes over the training sequences."""
    state_bytes: int | None = None
    """Bytes of weights, gradients and optimizer state."""
    checkpoint_bytes: int | None = None
    """Bytes of a checkpoint."""
    mfu: float | None = None
    """Model FLOPs utilization, a share of the devices' peak; absent for unknown devices."""
    goodput: float | None = None
    """Share of the workers' time spent on updates that were kept."""
    skipped: int | None = None
    """Batches skipped by the guard."""
    rollbacks: int | None = None
    """Rollbacks to an earlier checkpoint."""
    micro_batch: int | None = None
    """Sequences per forward pass of a process, where batch.perDevice exceeded the memory."""

    def rounded(self) -> dict[str, str]:
        """The perplexity."""
        return {} if self.perplexity is None else {"perplexity": significant(self.perplexity)}


class PretrainRunStatus(RunStatus, PretrainResult):
    """Status of a PretrainRun."""
