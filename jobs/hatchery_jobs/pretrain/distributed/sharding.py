"""One model over several workers: replicated on each (DDP) or sharded across them (FSDP2).

FSDP2 is torch's own `fully_shard`; Accelerate's plugin around it refuses CPUs, and the tests run on CPUs what users run
on GPUs.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from hatchery_api.resources.pretrain import Parallelism


def is_sharded(parallelism: Parallelism, workers: int) -> bool:
    """Whether each worker holds a shard of the model; a single worker holds all of it."""
    return parallelism.strategy == "fsdp" and workers > 1


def shard(model: Any, device: torch.device, workers: int, precision: str) -> None:
    """Shards a transformers model in place: each block, and the remaining parameters."""
    mesh = init_device_mesh(device.type, (workers,))
    param_dtype = torch.bfloat16 if precision == "bf16" else None  # the API refuses fp16; gradients reduce in fp32
    policy = MixedPrecisionPolicy(param_dtype=param_dtype, reduce_dtype=torch.float32 if param_dtype else None)
    blocks = set(model._no_split_modules or ())  # noqa: SLF001 - class names of the blocks in transformers
    for module in model.modules():
        if type(module).__name__ in blocks:
            fully_shard(module, mesh=mesh, mp_policy=policy)
    fully_shard(model, mesh=mesh, mp_policy=policy)


def reshard(model: Any) -> None:
    """Frees the parameters that forward passes without a backward pass gathered.

    Until then the model's parameters are not the shards that the optimizer updates.
    """
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


@contextmanager
def no_gradient_sync(model: Any) -> Iterator[None]:
    """Accumulates a sharded model's gradients locally instead of reducing them."""
    model.set_requires_gradient_sync(False)
    try:
        yield
    finally:
        model.set_requires_gradient_sync(True)


def full_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """The full tensor where each worker may hold a shard; a collective: all workers call it at the same time."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
