"""What to do with an update whose loss or gradient is wrong: pure, and so the same on every worker.

The update is judged before the optimizer takes it, so the weights are still good. What is left out is remembered in
`RunState.skipped`; the next batch takes the place of one that was left out, so a run learns from as many batches as it
should. Going back and leaving out the batches around a spike is what PaLM's authors did by hand (Chowdhery et al. 2022,
section 5.1).
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
class Verdict:
    """What is to be done with an update."""

    action: Literal["take", "skip", "rollback", "stop"]
    """`take`: nothing is wrong."""
    reason: Reason = Reason.UP_TO_DATE
    """Why not."""
    message: str = ""
    """Why not, in words."""


TAKEN = Verdict("take")
"""Nothing is wrong."""


def judge(guard: Guard, state: RunState, loss: float, norm: float, *, scaled: bool) -> Verdict:
    """Judges an update by its loss in nats and its gradient norm.

    Args:
        guard: what the user wants.
        state: the run before the update.
        loss: loss of the update's batch.
        norm: gradient norm before clipping.
        scaled: whether gradients are scaled (fp16): the scaler leaves out an overflow by itself.
    """
    if not math.isfinite(loss) or not (math.isfinite(norm) or scaled):
        return Verdict(guard.non_finite, Reason.NON_FINITE_LOSS, f"loss {loss}, gradient norm {norm}")
    spike = guard.loss_spike
    if spike is None or len(state.recent_losses) < spike.window:
        return TAKEN
    median = statistics.median(state.recent_losses)
    if loss <= spike.factor * median:
        return TAKEN
    said = f"loss {loss:.4g} is above {spike.factor:g} times {median:.4g}, the median of {spike.window} updates"
    return Verdict(spike.action, Reason.LOSS_SPIKE, said)


def taken(guard: Guard, state: RunState, loss: float) -> RunState:
    """The state with the loss of an update among those that the next one is compared with."""
    if guard.loss_spike is None:
        return state
    recent = [*state.recent_losses, loss][-guard.loss_spike.window :]
    return state.model_copy(update={"recent_losses": recent})


def left_out(state: RunState, first: int, behind: int) -> RunState:
    """The state after batches `first` to `behind` - 1 were left out."""
    ranges = [*state.skipped, (first, behind)]
    if len(ranges) > 1 and ranges[-2][1] == first:
        ranges[-2:] = [(ranges[-2][0], behind)]
    return state.model_copy(update={"skipped": ranges, "batch": behind, "interventions": state.interventions + 1})


def hopeless(guard: Guard, state: RunState, steps: int, verdict: Verdict) -> SpecError | None:
    """The error that ends a run the guard cannot or must not help; None where it can."""
    where = f"update {state.step + 1} of {steps}, batch {state.batch}: {verdict.message}"
    cure = "lower spec.schedule.peakLr or spec.optimizer.clipNorm, or raise spec.schedule.warmupSteps"
    if verdict.action == "stop":
        return SpecError(verdict.reason, f"{where}; {cure}, or let spec.guard skip or roll back")
    if state.interventions >= guard.max_interventions:
        tries = f"after {state.interventions} interventions (spec.guard.maxInterventions)"
        return SpecError(verdict.reason, f"{where}, {tries}; {cure}")
    return None
