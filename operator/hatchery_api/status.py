"""The status that all resources share."""

from typing import Annotated, Final, Literal

from pydantic import Field

from hatchery_api.base import Record, cel
from hatchery_api.conditions import Condition


class Artifact(Record):
    """A finished, verified folder."""

    uri: str
    """Location: `claim://name/path` or an fsspec URL."""
    digest: str
    """sha256 of its manifest."""
    bytes: int
    """Size of all its files."""
    key: str
    """Hash of code version, stage spec and input digests; equal work has an equal key."""


class HubRevision(Record):
    """A commit on the Hub."""

    repo: str
    """Repository."""
    revision: str
    """Full sha of the commit."""
    url: str
    """URL of the commit."""


class InputRecord(Record):
    """An input as the run used it."""

    role: str
    """Role of the input: `corpus`, `tokenizer`, `model`."""
    kind: str
    """Kind of the resource."""
    name: str
    """Name of the resource."""
    uri: str
    """Location of its artifact."""
    digest: str
    """Digest of its artifact."""


StageState = Literal["Waiting", "Pending", "Running", "Retrying", "Suspended", "Resizing", "Succeeded", "Failed"]
"""State of one stage."""


DISRUPTED_PODS = 32
"""Names kept of a Job's lost pods, so that none is counted twice."""


class StageStatus(Record):
    """One stage of the work."""

    name: str
    """Name of the stage."""
    state: StageState
    """State of the stage."""
    attempt: int = 0
    """Jobs created so far, deleted ones included."""
    job: str | None = None
    """Name of the newest Job."""
    started_at: str | None = None
    """When the first Job was created, RFC 3339."""
    finished_at: str | None = None
    """When the stage finished, RFC 3339."""
    retry_at: str | None = None
    """When the next attempt starts, RFC 3339."""
    failure: Annotated[str, Field(max_length=64)] | None = None
    """Reason of the newest failed attempt."""
    artifact: Artifact | None = None
    """Artifact of the stage."""
    disrupted_pods: Annotated[list[Annotated[str, Field(max_length=253)]], Field(max_length=DISRUPTED_PODS)] = []
    """Newest pods of the newest Job that were lost to eviction, preemption or drain."""


LOSSES: Final = ("loss", "train_loss")
"""Live metrics that hold the training loss: of our own jobs, of transformers' callback."""


class ProgressMetric(Record):
    """A live metric."""

    name: Annotated[str, Field(max_length=64)]
    """Name, for example `loss`."""
    value: Annotated[str, Field(max_length=64)]
    """Value as text."""


class ProgressStatus(Record):
    """Progress of the current stage."""

    text: Annotated[str, Field(max_length=128)] = ""
    """Progress as text: `22500/50000 (45%)`."""
    percentage: Annotated[int, Field(ge=0, le=100)] | None = None
    """Percentage done."""
    eta: Annotated[str, Field(max_length=32)] | None = None
    """Estimated time left: `1h12m`."""
    loss: Annotated[str, Field(max_length=32)] | None = None
    """Training loss, rounded for `kubectl get`."""
    metrics: Annotated[list[ProgressMetric], Field(max_length=32)] = []
    """Live metrics."""
    updated_at: Annotated[str, Field(max_length=32)] | None = None
    """Time of the pod's last report, RFC 3339."""


class Result(Record):
    """What a finished run reports; each kind has its own subclass."""

    def rounded(self) -> dict[str, str]:
        """Numbers for the columns of `kubectl get`, which cannot round, by name."""
        return {}


class RunStatus(Record):
    """Status that all resources share."""

    observed_generation: int | None = None
    """Generation of the spec that this status describes."""

    conditions: Annotated[list[Condition], Field(max_length=16, json_schema_extra=cel(keyed_list="type"))] = []
    """Conditions; wait for Succeeded."""

    start_time: str | None = None
    """When the first Job was created, RFC 3339; the spec is immutable from then on."""

    completion_time: str | None = None
    """When the run finished, RFC 3339."""

    current_stage: str | None = None
    """Current stage."""

    attempts: int = 0
    """Jobs created, over all stages."""

    failures: int = 0
    """Failed attempts."""

    disruptions: int = 0
    """Pods lost to eviction, preemption or drain; not counted as failures."""

    stages: Annotated[list[StageStatus], Field(max_length=8, json_schema_extra=cel(keyed_list="name"))] = []
    """Stages in order."""

    progress: ProgressStatus | None = None
    """Progress of the current stage."""

    artifact: Artifact | None = None
    """Artifact of the run."""

    hub: HubRevision | None = None
    """Commit on the Hub."""

    display: Annotated[dict[str, str], Field(max_length=8)] = {}
    """Main numbers of the result, rounded for `kubectl get`."""

    inputs: Annotated[list[InputRecord], Field(max_length=32)] = []
    """Inputs as the run used them."""
