"""The input of the decision about a stage, and the decision."""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from hatchery_api.conditions import Reason
from hatchery_api.contract import Report
from hatchery_api.placement import RunSpec
from hatchery_api.status import InputRecord, StageState, StageStatus
from hatchery_operator.domain.objects import Diagnosis, Observed, Run, rfc3339
from hatchery_operator.domain.spec_paths import SpecPaths
from hatchery_operator.domain.stage import PodShape, Stage
from hatchery_operator.settings import Settings

Verdict = Literal["True", "False", "Unknown"]
"""Status of the Succeeded condition."""


@dataclass(frozen=True)
class StageContext:
    """One resource, its current stage, and the cluster as the resource sees it."""

    run: Run
    spec: RunSpec
    observed: Observed
    settings: Settings
    definition: Stage
    """The stage as its kind defines it."""
    stage: StageStatus
    """The stage as the status has it."""

    @property
    def now(self) -> str:
        """The time, as the API writes it."""
        return rfc3339(self.observed.now)

    @property
    def shape(self) -> PodShape:
        """The shape of the stage's pods."""
        return self.definition.shape(self.spec)

    @cached_property
    def paths(self) -> SpecPaths:
        """The fields of the spec by the names they hold."""
        return SpecPaths.of(self.run.namespace, self.run.spec, self.settings.claim_name)

    def in_state(self, state: StageState) -> StageStatus:
        """The stage in another state."""
        return self.stage.model_copy(update={"state": state})


@dataclass(frozen=True)
class ChildRef:
    """Names an object that belongs to a run."""

    kind: str
    name: str
    uid: str | None = None
    foreground: bool = False
    """Whether a deleted object stays until its pods have ended."""


@dataclass(frozen=True)
class Decision:
    """The decision about the current stage."""

    reason: Reason
    message: str
    verdict: Verdict = "Unknown"
    stage: StageStatus | None = None
    """The new status of the stage; None when it does not change."""
    diagnosis: Diagnosis | None = None
    """Set while something is wrong."""
    stalled: Diagnosis | None = None
    """Why a running run seems to hang."""
    creates: bool = False
    """Whether the objects of the attempt are created."""
    deletes: tuple[ChildRef, ...] = ()
    suspends: tuple[tuple[ChildRef, bool], ...] = ()
    """Jobs to suspend, or to resume with False."""
    inputs: tuple[InputRecord, ...] = ()
    """Inputs of the attempt that is created."""
    report: Report | None = None
    is_failure: bool = False
    preempted: int = 0
    """Pods that a queue has just preempted."""
    requeue_after: float | None = None
    """Seconds until the next reconcile, unless an event arrives earlier."""
