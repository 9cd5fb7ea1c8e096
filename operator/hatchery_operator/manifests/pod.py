"""The pod of a stage: restricted, read-only, with explicit volumes and the environment the jobs read; pure."""

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
from hatchery_api.placement import RunSpec
from hatchery_operator.domain.labels import AUDIENCE, CA_CONFIG_MAP, CA_KEY, status_path
from hatchery_operator.domain.objects import Manifest, Run
from hatchery_operator.manifests.attempt import Attempt
from hatchery_operator.manifests.overrides import container_claims, pod_fields, shared_memory
from hatchery_operator.manifests.overrides import volumes as user_volumes
from hatchery_operator.manifests.resources import container_resources, pod_resources, processes
from hatchery_operator.settings import Settings
from hatchery_operator.stages.base import PodShape

CONTAINER: Final = "main"
"""Name of the pods' only container."""

INPUT_ANNOTATION: Final = "hatchery.dev/input"
"""Annotation of the pods: the `JobInput` as JSON. It is part of the Job's template, which nobody can change."""

USER: Final = 10001
"""User, and group of the volumes, that the pods run as; the images make the same one."""

TEMPORARY_PATH: Final = "/tmp"  # noqa: S108 - an emptyDir of the pod
"""Local disk, lost with the pod; the home folder too, since the root is read-only."""

PROGRESS_PATH: Final = "/var/run/hatchery"
"""Token and certificate for progress reports."""

TOKEN_SECONDS: Final = 3600
"""Life of the progress token; the kubelet renews it before."""

PUBLIC_HUB: Final = "https://huggingface.co"
"""The only Hub that is known to speak the Xet protocol."""


def pod_spec(work: Attempt, claims: dict[str, bool], settings: Settings) -> Manifest:
    """The pod template's spec; `claims` says for each PersistentVolumeClaim whether the pod may write there."""
    resources = pod_resources(work.run.kind.kind, work.stage, work.spec, work.shape, settings)
    overrides = work.spec.placement.pod_overrides
    volumes, mounts = _volumes(work, claims, settings)
    container: Manifest = {
        "name": CONTAINER,
        "image": work.spec.image or settings.jobs_image,
        "imagePullPolicy": settings.image_pull_policy,
        "command": ["python", "-m", "hatchery_jobs"],
        "env": [
            *_environment(work, settings),
            *_secrets(work.shape),
            *_workers(work, processes(work.shape.processes, resources)),
            *_progress(work.run, settings),
            *(variable.wire() for variable in overrides.env),
        ],
        "ports": [{"name": "metrics", "containerPort": METRICS_PORT}],
        "resources": {
            **container_resources(resources),
            **(container_claims(overrides) if work.shape.uses_devices else {}),
        },
        "terminationMessagePath": REPORT_PATH,
        # a crash without report still says its last lines
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
        "terminationGracePeriodSeconds": max(1, round(work.shape.grace_seconds)),
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            # a claim with millions of files would otherwise be walked at every start
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": volumes,
        **({"subdomain": work.name} if work.shape.is_gang else {}),
        **_placement(work.spec),
        **pod_fields(overrides, uses_devices=work.shape.uses_devices),
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


def _environment(work: Attempt, settings: Settings) -> list[Manifest]:
    hub = work.spec.hub
    endpoint = (hub.endpoint if hub else None) or settings.hub_endpoint
    index = "metadata.annotations['batch.kubernetes.io/job-completion-index']"
    variables = [
        _value("HOME", TEMPORARY_PATH),
        _value("HF_HOME", f"{TEMPORARY_PATH}/hf"),
        _value("HF_ENDPOINT", endpoint),
        _value("HF_HUB_DISABLE_TELEMETRY", "1"),
        _value("HF_UPDATE_DOWNLOAD_COUNTS", "0"),  # datasets would ask a public host, whatever the endpoint
        _value("HF_HUB_DISABLE_PROGRESS_BARS", "1"),
        {"name": "HATCHERY_NODE_INDEX", "valueFrom": {"fieldRef": {"fieldPath": index}}},
    ]
    if endpoint.rstrip("/") != PUBLIC_HUB:
        variables.append(_value("HF_HUB_DISABLE_XET", "1"))
    return variables


def _secrets(shape: PodShape) -> list[Manifest]:
    """Secrets by reference: the operator never sees what is in them."""
    secrets = {"HF_TOKEN": shape.token, "WANDB_API_KEY": shape.tracking_key}
    return [
        {"name": name, "valueFrom": {"secretKeyRef": {"name": secret.name, "key": secret.key}}}
        for name, secret in secrets.items()
        if secret is not None
    ]


def _workers(work: Attempt, processes: int | None) -> list[Manifest]:
    nodes = _value("HATCHERY_NODES", str(work.shape.nodes))
    if processes is None:
        return [nodes] if work.shape.nodes > 1 else []
    host = f"{work.name}-0.{work.name}" if work.shape.is_gang else "localhost"
    return [
        nodes,
        _value("HATCHERY_PROCESSES_PER_NODE", str(processes)),
        # rounded up; more threads than processors that are the pod's own make a gang on one node wait for itself
        {"name": "HATCHERY_CPUS", "valueFrom": {"resourceFieldRef": {"resource": "requests.cpu", "divisor": "1"}}},
        _value("HATCHERY_RENDEZVOUS_ENDPOINT", f"{host}:{RENDEZVOUS_PORT}"),
        # pods of an attempt that is going must never meet those of the next one
        _value("HATCHERY_RENDEZVOUS_ID", f"{work.run.uid}-{work.attempt}"),
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


def _volumes(work: Attempt, claims: dict[str, bool], settings: Settings) -> tuple[list[Manifest], list[Manifest]]:
    overrides = work.spec.placement.pod_overrides
    own_volumes, own_mounts = user_volumes(overrides)
    folder, _, file = INPUT_PATH.rpartition("/")
    told = {"path": file, "fieldRef": {"fieldPath": f"metadata.annotations['{INPUT_ANNOTATION}']"}}
    volumes: list[Manifest] = [
        {"name": "input", "downwardAPI": {"items": [told]}},
        {"name": "tmp", "emptyDir": {}},
        shared_memory(overrides),
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
    # optional: a run without live progress is better than none
    certificate = {"name": CA_CONFIG_MAP, "optional": True, "items": [{"key": CA_KEY, "path": CA_KEY}]}
    return [{"serviceAccountToken": token}, {"configMap": certificate}]
