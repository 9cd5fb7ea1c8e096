"""Judges updates with a bad loss or gradient; pure, and therefore the same on every worker.

An update is judged before the optimizer step, while the weights are still good. Skipped batches are remembered in
`RunState.skipped`; the next batch replaces a skipped one, so that a run learns from the full number of batches. Rolling
back and skipping the batches around a spike follows PaLM (Chowdhery et al. 2022, section 5.1).
"""

import math
import statistics
from dataclasses import dataclass
from typing import Literal

from hatchery_api.conditions import Reason
from hatchery_api.resources.pretrain import Guard
from hatchery_jobs.pretrain.state import RunState
from hatchery_jobs.runtime import SpecError


@dataclass(frozen=True)
class GuardVerdict:
    """What to do with an update."""

    action: Literal["accept", "skip", "rollback", "stop"]
    """`accept`: the update is good."""
    reason: Reason = Reason.UP_TO_DATE
    """Reason of any other action."""
    message: str = ""
    """The observed values."""


ACCEPT = GuardVerdict("accept")
"""The update is good."""


def judge(guard: Guard, state: RunState, loss: float, norm: float, *, scaled: bool) -> GuardVerdict:
    """Judges an update by its loss in nats and its gradient norm.

    Args:
        guard: `spec.guard`.
        state: The run before the update.
        loss: Loss of the update's batch.
        norm: Gradient norm before clipping.
        scaled: Whether a gradient scaler is in use (fp16), which skips overflows itself.
    """
    if not math.isfinite(loss) or not (math.isfinite(norm) or scaled):
        return GuardVerdict(guard.non_finite, Reason.NON_FINITE_LOSS, f"loss {loss}, gradient norm {norm}")
    spike = guard.loss_spike
    if spike is None or len(state.recent_losses) < spike.window:
        return ACCEPT
    median = statistics.median(state.recent_losses)
    if loss <= spike.factor * median:
        return ACCEPT
    message = f"loss {loss:.4g} is above {spike.factor:g} times {median:.4g}, the median of {spike.window} updates"
    return GuardVerdict(spike.action, Reason.LOSS_SPIKE, message)


def with_loss(guard: Guard, state: RunState, loss: float) -> RunState:
    """The state with the loss of an accepted update in the window for the next one."""
    if guard.loss_spike is None:
        return state
    recent = [*state.recent_losses, loss][-guard.loss_spike.window :]
    return state.model_copy(update={"recent_losses": recent})


def with_skipped(state: RunState, first: int, end: int) -> RunState:
    """The state after batches `first` to `end` - 1 were skipped."""
    ranges = [*state.skipped, (first, end)]
    if len(ranges) > 1 and ranges[-2][1] == first:
        ranges[-2:] = [(ranges[-2][0], end)]
    return state.model_copy(update={"skipped": ranges, "batch": end, "interventions": state.interventions + 1})


def stop_error(guard: Guard, state: RunState, steps: int, verdict: GuardVerdict) -> SpecError | None:
    """The error that ends the run if the guard must not, or may no longer, intervene; None if it may."""
    where = f"update {state.step + 1} of {steps}, batch {state.batch}: {verdict.message}"
    remedy = "lower spec.schedule.peakLr or spec.optimizer.clipNorm, or raise spec.schedule.warmupSteps"
    if verdict.action == "stop":
        return SpecError(verdict.reason, f"{where}; {remedy}, or let spec.guard skip or roll back")
    if state.interventions >= guard.max_interventions:
        spent = f"after {state.interventions} interventions (spec.guard.maxInterventions)"
        return SpecError(verdict.reason, f"{where}, {spent}; {remedy}")
    return None
