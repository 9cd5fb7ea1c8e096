"""The learning rate as a pure function of the step: nothing to save, nothing to prepare, the same on every worker."""

import math
from typing import Final

from hatchery_api.resources.pretrain import ScheduleSpec

DECAY_SHARE: Final = 0.1
"""Part of the run in which `wsd` falls unless the spec says otherwise."""


def learning_rate(step: int, schedule: ScheduleSpec) -> float:
    """Learning rate of one update.

    The warm-up rises in equal parts and reaches `peak_lr` with its last update; from there the course falls, and
    reaches `min_lr` with the last update of the run. `wsd` (warm-up, stable, decay; Hu et al. 2024, section 4) falls
    in its last steps only, so that a longer run begins like a shorter one.

    Args:
        step: updates done before this one, from 0.
        schedule: the schedule.
    """
    rise = max(1, schedule.warmup_steps)
    if step < rise:
        return schedule.peak_lr * (step + 1) / rise
    if schedule.type == "constant":
        return schedule.peak_lr
    fall = _decay_steps(schedule) if schedule.type == "wsd" else schedule.steps - rise
    share = min(1.0, max(0.0, (step + 1 - (schedule.steps - fall)) / max(1, fall)))
    height = 0.5 * (1.0 + math.cos(math.pi * share)) if schedule.type == "cosine" else 1.0 - share
    return schedule.min_lr + (schedule.peak_lr - schedule.min_lr) * height


def _decay_steps(schedule: ScheduleSpec) -> int:
    wanted = schedule.decay_steps or math.ceil(schedule.steps * DECAY_SHARE)
    return min(wanted, schedule.steps - max(1, schedule.warmup_steps))
