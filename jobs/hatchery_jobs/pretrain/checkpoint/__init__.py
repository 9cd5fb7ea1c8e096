"""Checkpoints: snapshots of a run, the store on the volume, the background writer and the way to the Hub.

`pretrain.training` and `pretrain.train` may import it; the latter only inside a function, because it imports torch.
"""

from hatchery_jobs.pretrain.checkpoint.publish import Publisher, pushes_checkpoints
from hatchery_jobs.pretrain.checkpoint.resume import fetch_checkpoint
from hatchery_jobs.pretrain.checkpoint.snapshot import (
    TrainingSnapshot,
    contribute_shards,
    restore_snapshot,
    take_snapshot,
)
from hatchery_jobs.pretrain.checkpoint.store import Checkpoints
from hatchery_jobs.pretrain.checkpoint.writer import CheckpointWriter

__all__ = [
    "CheckpointWriter",
    "Checkpoints",
    "Publisher",
    "TrainingSnapshot",
    "contribute_shards",
    "fetch_checkpoint",
    "pushes_checkpoints",
    "restore_snapshot",
    "take_snapshot",
]
