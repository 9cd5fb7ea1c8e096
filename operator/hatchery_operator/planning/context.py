"""What a step is decided from: one resource, its current stage, and the cluster as it sees it; pure."""

from dataclasses import dataclass

from hatchery_api.placement import RunSpec
from hatchery_api.status import StageState, StageStatus
from hatchery_operator.domain.objects import Run, rfc3339
from hatchery_operator.domain.observed import Observed
from hatchery_operator.settings import Settings
from hatchery_operator.stages.base import PodShape
from hatchery_operator.stages.registry import STAGES


@dataclass(frozen=True)
class StageContext:
    """What the functions below decide about."""

    run: Run
    spec: RunSpec
    seen: Observed
    settings: Settings
    stage: StageStatus

    @property
    def now(self) -> str:
        """The time, as the API writes it."""
        return rfc3339(self.seen.now)

    @property
    def shape(self) -> PodShape:
        """What the stage's pods look like."""
        return next(s for s in STAGES[self.run.kind.kind] if s.name == self.stage.name).shape(self.spec)

    def in_state(self, state: StageState) -> StageStatus:
        """The stage in a state."""
        return self.stage.model_copy(update={"state": state})
