"""The workers of a run as a process group: which micro-batches each computes, and what they must agree on."""

import os
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs, broadcast_object_list

from hatchery_api.conditions import Reason
from hatchery_api.resources.pretrain import PretrainRunSpec
from hatchery_jobs.pretrain.distributed.sharding import is_sharded
from hatchery_jobs.pretrain.launcher import Flag, WorkerSpec
from hatchery_jobs.runtime import SpecError

PEER_TIMEOUT: Final = timedelta(minutes=30)
"""Timeout of a collective; a checkpoint, which only the lead writes, must fit in."""

PRECISIONS: Final = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}
"""`spec.precision` → Accelerate's `mixed_precision`."""


@dataclass(frozen=True)
class ProcessGroup:
    """All workers of a run as one of them sees them."""

    accelerator: Accelerator
    worker: WorkerSpec
    lead_rank: int
    """Rank of the lead, the first process of the first node. torchrun may give it any rank."""

    @property
    def is_sharded(self) -> bool:
        """Whether each worker holds a shard of the model, which makes every forward pass a collective."""
        return is_sharded(self.worker.job.spec.parallelism, self.size)

    @property
    def rank(self) -> int:
        """This worker's rank."""
        return self.accelerator.process_index

    @property
    def size(self) -> int:
        """World size."""
        return self.accelerator.num_processes

    @property
    def is_lead(self) -> bool:
        """Whether this worker is the lead, which writes files and serves metrics."""
        return self.rank == self.lead_rank

    @property
    def device(self) -> torch.device:
        """This worker's device."""
        return self.accelerator.device

    def share(self, micro_batches: int) -> range:
        """Numbers of the micro-batches that this worker computes.

        With sharding all workers compute equally many: passes from number `micro_batches` on are padding.
        """
        end = -(-micro_batches // self.size) * self.size if self.is_sharded else micro_batches
        return range(self.rank, end, self.size)

    def seed(self, number: int) -> None:
        """Seeds this worker's CPU and CUDA generators; torch.manual_seed takes a hundred times as long."""
        torch.default_generator.manual_seed(number)
        if self.device.type == "cuda":
            torch.cuda.manual_seed(number)

    def all_reduce(self, tensor: torch.Tensor) -> list[float]:
        """Sum of a tensor over all workers."""
        return self.accelerator.reduce(tensor, "sum").tolist()

    def broadcast(self, value: Any) -> Any:
        """The lead's value, on all workers."""
        values = [value]
        broadcast_object_list(values, from_process=self.lead_rank)
        return values[0]

    def stop_requested(self) -> bool:
        """Whether this worker's pod received SIGTERM."""
        return self.worker.flag(Flag.STOP).exists()

    def any_stop_requested(self) -> bool:
        """Whether any pod received SIGTERM; a collective: all workers call it at the same point."""
        requested = torch.tensor([float(self.stop_requested())], device=self.device)
        return self.all_reduce(requested)[0] > 0


def init_distributed(worker: WorkerSpec) -> ProcessGroup:
    """Joins the process group of the workers that torchrun started.

    Raises:
        SpecError: the precision needs a GPU.
    """
    spec = worker.job.spec
    has_gpu = torch.cuda.is_available()
    _check_precision(spec, has_gpu=has_gpu)
    sharded = is_sharded(spec.parallelism, int(os.environ.get("WORLD_SIZE", "1")))
    accelerator = Accelerator(
        cpu=not has_gpu,
        # FSDP casts parameters and gradients itself and needs no autocast
        mixed_precision="no" if sharded else PRECISIONS[spec.precision],
        kwargs_handlers=[
            DistributedDataParallelKwargs(gradient_as_bucket_view=True),
            InitProcessGroupKwargs(timeout=PEER_TIMEOUT),
        ],
    )
    is_lead = worker.first_node and local_rank() == 0
    lead_rank = torch.tensor([accelerator.process_index * float(is_lead)], device=accelerator.device)
    return ProcessGroup(accelerator, worker, int(accelerator.reduce(lead_rank, "sum").item()))


def local_rank() -> int:
    """This worker's rank within its pod."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def _check_precision(spec: PretrainRunSpec, *, has_gpu: bool) -> None:
    if spec.precision == "fp16" and not has_gpu:
        raise SpecError(
            Reason.INVALID_SPEC,
            "spec.precision is fp16 and the pod has no GPU; request one in spec.placement.resources, or use bf16",
        )
