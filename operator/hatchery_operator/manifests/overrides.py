"""What a user adds to the pods, as parts of a pod; pure. The model holds every rule about what may be added."""

from typing import Final

from hatchery_api.pod_overrides import PodOverrides
from hatchery_operator.domain.objects import Manifest

PREFIX: Final = "user-"
"""Begins the names of the user's volumes, so that they never meet the operator's."""


def volumes(overrides: PodOverrides) -> tuple[list[Manifest], list[Manifest]]:
    """The user's volumes and where the container mounts them."""
    sources = [(volume, volume.wire()) for volume in overrides.volumes]
    placed = ("name", "mountPath", "readOnly")
    return (
        [{"name": PREFIX + one.name, **{k: v for k, v in wire.items() if k not in placed}} for one, wire in sources],
        [{"name": PREFIX + one.name, "mountPath": one.mount_path, "readOnly": one.read_only} for one, _ in sources],
    )


def container_claims(overrides: PodOverrides) -> Manifest:
    """The part of a container's resources that says which claims of the pod it uses."""
    claims = [{"name": claim.name} for claim in overrides.resource_claims]
    return {"claims": claims} if claims else {}


def pod_fields(overrides: PodOverrides, *, uses_devices: bool) -> Manifest:
    """Fields of the pod's spec."""
    fields = {
        "imagePullSecrets": [secret.wire() for secret in overrides.image_pull_secrets],
        "schedulerName": overrides.scheduler_name,
        "topologySpreadConstraints": overrides.topology_spread_constraints,
        "resourceClaims": [claim.wire() for claim in overrides.resource_claims] if uses_devices else [],
    }
    return {key: value for key, value in fields.items() if value}


def shared_memory(overrides: PodOverrides) -> Manifest:
    """The volume of `/dev/shm`."""
    limit = {} if overrides.shm_size is None else {"sizeLimit": str(overrides.shm_size)}
    return {"name": "shm", "emptyDir": {"medium": "Memory", **limit}}
