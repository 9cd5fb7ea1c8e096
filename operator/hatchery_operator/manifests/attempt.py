"""One attempt at one stage: what the manifests of its objects are made from."""

from dataclasses import dataclass

from hatchery_api.placement import RunSpec
from hatchery_api.status import InputRecord
from hatchery_operator.domain.objects import ATTEMPT_LABEL, STAGE_LABEL, Run
from hatchery_operator.stages.base import PodShape


@dataclass(frozen=True)
class Attempt:
    """One attempt at one stage."""

    run: Run
    spec: RunSpec
    stage: str
    attempt: int
    shape: PodShape
    inputs: tuple[InputRecord, ...] = ()
    earlier_failure: str | None = None

    @property
    def name(self) -> str:
        """Name of the Job and of all that belongs to it."""
        return job_name(self.run.name, self.stage, self.attempt)

    @property
    def labels(self) -> dict[str, str]:
        """Labels of all objects of the attempt."""
        return {**self.run.labels(), STAGE_LABEL: self.stage, ATTEMPT_LABEL: str(self.attempt)}


def job_name(run: str, stage: str, attempt: int) -> str:
    """Name of a Job: deterministic, so that no attempt is ever started twice."""
    return f"{run}-{stage}-a{attempt}"
