"""Starts torchrun, asks the workers to end in time, and starts them again when another pod was lost.

torchrun itself never restarts (`--max-restarts=0`): whether an error can heal is known here, and one budget is enough.
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
from hatchery_api.conditions import Reason
from hatchery_api.contract import RENDEZVOUS_PORT
from hatchery_api.resources.pretrain import Parallelism
from hatchery_jobs.pretrain.launcher.cgroup import memory_kills
from hatchery_jobs.pretrain.launcher.protocol import (
    Cause,
    Flag,
    WorkerFailure,
    WorkerResult,
    WorkerSpec,
    out_of_memory,
    read_ending,
    read_failure,
)
from hatchery_jobs.runtime import Interrupted, RetryableError, log

POLL_SECONDS: Final = 0.2
"""Longest time until a termination signal is seen."""

KILL_MARGIN_SECONDS: Final = 5.0
"""Kept of the grace period to report the end after the workers were killed."""

JOIN_TIMEOUT_SECONDS: Final = 900
"""Longest wait for the other pods: a replacement may have to pull its image."""

FRUITLESS_LAUNCHES: Final = 10
"""Launches in a row in which the pods did not meet, after which this one gives up."""

HANGS: Final = 3
"""Launches in a row that hang, after which this attempt gives up."""

RELAUNCH_WAIT_SECONDS: Final = 2.0
"""Wait before the workers are started again."""


KEPT_MEMORY: Final = {
    "MALLOC_TRIM_THRESHOLD_": str(1 << 30),
    "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}
"""The C library keeps so many bytes of freed memory, and asks for pages of megabytes where the kernel lets programs
choose. Every pass takes the same tensors again; on a CPU it takes a tenth longer if the kernel has to clear each first,
in small pages."""


@dataclass(frozen=True)
class Gang:
    """The pods of a run, seen from one of them."""

    nodes: int
    """Pods."""
    processes: int
    """Processes in each."""
    index: int
    """This pod's index in the Job."""
    endpoint: str
    """Host and port of the rendezvous, on the pod with index 0."""
    rendezvous: str
    """Id that only the pods of this attempt share."""

    @classmethod
    def from_environment(cls, parallelism: Parallelism, environment: Mapping[str, str]) -> "Gang":
        """What only Kubernetes knows, from the environment; the rest from the spec."""
        wanted = parallelism.processes_per_node
        return cls(
            nodes=int(environment.get("HATCHERY_NODES", parallelism.nodes)),
            processes=int(environment.get("HATCHERY_PROCESSES_PER_NODE", 1 if wanted == "auto" else wanted)),
            index=int(environment.get("HATCHERY_NODE_INDEX") or 0),
            endpoint=environment.get("HATCHERY_RENDEZVOUS_ENDPOINT", f"localhost:{RENDEZVOUS_PORT}"),
            rendezvous=environment.get("HATCHERY_RENDEZVOUS_ID", "hatchery"),
        )

    @property
    def workers(self) -> int:
        """Processes of the whole run."""
        return self.nodes * self.processes

    def command(self, order_path: Path) -> list[str]:
        """The torchrun command line."""
        alone = ["--standalone"]
        together = [
            f"--nnodes={self.nodes}",
            "--rdzv-backend=c10d",
            f"--rdzv-endpoint={self.endpoint}",
            f"--rdzv-id={self.rendezvous}",
            # by name the pods would find out themselves, but a Service's name is not the pod's own
            f"--rdzv-conf=is_host={int(self.index == 0)},join_timeout={JOIN_TIMEOUT_SECONDS}",
            f"--local-addr={socket.gethostbyname(socket.gethostname())}",
        ]
        return [
            *(sys.executable, "-m", "torch.distributed.run"),
            *(alone if self.nodes == 1 else together),
            f"--nproc-per-node={self.processes}",
            "--max-restarts=0",
            *("-m", "hatchery_jobs.pretrain.training.loop", str(order_path)),
        ]


