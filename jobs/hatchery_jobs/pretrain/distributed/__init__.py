"""The workers of a run as one process group: collectives, sharding and the watchdog.

`pretrain.training` and `pretrain.checkpoint` may import it. It imports torch.
"""

from hatchery_jobs.pretrain.distributed.process_group import ProcessGroup, init_distributed, local_rank
from hatchery_jobs.pretrain.distributed.sharding import full_tensor, no_gradient_sync, reshard, shard
from hatchery_jobs.pretrain.distributed.watchdog import Watchdog

__all__ = [
    "ProcessGroup",
    "Watchdog",
    "full_tensor",
    "init_distributed",
    "local_rank",
    "no_gradient_sync",
    "reshard",
    "shard",
]
