"""What operator and pod tell each other: the pod's input, its live progress, its report, its exit code.

The operator writes `JobInput` into the pod template of the Job; in the pod it is a file at `INPUT_PATH`. The pod posts
`TrainerProgress` while it works, and at the end writes its `Report`, shortened to `REPORT_LIMIT_BYTES`, to
`REPORT_PATH`, from where Kubernetes copies it into the pod's status.
"""

import hashlib
import json
from collections.abc import Mapping
from enum import IntEnum
from typing import Annotated, Any, Final, Generic, Literal, TypeVar

from pydantic import Field

from hatchery_api.base import API_VERSION, Model, Record
from hatchery_api.conditions import Reason
from hatchery_api.placement import OPERATIONAL_FIELDS, RunSpec
from hatchery_api.status import Artifact, HubRevision, InputRecord, ProgressMetric

INPUT_PATH: Final = "/etc/hatchery/job.json"
"""Where the pod finds its JobInput."""

REPORT_PATH: Final = "/dev/termination-log"
"""Where the pod leaves its shortened Report."""

REPORT_LIMIT_BYTES: Final = 4096
"""What Kubernetes keeps of a termination message."""

CLAIMS_PATH: Final = "/claims"
"""`claim://name/path` is `/claims/name/path` in every pod."""

CLAIM_SCHEME: Final = "claim://"
"""Scheme of paths on a PersistentVolumeClaim of the same namespace."""

METRICS_PORT: Final = 9400
"""Port of `/metrics` in the pods; index 0 serves."""

RENDEZVOUS_PORT: Final = 29500
"""Port of torchrun's rendezvous on the pod with index 0."""

SHARED_MEMORY_PATH: Final = "/dev/shm"  # noqa: S108 - the place torch expects
"""Memory-backed volume for data passed between processes."""

SpecT = TypeVar("SpecT", bound=RunSpec)


class ExitCode(IntEnum):
    """What the end of a container means for the next step; `podFailurePolicy` is made from this."""

    DONE = 0
    """The report holds the artifact."""
    SPEC_ERROR = 64
    """This spec can never work: no further attempt."""
    DATA_ERROR = 65
    """This input can never be used: no further attempt."""
    RETRY = 75
    """Something outside failed: try again."""
    INTERRUPTED = 143
    """Asked to end, state saved: start again, not counted."""


PERMANENT: Final = (ExitCode.SPEC_ERROR, ExitCode.DATA_ERROR)
"""Exit codes after which no attempt can help."""


class Output(Model):
    """Where the stage's artifact goes."""

    root: str
    """Folder that holds the run's artifacts: `claim://name/<namespace>/<plural>/<run>` or an fsspec URL. The artifact's
    folder is `<root>/<key>`, work that is not finished yet is under `<root>/<key>.work`."""


class HubTarget(Model):
    """Hub settings as the pod needs them; the token is in the environment (`HF_TOKEN`)."""

    endpoint: str
    """URL of the Hub."""


class JobInput(Model, Generic[SpecT]):
    """All a pod is told."""

    api_version: str = API_VERSION
    """Version of this contract; a pod refuses another one."""
    kind: str
    """Kind of the resource."""
    namespace: str
    """Namespace of the resource."""
    name: str
    """Name of the resource."""
    uid: str
    """UID of the resource."""
    stage: str
    """Stage to run."""
    attempt: int
    """Number of the attempt, from 1."""
    earlier_failure: str | None = None
    """Reason for which the attempt before it failed."""
    spec: SpecT
    """The resource's spec, with all defaults."""
    inputs: list[InputRecord] = []
    """Artifacts to read, by role."""
    output: Output
    """Where the artifact goes."""
    hub: HubTarget
    """Hub settings."""

    def input(self, role: str) -> InputRecord:
        """The input with a role."""
        return next(i for i in self.inputs if i.role == role)


class Report(Record):
    """How a stage ended."""

    reason: Reason
    """Completed, or why not. Required: the last log lines of a killed container are JSON too, but no report."""
    message: str = ""
    """For a failure: what, where (file, row, field) and what to do."""
    artifact: Artifact | None = None
    """What was made."""
    hub: HubRevision | None = None
    """What was pushed."""
    result: dict[str, Any] = {}
    """The fields of the kind's Result model, by wire name."""
    seconds: float = 0.0
    """Wall time of the stage."""
    cached: bool = False
    """True when the artifact was there already and nothing was computed."""

    def termination_message(self) -> str:
        """JSON of at most `REPORT_LIMIT_BYTES`: the longest parts of `result` go first, then the message is cut."""
        slim = self
        while len(text := slim.model_dump_json(by_alias=True, exclude_none=True).encode()) > REPORT_LIMIT_BYTES:
            if slim.result:
                longest = max(slim.result, key=lambda name: len(json.dumps(slim.result[name])))
                slim = slim.model_copy(update={"result": {k: v for k, v in slim.result.items() if k != longest}})
            else:
                keep = max(0, len(slim.message) - (len(text) - REPORT_LIMIT_BYTES) - 8)
                slim = slim.model_copy(update={"message": slim.message[:keep] + " …"})
        return text.decode()


class TrainerStatus(Record):
    """Live progress as Kubeflow Trainer's status protocol defines it (KEP-2779)."""

    progress_percentage: Annotated[int, Field(ge=0, le=100)] | None = None
    """Share done."""
    estimated_remaining_seconds: Annotated[int, Field(ge=0)] | None = None
    """Estimated time left."""
    metrics: Annotated[list[ProgressMetric], Field(max_length=256)] = []
    """Live numbers; `step`, `steps` and `text` are shown as progress."""
    last_updated_time: str | None = None
    """When this was true, RFC 3339."""


class TrainerProgress(Record):
    """Body of a progress request."""

    trainer_status: TrainerStatus
    """The progress."""


ProgressVariable = Literal[
    "KUBEFLOW_TRAINER_SERVER_URL", "KUBEFLOW_TRAINER_SERVER_CA_CERT", "KUBEFLOW_TRAINER_SERVER_TOKEN"
]
"""Environment variables of the protocol; transformers' Trainer reads the same ones."""


def stage_spec(spec: RunSpec) -> dict[str, Any]:
    """The part of a spec that decides what an artifact contains, as canonical data."""
    return {k: v for k, v in spec.wire().items() if k not in OPERATIONAL_FIELDS}


def artifact_key(stage: str, code_version: str, spec: Mapping[str, Any], inputs: Mapping[str, str]) -> str:
    """16 hex digits of the sha256 over stage, code version, canonical spec and input digests by role.

    Args:
        stage: the stage.
        code_version: version of its code.
        spec: the part of the spec that decides what the stage makes: `stage_spec`, or less.
        inputs: digests by role.
    """
    canonical = json.dumps([stage, code_version, spec, inputs], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]
