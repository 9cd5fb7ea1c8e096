"""The operator's view of its objects: keys, parsed resources, and reduced Jobs; pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal, NamedTuple

from pydantic import ValidationError

from hatchery_api.base import API_VERSION
from hatchery_api.kinds import BY_KIND, Kind
from hatchery_api.placement import RunSpec
from hatchery_api.status import RunStatus
from hatchery_operator.domain.labels import KIND_LABEL, NAME_LABEL, UID_LABEL

Manifest = dict[str, Any]
"""A Kubernetes object as the API server reads and writes it."""

STAGE_LABEL: Final = "hatchery.dev/stage"
"""Label of every child: stage of the work."""

ATTEMPT_LABEL: Final = "hatchery.dev/attempt"
"""Label of every child: number of the attempt."""

SIZE_ANNOTATION: Final = "hatchery.dev/size"
"""Annotation of a Job whose number of workers may change: nodes x processes, as the spec asked for them."""

MANAGED_BY_LABEL: Final = "app.kubernetes.io/managed-by"
"""Label of every child: `hatchery`."""

MANAGER: Final = "hatchery"
"""Field manager of the children, and value of `MANAGED_BY_LABEL`."""


class Key(NamedTuple):
    """Names one resource."""

    kind: str
    namespace: str
    name: str


def rfc3339(moment: datetime) -> str:
    """A time as the API writes it."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def micro_time(moment: datetime) -> str:
    """A time as the API writes it where fractions of a second count."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def parse_time(text: str) -> datetime:
    """A time as the API writes it, with or without fractions of a second."""
    return datetime.fromisoformat(text)


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
    """Then what is wrong, with the path of the field."""

    @property
    def key(self) -> Key:
        """What names it."""
        return Key(self.kind.kind, self.namespace, self.name)

    def owner_reference(self) -> Manifest:
        """The reference that makes a child go when the resource goes."""
        return {
            "apiVersion": API_VERSION,
            "kind": self.kind.kind,
            "name": self.name,
            "uid": self.uid,
            "controller": True,
        }

    def with_status(self, status: Mapping[str, Any]) -> Manifest:
        """What is written to the status, bound to this version: whatever has changed since may make it wrong."""
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

    def labels(self) -> dict[str, str]:
        """Labels of all children: an explicit list, since labels of the resource may belong to a deployment tool."""
        return {
            KIND_LABEL: self.kind.kind,
            NAME_LABEL: self.name,
            UID_LABEL: self.uid,
            MANAGED_BY_LABEL: MANAGER,
        }


def parse_run(manifest: Mapping[str, Any], before: Run | None = None) -> Run:
    """A resource from its manifest; a spec that an older definition admitted may be invalid now.

    Of an earlier version of the same generation the parsed spec is used again.
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
    """The spec, or what is wrong with it."""
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
    """Pods that were told to end."""
    pods: int = 1
    """Pods there should be."""
    size: str = ""
    """Workers it was made for; empty when they never change."""
    end: Literal["Complete", "Failed"] | None = None
    reason: str = ""
    message: str = ""


def summarize_job(manifest: Mapping[str, Any]) -> JobSummary | None:
    """The summary of a Job; None for a Job that no resource of ours controls."""
    metadata, status, spec = manifest["metadata"], manifest.get("status", {}), manifest.get("spec", {})
    labels, owner_uid = metadata.get("labels", {}), controller_uid(manifest)
    if owner_uid is None or owner_uid != labels.get(UID_LABEL) or labels.get(KIND_LABEL) not in BY_KIND:
        return None
    ends = [c for c in status.get("conditions", []) if c["type"] in ("Complete", "Failed") and c["status"] == "True"]
    end = ends[0] if ends else {}
    return JobSummary(
        name=metadata["name"],
        namespace=metadata["namespace"],
        uid=metadata["uid"],
        owner=Key(labels[KIND_LABEL], metadata["namespace"], labels.get(NAME_LABEL, "")),
        owner_uid=owner_uid,
        version=resource_version(manifest),
        since=status.get("startTime") or metadata["creationTimestamp"],
        deleting="deletionTimestamp" in metadata,
        suspended=bool(spec.get("suspend")),
        active=status.get("active", 0),
        size=metadata.get("annotations", {}).get(SIZE_ANNOTATION, ""),
        ready=status.get("ready", 0),
        terminating=status.get("terminating", 0),
        pods=spec.get("completions") or 1,
        end=end.get("type"),
        reason=end.get("reason", ""),
        message=end.get("message", ""),
    )
