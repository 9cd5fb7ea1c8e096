"""Decides after each launch of the workers whether to launch them again; pure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Final

from hatchery_api.conditions import Reason
from hatchery_jobs.pretrain.launcher.protocol import Cause, WorkerFailure
from hatchery_jobs.runtime import JobError, RetryableError

MAX_FAILED_RENDEZVOUS: Final = 10
"""Consecutive launches in which the pods did not meet, after which the attempt fails."""

MAX_HANGS: Final = 3
"""Consecutive launches that hang, after which the attempt fails."""


@dataclass(frozen=True)
class Launch:
    """One launch of the workers that ended without a result."""

    exit_code: int
    """torchrun's exit code."""
    started: bool
    """Whether the workers joined the process group."""
    failure: WorkerFailure | None = None
    """What the workers reported; None: they were killed, or never started."""
    rows_halved: bool = False
    """Whether a smaller micro-batch is in place for the next launch."""

    @property
    def hung(self) -> bool:
        """Whether the watchdog killed the workers."""
        return self.failure is not None and self.failure.cause == Cause.HUNG


@dataclass(frozen=True)
class RestartPolicy:
    """Restarts after what can heal: a lost pod, a smaller micro-batch, a hang.

    A worker's own error is final, and so is running out of memory with one row.
    """

    nodes: int
    """Pods of the run."""
    endpoint: str
    """Where the pods meet, for the message."""

    def decide(self, launches: Sequence[Launch]) -> JobError | None:
        """The error that ends this attempt; None to launch the workers again.

        Args:
            launches: All launches of this attempt, the newest last.
        """
        launch, failure = launches[-1], launches[-1].failure
        if failure is None and self.nodes == 1:
            return RetryableError(
                Reason.ATTEMPT_FAILED,
                f"torchrun exited with code {launch.exit_code} and no worker reported an error: a worker was killed, "
                "but not for memory; see the log",
            )
        if failure is not None:
            is_final = failure.cause == Cause.OWN or (failure.cause == Cause.MEMORY and not launch.rows_halved)
            if is_final or _newest(launches, lambda past: past.hung) >= MAX_HANGS:
                return failure.error()
        if _newest(launches, lambda past: not past.started) >= MAX_FAILED_RENDEZVOUS:
            if failure is not None and self.nodes == 1:
                return failure.error()
            return RetryableError(
                Reason.ATTEMPT_FAILED,
                f"{self.nodes} pods did not meet at {self.endpoint} in {MAX_FAILED_RENDEZVOUS} launches (torchrun's "
                f"exit code {launch.exit_code}); check that all pods run and that no NetworkPolicy blocks their ports",
            )
        return None


def _newest(launches: Sequence[Launch], matches: Callable[[Launch], bool]) -> int:
    """How many of the newest launches in a row match."""
    return sum(1 for _ in takewhile(matches, reversed(launches)))
