"""The operator's view of its objects: resources, Jobs, diagnoses, and the cluster as one resource sees it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Literal, NamedTuple

from pydantic import ValidationError

from hatchery_api.base import API_VERSION
from hatchery_api.conditions import Reason
from hatchery_api.kinds import BY_KIND, Kind
from hatchery_api.placement import RunSpec
from hatchery_api.status import RunStatus, StageStatus

Manifest = dict[str, Any]
"""A Kubernetes object as the API server reads and writes it."""

IN_FLIGHT: Final = frozenset({"Waiting", "Pending", "Running", "Suspended", "Resizing"})
"""States of a stage whose newest attempt is not over."""

HELD: Final = frozenset({"Suspended", "Resizing"})
"""States in which the operator itself ends the pods; nothing that pods do on their way out is charged."""


class Key(NamedTuple):
    """Names one resource."""

    kind: str
    namespace: str
    name: str


def rfc3339(moment: datetime) -> str:
    """A time as the API writes it."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def micro_time(moment: datetime) -> str:
    """A time as the API writes it in fields with fractions of a second."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def parse_time(text: str) -> datetime:
    """A time as the API writes it, with or without fractions of a second."""
    return datetime.fromisoformat(text)


def event_time(event: Manifest) -> str:
    """When an Event last occurred, RFC 3339; empty when it does not say."""
    return str(event.get("lastTimestamp") or event.get("eventTime") or event.get("firstTimestamp") or "")


def key_of(manifest: Mapping[str, Any]) -> Key:
    """The key of a resource."""
    return Key(manifest["kind"], manifest["metadata"]["namespace"], manifest["metadata"]["name"])


def resource_version(manifest: Mapping[str, Any]) -> int:
    """The version of an object; the API server's versions grow with every write."""
    text = manifest["metadata"].get("resourceVersion", "0")
    return int(text) if text.isdigit() else 0


def controller_uid(manifest: Mapping[str, Any]) -> str | None:
    """UID of the owner that controls an object."""
    owners = manifest["metadata"].get("ownerReferences", [])
    return next((owner["uid"] for owner in owners if owner.get("controller")), None)


@dataclass(frozen=True)
class Run:
    """One resource, parsed."""

    kind: Kind
    namespace: str
    name: str
    uid: str
    generation: int
    resource_version: str
    deleting: bool
    status: RunStatus
    spec: RunSpec | None = None
    """None when the spec cannot be parsed."""
    invalid: str = ""
    """Then the error, with the path of the field."""

    @property
    def key(self) -> Key:
        """The key of the resource."""
        return Key(self.kind.kind, self.namespace, self.name)

    def owner_reference(self) -> Manifest:
        """The reference by which Kubernetes deletes a child with its resource."""
        return {
            "apiVersion": API_VERSION,
            "kind": self.kind.kind,
            "name": self.name,
            "uid": self.uid,
            "controller": True,
        }

    def with_status(self, status: Mapping[str, Any]) -> Manifest:
        """The manifest that writes a status, bound to this version: a later change may invalidate the status."""
        return {
            "apiVersion": API_VERSION,
            "kind": self.kind.kind,
            "metadata": {
                "name": self.name,
                "namespace": self.namespace,
                "uid": self.uid,
                "resourceVersion": self.resource_version,
            },
            "status": status,
        }


def parse_run(manifest: Mapping[str, Any], before: Run | None = None) -> Run:
    """A resource from its manifest; a spec that an older definition admitted may be invalid now.

    The parsed spec of an earlier version of the same generation is reused.
    """
    kind, metadata = BY_KIND[manifest["kind"]], manifest["metadata"]
    if before and (before.uid, before.generation) == (metadata["uid"], metadata.get("generation")):
        spec, invalid = before.spec, before.invalid
    else:
        spec, invalid = _parse_spec(kind, manifest.get("spec", {}))
    return Run(
        kind=kind,
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata["uid"],
        generation=metadata.get("generation", 0),
        resource_version=metadata.get("resourceVersion", ""),
        deleting="deletionTimestamp" in metadata,
        status=kind.status.model_validate(manifest.get("status", {})),
        spec=spec,
        invalid=invalid,
    )


def _parse_spec(kind: Kind, spec: object) -> tuple[RunSpec | None, str]:
    """The spec, or the first errors in it."""
    try:
        return kind.spec.model_validate(spec), ""
    except ValidationError as error:
        return None, "; ".join(f"spec.{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:3])


@dataclass(frozen=True)
class JobSummary:
    """What the operator needs to know of a Job."""

    name: str
    namespace: str
    uid: str
    owner: Key
    owner_uid: str
    version: int
    since: str
    """When it was created, or last resumed."""
    deleting: bool = False
    suspended: bool = False
    active: int = 0
    """Pods that are not finished."""
    ready: int = 0
    """Pods that run."""
    terminating: int = 0
    """Pods with a deletion timestamp."""
    pods: int = 1
    """Desired pods."""
    size: str = ""
    """Workers it was created for; empty when they never change."""
    end: Literal["Complete", "Failed"] | None = None
    reason: str = ""
    message: str = ""

    def age_seconds(self, now: datetime) -> float:
        """Seconds since it was created or last resumed; negative when clocks differ."""
        return (now - parse_time(self.since)).total_seconds()


@dataclass(frozen=True)
class Diagnosis:
    """A problem, as a condition reports it."""

    reason: Reason
    message: str
    """A sentence; the last lines of a log may follow below it."""

    def sentence_with(self, suffix: str) -> str:
        """The message with a suffix to its sentence."""
        sentence, line_break, below = self.message.partition("\n")
        return f"{sentence}{suffix}{line_break}{below}"


@dataclass(frozen=True)
class AttemptFailure(Diagnosis):
    """Why an attempt failed."""

    permanent: bool = False
    """Whether a further attempt cannot help."""


@dataclass(frozen=True)
class Observed:
    """The cluster as one resource sees it: the input of a plan."""

    now: datetime
    jobs: Mapping[str, JobSummary] = field(default_factory=dict)
    """Jobs of the resource by name. The current one is absent only if it is certain not to exist."""
    references: Mapping[Key, Run] = field(default_factory=dict)
    """Resources that the spec names, those that exist."""
    pods: tuple[Manifest, ...] = ()
    """Pods of the current Job, when it has ended or not all of them run; all of the resource when it has no Job."""
    events: tuple[Manifest, ...] = ()
    """Events of a pod that has a node and does not start, when the pod itself does not say why."""
    refusal: Diagnosis | None = None
    """Why the API server refuses a child or the pods of a Job."""
    refused_since: datetime | None = None
    """Since when it refuses a child."""
    listening_since: datetime | None = None
    """Since when the operator accepts progress reports."""
    outdated: Diagnosis | None = None
    """Set when the installed definition of the resource is too old to hold all of the status."""


def stage_in_flight(status: RunStatus) -> StageStatus | None:
    """The stage with an attempt that is counted and not over: its Job exists, or is about to."""
    stage = next((stage for stage in status.stages if stage.state != "Succeeded"), None)
    return stage if stage and stage.attempt and stage.state in IN_FLIGHT else None


def newest_attempt(status: RunStatus) -> int:
    """Number of the newest attempt of the newest stage that has one; 0 before the first."""
    return next((stage.attempt for stage in reversed(status.stages) if stage.attempt), 0)
