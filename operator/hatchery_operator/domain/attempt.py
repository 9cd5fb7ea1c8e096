"""One attempt at a stage, and the input of its pods."""

from dataclasses import dataclass
from typing import Final

from hatchery_api.contract import CLAIM_SCHEME, HubTarget, JobInput, Output
from hatchery_api.placement import RunSpec
from hatchery_api.status import InputRecord
from hatchery_operator.domain.labels import (
    ATTEMPT_LABEL,
    KIND_LABEL,
    MANAGED_BY_LABEL,
    MANAGER,
    NAME_LABEL,
    STAGE_LABEL,
    UID_LABEL,
)
from hatchery_operator.domain.objects import Run
from hatchery_operator.domain.stage import PodShape

MOST_INPUT_BYTES: Final = 128 * 1024
"""Largest input of a pod: half of what Kubernetes accepts for all annotations of an object."""


@dataclass(frozen=True)
class Attempt:
    """One attempt at one stage: all its manifests follow from it and the settings."""

    run: Run
    spec: RunSpec
    stage: str
    number: int
    """Number of the attempt, from 1."""
    shape: PodShape
    inputs: tuple[InputRecord, ...] = ()
    earlier_failure: str | None = None
    """Reason for which the previous attempt failed."""

    @property
    def name(self) -> str:
        """Name of the Job and of its Service and NetworkPolicy."""
        return job_name(self.run.name, self.stage, self.number)

    @property
    def labels(self) -> dict[str, str]:
        """Labels of all objects: an explicit list, since labels of the resource may belong to a deployment tool."""
        return {
            KIND_LABEL: self.run.kind.kind,
            NAME_LABEL: self.run.name,
            UID_LABEL: self.run.uid,
            MANAGED_BY_LABEL: MANAGER,
            STAGE_LABEL: self.stage,
            ATTEMPT_LABEL: str(self.number),
        }

    def storage_root(self, default_claim: str) -> str:
        """URL under which artifacts are stored: the spec's root or claim, else the default claim."""
        storage = self.spec.storage
        return storage.root.rstrip("/") if storage.root else f"{CLAIM_SCHEME}{storage.claim_name or default_claim}"

    def hub_endpoint(self, default: str) -> str:
        """URL of the Hub: the spec's, else the default."""
        return (self.spec.hub.endpoint if self.spec.hub else None) or default

    def input_text(self, default_claim: str, default_hub: str) -> str:
        """The `JobInput` of the pods, as JSON."""
        run = self.run
        root = f"{self.storage_root(default_claim)}/{run.namespace}/{run.kind.plural}/{run.name}"
        job_input = JobInput[RunSpec](
            kind=run.kind.kind,
            namespace=run.namespace,
            name=run.name,
            uid=run.uid,
            stage=self.stage,
            attempt=self.number,
            earlier_failure=self.earlier_failure,
            spec=self.spec,
            inputs=list(self.inputs),
            output=Output(root=root),
            hub=HubTarget(endpoint=self.hub_endpoint(default_hub)),
        )
        # for a field with a default, absent and null differ, so nulls are written out
        return job_input.model_dump_json(by_alias=True, serialize_as_any=True)


def job_name(run: str, stage: str, number: int) -> str:
    """Name of a Job: deterministic, so that no attempt starts twice."""
    return f"{run}-{stage}-a{number}"


def input_problem(attempt: Attempt, default_claim: str, default_hub: str) -> str | None:
    """Why the pods' input is too large; None when it is not."""
    count = len(attempt.input_text(default_claim, default_hub).encode())
    if count <= MOST_INPUT_BYTES:
        return None
    return (
        f"the spec and its inputs are {count} bytes of JSON, above the limit of {MOST_INPUT_BYTES}: shorten its lists"
    )
