"""What a stage's pods ask for: compute, devices, and how many processes share them; pure.

Devices are what is called `<vendor>/gpu`, whole or `gpu.shared`, and NVIDIA's MIG slices, `nvidia.com/mig-1g.10gb`.
Resources of other names reach the pod as they are; they count for nothing here.
"""

import re
from typing import Final, Literal

from hatchery_api.base import parse_quantity
from hatchery_api.placement import Resources, RunSpec
from hatchery_operator.domain.objects import Manifest
from hatchery_operator.settings import Settings
from hatchery_operator.stages.base import PodShape
from hatchery_operator.stages.registry import STAGES

Wanted = int | Literal["auto"] | None
"""Processes in a pod as the spec says it; None for a pod without torchrun."""

_MIG_PREFIX: Final = "nvidia.com/mig-"
_MIG: Final = re.compile(r"nvidia\.com/mig-(\d+c\.)?\d+g\.\d+gb(\.[a-z0-9.]+)?")
_GPU: Final = re.compile(r"[a-z0-9.-]+/gpu(\.shared)?")


def pod_resources(kind: str, stage: str, spec: RunSpec, shape: PodShape, settings: Settings) -> Resources:
    """The user's, else the operator's; a default request never exceeds a limit of the user, it gives way to it."""
    own, default = spec.placement.resources, settings.stage_resources.of(kind, stage)
    limits = own.limits if own.limits is not None else default.limits
    requests = own.requests
    if requests is None:
        requests = {name: amount for name, amount in (default.requests or {}).items() if name not in (limits or {})}
    if not shape.uses_devices:
        requests, limits = _without_devices(requests), _without_devices(limits)
    return Resources(requests=requests, limits=limits)


def _without_devices(amounts: dict[str, int | str] | None) -> dict[str, int | str] | None:
    return None if amounts is None else {name: amount for name, amount in amounts.items() if not _is_device(name)}


def container_resources(resources: Resources) -> Manifest:
    """Resources as a container has them."""
    wanted = {"requests": resources.requests, "limits": resources.limits}
    return {key: {n: str(amount) for n, amount in value.items()} for key, value in wanted.items() if value}


def devices(resources: Resources) -> int:
    """Devices a pod asks for, whole ones and slices."""
    return sum(int(parse_quantity(amount)) for name, amount in (resources.limits or {}).items() if _is_device(name))


def processes(wanted: Wanted, resources: Resources) -> int | None:
    """Processes in a pod: one for each device, or one with as many threads as the pod has processors."""
    return max(1, devices(resources)) if wanted == "auto" else wanted


def misfit(kind: str, spec: RunSpec, settings: Settings) -> str:
    """Why the pods of a stage could never work with the devices they ask for, and what to do; empty if they can."""
    for stage in STAGES[kind]:
        shape = stage.shape(spec)
        resources = pod_resources(kind, stage.name, spec, shape, settings)
        if words := _misfit(resources, shape.processes):
            return f"spec.placement.resources of stage {stage.name}: {words}"
        if words := _too_many_workers(shape, resources):
            return words
    return ""


def _misfit(resources: Resources, wanted: Wanted) -> str:
    limits, requests = resources.limits or {}, resources.requests or {}
    names = sorted(name for name in {*limits, *requests} if _is_device(name))
    for name in names:
        if words := _wrong_amount(name, requests.get(name), limits.get(name)):
            return words
    if len(names) > 1:
        return f"a container uses one type of device; ask for one of {', '.join(names)}"
    return _too_many_processes(names[0], wanted, resources) if names else ""


def _wrong_amount(name: str, request: int | str | None, limit: int | str | None) -> str:
    if name.startswith(_MIG_PREFIX) and not _MIG.fullmatch(name):
        return f"{name} is no MIG profile; the name is as in {_MIG_PREFIX}1g.10gb"
    if limit is None or (request is not None and parse_quantity(request) != parse_quantity(limit)):
        return f"devices cannot be overcommitted; write {name} in limits only"
    if parse_quantity(limit) % 1:
        return f"{name}: {limit} is no whole number of devices"
    return ""


def _too_many_processes(name: str, wanted: Wanted, resources: Resources) -> str:
    count, several = devices(resources), processes(wanted, resources) or 1
    if _is_slice(name) and several > 1:
        return (
            f"{several} processes cannot train together on slices of a GPU ({name}: {count});"
            " ask for one slice, or for whole GPUs"
        )
    if several > max(1, count):
        return f"{several} processes need as many devices; {name} is {count}: lower spec.parallelism.processesPerNode"
    return ""


def _too_many_workers(shape: PodShape, resources: Resources) -> str:
    in_a_pod = processes(shape.processes, resources) or 1
    if shape.most_workers is None or shape.nodes * in_a_pod <= shape.most_workers:
        return ""
    return (
        f"spec.parallelism: {shape.nodes} nodes with {in_a_pod} processes each are more workers than the"
        f" {shape.most_workers} parts of the global batch (batch.sequences / batch.perDevice): lower nodes or"
        " processesPerNode"
    )


def _is_device(name: str) -> bool:
    return name.startswith(_MIG_PREFIX) or _GPU.fullmatch(name) is not None


def _is_slice(name: str) -> bool:
    return name.startswith(_MIG_PREFIX) or name.endswith(".shared")
