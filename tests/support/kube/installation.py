"""Objects the demo and the end-to-end tests need beside the chart: namespaces, volumes and a Hub."""

from pathlib import Path
from typing import Any

Object = dict[str, Any]

HUB_NAMESPACE = "hatchery-hub"
"""Namespace of the Hub-compatible server."""

HUB_PORT = 8080
"""Port of the server's container and Service: NetworkPolicies match the port of the pod."""

HUB_URL = f"http://hub.{HUB_NAMESPACE}.svc.cluster.local:{HUB_PORT}"
"""URL by which pods reach the server."""

HUB_TOKEN = "hf_local"
"""A token with write access."""

CLAIM = "hatchery"
"""Claim in every namespace, as in the operator's settings."""

TOKEN_SECRET = "hub-token"
"""Secret with the token, in every namespace."""

USER = 10001
"""User and group of the containers."""

RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}


def namespace_objects(name: str, *, claim: str | None = CLAIM, size: str = "10Gi") -> list[Object]:
    """A namespace that admits only restricted pods, with a volume for artifacts and the Hub token."""
    objects: list[Object] = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": RESTRICTED}},
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": TOKEN_SECRET, "namespace": name},
            "stringData": {"token": HUB_TOKEN},
        },
    ]
    if claim:
        objects.append(
            {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "metadata": {"name": claim, "namespace": name},
                "spec": {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": size}}},
            }
        )
    return objects


def hub_objects(image: str) -> list[Object]:
    """The Hub-compatible server as a Deployment that runs the sources in this repository."""
    sources = Path(__file__).parents[1] / "hub_server"
    files = {p.name: p.read_text() for p in sorted(sources.glob("*.py"))}
    labels = {"app": "hub"}
    meta = {"name": "hub", "namespace": HUB_NAMESPACE}
    container = {
        "name": "hub",
        "image": image,
        "command": ["python", "-B", "/hub", "--root=/data", "--host=0.0.0.0", f"--port={HUB_PORT}"],
        "args": ["--token-file=/token/token"],
        "ports": [{"name": "http", "containerPort": HUB_PORT}],
        "readinessProbe": {"httpGet": {"path": "/-/health", "port": "http"}, "periodSeconds": 1},
        "resources": {"requests": {"cpu": "20m", "memory": "64Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": "sources", "mountPath": "/hub"},
            {"name": "token", "mountPath": "/token"},
            {"name": "data", "mountPath": "/data"},
            {"name": "tmp", "mountPath": "/tmp"},
        ],
    }
    pod = {
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 1,  # the first process of a container ignores the signal, and nothing is lost
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": [
            {"name": "sources", "configMap": {"name": "hub"}},
            {"name": "token", "secret": {"secretName": TOKEN_SECRET}},
            {"name": "data", "emptyDir": {}},
            {"name": "tmp", "emptyDir": {}},
        ],
    }
    return [
        *namespace_objects(HUB_NAMESPACE, claim=None),
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": files},
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": meta,
            "spec": {
                "selector": {"matchLabels": labels},
                "strategy": {"type": "Recreate"},
                "template": {"metadata": {"labels": labels}, "spec": pod},
            },
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": meta,
            "spec": {"selector": labels, "ports": [{"name": "http", "port": HUB_PORT, "targetPort": "http"}]},
        },
    ]
