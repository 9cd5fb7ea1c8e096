"""What a user may add to the pods: a closed list, so that no spec can raise a pod's privileges on its node."""

import re
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from hatchery_api.base import FreeObject, Model, Quantity, ResourceName, cel, spelled_out

RESERVED_VARIABLES: Final = (
    r"^(HATCHERY|KUBEFLOW_TRAINER|KUBERNETES|PET|TORCHELASTIC)_"  # ours and torchrun's
    r"|_VISIBLE_DEVICES$"  # a pod gets the devices it requests; a variable could expose those of other pods
    r"|^(HOME|HF_TOKEN|HF_HOME|HF_ENDPOINT|HF_HUB_DISABLE_(TELEMETRY|PROGRESS_BARS|XET)|HF_UPDATE_DOWNLOAD_COUNTS"
    r"|RANK|WORLD_SIZE|LOCAL_RANK|MASTER_ADDR|MASTER_PORT)$"
)
"""Environment variables that the operator, torchrun or the device plugin set, as a regular expression."""

RESERVED_PATHS: Final = r"^/((claims|dev|etc/hatchery|proc|run|sys|tmp|var/run)(/.*)?|etc|var)$"
"""Mount paths of the operator and the kernel, where users mount nothing on, in or over; a regular expression."""

RESERVED_DOMAINS: Final = ("kubernetes.io", "k8s.io", "x-k8s.io", "hatchery.dev")
"""Domains of label keys reserved for Kubernetes, Kueue and the operator."""

RESERVED_LABELS: Final = ("job-name", "controller-uid")
"""Labels without a domain that the Job controller sets."""

ALLOWED_ANNOTATIONS: Final = (
    "cluster-autoscaler.kubernetes.io/safe-to-evict",
    "k8s.v1.cni.cncf.io/networks",
    "karpenter.sh/do-not-disrupt",
    "linkerd.io/inject",
    "sidecar.istio.io/inject",
)
"""All pod annotations a run may set; container runtimes obey others, up to granting devices of the node."""

_PATH: Final = r"^(/[A-Za-z0-9_-][A-Za-z0-9._-]*)+$"
_LABEL_NAME: Final = r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?"
_LABEL_KEY: Final = re.compile(rf"([a-z0-9]([a-z0-9.-]{{0,251}}[a-z0-9])?/)?{_LABEL_NAME}")
_LABEL_VALUE: Final = re.compile(rf"({_LABEL_NAME})?")


def _free_variable(name: str) -> str:
    if re.search(RESERVED_VARIABLES, name):
        raise ValueError(f"{name} is set by the operator, torchrun or the device plugin; choose another variable")
    return name


def _free_path(path: str) -> str:
    if re.search(RESERVED_PATHS, path):
        raise ValueError(f"{path} is reserved; mount elsewhere, for example on /mnt/data")
    return path


def _free_labels(labels: dict[str, str]) -> dict[str, str]:
    for key, value in labels.items():
        domain = key.rpartition("/")[0]
        if key in RESERVED_LABELS or any(f".{domain}".endswith(f".{reserved}") for reserved in RESERVED_DOMAINS):
            raise ValueError(f"label {key} is reserved for Kubernetes or the operator; use a key in your own domain")
        if not _LABEL_KEY.fullmatch(key) or not _LABEL_VALUE.fullmatch(value):
            raise ValueError(
                f"label {key}={value} is not a valid label; use up to 63 letters, digits, '-', '_' and '.'"
            )
    return labels


def _known_annotations(annotations: dict[str, str]) -> dict[str, str]:
    if strangers := sorted(annotations.keys() - set(ALLOWED_ANNOTATIONS)):
        raise ValueError(f"annotation {strangers[0]} is not allowed; allowed are: {', '.join(ALLOWED_ANNOTATIONS)}")
    return annotations


VariableName = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
        min_length=1,
        max_length=128,
        json_schema_extra=cel((f"!self.matches(r'{RESERVED_VARIABLES}')", "this variable is reserved")),
    ),
    AfterValidator(_free_variable),
]
"""Name of an environment variable that users may set."""

MountPath = Annotated[
    str,
    Field(
        pattern=_PATH,
        max_length=1024,
        json_schema_extra=cel(
            (f"!self.matches(r'{RESERVED_PATHS}')", "this path is reserved; mount elsewhere, for example on /mnt/data")
        ),
    ),
    AfterValidator(_free_path),
]
"""An absolute path that users may mount on."""


class _OneOf(Model):
    """Exactly one of the optional fields is set."""

    @model_validator(mode="after")
    def _has_one(self) -> Self:
        choices = [name for name, field in type(self).model_fields.items() if field.default is None]
        if sum(getattr(self, name) is not None for name in choices) != 1:
            names = ", ".join(type(self).model_fields[name].alias or name for name in choices)
            raise ValueError(f"set exactly one of {names}")
        return self


