"""Runs the training loop for tests: in this process, or in several worker processes as torchrun starts them."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from accelerate.state import AcceleratorState, GradientState, PartialState

from hatchery_jobs.pretrain.launcher.launcher import worker_environment
from hatchery_jobs.pretrain.launcher.protocol import WorkerResult, WorkerSpec
from hatchery_jobs.pretrain.training import loop

PATIENCE_SECONDS = 200


def train(worker: WorkerSpec) -> WorkerResult:
    """Trains with one worker in this process, which may have trained before."""
    for state in (AcceleratorState, GradientState, PartialState):
        state._reset_state()
    return loop.train(worker)


def train_together(
    worker: WorkerSpec, workers: int, module: str = "hatchery_jobs.pretrain.training.loop"
) -> WorkerResult | None:
    """Trains with several workers, one thread each."""
    with started(worker, workers, module) as processes:
        assert [process.wait(timeout=PATIENCE_SECONDS) for process in processes] == [0] * workers
    return worker.read_result()


@contextmanager
def started(
    worker: WorkerSpec, workers: int, module: str = "hatchery_jobs.pretrain.training.loop"
) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Several workers at work, one thread each, until the end of the block."""
    path = worker.write()
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(workers), "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", module, str(path)],
            env={**worker_environment(os.environ, workers), **meeting, "RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(workers)
    ]
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.wait()
