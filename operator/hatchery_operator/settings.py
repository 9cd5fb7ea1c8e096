"""The operator's settings: one YAML file, read once at start."""

import os
import socket
from collections.abc import Mapping
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

import yaml
from pydantic import AfterValidator, Field, ValidationError, create_model, model_validator

from hatchery_api import __version__
from hatchery_api.base import Model, ResourceName, Url
from hatchery_api.kinds import KINDS
from hatchery_api.placement import Resources

DEFAULT_PATH: Final = Path("/etc/hatchery/settings.yaml")
"""Where the manifests and the chart mount the file."""

PATH_VARIABLE: Final = "HATCHERY_SETTINGS"
"""Environment variable that names another file."""

NAMESPACE_PATH: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
"""Where a pod finds its own namespace."""


def _checked_cidr(text: str) -> str:
    ip_network(text)
    return text


Port = Annotated[int, Field(ge=1, le=65535)]
"""A TCP port."""

Cidr = Annotated[str, Field(max_length=64), AfterValidator(_checked_cidr)]
"""A block of addresses, `10.0.0.0/8` or `fd00::/8`."""

Image = Annotated[str, Field(min_length=1, max_length=512)]
"""A container image."""

PullPolicy = Literal["Always", "IfNotPresent", "Never"]
"""When a node pulls an image."""


class SettingsError(ValueError):
    """The settings file is missing, not YAML, or invalid; the message names file and field."""


class Progress(Model):
    """Live progress, which pods post to the operator over TLS."""

    port: Port = 8443
    """Port that accepts progress reports."""

    service_url: Url | None = None
    """`https://` URL at which pods reach that port, usually the operator's Service; unset disables live progress.
    Results do not depend on it."""

    certificate: Annotated[str, Field(max_length=4096)] | None = None
    """Folder with `tls.crt`, `tls.key` and `ca.crt`, such as a mounted Secret, valid for the host of that URL; reloaded
    when it changes. If unset, each replica generates its own certificate in memory."""


class LeaderElection(Model):
    """One replica leads. A standby takes over when the leader has not renewed its Lease for `leaseSeconds`."""

    enabled: bool = True
    """Disable only to debug a single process; two leaders would interfere with each other."""

    lease_seconds: Annotated[int, Field(ge=3, le=300)] = 12
    """Seconds without renewal after which another replica takes over."""

    renew_deadline_seconds: Annotated[int, Field(ge=2, le=240)] = 8
    """Seconds since its last renewal after which the leader stops writing."""

    retry_seconds: Annotated[int, Field(ge=1, le=60)] = 2
    """Seconds between two attempts to renew or acquire the Lease."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if not 2 * self.retry_seconds <= self.renew_deadline_seconds < self.lease_seconds:
            raise ValueError(
                "twice retrySeconds must not exceed renewDeadlineSeconds, which must be less than leaseSeconds"
            )
        return self


class NetworkPolicySettings(Model):
    """Ingress and egress of the runs' pods."""

    enabled: bool = True
    """Whether the operator creates NetworkPolicies. Running pods are not affected."""

    egress_ports: Annotated[list[Port], Field(max_length=64)] = [80, 443]
    """TCP ports to which pods may connect at any address, in addition to DNS, the operator's port and the port in
    `hubEndpoint`. For a Service, the port of its pods counts."""

    blocked_cidrs: Annotated[list[Cidr], Field(max_length=64)] = ["169.254.0.0/16"]
    """Addresses outside the cluster to which no pod may connect; by default those of the clouds' metadata services,
    which hand out the node's credentials. Leave it empty where pods obtain their own credentials there, as with
    workload identity."""


class _StageResources(Model):
    def of(self, stage: str) -> Resources:
        """Default resources of a stage; no two kinds share the name of one."""
        setting = next(job.setting for kind in KINDS for job in kind.jobs if job.name == stage)
        resources: Resources = getattr(self, setting)
        return resources


_by_stage: dict[str, Any] = {
    job.setting: (Resources, Field(default=job.resources, description=job.about)) for kind in KINDS for job in kind.jobs
}
StageResources = create_model(
    "StageResources",
    __base__=_StageResources,
    __doc__="Default resources of each stage's pods, where a resource does not set `spec.placement.resources`.",
    **_by_stage,
)
"""Default resources of each stage, with a field for each stage in `KINDS`."""


