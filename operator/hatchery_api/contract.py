"""The contract between operator and pods: the pod's input, live progress, report and exit code.

The operator puts a `JobInput` into the Job's pod template; the pod reads it at `INPUT_PATH`. While it works, the pod
posts `TrainerProgress`. At the end it writes its `Report`, shortened to `REPORT_LIMIT_BYTES`, to `REPORT_PATH`, from
where Kubernetes copies it into the pod's status.
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
"""File of the pod's JobInput."""

REPORT_PATH: Final = "/dev/termination-log"
"""File of the pod's shortened Report: its termination message."""

REPORT_LIMIT_BYTES: Final = 4096
"""Longest termination message that Kubernetes keeps."""

CLAIMS_PATH: Final = "/claims"
"""`claim://name/path` is `/claims/name/path` in every pod."""

CLAIM_SCHEME: Final = "claim://"
"""Scheme of paths on a PersistentVolumeClaim of the same namespace."""

METRICS_PORT: Final = 9400
"""Port of `/metrics` in the pods; index 0 serves."""

RENDEZVOUS_PORT: Final = 29500
"""Port of torchrun's rendezvous, on the pod with index 0."""

SHARED_MEMORY_PATH: Final = "/dev/shm"  # noqa: S108 - where torch expects it
"""Mount path of the memory-backed volume that processes share data through."""

SpecT = TypeVar("SpecT", bound=RunSpec)


class ExitCode(IntEnum):
    """Exit code of a container; `podFailurePolicy` follows from it."""

    DONE = 0
    """The report holds the artifact."""
    SPEC_ERROR = 64
    """The spec can never succeed; no further attempt."""
    DATA_ERROR = 65
    """The input is unusable; no further attempt."""
    RETRY = 75
    """An external failure; another attempt may succeed."""
    INTERRUPTED = 143
    """Terminated with its state saved; restarted without counting as a failure."""


PERMANENT: Final = (ExitCode.SPEC_ERROR, ExitCode.DATA_ERROR)
"""Exit codes after which no further attempt is made."""


class Output(Model):
    """Location of the stage's artifact."""

    root: str
    """Folder of the run's artifacts: `claim://name/<namespace>/<plural>/<run>` or an fsspec URL. The artifact's folder
    is `<root>/<key>`; unfinished work is in `<root>/<key>.work`."""


class HubTarget(Model):
    """Hub settings of the pod; the token is in the environment variable `HF_TOKEN`."""

    endpoint: str
    """URL of the Hub."""


class JobInput(Model, Generic[SpecT]):
    """Everything a pod needs to run its stage."""

    api_version: str = API_VERSION
    """Version of this contract; a pod rejects any other."""
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
    """Attempt number, from 1."""
    earlier_failure: str | None = None
    """Reason the previous attempt failed."""
    spec: SpecT
    """The resource's spec with all defaults."""
    inputs: list[InputRecord] = []
    """Artifacts to read, each with its role."""
    output: Output
    """Location of the artifact."""
    hub: HubTarget
    """Hub settings."""

    def input(self, role: str) -> InputRecord:
        """The input with a role."""
        return next(i for i in self.inputs if i.role == role)


class Report(Record):
    """Outcome of a stage."""

    reason: Reason
    """Completed, or why it failed. Required, since the last log lines of a killed container are JSON too."""
    message: str = ""
    """For a failure: what failed, where (file, row, field) and what to do."""
    artifact: Artifact | None = None
    """The artifact."""
    hub: HubRevision | None = None
    """The commit on the Hub."""
    result: dict[str, Any] = {}
    """The fields of the kind's Result model, by wire name."""
    seconds: float = 0.0
    """Wall time of the stage."""
    cached: bool = False
    """True when the artifact already existed and nothing was computed."""

    def termination_message(self) -> str:
        """JSON of at most `REPORT_LIMIT_BYTES`: drops the longest fields of `result` first, then cuts the message."""
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
    """Live progress as defined by Kubeflow Trainer's status protocol (KEP-2779)."""

    progress_percentage: Annotated[int, Field(ge=0, le=100)] | None = None
    """Percentage done."""
    estimated_remaining_seconds: Annotated[int, Field(ge=0)] | None = None
    """Estimated time left."""
    metrics: Annotated[list[ProgressMetric], Field(max_length=256)] = []
    """Live metrics; `step`, `steps` and `text` are shown as progress."""
    last_updated_time: str | None = None
    """Time of this status, RFC 3339."""


class TrainerProgress(Record):
    """Body of a progress request."""

    trainer_status: TrainerStatus
    """The progress."""


ProgressVariable = Literal[
    "KUBEFLOW_TRAINER_SERVER_URL", "KUBEFLOW_TRAINER_SERVER_CA_CERT", "KUBEFLOW_TRAINER_SERVER_TOKEN"
]
"""Environment variables of the protocol, which transformers' Trainer reads too."""


def stage_spec(spec: RunSpec) -> dict[str, Any]:
    """The part of a spec that determines the artifact, as canonical data."""
    return {k: v for k, v in spec.wire().items() if k not in OPERATIONAL_FIELDS}


def artifact_key(stage: str, code_version: str, spec: Mapping[str, Any], inputs: Mapping[str, str]) -> str:
    """16 hex digits of the sha256 over stage, code version, canonical spec and input digests by role.

    Args:
        stage: name of the stage.
        code_version: version of its code.
        spec: the part of the spec that determines the artifact: `stage_spec` or a subset.
        inputs: digests by role.
    """
    canonical = json.dumps([stage, code_version, spec, inputs], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]
