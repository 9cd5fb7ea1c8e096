"""The state of a run, and the figures of one update."""

import math
from dataclasses import dataclass

from hatchery_api.base import Record

LARGEST_EXPONENT = 700.0
"""exp of more than this is infinite, which JSON cannot represent."""


class RunState(Record):
    """What a checkpoint holds beside weights and optimizer."""

    step: int = 0
    """Updates done."""
    batch: int = 0
    """Number of the next batch; ahead of `step` by the skipped batches."""
    targets: int = 0
    """Labels learnt from so far."""
    skipped: list[tuple[int, int]] = []
    """Ranges of batches that the guard skipped: first, and the one after the last."""
    rollbacks: int = 0
    """Rollbacks to a checkpoint."""
    interventions: int = 0
    """Interventions of the guard."""
    recent_losses: list[float] = []
    """Window that the guard compares the next loss with."""
    evaluated_step: int = -1
    """Step of the last validation."""
    train_loss: float | None = None
    """Loss of the last update, in nats per token."""
    eval_loss: float | None = None
    """Last validation loss, in nats per token."""
    initial_loss: float | None = None
    """Validation loss before the first update, in nats per token."""
    curve_bytes: int = 0
    """Length of the loss curve's file, in bytes."""
    train_seconds: float = 0.0
    """Time spent on updates that were kept."""
    wall_seconds: float = 0.0
    """Lifetime of the workers."""
    resumed_from: list[int] = []
    """Steps at which the run resumed."""
    checkpoint_step: int | None = None
    """Step of the newest checkpoint."""
    checkpoint_time: str | None = None
    """When it was taken, RFC 3339."""
    loss_scale: dict[str, float | int] | None = None
    """State of the gradient scaler (fp16)."""


@dataclass(frozen=True)
class Times:
    """The time of one update by phase, in seconds."""

    data: float
    """Waiting for rows and building batches."""
    compute: float
    """Forward and backward passes, with the reduction of gradients."""
    optimizer: float
    """Clipping and optimizer step."""
    total: float
    """The whole update."""

    @property
    def other(self) -> float:
        """The loop's own overhead."""
        return max(0.0, self.total - self.data - self.compute - self.optimizer)


@dataclass(frozen=True)
class Update:
    """One update of the weights."""

    loss: float
    """Loss over the whole batch, in nats per label."""
    norm: float
    """Gradient norm before clipping."""
    rate: float
    """Learning rate."""
    targets: int
    """Labels of the whole batch that count."""
    times: Times
    """Time by phase."""
    stop: bool
    """Whether a pod received SIGTERM meanwhile."""


def perplexity(loss: float | None) -> float | None:
    """Exp of a loss in nats per token, capped at the largest finite value."""
    return None if loss is None else math.exp(min(loss, LARGEST_EXPONENT))


def goodput(state: RunState) -> float | None:
    """Share of the workers' time spent on updates that were kept; None at the start."""
    return min(1.0, state.train_seconds / state.wall_seconds) if state.wall_seconds > 0 else None