class Tuning(Model):
    """Settings that do not depend on where the operator runs."""

    claim_name: ResourceName = "hatchery"
    """PersistentVolumeClaim in the resource's namespace, for resources without `spec.storage`."""

    hub_endpoint: Url = "https://huggingface.co"
    """Hub for resources that set no endpoint."""

    workers: Annotated[int, Field(ge=1, le=256)] = 16
    """Maximum number of resources reconciled concurrently."""

    resync_seconds: Annotated[int, Field(ge=10, le=86_400)] = 300
    """Interval, in seconds, at which every resource is reconciled, whether or not an event arrived."""

    stalled_seconds: Annotated[int, Field(ge=60, le=604_800)] = 1800
    """Seconds without progress reports after which a run that has reported before gets the condition Stalled."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Minimum severity of log lines."""

    leader_election: LeaderElection = LeaderElection()
    """One replica leads. A standby takes over when the leader has not renewed its Lease for `leaseSeconds`."""

    network_policies: NetworkPolicySettings = NetworkPolicySettings()
    """Ingress and egress of the runs' pods."""

    stage_resources: StageResources = StageResources()
    """Default resources of each stage's pods, where a resource does not set `spec.placement.resources`."""


class Settings(Tuning):
    """All settings; an absent field has its default, an unknown field is an error."""

    namespaces: Annotated[list[ResourceName], Field(max_length=256)] = []
    """Namespaces the operator serves; empty for all."""

    operator_name: ResourceName = "hatchery-operator"
    """Name of the objects the replicas share in the operator's namespace: the Lease and the certificates' ConfigMap."""

    operator_namespace: ResourceName | None = None
    """The operator's own namespace; by default that of its pod."""

    jobs_image: Image = f"hatchery/jobs:{__version__}"
    """Image of the pods of resources without `spec.image`."""

    image_pull_policy: PullPolicy = "IfNotPresent"
    """Pull policy of the pods' image."""

    metrics_port: Port = 8080
    """Port of `/metrics`."""

    health_port: Port = 8081
    """Port of `/healthz` and `/readyz`."""

    progress: Progress = Progress()
    """Live progress."""


def own_namespace(settings: Settings, mounted: Path = NAMESPACE_PATH) -> str:
    """The operator's own namespace.

    Raises:
        SettingsError: the settings do not name it, and the process is not in a pod.
    """
    if settings.operator_namespace:
        return settings.operator_namespace
    try:
        return mounted.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise SettingsError(
            f"operatorNamespace: must be set outside a pod, since {mounted} cannot be read ({error.strerror})"
        ) from error


def replica_name(environ: Mapping[str, str] = os.environ) -> str:
    """The name of this pod, or of the machine outside one."""
    return environ.get("HOSTNAME") or socket.gethostname()


def settings_path(argument: str | None, environ: Mapping[str, str] = os.environ) -> Path:
    """The settings file: the `--config` argument, else the environment variable, else the mounted file."""
    return Path(argument or environ.get(PATH_VARIABLE) or DEFAULT_PATH)


def load_settings(path: Path) -> Settings:
    """Settings from a YAML file; an empty file yields the defaults.

    Raises:
        SettingsError: the file is missing, not YAML, or invalid.
    """
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(
            f"{path}: cannot be read ({error.strerror}); pass --config or set {PATH_VARIABLE} to the settings file"
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: not valid YAML: {error}") from error
    if not isinstance(data, dict | None):
        raise SettingsError(f"{path}: must be a map of settings, not a {type(data).__name__}")
    try:
        return Settings.model_validate(data or {})
    except ValidationError as error:
        raise SettingsError("\n".join(_sentence(path, problem) for problem in error.errors())) from error


def _sentence(path: Path, problem: Mapping[str, Any]) -> str:
    """One problem as `file: field: message`."""
    field = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return f"{path}: {field}: unknown setting; check the spelling or remove it"
    return f"{path}: {field}: {problem['msg']}, got {problem['input']!r}"
