"""Errors of the jobs, whose class is the retry policy, and the delay before a retry.

JobError
├── SpecError         the spec must change; not retried
├── DataError         the input must change; not retried
├── RetryableError    something outside the stage failed; retried
└── Interrupted       SIGTERM; the state is saved
"""

from typing import ClassVar

from hatchery_api.conditions import Reason
from hatchery_api.contract import ExitCode


class JobError(Exception):
    """Ends a stage with a message for the user: what failed, where, and what to do."""

    exit_code: ClassVar[ExitCode] = ExitCode.RETRY

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


class SpecError(JobError):
    """The spec cannot work."""

    exit_code = ExitCode.SPEC_ERROR


class DataError(JobError):
    """The input cannot be used."""

    exit_code = ExitCode.DATA_ERROR


class RetryableError(JobError):
    """Something outside the stage failed; a retry may succeed."""

    wait_seconds: float = 0.0
    """The server's `Retry-After`."""


class Interrupted(JobError):  # noqa: N818 - not a failure
    """The pod received SIGTERM and saved its state."""

    exit_code = ExitCode.INTERRUPTED

    def __init__(self, message: str) -> None:
        super().__init__(Reason.INTERRUPTED, message)


def retry_delay(
    failures: int, first_seconds: float, max_seconds: float, *, retry_after: float = 0.0, jitter: float = 1.0
) -> float:
    """Seconds before the next attempt: exponential backoff that honours `Retry-After`.

    Args:
        failures: attempts that failed, from 1.
        first_seconds: delay after the first failure; doubles with each further one.
        max_seconds: cap of the exponential delay; `retry_after` may exceed it.
        retry_after: seconds the server asks for.
        jitter: from 0 (half the delay) to 1 (all of it); a random number spreads the retries of many runs.
    """
    delay = min(max_seconds, first_seconds * 2 ** min(failures - 1, 32))
    return max(retry_after, delay * (1 + jitter) / 2)
