"""Names the progress endpoint shares with the manifests of the pods; pure, so that planning may import it."""

from typing import Final

from hatchery_api.base import API_VERSION, GROUP

AUDIENCE: Final = f"{GROUP}/progress"
"""Audience of the pods' projected ServiceAccount tokens; such a token opens nothing else in the cluster."""

CA_CONFIG_MAP: Final = "hatchery-progress-ca"
"""ConfigMap in each namespace with active runs; it is rewritten when the operator starts."""

CA_KEY: Final = "ca.crt"
"""Key of the certificate in `CA_CONFIG_MAP`."""

KIND_LABEL: Final = f"{GROUP}/kind"
"""Label of every pod: kind of its resource, CamelCase."""

NAME_LABEL: Final = f"{GROUP}/name"
"""Label of every pod: name of its resource."""

UID_LABEL: Final = f"{GROUP}/uid"
"""Label of every pod: UID of its resource."""


def status_path(namespace: str, plural: str, name: str) -> str:
    """Path a pod of one resource posts to, in the form of Kubeflow Trainer's."""
    return f"/apis/{API_VERSION}/namespaces/{namespace}/{plural}/{name}/status"
