"""From a pod's live progress to `status.progress`; pure."""

from datetime import datetime
from typing import Final

from hatchery_api.contract import TrainerStatus
from hatchery_api.status import ProgressStatus
from hatchery_operator.domain import rfc3339

METRICS: Final = 32
"""Live numbers kept."""

TEXT_CHARACTERS: Final = 128
"""Longest progress text."""

_TEXT = "text"
_PAIRS: Final = (("done", "total"), ("step", "steps"), ("current_step", "total_steps"))
"""Names of the metrics that count: of our own jobs, of the protocol's examples, of transformers' callback."""

_MINUTE, _HOUR, _DAY = 60, 3600, 86_400


def progress_status(reported: TrainerStatus, at: datetime) -> ProgressStatus:
    """The progress to show for what a pod reported at a time."""
    remaining = reported.estimated_remaining_seconds
    return ProgressStatus(
        text=_text(reported)[:TEXT_CHARACTERS],
        percentage=reported.progress_percentage,
        eta=None if remaining is None else duration_text(remaining),
        metrics=[metric for metric in reported.metrics if metric.name != _TEXT][:METRICS],
        updated_at=rfc3339(at),
    )


def _text(reported: TrainerStatus) -> str:
    values = {metric.name: metric.value for metric in reported.metrics}
    share = "" if reported.progress_percentage is None else f"{reported.progress_percentage}%"
    if _TEXT in values:
        return values[_TEXT]
    for done, total in _PAIRS:
        if done in values and total in values:
            count = f"{values[done]}/{values[total]} {values.get('unit', '')}".rstrip()
            return f"{count} ({share})" if share else count
    return share


def duration_text(seconds: int) -> str:
    """A duration for people: its two largest units."""
    if seconds < _MINUTE:
        return f"{seconds}s"
    if seconds < _HOUR:
        return f"{seconds // _MINUTE}m{seconds % _MINUTE:02d}s"
    if seconds < _DAY:
        return f"{seconds // _HOUR}h{seconds % _HOUR // _MINUTE:02d}m"
    return f"{seconds // _DAY}d{seconds % _DAY // _HOUR:02d}h"
