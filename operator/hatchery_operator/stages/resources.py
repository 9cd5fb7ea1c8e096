"""The resources of a stage's pods, and the processes that share their devices."""

import re
from collections.abc import Sequence
from typing import Final, Literal

from hatchery_api.base import parse_quantity
from hatchery_api.placement import Resources, RunSpec
from hatchery_operator.domain.devices import MIG_PREFIX, device_count, is_device, is_device_slice
from hatchery_operator.domain.stage import PodShape, Stage
from hatchery_operator.settings import Settings

Wanted = int | Literal["auto"] | None
"""Processes in a pod as in the spec; None for a pod without torchrun."""

_MIG: Final = re.compile(r"nvidia\.com/mig-(\d+c\.)?\d+g\.\d+gb(\.[a-z0-9.]+)?")


def pod_resources(stage: str, spec: RunSpec, shape: PodShape, settings: Settings) -> Resources:
    """The spec's resources, else the operator's defaults; a limit in the spec replaces the default request."""
    own, default = spec.placement.resources, settings.stage_resources.of(stage)
    limits = own.limits if own.limits is not None else default.limits
    requests = own.requests
    if requests is None:
        requests = {name: amount for name, amount in (default.requests or {}).items() if name not in (limits or {})}
    if not shape.uses_devices:
        requests, limits = _without_devices(requests), _without_devices(limits)
    return Resources(requests=requests, limits=limits)


def _without_devices(amounts: dict[str, int | str] | None) -> dict[str, int | str] | None:
    return None if amounts is None else {name: amount for name, amount in amounts.items() if not is_device(name)}


def processes(wanted: Wanted, resources: Resources) -> int | None:
    """Processes in a pod; `auto` is one for each device, or a single one without devices."""
    return max(1, device_count(resources)) if wanted == "auto" else wanted


def misfit(stages: Sequence[Stage], spec: RunSpec, settings: Settings) -> str:
    """Why the pods of a stage can never work with the devices they request, and the remedy; empty if they can."""
    for stage in stages:
        shape = stage.shape(spec)
        resources = pod_resources(stage.name, spec, shape, settings)
        if message := _device_problem(resources, shape.processes):
            return f"spec.placement.resources of stage {stage.name}: {message}"
        if message := _too_many_workers(shape, resources):
            return message
    return ""


def _device_problem(resources: Resources, wanted: Wanted) -> str:
    limits, requests = resources.limits or {}, resources.requests or {}
    names = sorted(name for name in {*limits, *requests} if is_device(name))
    for name in names:
        if message := _wrong_amount(name, requests.get(name), limits.get(name)):
            return message
    if len(names) > 1:
        return f"a container uses one type of device; request one of {', '.join(names)}"
    return _too_many_processes(names[0], wanted, resources) if names else ""


def _wrong_amount(name: str, request: int | str | None, limit: int | str | None) -> str:
    if name.startswith(MIG_PREFIX) and not _MIG.fullmatch(name):
        return f"{name} is not a MIG profile; profiles are named like {MIG_PREFIX}1g.10gb"
    if limit is None or (request is not None and parse_quantity(request) != parse_quantity(limit)):
        return f"devices cannot be overcommitted; set {name} in limits only"
    if parse_quantity(limit) % 1:
        return f"{name}: {limit} is not a whole number of devices"
    return ""


def _too_many_processes(name: str, wanted: Wanted, resources: Resources) -> str:
    count, per_pod = device_count(resources), processes(wanted, resources) or 1
    if is_device_slice(name) and per_pod > 1:
        return (
            f"{per_pod} processes cannot train together on slices of a GPU ({name}: {count});"
            " request one slice, or whole GPUs"
        )
    if per_pod > max(1, count):
        return f"{per_pod} processes need one device each, {name} is {count}: lower spec.parallelism.processesPerNode"
    return ""


def _too_many_workers(shape: PodShape, resources: Resources) -> str:
    per_pod = processes(shape.processes, resources) or 1
    if shape.most_workers is None or shape.nodes * per_pod <= shape.most_workers:
        return ""
    return (
        f"spec.parallelism: {shape.nodes} nodes with {per_pod} processes each are more workers than the"
        f" {shape.most_workers} parts of the global batch (batch.sequences / batch.perDevice): lower nodes or"
        " processesPerNode"
    )
