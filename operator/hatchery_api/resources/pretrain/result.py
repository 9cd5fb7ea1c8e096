"""What a PretrainRun reports."""

from typing import Annotated

from pydantic import Field

from hatchery_api.base import Record
from hatchery_api.format import significant
from hatchery_api.status import Result, RunStatus


class Loss(Record):
    """Cross-entropy in nats per token."""

    train: float | None = None
    """Of the last reported step."""
    eval: float | None = None
    """On the validation split, last measured."""
    initial: float | None = None
    """On the validation split, before the first step."""


class LastCheckpoint(Record):
    """The newest complete checkpoint."""

    step: int
    """Optimizer steps done."""
    time: str
    """When it was taken, RFC 3339."""


class PretrainResult(Result):
    """What a PretrainRun reports."""

    parameters: int | None = None
    """Trainable parameters."""
    tokens_per_step: int | None = None
    """Tokens in one optimizer step: batch.sequences times data.sequenceLength."""
    step: int | None = None
    """Optimizer steps done."""
    steps: int | None = None
    """Optimizer steps of the whole run."""
    tokens: int | None = None
    """Training tokens consumed, over all steps done."""
    loss: Loss | None = None
    """Cross-entropy."""
    perplexity: float | None = None
    """exp of the validation loss."""
    initial_perplexity: float | None = None
    """exp of the validation loss before the first step."""
    bits_per_byte: float | None = None
    """Validation loss in bits per byte of text: comparable between tokenizers."""
    tokens_per_second: float | None = None
    """Speed over all workers and steps, without evaluation and checkpoints."""
    last_checkpoint: LastCheckpoint | None = None
    """The newest complete checkpoint."""
    resumed_from: Annotated[list[int], Field(max_length=64)] | None = None
    """Steps the run was resumed at."""
    epochs: float | None = None
    """How often each training sequence is learnt from."""
    state_bytes: int | None = None
    """Memory of weights, gradients and optimizer."""
    checkpoint_bytes: int | None = None
    """Size of one checkpoint."""
    mfu: float | None = None
    """Model FLOPs utilization: share of the devices' peak that went into the model; absent for unknown devices."""
    goodput: float | None = None
    """Share of the workers' time that went into updates that were kept."""
    skipped: int | None = None
    """Batches left out by the guard."""
    rollbacks: int | None = None
    """Returns to an earlier checkpoint."""
    micro_batch: int | None = None
    """Sequences in one forward pass of a process, where memory did not suffice for batch.perDevice."""

    def rounded(self) -> dict[str, str]:
        """The perplexity."""
        return {} if self.perplexity is None else {"perplexity": significant(self.perplexity)}


class PretrainRunStatus(RunStatus, PretrainResult):
    """Status of a PretrainRun."""
