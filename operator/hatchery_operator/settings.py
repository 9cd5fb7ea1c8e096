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
from hatchery_api.kinds import BY_KIND, KINDS
from hatchery_api.placement import Resources

DEFAULT_PATH: Final = Path("/etc/hatchery/settings.yaml")
"""Where manifests and chart mount the file."""

PATH_VARIABLE: Final = "HATCHERY_SETTINGS"
"""Environment variable that names another file."""

NAMESPACE_PATH: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
"""Where a pod finds the namespace it is in."""


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
    """The settings file is missing, no YAML, or wrong; the message names file and field."""


class Progress(Model):
    """Live progress, which pods post to the operator over TLS."""

    port: Port = 8443
    """Port that takes progress reports."""

    service_url: Url | None = None
    """`https://` URL under which pods reach that port, mostly the operator's Service; absent turns live progress off.
    Results do not depend on it."""

    certificate: Annotated[str, Field(max_length=4096)] | None = None
    """Folder with `tls.crt`, `tls.key` and `ca.crt`, a mounted Secret for example, valid for the host of that URL; it
    is read again when it changes. Absent, each replica makes a certificate of its own in memory."""


class LeaderElection(Model):
    """Of several replicas one works; another takes over when it is silent for `leaseSeconds`."""

    enabled: bool = True
    """False only to debug a single process; two that work at once get into each other's way."""

    lease_seconds: Annotated[int, Field(ge=3, le=300)] = 12
    """Silence after which another replica takes over."""

    renew_deadline_seconds: Annotated[int, Field(ge=2, le=240)] = 8
    """Time after its last renewal from which on the leader writes nothing any more."""

    retry_seconds: Annotated[int, Field(ge=1, le=60)] = 2
    """Time between two attempts to renew or to take the lease."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if not 2 * self.retry_seconds <= self.renew_deadline_seconds < self.lease_seconds:
            raise ValueError(
                "twice retrySeconds must not exceed renewDeadlineSeconds, which must be less than leaseSeconds"
            )
        return self


class NetworkPolicySettings(Model):
    """Who may connect to the pods of runs, and where they may connect to."""

    enabled: bool = True
    """Whether the operator makes NetworkPolicies. Pods that run already stay as they are."""

    egress_ports: Annotated[list[Port], Field(max_length=64)] = [80, 443]
    """TCP ports the pods may connect to, anywhere, beside DNS, the operator's and that in `hubEndpoint`. What is behind
    a Service counts with the port of its pods."""

    blocked_cidrs: Annotated[list[Cidr], Field(max_length=64)] = ["169.254.0.0/16"]
    """Addresses outside the cluster that no pod may connect to; by default those where clouds hand out credentials of
    the node. Where pods get their own credentials there, as with workload identity, leave it empty."""


class _StageResources(Model):
    def of(self, kind: str, stage: str) -> Resources:
        """Resources of one stage of a kind."""
        resources: Resources = getattr(self, BY_KIND[kind].job(stage).setting)
        return resources


_by_stage: dict[str, Any] = {
    job.setting: (Resources, Field(default=job.resources, description=job.about)) for kind in KINDS for job in kind.jobs
}
StageResources = create_model(
    "StageResources",
    __base__=_StageResources,
    __doc__="What a stage's pods ask for when `spec.placement.resources` of the resource is silent.",
    **_by_stage,
)
"""Default resources of each stage, with a field for each stage in `KINDS`."""


class Tuning(Model):
    """Settings that depend on nothing around the operator's pod."""

    claim_name: ResourceName = "hatchery"
    """PersistentVolumeClaim in the namespace of the resource; used where a resource sets no `spec.storage`."""

    hub_endpoint: Url = "https://huggingface.co"
    """Hub where a resource sets no endpoint of its own."""

    workers: Annotated[int, Field(ge=1, le=256)] = 16
    """Resources that are reconciled at the same time."""

    resync_seconds: Annotated[int, Field(ge=10, le=86_400)] = 300
    """Every resource is looked at again after so many seconds, whatever was or was not seen to happen."""

    stalled_seconds: Annotated[int, Field(ge=60, le=604_800)] = 1800
    """A run whose pods have reported progress, and then nothing for so many seconds, gets the condition Stalled."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Least severe log lines that are written."""

    leader_election: LeaderElection = LeaderElection()
    """Of several replicas one works; another takes over when it is silent for `leaseSeconds`."""

    network_policies: NetworkPolicySettings = NetworkPolicySettings()
    """Who may connect to the pods of runs, and where they may connect to."""

    stage_resources: StageResources = StageResources()
    """What a stage's pods ask for when `spec.placement.resources` of the resource is silent."""


class Settings(Tuning):
    """All settings; a field that is absent has its default, a field that does not exist is an error."""

    namespaces: Annotated[list[ResourceName], Field(max_length=256)] = []
    """Namespaces the operator serves; empty for all."""

    operator_name: ResourceName = "hatchery-operator"
    """Name of what the replicas share in the operator's own namespace: the Lease, and the certificates' ConfigMap."""

    operator_namespace: ResourceName | None = None
    """The operator's own namespace; absent for that of its pod."""

    jobs_image: Image = f"hatchery/jobs:{__version__}"
    """Image of the pods where a resource sets no `spec.image`."""

    image_pull_policy: PullPolicy = "IfNotPresent"
    """When nodes pull the pods' image."""

    metrics_port: Port = 8080
    """Port of `/metrics`."""

    health_port: Port = 8081
    """Port of `/healthz` and `/readyz`."""

    progress: Progress = Progress()
    """Live progress."""


def own_namespace(settings: Settings, mounted: Path = NAMESPACE_PATH) -> str:
    """The operator's own namespace.

    Raises:
        SettingsError: the settings do not name it, and there is no pod to ask.
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
    """The settings file: the `--config` argument, else the environment's, else where it is mounted."""
    return Path(argument or environ.get(PATH_VARIABLE) or DEFAULT_PATH)


def load_settings(path: Path) -> Settings:
    """Settings from a YAML file; an empty file means all defaults.

    Raises:
        SettingsError: the file is missing, no YAML, or wrong.
    """
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(
            f"{path}: cannot be read ({error.strerror}); pass --config or set {PATH_VARIABLE} to the settings file"
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: is no YAML: {error}") from error
    if not isinstance(data, dict | None):
        raise SettingsError(f"{path}: must be a map of settings, not a {type(data).__name__}")
    try:
        return Settings.model_validate(data or {})
    except ValidationError as error:
        raise SettingsError("\n".join(_sentence(path, problem) for problem in error.errors())) from error


def _sentence(path: Path, problem: Mapping[str, Any]) -> str:
    """One problem as `file: field: what is wrong`."""
    field = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return f"{path}: {field}: there is no such setting; check the spelling or remove it"
    return f"{path}: {field}: {problem['msg']}, got {problem['input']!r}"
