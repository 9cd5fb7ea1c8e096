"""Whether a worker's part of the run fits into the memory it has, asked before anything is made."""

import os

import torch

from hatchery_api.conditions import Reason
from hatchery_jobs.pretrain.launcher.cgroup import memory_limit
from hatchery_jobs.pretrain.preflight import ADAM_BYTES, GB
from hatchery_jobs.runtime import SpecError


def check_memory(parameters: int, holders: int, device: torch.device) -> None:
    """Refuses a model whose weights, gradients and moments alone take more than there is.

    Args:
        parameters: of the whole model.
        holders: workers that share them, each holding a part; 1: each holds all.
        device: of this worker.

    Raises:
        SpecError: they do not fit, whatever the batch.
    """
    needed = ADAM_BYTES * parameters // holders
    if device.type == "cuda":
        there, whose = torch.cuda.mem_get_info(device)[1], "the GPU has"
        remedy = "share them by spec.parallelism.strategy fsdp among more workers, or take a larger GPU"
    else:
        there = _share_of_pod()
        whose = "its share of the pod's limit is"
        remedy = "raise spec.placement.resources.limits.memory"
    if there is not None and needed > there:
        raise SpecError(
            Reason.OUT_OF_MEMORY,
            f"weights, gradients and moments of {parameters:,} parameters take {needed / GB:.2f} GB in each worker, "
            f"and {whose} {there / GB:.2f} GB; {remedy}, or take a smaller spec.model",
        )


def _share_of_pod() -> int | None:
    """Bytes for each worker of this pod; None: as many as its node has."""
    limit = memory_limit()
    return None if limit is None else limit // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
