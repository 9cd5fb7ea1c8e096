"""The workers of a run as one: who reads which micro-batch, and what they must agree on."""

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
from hatchery_jobs.pretrain.launcher.protocol import Flag, WorkerSpec
from hatchery_jobs.runtime import SpecError

PEER_TIMEOUT: Final = timedelta(minutes=30)
"""Longest time one worker waits for another; a checkpoint, which only the first one writes, must fit in."""

PRECISIONS: Final = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}
"""Names of the precisions in Accelerate."""


@dataclass(frozen=True)
class ProcessGroup:
    """All workers of a run, seen from one of them."""

    accelerator: Accelerator
    order: WorkerSpec
    lead_rank: int
    """Rank of the worker that writes files: the first process of the first node. torchrun may give it any rank."""

    @property
    def is_sharded(self) -> bool:
        """Whether each worker holds a part of the model, so that every pass is one of all together."""
        return is_sharded(self.order.job.spec.parallelism, self.size)

    @property
    def rank(self) -> int:
        """This worker's number."""
        return self.accelerator.process_index

    @property
    def size(self) -> int:
        """Workers in the run."""
        return self.accelerator.num_processes

    @property
    def leads(self) -> bool:
        """True for the worker that writes files."""
        return self.rank == self.lead_rank

    @property
    def device(self) -> torch.device:
        """This worker's device."""
        return self.accelerator.device

    def share(self, micro_batches: int) -> range:
        """Numbers of the micro-batches this worker computes.

        Sharded workers compute equally many: numbers from `micro_batches` on are passes that count nothing.
        """
        end = -(-micro_batches // self.size) * self.size if self.is_sharded else micro_batches
        return range(self.rank, end, self.size)

    def seed(self, number: int) -> None:
        """Decides what chance does next on this worker's device; torch.manual_seed takes a hundred times as long."""
        torch.default_generator.manual_seed(number)
        if self.device.type == "cuda":
            torch.cuda.manual_seed(number)

    def total(self, tensor: torch.Tensor) -> list[float]:
        """Sum of a tensor over all workers."""
        return self.accelerator.reduce(tensor, "sum").tolist()

    def stop_wanted(self) -> bool:
        """Whether this worker's pod was asked to end."""
        return self.order.sign(Flag.STOP).exists()

    def agree_to_stop(self) -> bool:
        """Whether any pod was asked to end; all workers must ask at the same point."""
        wanted = torch.tensor([float(self.stop_wanted())], device=self.device)
        return self.total(wanted)[0] > 0

    def told_by_lead(self, value: Any) -> Any:
        """The lead's value."""
        values = [value]
        broadcast_object_list(values, from_process=self.lead_rank)
        return values[0]


def init_distributed(order: WorkerSpec) -> ProcessGroup:
    """Meets the other workers that torchrun started.

    Raises:
        SpecError: the precision needs another device.
    """
    spec = order.job.spec
    gpu = torch.cuda.is_available()
    _check_precision(spec, gpu=gpu)
    sharded = is_sharded(spec.parallelism, int(os.environ.get("WORLD_SIZE", "1")))
    accelerator = Accelerator(
        cpu=not gpu,
        # FSDP casts what it exchanges, and needs no autocast around it
        mixed_precision="no" if sharded else PRECISIONS[spec.precision],
        kwargs_handlers=[
            DistributedDataParallelKwargs(gradient_as_bucket_view=True),
            InitProcessGroupKwargs(timeout=PEER_TIMEOUT),
        ],
    )
    leads = order.first_node and local_rank() == 0
    rank = torch.tensor([accelerator.process_index * float(leads)], device=accelerator.device)
    return ProcessGroup(accelerator, order, int(accelerator.reduce(rank, "sum").item()))


def local_rank() -> int:
    """This worker's number within its pod."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def _check_precision(spec: PretrainRunSpec, *, gpu: bool) -> None:
    if spec.precision == "fp16" and not gpu:
        raise SpecError(
            Reason.INVALID_SPEC,
            "spec.precision is fp16 and the pod has no GPU; ask for one in spec.placement.resources, or take bf16",
        )
