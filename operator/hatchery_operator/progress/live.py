"""From a pod's live progress to `status.progress`; pure."""

from datetime import datetime
from typing import Final

from hatchery_api.contract import TrainerStatus
from hatchery_api.format import duration_text, significant
from hatchery_api.status import LOSSES, ProgressStatus
from hatchery_operator.domain.objects import rfc3339

METRICS: Final = 32
"""Live numbers kept."""

TEXT_CHARACTERS: Final = 128
"""Longest progress text."""

_TEXT = "text"
_PAIRS: Final = (("done", "total"), ("step", "steps"), ("current_step", "total_steps"))
"""Names of the metrics that count: of our own jobs, of the protocol's examples, of transformers' callback."""


def progress_status(reported: TrainerStatus, at: datetime) -> ProgressStatus:
    """The progress to show for what a pod reported at a time."""
    remaining = reported.estimated_remaining_seconds
    return ProgressStatus(
        text=_text(reported)[:TEXT_CHARACTERS],
        percentage=reported.progress_percentage,
        eta=None if remaining is None else duration_text(remaining),
        loss=_loss(reported),
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


def _loss(reported: TrainerStatus) -> str | None:
    values = {metric.name: metric.value for metric in reported.metrics}
    try:
        return next((significant(float(values[name])) for name in LOSSES if name in values), None)
    except ValueError:
        return None
