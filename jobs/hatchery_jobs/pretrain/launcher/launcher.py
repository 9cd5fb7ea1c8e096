"""Runs torchrun, forwards termination to its workers in time, and restarts them after another pod was lost.

torchrun itself never restarts (`--max-restarts=0`): only the launcher knows which errors can heal, and one restart
budget is enough.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hatchery_api.base import parse_duration
from hatchery_api.contract import RENDEZVOUS_PORT
from hatchery_api.resources.pretrain import Parallelism
from hatchery_jobs.pretrain.launcher.cgroup import oom_kills
from hatchery_jobs.pretrain.launcher.protocol import Flag, WorkerFailure, WorkerResult, WorkerSpec
from hatchery_jobs.pretrain.launcher.restarts import Launch, RestartPolicy
from hatchery_jobs.runtime import Interrupted, log

WORKER_MODULE: Final = "hatchery_jobs.pretrain.training.loop"
"""Entry point of a worker, by name: importing it would import torch."""

POLL_SECONDS: Final = 0.2
"""How often the launcher checks for a termination signal."""

KILL_MARGIN_SECONDS: Final = 5.0
"""Part of the grace period reserved for the report after the workers were killed."""

JOIN_TIMEOUT_SECONDS: Final = 900
"""Rendezvous timeout: a replacement pod may have to pull its image."""

RELAUNCH_WAIT_SECONDS: Final = 2.0
"""Wait before the workers are launched again."""

MALLOC_SETTINGS: Final = {
    "MALLOC_TRIM_THRESHOLD_": str(1 << 30),
    "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}
"""Makes glibc keep freed memory, in bytes, and use transparent huge pages where the kernel offers them. Every pass
allocates the same tensors; on a CPU it takes a tenth longer if the kernel first has to clear small pages."""


@dataclass(frozen=True)
class Gang:
    """The pods of a run as one of them sees them."""

    nodes: int
    """Pods of the run."""
    processes: int
    """Processes per pod."""
    index: int
    """This pod's completion index in the Job."""
    endpoint: str
    """Host and port of the rendezvous, in the pod with index 0."""
    rendezvous: str
    """Rendezvous ID, unique to this attempt."""

    @classmethod
    def from_environment(cls, parallelism: Parallelism, environment: Mapping[str, str]) -> "Gang":
        """Reads the environment that the operator sets, with defaults from the spec."""
        per_node = parallelism.processes_per_node
        return cls(
            nodes=int(environment.get("HATCHERY_NODES", parallelism.nodes)),
            processes=int(environment.get("HATCHERY_PROCESSES_PER_NODE", 1 if per_node == "auto" else per_node)),
            index=int(environment.get("HATCHERY_NODE_INDEX") or 0),
            endpoint=environment.get("HATCHERY_RENDEZVOUS_ENDPOINT", f"localhost:{RENDEZVOUS_PORT}"),
            rendezvous=environment.get("HATCHERY_RENDEZVOUS_ID", "hatchery"),
        )

    @property
    def workers(self) -> int:
        """Processes of the whole run."""
        return self.nodes * self.processes

    def command(self, spec_path: Path) -> list[str]:
        """The torchrun command line for the worker spec in a file."""
        single_node = ["--standalone"]
        multi_node = [
            f"--nnodes={self.nodes}",
            "--rdzv-backend=c10d",
            f"--rdzv-endpoint={self.endpoint}",
            f"--rdzv-id={self.rendezvous}",
            # torchrun detects the host by comparing host names, and the endpoint is the name of a Service
            f"--rdzv-conf=is_host={int(self.index == 0)},join_timeout={JOIN_TIMEOUT_SECONDS}",
            f"--local-addr={socket.gethostbyname(socket.gethostname())}",
        ]
        return [
            *(sys.executable, "-m", "torch.distributed.run"),
            *(single_node if self.nodes == 1 else multi_node),
            f"--nproc-per-node={self.processes}",
            "--max-restarts=0",
            *("-m", WORKER_MODULE, str(spec_path)),
        ]


def run_workers(worker: WorkerSpec, gang: Gang, stop: threading.Event) -> WorkerResult:
    """Launches the workers, again and again if the policy allows, until the run is done.

    Raises:
        Interrupted: this pod received SIGTERM; a checkpoint is saved.
        JobError: a worker failed for good, or the other pods stay away.
    """
    policy = RestartPolicy(gang.nodes, gang.endpoint)
    launches: list[Launch] = []
    while not stop.is_set():
        shutil.rmtree(worker.local_folder, ignore_errors=True)
        worker.local_folder.mkdir(parents=True)
        rows, kills = worker.micro_batch(), oom_kills()
        exit_code = _launch(worker, gang, stop)
        result, failure = worker.read_result(), worker.read_failure()
        if oom_kills() > kills:
            failure = _oom_killed(worker, rows)
        if result is not None and result.state == "done":
            return result
        if stop.is_set():
            break
        started, rows_halved = worker.flag(Flag.STARTED).exists(), worker.micro_batch() < rows
        launches.append(Launch(exit_code, started, failure, rows_halved))
        if (error := policy.decide(launches)) is not None:
            raise error
        cause = failure.cause if failure else "unknown"
        log("relaunch", node=gang.index, exitCode=exit_code, cause=cause, launches=len(launches))
        stop.wait(RELAUNCH_WAIT_SECONDS)
    raise Interrupted("received SIGTERM; the next attempt resumes from the newest checkpoint")


def _oom_killed(worker: WorkerSpec, rows: int) -> WorkerFailure:
    """The failure of a worker that the kernel OOM-killed; failures that the others report follow from it."""
    if worker.flag(Flag.ON_CPU).exists():
        worker.halve_micro_batch(rows)
    return WorkerFailure.out_of_memory("a worker was killed for memory", of_pod=True)


def _launch(worker: WorkerSpec, gang: Gang, stop: threading.Event) -> int:
    """Runs torchrun once and returns its exit code."""
    environment = worker_environment(os.environ, gang.processes)
    process = subprocess.Popen(gang.command(worker.write()), env=environment, start_new_session=True)
    try:
        while not stop.is_set():
            if (code := _wait(process, POLL_SECONDS)) is not None:
                return code
        return _terminate(process, worker)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _terminate(process: subprocess.Popen[bytes], worker: WorkerSpec) -> int:
    """Asks the workers to save a checkpoint and exit, and waits for what is left of the grace period."""
    worker.flag(Flag.STOP).touch()
    if not worker.flag(Flag.STARTED).exists():
        process.terminate()  # they still wait for other pods and have nothing to save
    grace_seconds = parse_duration(worker.job.spec.checkpoint.grace_period) - KILL_MARGIN_SECONDS
    code = _wait(process, max(1.0, grace_seconds))
    if code is None:
        log("grace-period-over", seconds=grace_seconds)
        return -signal.SIGKILL
    return code


def _wait(process: subprocess.Popen[bytes], seconds: float) -> int | None:
    try:
        return process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        return None


def worker_environment(environment: Mapping[str, str], processes: int) -> dict[str, str]:
    """The workers' environment; it sets OMP_NUM_THREADS to each worker's share of the pod's CPUs unless already set."""
    cpus = int(environment.get("HATCHERY_CPUS", "0")) or len(os.sched_getaffinity(0))
    return {"OMP_NUM_THREADS": str(max(1, cpus // processes)), **MALLOC_SETTINGS, **environment}
