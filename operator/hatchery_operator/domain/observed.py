"""The cluster as one resource sees it: what a plan is made from; pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from hatchery_api.status import RunStatus, StageStatus
from hatchery_operator.domain.diagnosis import Diagnosis
from hatchery_operator.domain.objects import JobSummary, Key, Manifest, Run

IN_FLIGHT: Final = frozenset({"Waiting", "Pending", "Running", "Suspended", "Resizing"})
"""States of a stage whose newest attempt is not over."""


SETTLE_SECONDS: Final = 5.0
"""Age of a Job from which on it is asked why pods of it do not run."""

HELD: Final = frozenset({"Suspended", "Resizing"})
"""Those in which the operator itself ends the pods; nothing that pods do on their way out is charged."""


@dataclass(frozen=True)
class Observed:
    """The cluster as one resource sees it."""

    now: datetime
    jobs: Mapping[str, JobSummary] = field(default_factory=dict)
    """Jobs of the resource by name. The current one is missing only if it surely does not exist."""
    references: Mapping[Key, Run] = field(default_factory=dict)
    """Resources that the spec names, as far as they exist."""
    pods: tuple[Manifest, ...] = ()
    """Pods of the current Job, when it has ended or not all of them run; all of the resource when it has no Job."""
    events: tuple[Manifest, ...] = ()
    """Events of a pod that has a node and does not start, when the pod itself does not say why."""
    refusal: Diagnosis | None = None
    """Why the API server refuses a child or the pods of a Job."""
    refused_since: datetime | None = None
    """Since when it refuses a child."""
    listening_since: datetime | None = None
    """Since when the operator takes progress reports."""
    outdated: Diagnosis | None = None
    """Why the resource cannot say all it should: its definition is too old."""


def stage_in_flight(status: RunStatus) -> StageStatus | None:
    """The stage with an attempt that is counted and not over: its Job exists, or is about to."""
    stage = next((stage for stage in status.stages if stage.state != "Succeeded"), None)
    return stage if stage and stage.attempt and stage.state in IN_FLIGHT else None


def newest_attempt(status: RunStatus) -> int:
    """Number of the newest attempt of the newest stage that has one; 0 before the first."""
    return next((stage.attempt for stage in reversed(status.stages) if stage.attempt), 0)
