"""Errors of the jobs. The class is the policy.

JobError
├── SpecError         the user must change the spec; never tried again
├── DataError         the input must change; never tried again
├── RetryableError    something outside failed; tried again
└── Interrupted       the pod was asked to end and has saved its state
"""

from typing import ClassVar

from hatchery_api.conditions import Reason
from hatchery_api.contract import ExitCode


class JobError(Exception):
    """An end of a stage that the user should read about: what, where, and what to do."""

    exit_code: ClassVar[ExitCode] = ExitCode.RETRY

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


class SpecError(JobError):
    """This spec can never work."""

    exit_code = ExitCode.SPEC_ERROR


class DataError(JobError):
    """This input can never be used."""

    exit_code = ExitCode.DATA_ERROR


class RetryableError(JobError):
    """Something outside the stage failed; another attempt may succeed."""

    wait_seconds: float = 0.0
    """Time the other side asks to be left alone."""


class Interrupted(JobError):  # noqa: N818 - not a failure
    """The pod was asked to end; the state is saved."""

    exit_code = ExitCode.INTERRUPTED

    def __init__(self, message: str) -> None:
        super().__init__(Reason.INTERRUPTED, message)
