"""The learning rate as a pure function of the step: nothing to save, nothing to prepare, the same on every worker."""

import math

from hatchery_api.pretrain import Schedule


def learning_rate(step: int, schedule: Schedule) -> float:
    """Learning rate of one update.

    The warm-up rises in equal parts and reaches `peak_lr` with its last update; from there the course falls, and
    reaches `min_lr` with the last update of the run.

    Args:
        step: updates done before this one, from 0.
        schedule: the schedule.
    """
    rise = max(1, schedule.warmup_steps)
    if step < rise:
        return schedule.peak_lr * (step + 1) / rise
    if schedule.type == "constant":
        return schedule.peak_lr
    share = min(1.0, (step + 1 - rise) / max(1, schedule.steps - rise))
    height = 1.0 - share if schedule.type == "linear" else 0.5 * (1.0 + math.cos(math.pi * share))
    return schedule.min_lr + (schedule.peak_lr - schedule.min_lr) * height