class KeySelector(Model):
    """A key of a Secret or ConfigMap."""

    name: Annotated[str, Field(min_length=1, max_length=253)]
    """Name of the object."""

    key: Annotated[str, Field(min_length=1, max_length=253)]
    """The key."""


class EnvSource(_OneOf):
    """Source of a value, in the same namespace."""

    secret_key_ref: KeySelector | None = None
    """A key of a Secret."""

    config_map_key_ref: KeySelector | None = None
    """A key of a ConfigMap."""


class EnvVariable(_OneOf):
    """An environment variable."""

    model_config = ConfigDict(json_schema_extra=spelled_out("name"))

    name: VariableName
    """Name of the variable."""

    value: Annotated[str, Field(max_length=4096)] | None = None
    """Literal value."""

    value_from: EnvSource | None = None
    """Source of the value."""


class ConfigMapVolume(Model):
    """A ConfigMap mounted as files."""

    name: Annotated[str, Field(min_length=1, max_length=253)]
    """Name of the ConfigMap."""


class SecretVolume(Model):
    """A Secret mounted as files."""

    secret_name: Annotated[str, Field(min_length=1, max_length=253)]
    """Name of the Secret."""


class ClaimVolume(Model):
    """A PersistentVolumeClaim in the same namespace."""

    claim_name: Annotated[str, Field(min_length=1, max_length=253)]
    """Name of the claim."""


class EmptyDirVolume(Model):
    """Scratch space, lost with the pod."""

    medium: Literal["", "Memory"] = ""
    """Medium; Memory counts towards the pod's memory."""

    size_limit: Quantity | None = None
    """Largest size."""


class Volume(_OneOf):
    """A volume and its mount path."""

    model_config = ConfigDict(json_schema_extra=spelled_out("mountPath"))

    name: Annotated[ResourceName, Field(max_length=57)]
    """Name of the volume."""

    mount_path: MountPath
    """Mount path in the pods."""

    read_only: bool = False
    """Mount read-only."""

    config_map: ConfigMapVolume | None = None
    """A ConfigMap."""

    secret: SecretVolume | None = None
    """A Secret."""

    persistent_volume_claim: ClaimVolume | None = None
    """A PersistentVolumeClaim."""

    empty_dir: EmptyDirVolume | None = None
    """Scratch space."""


class ResourceClaim(_OneOf):
    """Devices from dynamic resource allocation."""

    model_config = ConfigDict(json_schema_extra=spelled_out())

    name: ResourceName
    """Name in the pod."""

    resource_claim_name: Annotated[str, Field(min_length=1, max_length=253)] | None = None
    """A ResourceClaim, shared by all pods."""

    resource_claim_template_name: Annotated[str, Field(min_length=1, max_length=253)] | None = None
    """A ResourceClaimTemplate; each pod gets its own claim."""


class PullSecret(Model):
    """A Secret with registry credentials."""

    model_config = ConfigDict(json_schema_extra=spelled_out())

    name: Annotated[str, Field(min_length=1, max_length=253)]
    """Name of the Secret."""


class PodOverrides(Model):
    """Additions to the pods."""

    env: Annotated[list[EnvVariable], Field(max_length=64)] = []
    """Environment variables."""

    volumes: Annotated[list[Volume], Field(max_length=16)] = []
    """Further volumes."""

    resource_claims: Annotated[list[ResourceClaim], Field(max_length=8)] = []
    """Devices from dynamic resource allocation; `processesPerNode: auto` does not count them."""

    labels: Annotated[
        dict[str, Annotated[str, Field(max_length=63)]], Field(max_length=16), AfterValidator(_free_labels)
    ] = {}
    """Labels; reserved keys are rejected."""

    annotations: Annotated[
        dict[str, Annotated[str, Field(max_length=1024)]], Field(max_length=16), AfterValidator(_known_annotations)
    ] = {}
    """Annotations, from a short allow-list."""

    image_pull_secrets: Annotated[list[PullSecret], Field(max_length=8)] = []
    """Secrets with credentials for pulling the image."""

    scheduler_name: Annotated[str, Field(max_length=253)] | None = None
    """Scheduler; default: the cluster's."""

    topology_spread_constraints: Annotated[list[FreeObject], Field(max_length=8)] = []
    """Topology spread constraints, as in a pod."""

    shm_size: Quantity | None = None
    """Size of `/dev/shm`; default: half of the node's memory."""

    @model_validator(mode="after")
    def _has_no_twins(self) -> Self:
        for what, names in (
            ("env", [variable.name for variable in self.env]),
            ("volumes", [volume.name for volume in self.volumes]),
            ("volumes", [volume.mount_path for volume in self.volumes]),
            ("resourceClaims", [claim.name for claim in self.resource_claims]),
        ):
            if twins := {name for name in names if names.count(name) > 1}:
                raise ValueError(f"{what}: {min(twins)} appears twice; remove one")
        return self
