"""The pods of an attempt: restricted, read-only, with explicit volumes and environment."""

from typing import Final

from hatchery_api.contract import (
    CLAIMS_PATH,
    INPUT_PATH,
    METRICS_PORT,
    RENDEZVOUS_PORT,
    REPORT_PATH,
    SHARED_MEMORY_PATH,
    ProgressVariable,
)
from hatchery_api.placement import Resources, RunSpec
from hatchery_api.pod_overrides import PodOverrides
from hatchery_operator.domain.attempt import Attempt
from hatchery_operator.domain.labels import INPUT_ANNOTATION, JOB_INDEX_LABEL
from hatchery_operator.domain.objects import Manifest, Run
from hatchery_operator.domain.progress_route import AUDIENCE, CA_CONFIG_MAP, CA_KEY, status_path
from hatchery_operator.domain.stage import PodShape
from hatchery_operator.settings import Settings

CONTAINER: Final = "main"
"""Name of the pods' only container."""

USER: Final = 10001
"""User and volume group of the pods; the images create the same user."""

TEMPORARY_PATH: Final = "/tmp"  # noqa: S108 - an emptyDir of the pod
"""Local disk, lost with the pod; also the home folder, since the root file system is read-only."""

PROGRESS_PATH: Final = "/var/run/hatchery"
"""Folder of the token and the certificate for progress reports."""

TOKEN_SECONDS: Final = 3600
"""Lifetime of the progress token; the kubelet renews it earlier."""

PUBLIC_HUB: Final = "https://huggingface.co"
"""The only Hub known to speak the Xet protocol."""

USER_VOLUME_PREFIX: Final = "user-"
"""Prefix of the user's volume names, so that they never collide with the operator's."""


def pod_spec(
    attempt: Attempt, resources: Resources, processes: int | None, claims: dict[str, bool], settings: Settings
) -> Manifest:
    """The spec of the pod template.

    Args:
        attempt: the attempt.
        resources: what the container requests.
        processes: torchrun processes in the pod; None without torchrun.
        claims: for each PersistentVolumeClaim, whether the pod may write there.
        settings: the operator's settings.
    """
    overrides = attempt.spec.placement.pod_overrides
    volumes, mounts = _volumes(attempt, claims, settings)
    container: Manifest = {
        "name": CONTAINER,
        "image": attempt.spec.image or settings.jobs_image,
        "imagePullPolicy": settings.image_pull_policy,
        "command": ["python", "-m", "hatchery_jobs"],
        "env": [
            *_environment(attempt, settings),
            *_secrets(attempt.shape),
            *_workers(attempt, processes),
            *_progress(attempt.run, settings),
            *(variable.wire() for variable in overrides.env),
        ],
        "ports": [{"name": "metrics", "containerPort": METRICS_PORT}],
        "resources": {
            **_container_resources(resources),
            **(_container_claims(overrides) if attempt.shape.uses_devices else {}),
        },
        "terminationMessagePath": REPORT_PATH,
        # a crash without a report still leaves its last log lines
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": mounts,
    }
    return {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": max(1, round(attempt.shape.grace_seconds)),
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            # otherwise the kubelet walks all files of a claim at every start
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": volumes,
        **({"subdomain": attempt.name} if attempt.shape.is_gang else {}),
        **_placement(attempt.spec),
        **_override_fields(overrides, uses_devices=attempt.shape.uses_devices),
    }


def _placement(spec: RunSpec) -> Manifest:
    placement = spec.placement
    wanted = {
        "nodeSelector": placement.node_selector,
        "tolerations": [toleration.wire() for toleration in placement.tolerations],
        "affinity": placement.affinity,
        "priorityClassName": placement.priority_class_name,
        "runtimeClassName": placement.runtime_class_name,
    }
    return {key: value for key, value in wanted.items() if value}


def _value(name: str, value: str) -> Manifest:
    return {"name": name, "value": value}


def _environment(attempt: Attempt, settings: Settings) -> list[Manifest]:
    endpoint = attempt.hub_endpoint(settings.hub_endpoint)
    index = f"metadata.annotations['{JOB_INDEX_LABEL}']"
    variables = [
        _value("HOME", TEMPORARY_PATH),
        _value("HF_HOME", f"{TEMPORARY_PATH}/hf"),
        _value("HF_ENDPOINT", endpoint),
        _value("HF_HUB_DISABLE_TELEMETRY", "1"),
        _value("HF_UPDATE_DOWNLOAD_COUNTS", "0"),  # datasets calls a public host, whatever the endpoint
        _value("HF_HUB_DISABLE_PROGRESS_BARS", "1"),
        {"name": "HATCHERY_NODE_INDEX", "valueFrom": {"fieldRef": {"fieldPath": index}}},
    ]
    if endpoint.rstrip("/") != PUBLIC_HUB:
        variables.append(_value("HF_HUB_DISABLE_XET", "1"))
    return variables


def _secrets(shape: PodShape) -> list[Manifest]:
    """Secrets by reference: the operator never reads their content."""
    secrets = {"HF_TOKEN": shape.token, "WANDB_API_KEY": shape.tracking_key}
    return [
        {"name": name, "valueFrom": {"secretKeyRef": {"name": secret.name, "key": secret.key}}}
        for name, secret in secrets.items()
        if secret is not None
    ]


