"""The launcher: starts one torchrun per pod, restarts its workers and exchanges files with them.

Never imports torch, so that stages fail fast and cheaply. `pretrain.train` runs it; `preflight` and the worker side
(`distributed`, `training`, `telemetry`) import the protocol.
"""

from hatchery_jobs.pretrain.launcher.cgroup import memory_limit
from hatchery_jobs.pretrain.launcher.launcher import Gang, run_workers
from hatchery_jobs.pretrain.launcher.protocol import (
    CHECKPOINTS,
    Cause,
    Flag,
    WorkerFailure,
    WorkerResult,
    WorkerSpec,
    remove_transient_files,
)

__all__ = [
    "CHECKPOINTS",
    "Cause",
    "Flag",
    "Gang",
    "WorkerFailure",
    "WorkerResult",
    "WorkerSpec",
    "memory_limit",
    "remove_transient_files",
    "run_workers",
]
