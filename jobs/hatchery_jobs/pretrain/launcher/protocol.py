"""What the launcher and its workers tell each other: files in a folder of the pod's local disk.

Files, because torchrun between them turns signals and exit codes into its own.
"""

from enum import StrEnum
from pathlib import Path
from typing import Final, Literal

from hatchery_api.base import Model
from hatchery_api.conditions import Reason
from hatchery_api.contract import METRICS_PORT, ExitCode, JobInput
from hatchery_api.resources.pretrain import PretrainResult, PretrainRunSpec
from hatchery_jobs.runtime import DataError, JobError, RetryableError, SpecError, log, write_atomically

CHECKPOINTS: Final = "checkpoints"
"""Folder of the checkpoints in the work folder; no part of the artifact."""

OUTBOX: Final = "outbox"
"""Folder of checkpoints that wait to be pushed, in the work folder."""

STREAMS: Final = "streams"
"""Folder of the milestones of streams in the work folder."""

MICRO_BATCH: Final = "micro-batch.json"
"""File of the micro-batch that fits, in the work folder."""


class Flag(StrEnum):
    """Files whose existence says something."""

    STOP = "stop"
    """The launcher asks the workers to save and end."""
    STARTED = "started"
    """The workers have found each other and watch for STOP."""
    ON_CPU = "on-cpu"
    """They compute on processors, so what a batch takes counts towards the pod's limit."""


class Cause(StrEnum):
    """Who is to blame for a worker's end, the one that explains the others first."""

    OWN = "own"
    """The worker itself."""
    MEMORY = "memory"
    """Memory is too small for the micro-batch."""
    HUNG = "hung"
    """It did nothing for too long."""
    PEER = "peer"
    """Another worker is gone; this one is fine."""


class WorkerSpec(Model):
    """All a worker is told."""

    job: JobInput[PretrainRunSpec]
    """The pod's input."""
    tokens: Path
    """Folder of token shards."""
    tokenizer: Path
    """Folder of the tokenizer."""
    weights: Path | None = None
    """Folder of the weights to go on from; None: fresh ones."""
    folder: Path
    """Work folder of the artifact, the same on all nodes."""
    signs: Path
    """Folder on the pod's local disk for everything in this module."""
    first_node: bool
    """True on the pod whose first process writes files and serves metrics."""
    metrics_port: int = METRICS_PORT
    """Port of `/metrics`."""

    def sign(self, sign: Flag) -> Path:
        """The file of a sign."""
        return self.signs / sign.value

    def micro_batch(self) -> int:
        """Rows in one forward pass: `batch.perDevice`, or fewer since memory did not suffice."""
        wanted = self.job.spec.batch.per_device
        halved = self._halved()
        return min(wanted, halved.rows) if halved and wanted % halved.rows == 0 else wanted

    def halve_micro_batch(self, rows: int) -> None:
        """Leaves half of the rows that did not fit, or the next fewer that divide them, for the next launch of all
        workers and for later attempts; the global batch stays. One row cannot be halved, and of several workers that
        run out of memory together the first one is enough.
        """
        fewer = next((n for n in range(rows // 2, 0, -1) if rows % n == 0), None)
        if fewer is not None and fewer < self.micro_batch():
            halved = _Halved(rows=fewer, attempt=self.job.attempt)
            write_atomically(self.folder / MICRO_BATCH, halved.model_dump_json().encode())
            log("micro-batch-halved", rows=rows, now=fewer)

    def halve_after_a_kill(self) -> None:
        """Halves the micro-batch, once in an attempt, where the one before was killed for memory: it could not say so
        itself.
        """
        halved = self._halved()
        if self.job.earlier_failure == Reason.OUT_OF_MEMORY and (not halved or halved.attempt < self.job.attempt):
            self.halve_micro_batch(self.micro_batch())

    def _halved(self) -> "_Halved | None":
        path = self.folder / MICRO_BATCH
        return _Halved.model_validate_json(path.read_bytes()) if path.exists() else None


class _Halved(Model):
    """What is known of the micro-batch that fits."""

    rows: int
    """Rows that have not failed yet."""
    attempt: int
    """Attempt in which they were halved last."""


class WorkerResult(Model):
    """How the workers ended, written by the first one of each node."""

    state: Literal["done", "interrupted"]
    """Interrupted: a pod of the run was asked to end, and all saved their state."""
    result: PretrainResult
    """The numbers so far."""


class WorkerFailure(Model):
    """Why a worker failed."""

    reason: Reason
    """Reason for the user."""
    message: str
    """What, where and what to do."""
    exit_code: ExitCode
    """What it means for the next attempt."""
    cause: Cause = Cause.OWN
    """Who is to blame."""

    def error(self) -> JobError:
        """The failure as an error of the launcher."""
        kinds = {ExitCode.SPEC_ERROR: SpecError, ExitCode.DATA_ERROR: DataError}
        return kinds.get(self.exit_code, RetryableError)(self.reason, self.message)


def out_of_memory(said: str, *, of_pod: bool) -> WorkerFailure:
    """The failure of a worker for which the memory of its pod, or else of its device, did not suffice."""
    more = "raise spec.placement.resources.limits.memory, " if of_pod else ""
    return WorkerFailure(
        reason=Reason.OUT_OF_MEMORY,
        message=f"{said}; {more}lower spec.batch.perDevice or set spec.gradientCheckpointing",
        exit_code=ExitCode.RETRY,
        cause=Cause.MEMORY,
    )


def write_ending(order: WorkerSpec, ending: WorkerResult) -> None:
    """Leaves the ending for the launcher."""
    (order.signs / "ending.json").write_text(ending.model_dump_json(by_alias=True))


def write_failure(order: WorkerSpec, local_rank: int, failure: WorkerFailure) -> None:
    """Leaves a failure for the launcher."""
    (order.signs / f"failure-{local_rank}.json").write_text(failure.model_dump_json(by_alias=True))


def read_ending(signs: Path) -> WorkerResult | None:
    """The ending, if there is one."""
    path = signs / "ending.json"
    return WorkerResult.model_validate_json(path.read_bytes()) if path.exists() else None


def read_failure(signs: Path) -> WorkerFailure | None:
    """The failure that explains the others."""
    failures = [WorkerFailure.model_validate_json(p.read_bytes()) for p in sorted(signs.glob("failure-*.json"))]
    return min(failures, key=lambda f: [*Cause].index(f.cause), default=None)
