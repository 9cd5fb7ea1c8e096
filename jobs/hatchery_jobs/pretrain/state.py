"""Where a run is, and what one update brought."""

import math
from dataclasses import dataclass

from hatchery_api.base import Record

LARGEST_EXPONENT = 700.0
"""exp of more than this is infinite, which JSON cannot say."""


class RunState(Record):
    """Where a run is: all that is saved beside weights and optimizer."""

    step: int = 0
    """Updates done."""
    batch: int = 0
    """Number of the next batch; ahead of `step` by the batches that were left out."""
    targets: int = 0
    """Labels learnt from."""
    skipped: list[tuple[int, int]] = []
    """Batches left out by the guard: first, and the one after the last."""
    rollbacks: int = 0
    """Returns to an earlier checkpoint."""
    interventions: int = 0
    """How often the guard acted."""
    recent_losses: list[float] = []
    """What the guard compares the next loss with."""
    micro_batch: int | None = None
    """Rows in one forward pass since memory did not suffice for `batch.perDevice`."""
    evaluated_step: int = -1
    """Step of the last measurement on the validation split."""
    train_loss: float | None = None
    """Loss of the last update, in nats per token."""
    eval_loss: float | None = None
    """Last measured loss."""
    initial_loss: float | None = None
    """Loss measured before the first update."""
    curve_bytes: int = 0
    """Length of the loss curve's file."""
    train_seconds: float = 0.0
    """Time spent in updates that were kept."""
    wall_seconds: float = 0.0
    """Time the workers existed."""
    resumed_from: list[int] = []
    """Steps the run was resumed at."""
    checkpoint_step: int | None = None
    """Step of the newest checkpoint."""
    checkpoint_time: str | None = None
    """When it was complete, RFC 3339."""
    loss_scale: dict[str, float | int] | None = None
    """State of the gradient scaler of fp16."""


@dataclass(frozen=True)
class Times:
    """Where the time of one update went, in seconds."""

    data: float
    """Waiting for rows and making batches of them."""
    compute: float
    """Forward and backward passes, the exchange of gradients with them."""
    optimizer: float
    """Clipping and the step of the optimizer."""
    total: float
    """All of it; what is left is the loop's own."""

    @property
    def other(self) -> float:
        """What is left for the loop itself."""
        return max(0.0, self.total - self.data - self.compute - self.optimizer)


@dataclass(frozen=True)
class Update:
    """One update of the weights."""

    loss: float
    """Over the whole batch, in nats per label."""
    norm: float
    """Gradient norm before clipping."""
    rate: float
    """Learning rate."""
    targets: int
    """Labels of the whole batch that counted."""
    times: Times
    """Time it took."""
    stop: bool
    """Whether a pod was asked to end meanwhile."""


def perplexity(loss: float | None) -> float | None:
    """Exp of a loss in nats per token; a hopeless one is a very large number."""
    return None if loss is None else math.exp(min(loss, LARGEST_EXPONENT))


def goodput(state: RunState) -> float | None:
    """Share of the workers' time that went into updates that were kept; None before there is any."""
    return min(1.0, state.train_seconds / state.wall_seconds) if state.wall_seconds > 0 else None