def run_workers(order: WorkerSpec, gang: Gang, stop: threading.Event) -> WorkerResult:
    """Runs the workers until the run is done.

    Raises:
        Interrupted: this pod was asked to end; the state is saved.
        JobError: a worker's own error, or other pods stay away.
    """
    fruitless = hangs = 0
    while not stop.is_set():
        _clear(order.signs)
        launched_with, kills = order.micro_batch(), memory_kills()
        code = _launch(order, gang, stop)
        ending, failure = read_ending(order.signs), read_failure(order.signs)
        if memory_kills() > kills:
            failure = _killed_for_memory(order, launched_with)
        if ending is not None and ending.state == "done":
            return ending
        if stop.is_set():
            break
        if failure is not None and _is_final(failure, order, launched_with):
            raise failure.error()
        fruitless = 0 if order.sign(Flag.STARTED).exists() else fruitless + 1
        hangs = hangs + 1 if failure is not None and failure.cause == Cause.HUNG else 0
        if failure is not None and hangs >= HANGS:
            raise failure.error()
        if (gang.nodes == 1 and failure is None) or fruitless >= FRUITLESS_LAUNCHES:
            raise _lost(gang, code)
        cause = failure.cause if failure else "unknown"
        log("relaunch", node=gang.index, exitCode=code, cause=cause, fruitless=fruitless)
        stop.wait(RELAUNCH_WAIT_SECONDS)
    raise Interrupted("asked to end; training goes on from the newest checkpoint")


def _killed_for_memory(order: WorkerSpec, rows: int) -> WorkerFailure:
    """The failure of a worker that could not say it itself; what the others say follows from it."""
    if order.sign(Flag.ON_CPU).exists():
        order.halve_micro_batch(rows)
    return out_of_memory("a worker was killed for memory", of_pod=True)


def _is_final(failure: WorkerFailure, order: WorkerSpec, launched_with: int) -> bool:
    """Whether starting the workers again cannot help."""
    if failure.cause == Cause.MEMORY:
        return order.micro_batch() >= launched_with
    return failure.cause == Cause.OWN


def _clear(signs: Path) -> None:
    shutil.rmtree(signs, ignore_errors=True)
    signs.mkdir(parents=True)


def _launch(order: WorkerSpec, gang: Gang, stop: threading.Event) -> int:
    order_path = order.signs / "order.json"
    order_path.write_text(order.model_dump_json(by_alias=True))
    process = subprocess.Popen(
        gang.command(order_path), env=worker_environment(os.environ, gang.processes), start_new_session=True
    )
    try:
        while not stop.is_set():
            if (code := _wait(process, POLL_SECONDS)) is not None:
                return code
        return _end(process, order)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _end(process: subprocess.Popen[bytes], order: WorkerSpec) -> int:
    """Asks the workers to save and end, and waits for as long as Kubernetes will."""
    order.sign(Flag.STOP).touch()
    if not order.sign(Flag.STARTED).exists():
        process.terminate()  # they wait for other pods and have nothing to save
    patience = parse_duration(order.job.spec.checkpoint.grace_period) - KILL_MARGIN_SECONDS
    code = _wait(process, max(1.0, patience))
    if code is None:
        log("grace-period-over", seconds=patience)
        return -signal.SIGKILL
    return code


def _wait(process: subprocess.Popen[bytes], seconds: float) -> int | None:
    try:
        return process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        return None


def _lost(gang: Gang, code: int) -> RetryableError:
    if gang.nodes == 1:
        return RetryableError(
            Reason.ATTEMPT_FAILED,
            f"torchrun ended with code {code} and no worker said why: one was killed, and not for memory; see the log",
        )
    return RetryableError(
        Reason.ATTEMPT_FAILED,
        f"{gang.nodes} pods did not meet at {gang.endpoint} in {FRUITLESS_LAUNCHES} launches (torchrun's code {code}); "
        "are all pods running, and does a NetworkPolicy allow them to reach each other on every port?",
    )


def worker_environment(environment: Mapping[str, str], processes: int) -> dict[str, str]:
    """The environment of the workers: each computes with its share of the pod's processors unless told otherwise."""
    cpus = int(environment.get("HATCHERY_CPUS", "0")) or len(os.sched_getaffinity(0))
    return {"OMP_NUM_THREADS": str(max(1, cpus // processes)), **KEPT_MEMORY, **environment}
