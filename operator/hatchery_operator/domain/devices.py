"""Accelerators among the resources of a pod.

A device is a resource `<vendor>/gpu`, whole or `gpu.shared`, or an NVIDIA MIG slice such as `nvidia.com/mig-1g.10gb`.
Resources with other names pass through to the pod unchecked.
"""

import re
from typing import Final

from hatchery_api.base import parse_quantity
from hatchery_api.placement import Resources

MIG_PREFIX: Final = "nvidia.com/mig-"
"""Prefix of MIG slices; the profile follows."""

_GPU: Final = re.compile(r"[a-z0-9.-]+/gpu(\.shared)?")


def is_device(name: str) -> bool:
    """Whether a resource is a device, whole or a slice."""
    return name.startswith(MIG_PREFIX) or _GPU.fullmatch(name) is not None


def is_device_slice(name: str) -> bool:
    """Whether a device is a part of a GPU."""
    return name.startswith(MIG_PREFIX) or name.endswith(".shared")


def device_count(resources: Resources) -> int:
    """Devices in the limits, whole ones and slices."""
    return sum(int(parse_quantity(amount)) for name, amount in (resources.limits or {}).items() if is_device(name))
