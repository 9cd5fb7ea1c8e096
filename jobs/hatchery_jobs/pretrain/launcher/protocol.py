"""The files through which the launcher and its workers talk, on the pod's local disk.

Files, because torchrun stands between them and replaces signals and exit codes with its own.
"""

import shutil
from enum import StrEnum
from pathlib import Path
from typing import Final, Literal

from hatchery_api.base import Model
from hatchery_api.conditions import Reason
from hatchery_api.contract import METRICS_PORT, ExitCode, JobInput
from hatchery_api.resources.pretrain import PretrainResult, PretrainRunSpec
from hatchery_jobs.runtime import DataError, JobError, RetryableError, SpecError, log, write_atomically

CHECKPOINTS: Final = "checkpoints"
"""Folder of the checkpoints in the work folder."""

OUTBOX: Final = "outbox"
"""Folder of the checkpoints queued for the Hub, in the work folder."""

STREAMS: Final = "streams"
"""Folder of the milestones of streams, in the work folder."""

MICRO_BATCH: Final = "micro-batch.json"
"""File with the micro-batch size that fits, in the work folder."""

TRANSIENT: Final = (CHECKPOINTS, MICRO_BATCH, OUTBOX, STREAMS)
"""What the work folder holds only during the run; the artifact must not contain it."""

RESULT_FILE: Final = "result.json"
FAILURE_FILES: Final = "failure-*.json"


class Flag(StrEnum):
    """Marker files: a flag is set while its file exists."""

    STOP = "stop"
    """The launcher asks the workers to save a checkpoint and exit."""
    STARTED = "started"
    """The workers have joined the process group and poll STOP."""
    ON_CPU = "on-cpu"
    """The workers train on the CPU, so activations count towards the pod's memory limit."""


class Cause(StrEnum):
    """What made a worker fail, root causes first: of several failures the launcher reports the first in this order."""

    OWN = "own"
    """The worker itself."""
    MEMORY = "memory"
    """Too little memory for the micro-batch."""
    HUNG = "hung"
    """The watchdog killed it."""
    PEER = "peer"
    """It lost another worker."""


class WorkerFailure(Model):
    """Why a worker failed."""

    reason: Reason
    """Reason for the user."""
    message: str
    """What failed, where, and the remedy."""
    exit_code: ExitCode
    """Whether the Job may retry."""
    cause: Cause = Cause.OWN
    """What made it fail."""

    @classmethod
    def out_of_memory(cls, detail: str, *, of_pod: bool) -> "WorkerFailure":
        """The failure of a worker that exceeded the memory of its pod or, unless `of_pod`, of its GPU."""
        raise_limit = "raise spec.placement.resources.limits.memory, " if of_pod else ""
        return cls(
            reason=Reason.OUT_OF_MEMORY,
            message=f"{detail}; {raise_limit}lower spec.batch.perDevice or set spec.gradientCheckpointing",
            exit_code=ExitCode.RETRY,
            cause=Cause.MEMORY,
        )

    def error(self) -> JobError:
        """The error that the launcher raises for this failure."""
        kinds = {ExitCode.SPEC_ERROR: SpecError, ExitCode.DATA_ERROR: DataError}
        return kinds.get(self.exit_code, RetryableError)(self.reason, self.message)


class WorkerResult(Model):
    """How the workers of a pod exited, written by the pod's first worker."""

    state: Literal["done", "interrupted"]
    """`interrupted`: a pod of the run received SIGTERM, and all workers saved a checkpoint."""
    result: PretrainResult
    """The run's figures so far."""


