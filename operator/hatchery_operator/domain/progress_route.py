"""The progress endpoint as pods see it: shared by the pod manifests and the server."""

from typing import Final

from hatchery_api.base import API_VERSION, GROUP

AUDIENCE: Final = f"{GROUP}/progress"
"""Audience of the pods' projected ServiceAccount tokens; the API server accepts such a token for nothing else."""

CA_CONFIG_MAP: Final = "hatchery-progress-ca"
"""ConfigMap in each namespace with active runs; rewritten when the operator starts."""

CA_KEY: Final = "ca.crt"
"""Key of the certificate in `CA_CONFIG_MAP`."""


def status_path(namespace: str, plural: str, name: str) -> str:
    """Path to which the pods of one resource post, in the form of Kubeflow Trainer's."""
    return f"/apis/{API_VERSION}/namespaces/{namespace}/{plural}/{name}/status"