def _workers(attempt: Attempt, processes: int | None) -> list[Manifest]:
    nodes = _value("HATCHERY_NODES", str(attempt.shape.nodes))
    if processes is None:
        return [nodes] if attempt.shape.nodes > 1 else []
    host = f"{attempt.name}-0.{attempt.name}" if attempt.shape.is_gang else "localhost"
    return [
        nodes,
        _value("HATCHERY_PROCESSES_PER_NODE", str(processes)),
        # rounded up; more threads than the pod's own CPUs make the pods of a gang on one node slow each other down
        {"name": "HATCHERY_CPUS", "valueFrom": {"resourceFieldRef": {"resource": "requests.cpu", "divisor": "1"}}},
        _value("HATCHERY_RENDEZVOUS_ENDPOINT", f"{host}:{RENDEZVOUS_PORT}"),
        # terminating pods of one attempt must never join those of the next
        _value("HATCHERY_RENDEZVOUS_ID", f"{attempt.run.uid}-{attempt.number}"),
    ]


def _progress(run: Run, settings: Settings) -> list[Manifest]:
    if not settings.progress.service_url:
        return []
    url = settings.progress.service_url.rstrip("/") + status_path(run.namespace, run.kind.plural, run.name)
    values: dict[ProgressVariable, str] = {
        "KUBEFLOW_TRAINER_SERVER_URL": url,
        "KUBEFLOW_TRAINER_SERVER_CA_CERT": f"{PROGRESS_PATH}/{CA_KEY}",
        "KUBEFLOW_TRAINER_SERVER_TOKEN": f"{PROGRESS_PATH}/token",
    }
    return [_value(variable, value) for variable, value in values.items()]


def _volumes(attempt: Attempt, claims: dict[str, bool], settings: Settings) -> tuple[list[Manifest], list[Manifest]]:
    overrides = attempt.spec.placement.pod_overrides
    own_volumes, own_mounts = _user_volumes(overrides)
    folder, _, file = INPUT_PATH.rpartition("/")
    item = {"path": file, "fieldRef": {"fieldPath": f"metadata.annotations['{INPUT_ANNOTATION}']"}}
    volumes: list[Manifest] = [
        {"name": "input", "downwardAPI": {"items": [item]}},
        {"name": "tmp", "emptyDir": {}},
        _shared_memory(overrides),
        *own_volumes,
    ]
    mounts: list[Manifest] = [
        *own_mounts,
        {"name": "input", "mountPath": folder, "readOnly": True},
        {"name": "tmp", "mountPath": TEMPORARY_PATH},
        {"name": "shm", "mountPath": SHARED_MEMORY_PATH},
    ]
    for number, (claim, writable) in enumerate(claims.items()):
        volumes.append({"name": f"claim-{number}", "persistentVolumeClaim": {"claimName": claim}})
        mounts.append(
            {
                "name": f"claim-{number}",
                "mountPath": f"{CLAIMS_PATH}/{claim}",
                **({} if writable else {"readOnly": True}),
            }
        )
    if settings.progress.service_url:
        volumes.append({"name": "progress", "projected": {"sources": _progress_sources()}})
        mounts.append({"name": "progress", "mountPath": PROGRESS_PATH, "readOnly": True})
    return volumes, mounts


def _progress_sources() -> list[Manifest]:
    token = {"audience": AUDIENCE, "expirationSeconds": TOKEN_SECONDS, "path": "token"}
    # optional: a run without live progress is better than no run
    certificate = {"name": CA_CONFIG_MAP, "optional": True, "items": [{"key": CA_KEY, "path": CA_KEY}]}
    return [{"serviceAccountToken": token}, {"configMap": certificate}]


def _container_resources(resources: Resources) -> Manifest:
    amounts = {"requests": resources.requests, "limits": resources.limits}
    return {key: {n: str(amount) for n, amount in value.items()} for key, value in amounts.items() if value}


def _container_claims(overrides: PodOverrides) -> Manifest:
    """The part of a container's resources that names the resource claims of the pod it uses."""
    claims = [{"name": claim.name} for claim in overrides.resource_claims]
    return {"claims": claims} if claims else {}


def _override_fields(overrides: PodOverrides, *, uses_devices: bool) -> Manifest:
    """The user's fields of the pod's spec; the API model holds every rule about what they may be."""
    fields = {
        "imagePullSecrets": [secret.wire() for secret in overrides.image_pull_secrets],
        "schedulerName": overrides.scheduler_name,
        "topologySpreadConstraints": overrides.topology_spread_constraints,
        "resourceClaims": [claim.wire() for claim in overrides.resource_claims] if uses_devices else [],
    }
    return {key: value for key, value in fields.items() if value}


def _user_volumes(overrides: PodOverrides) -> tuple[list[Manifest], list[Manifest]]:
    """The user's volumes, and their mounts in the container."""
    volumes, mounts = [], []
    for volume in overrides.volumes:
        name = USER_VOLUME_PREFIX + volume.name
        source = {k: v for k, v in volume.wire().items() if k not in ("name", "mountPath", "readOnly")}
        volumes.append({"name": name, **source})
        mounts.append({"name": name, "mountPath": volume.mount_path, "readOnly": volume.read_only})
    return volumes, mounts


def _shared_memory(overrides: PodOverrides) -> Manifest:
    """The volume of `/dev/shm`."""
    limit = {} if overrides.shm_size is None else {"sizeLimit": str(overrides.shm_size)}
    return {"name": "shm", "emptyDir": {"medium": "Memory", **limit}}
