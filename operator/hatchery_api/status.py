"""The status all four resources share."""

from typing import Annotated, Final, Literal

from pydantic import Field

from hatchery_api.base import Record, cel
from hatchery_api.conditions import Condition


class Artifact(Record):
    """A finished, verified folder."""

    uri: str
    """Where it is: `claim://name/path` or an fsspec URL."""
    digest: str
    """sha256 of its manifest."""
    bytes: int
    """Size of all its files."""
    key: str
    """Hash of code version, stage spec and input digests: equal work has an equal key."""


class HubRevision(Record):
    """What was pushed."""

    repo: str
    """Repository."""
    revision: str
    """Full sha of the commit."""
    url: str
    """Page of the commit."""


class InputRecord(Record):
    """An input as it was used."""

    role: str
    """What it is for: `corpus`, `tokenizer`, `model`."""
    kind: str
    """Kind of the resource."""
    name: str
    """Name of the resource."""
    uri: str
    """Where its artifact is."""
    digest: str
    """Digest of its artifact."""


StageState = Literal["Waiting", "Pending", "Running", "Retrying", "Suspended", "Resizing", "Succeeded", "Failed"]
"""State of one stage."""


DISRUPTED_PODS = 32
"""Lost pods of a Job whose names are kept, so that none is counted twice."""


class StageStatus(Record):
    """One stage of the work."""

    name: str
    """Name of the stage."""
    state: StageState
    """State of the stage."""
    attempt: int = 0
    """Jobs created so far; latched, so that deleted Jobs stay counted."""
    job: str | None = None
    """Name of the newest Job."""
    started_at: str | None = None
    """When the first Job was created, RFC 3339."""
    finished_at: str | None = None
    """When the stage ended, RFC 3339."""
    retry_at: str | None = None
    """When the next attempt starts, RFC 3339."""
    failure: Annotated[str, Field(max_length=64)] | None = None
    """Reason for which the newest attempt that failed did."""
    artifact: Artifact | None = None
    """What the stage made."""
    disrupted_pods: Annotated[list[Annotated[str, Field(max_length=253)]], Field(max_length=DISRUPTED_PODS)] = []
    """Pods of the newest Job that were lost to eviction, preemption or drain, the newest ones."""


LOSSES: Final = ("loss", "train_loss")
"""Names of the live number that is the training loss: of our own jobs, of transformers' callback."""


class ProgressMetric(Record):
    """One live number."""

    name: Annotated[str, Field(max_length=64)]
    """Name, for example `loss`."""
    value: Annotated[str, Field(max_length=64)]
    """Value as text."""


class ProgressStatus(Record):
    """How far the current stage is."""

    text: Annotated[str, Field(max_length=128)] = ""
    """For people: `22500/50000 (45%)`."""
    percentage: Annotated[int, Field(ge=0, le=100)] | None = None
    """Share done."""
    eta: Annotated[str, Field(max_length=32)] | None = None
    """Estimated time left, for people: `1h12m`."""
    loss: Annotated[str, Field(max_length=32)] | None = None
    """Training loss, rounded for `kubectl get`."""
    metrics: Annotated[list[ProgressMetric], Field(max_length=32)] = []
    """Live numbers."""
    updated_at: Annotated[str, Field(max_length=32)] | None = None
    """When the pod last reported, RFC 3339."""


class Result(Record):
    """What a finished run reports; each kind has its own."""

    def rounded(self) -> dict[str, str]:
        """The numbers that columns of `kubectl get` show, by name; a column cannot round."""
        return {}


class RunStatus(Record):
    """Status of all four resources."""

    observed_generation: int | None = None
    """Generation of the spec this status is about."""

    conditions: Annotated[list[Condition], Field(max_length=16, json_schema_extra=cel(keyed_list="type"))] = []
    """Conditions; wait for Succeeded."""

    start_time: str | None = None
    """When work began, RFC 3339; from then on the spec is fixed."""

    completion_time: str | None = None
    """When the run ended, RFC 3339."""

    current_stage: str | None = None
    """Stage that works now."""

    attempts: int = 0
    """Jobs created over all stages."""

    failures: int = 0
    """Attempts that failed."""

    disruptions: int = 0
    """Pods lost to eviction, preemption or drain; not counted as failures."""

    stages: Annotated[list[StageStatus], Field(max_length=8, json_schema_extra=cel(keyed_list="name"))] = []
    """Stages in their order."""

    progress: ProgressStatus | None = None
    """How far the current stage is."""

    artifact: Artifact | None = None
    """What the run made."""

    hub: HubRevision | None = None
    """What was pushed."""

    display: Annotated[dict[str, str], Field(max_length=8)] = {}
    """Main numbers of the result, rounded for `kubectl get`."""

    inputs: Annotated[list[InputRecord], Field(max_length=32)] = []
    """Inputs as they were used."""
