"""The learning rate as a pure function of the step: no state to save, and the same on every worker."""

import math
from typing import Final

from hatchery_api.resources.pretrain import ScheduleSpec

DECAY_SHARE: Final = 0.1
"""Share of the run in which `wsd` decays, unless `schedule.decaySteps` is set."""


def learning_rate(step: int, schedule: ScheduleSpec) -> float:
    """Learning rate of one update.

    The warm-up is linear and reaches `peak_lr` with its last update; the decay reaches `min_lr` with the last update of
    the run. `wsd` (warm-up, stable, decay; Hu et al. 2024, section 4) decays in its last steps only, so that a longer
    run starts like a shorter one.

    Args:
        step: Updates done before this one, from 0.
        schedule: `spec.schedule`.
    """
    warmup = max(1, schedule.warmup_steps)
    if step < warmup:
        return schedule.peak_lr * (step + 1) / warmup
    if schedule.type == "constant":
        return schedule.peak_lr
    decay = _decay_steps(schedule) if schedule.type == "wsd" else schedule.steps - warmup
    progress = min(1.0, max(0.0, (step + 1 - (schedule.steps - decay)) / max(1, decay)))
    height = 0.5 * (1.0 + math.cos(math.pi * progress)) if schedule.type == "cosine" else 1.0 - progress
    return schedule.min_lr + (schedule.peak_lr - schedule.min_lr) * height


def _decay_steps(schedule: ScheduleSpec) -> int:
    steps = schedule.decay_steps or math.ceil(schedule.steps * DECAY_SHARE)
    return min(steps, schedule.steps - max(1, schedule.warmup_steps))
