"""One model over several workers: whole on each (DDP) or a part of it on each (FSDP2).

FSDP2 is torch's own `fully_shard` rather than Accelerate's plugin around it, which refuses CPUs: what runs on GPUs is
what the tests run.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

from hatchery_api.resources.pretrain import Parallelism


def is_sharded(parallelism: Parallelism, workers: int) -> bool:
    """Whether workers hold parts; one alone holds it all."""
    return parallelism.strategy == "fsdp" and workers > 1


def shard(model: Any, device: torch.device, workers: int, precision: str) -> None:
    """Leaves a part of each block of a transformers model on each worker, and a part of the rest."""
    mesh = init_device_mesh(device.type, (workers,))
    half = torch.bfloat16 if precision == "bf16" else None  # fp16 is refused; gradients are summed in 32 bits
    policy = MixedPrecisionPolicy(param_dtype=half, reduce_dtype=torch.float32 if half else None)
    blocks = set(model._no_split_modules or ())  # noqa: SLF001 - what transformers calls its blocks
    for module in model.modules():
        if type(module).__name__ in blocks:
            fully_shard(module, mesh=mesh, mp_policy=policy)
    fully_shard(model, mesh=mesh, mp_policy=policy)


def reshard(model: Any) -> None:
    """Frees what passes without a backward pass put together; until then the parameters are not the optimizer's."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


@contextmanager
def unsynced(model: Any) -> Iterator[None]:
    """Keeps the gradients of a sharded model to this worker for now."""
    model.set_requires_gradient_sync(False)
    try:
        yield
    finally:
        model.set_requires_gradient_sync(True)