class WorkerSpec(Model):
    """Everything a worker needs to know; the launcher passes it as a JSON file."""

    job: JobInput[PretrainRunSpec]
    """The pod's input."""
    tokens: Path
    """Folder of the token shards."""
    tokenizer: Path
    """Folder of the tokenizer."""
    weights: Path | None = None
    """Folder of the initial weights; None: random initialization."""
    folder: Path
    """Work folder of the artifact, shared by all nodes."""
    local_folder: Path
    """Folder on the pod's local disk: the files of this module, and caches."""
    first_node: bool
    """True in the pod whose first process is the lead: it writes files and serves metrics."""
    metrics_port: int = METRICS_PORT
    """Port of `/metrics`."""

    def flag(self, flag: Flag) -> Path:
        """The file of a flag."""
        return self.local_folder / flag.value

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.folder / CHECKPOINTS

    @property
    def outbox(self) -> Path:
        """Folder of the checkpoints queued for the Hub."""
        return self.folder / OUTBOX

    @property
    def streams(self) -> Path:
        """Folder of the milestones of streams."""
        return self.folder / STREAMS

    def write(self) -> Path:
        """Writes this spec for the workers and returns the file."""
        path = self.local_folder / "worker.json"
        path.write_text(self.model_dump_json(by_alias=True))
        return path

    def write_result(self, result: WorkerResult) -> None:
        """Leaves a result for the launcher."""
        (self.local_folder / RESULT_FILE).write_text(result.model_dump_json(by_alias=True))

    def read_result(self) -> WorkerResult | None:
        """The result that the workers left, if any."""
        path = self.local_folder / RESULT_FILE
        return WorkerResult.model_validate_json(path.read_bytes()) if path.exists() else None

    def write_failure(self, local_rank: int, failure: WorkerFailure) -> None:
        """Leaves a failure for the launcher."""
        path = self.local_folder / FAILURE_FILES.replace("*", str(local_rank))
        path.write_text(failure.model_dump_json(by_alias=True))

    def read_failure(self) -> WorkerFailure | None:
        """The failure with the cause that explains the others, if any worker left one."""
        paths = sorted(self.local_folder.glob(FAILURE_FILES))
        failures = [WorkerFailure.model_validate_json(path.read_bytes()) for path in paths]
        return min(failures, key=lambda failure: [*Cause].index(failure.cause), default=None)

    def micro_batch(self) -> int:
        """Rows in one forward pass: `batch.perDevice`, or fewer after an out-of-memory failure."""
        per_device = self.job.spec.batch.per_device
        halved = self._halved()
        return min(per_device, halved.rows) if halved and per_device % halved.rows == 0 else per_device

    def halve_micro_batch(self, rows: int) -> None:
        """Halves the `rows` that did not fit, or takes the next lower divisor, for the next launch and later attempts.

        The global batch does not change. A single row cannot be halved. When several workers run out of memory
        together, only the first call has an effect.
        """
        fewer = next((n for n in range(rows // 2, 0, -1) if rows % n == 0), None)
        if fewer is not None and fewer < self.micro_batch():
            halved = _HalvedMicroBatch(rows=fewer, attempt=self.job.attempt)
            write_atomically(self.folder / MICRO_BATCH, halved.model_dump_json().encode())
            log("micro-batch-halved", rows=rows, now=fewer)

    def halve_after_oom_kill(self) -> None:
        """Halves the micro-batch, once per attempt, if the previous attempt's pod was OOM-killed and left no report."""
        halved = self._halved()
        if self.job.earlier_failure == Reason.OUT_OF_MEMORY and (not halved or halved.attempt < self.job.attempt):
            self.halve_micro_batch(self.micro_batch())

    def _halved(self) -> "_HalvedMicroBatch | None":
        path = self.folder / MICRO_BATCH
        return _HalvedMicroBatch.model_validate_json(path.read_bytes()) if path.exists() else None


class _HalvedMicroBatch(Model):
    """The reduced micro-batch of a run."""

    rows: int
    """Rows that have not failed yet."""
    attempt: int
    """Attempt that halved them last."""


def remove_transient_files(folder: Path) -> None:
    """Removes from a work folder what the artifact must not contain."""
    for name in TRANSIENT:
        path = folder / name
        shutil.rmtree(path, ignore_errors=True)
        path.unlink(missing_ok=True)
