"""The spec fields that all resources share: retries, placement of pods, storage, and the Hub."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from hatchery_api.base import Duration, FreeObject, Model, Quantity, ResourceName, Text, Url, cel, hint
from hatchery_api.pod_overrides import PodOverrides

LabelMap = Annotated[dict[str, Annotated[str, Field(max_length=63)]], Field(max_length=32)]
"""A map of label names to values."""

ResourceMap = Annotated[dict[str, Quantity], Field(max_length=16)]
"""A map of Kubernetes resource names to quantities."""


class Retry(Model):
    """Retries of a failed stage; disruptions (eviction, preemption, drain) do not count."""

    max_attempts: Annotated[int, Field(ge=1, le=20)] = 3
    """Most Jobs created for a stage, the first included."""

    backoff: Duration = "30s"
    """Delay before the second attempt; doubles with each further one, up to ten minutes."""


class Resources(Model):
    """Compute resources of every pod, as in a container."""

    requests: ResourceMap | None = None
    """Requests; default: the operator's settings for the stage. Training on CPUs runs a thread per requested CPU."""

    limits: ResourceMap | None = None
    """Limits; request devices here, for example `nvidia.com/gpu: 8`."""


class Toleration(Model):
    """A toleration, as in a pod."""

    key: Annotated[str, Field(max_length=317)] | None = None
    """Taint key; with operator Exists, empty matches all keys."""

    operator: Literal["Exists", "Equal"] = "Equal"
    """How key and value are compared."""

    value: Annotated[str, Field(max_length=63)] | None = None
    """Taint value for operator Equal."""

    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """Taint effect; empty matches all."""

    toleration_seconds: Annotated[int, Field(ge=0)] | None = None
    """Seconds a NoExecute taint is tolerated."""


class Placement(Model):
    """Scheduling and resources of the pods."""

    resources: Resources = Resources()
    """Compute resources of each pod."""

    node_selector: LabelMap | None = None
    """Labels that a node must have."""

    tolerations: Annotated[list[Toleration], Field(max_length=16)] = []
    """Tolerations of the pods."""

    affinity: FreeObject | None = None
    """Affinity, as in a pod."""

    priority_class_name: Annotated[str, Field(max_length=253)] | None = None
    """PriorityClass of the pods."""

    queue_name: Annotated[str, Field(max_length=63)] | None = None
    """Kueue LocalQueue; Kueue then controls suspension of the Jobs."""

    runtime_class_name: Annotated[str, Field(max_length=253)] | None = None
    """RuntimeClass of the pods."""

    pod_overrides: PodOverrides = PodOverrides()
    """Further pod settings, from a closed list: docs/reference/podoverrides.md."""


class Storage(Model):
    """Where artifacts are stored."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            ("!(has(self.root) && has(self.claimName))", "set either root or claimName, not both"),
        )
    )

    root: Url | None = None
    """fsspec URL of a folder that every pod can reach; object stores need a `spec.image` with their client."""

    claim_name: ResourceName | None = None
    """PersistentVolumeClaim in the same namespace; default: the operator's settings."""


class SecretKey(Model):
    """A key of a Secret in the same namespace, read only by the pods that need it, never by the operator."""

    name: Annotated[str, Field(min_length=1, max_length=253)]
    """Name of the Secret."""

    key: Annotated[str, Field(min_length=1, max_length=253)] = "token"
    """Key in the Secret."""


HubRepo = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*$",
        min_length=3,
        max_length=96,
        json_schema_extra=hint("must be organisation/name, of letters, digits, dots, underscores and hyphens"),
    ),
]
"""`organisation/name` on the Hub."""


class Hub(Model):
    """Where the artifact is pushed; absent: it is not pushed."""

    repo: HubRepo
    """Repository; created if missing."""

    private: bool = True
    """Create the repository as private; if true, an existing public repository is rejected."""

    token_secret: SecretKey | None = None
    """Secret with a token that can write to the repository."""

    endpoint: Url | None = None
    """URL of a Hub-compatible server; default: the operator's settings, else the public Hub."""

    revision: Annotated[str, Field(min_length=1, max_length=128)] = "main"
    """Branch to commit to."""


class RunSpec(Model):
    """Fields that all specs share."""

    suspend: bool = False
    """True terminates the pods gracefully and keeps all progress; false resumes."""

    ttl_seconds_after_finished: Annotated[int, Field(ge=0)] | None = None
    """Seconds until children (Jobs, pods, Services) are deleted; the resource itself is kept."""

    retry: Retry = Retry()
    """Retries of a failed stage."""

    image: Annotated[str, Field(min_length=1, max_length=512)] | None = None
    """Container image of the pods; default: the operator's settings."""

    placement: Placement = Placement()
    """Scheduling and resources of the pods."""

    storage: Storage = Storage()
    """Where artifacts are stored."""

    hub: Hub | None = None
    """Where the artifact is pushed."""


OPERATIONAL_FIELDS = frozenset(
    {
        "suspend",
        "ttlSecondsAfterFinished",
        "retry",
        "image",
        "placement",
        "storage",
        "hub",
        "parallelism",
        "encode",
        "tracking",
    }
)
"""Wire names of the fields that do not affect the artifact's content, and so are not part of its key."""

MUTABLE_FIELDS = frozenset({"suspend", "ttlSecondsAfterFinished", "retry", "parallelism"})
"""Wire names of the fields that may change after the run has started."""


class Card(Model):
    """Texts of the card pushed with the artifact."""

    license: Annotated[str, Field(max_length=64)] = "other"
    """Licence identifier on the Hub, for example `apache-2.0`."""

    description: Text = ""
    """Description and intended use."""

    languages: Annotated[list[Annotated[str, Field(max_length=32)]], Field(max_length=64)] = []
    """Natural or programming languages of the text."""
