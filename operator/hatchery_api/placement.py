"""What all four resources share: retries, pods' placement, storage, and the Hub."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from hatchery_api.base import Duration, FreeObject, Model, Quantity, ResourceName, Text, Url, cel, hint
from hatchery_api.pod_overrides import PodOverrides

LabelMap = Annotated[dict[str, Annotated[str, Field(max_length=63)]], Field(max_length=32)]
"""A map of label names to values."""

ResourceMap = Annotated[dict[str, Quantity], Field(max_length=16)]
"""A map of Kubernetes resource names to quantities."""


class Retry(Model):
    """How often a failed stage is tried again; disruptions (eviction, preemption, drain) are not counted."""

    max_attempts: Annotated[int, Field(ge=1, le=20)] = 3
    """Jobs created for one stage at most, the first one included."""

    backoff: Duration = "30s"
    """Wait before the second attempt; doubled for each further one, ten minutes at most."""


class Resources(Model):
    """Compute resources of every pod of the resource, as in a container."""

    requests: ResourceMap | None = None
    """Guaranteed amounts; default: the operator's settings for this kind of stage. Training
    on CPUs runs as many threads."""

    limits: ResourceMap | None = None
    """Upper amounts; ask for devices here, for example `nvidia.com/gpu: 8`."""


class Toleration(Model):
    """A node taint the pods tolerate, as in a pod."""

    key: Annotated[str, Field(max_length=317)] | None = None
    """Taint key; empty matches all keys with operator Exists."""

    operator: Literal["Exists", "Equal"] = "Equal"
    """How key and value are compared."""

    value: Annotated[str, Field(max_length=63)] | None = None
    """Taint value for operator Equal."""

    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """Taint effect; empty matches all."""

    toleration_seconds: Annotated[int, Field(ge=0)] | None = None
    """Seconds a NoExecute taint is tolerated."""


class Placement(Model):
    """Where and with what the pods run."""

    resources: Resources = Resources()
    """Compute resources of each pod."""

    node_selector: LabelMap | None = None
    """Labels a node must have."""

    tolerations: Annotated[list[Toleration], Field(max_length=16)] = []
    """Taints the pods tolerate."""

    affinity: FreeObject | None = None
    """Pod affinity as in a pod."""

    priority_class_name: Annotated[str, Field(max_length=253)] | None = None
    """PriorityClass of the pods."""

    queue_name: Annotated[str, Field(max_length=63)] | None = None
    """Kueue LocalQueue; the operator then leaves suspension of the Jobs to Kueue."""

    runtime_class_name: Annotated[str, Field(max_length=253)] | None = None
    """RuntimeClass of the pods."""

    pod_overrides: PodOverrides = PodOverrides()
    """Further settings of the pods, from a closed list: docs/reference/podoverrides.md."""


class Storage(Model):
    """Where artifacts are kept."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            ("!(has(self.root) && has(self.claimName))", "set either root or claimName, not both"),
        )
    )

    root: Url | None = None
    """fsspec URL of a folder every pod can reach, for example `s3://bucket/hatchery`."""

    claim_name: ResourceName | None = None
    """PersistentVolumeClaim in the same namespace; default: the operator's settings."""


class SecretKey(Model):
    """A key of a Secret in the same namespace. The operator never reads it; only the pods that need it do."""

    name: Annotated[str, Field(min_length=1, max_length=253)]
    """Name of the Secret."""

    key: Annotated[str, Field(min_length=1, max_length=253)] = "token"
    """Key within the Secret."""


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
    """Where the artifact is pushed; absent means it is not pushed."""

    repo: HubRepo
    """Repository, created when missing."""

    private: bool = True
    """Whether a repository created here is private; with true, a repository that is public already is refused."""

    token_secret: SecretKey | None = None
    """Secret with a token that may write to the repository."""

    endpoint: Url | None = None
    """URL of a Hub-compatible server; default: the operator's settings, else the public Hub."""

    revision: Annotated[str, Field(min_length=1, max_length=128)] = "main"
    """Branch that receives the commit."""


class RunSpec(Model):
    """Fields of all four resources."""

    suspend: bool = False
    """True ends the pods gracefully and keeps all progress; false continues."""

    ttl_seconds_after_finished: Annotated[int, Field(ge=0)] | None = None
    """Seconds after which children (Jobs, pods, Services) are removed; never the resource itself."""

    retry: Retry = Retry()
    """What happens when a stage fails."""

    image: Annotated[str, Field(min_length=1, max_length=512)] | None = None
    """Container image of the pods; default: the operator's settings."""

    placement: Placement = Placement()
    """Where and with what the pods run."""

    storage: Storage = Storage()
    """Where artifacts are kept."""

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
"""Wire names of the fields that do not change what an artifact contains, and so are no part of its key."""

MUTABLE_FIELDS = frozenset({"suspend", "ttlSecondsAfterFinished", "retry", "parallelism"})
"""Wire names of the fields that may change after the start."""


class Card(Model):
    """Texts of the card that is pushed with the artifact."""

    license: Annotated[str, Field(max_length=64)] = "other"
    """Licence identifier of the Hub, for example `apache-2.0`."""

    description: Text = ""
    """What this is and what it is meant for."""

    languages: Annotated[list[Annotated[str, Field(max_length=32)]], Field(max_length=64)] = []
    """Languages of the text, natural or programming."""
