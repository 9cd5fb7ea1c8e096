"""What is wrong, in the words of a condition; pure."""

from dataclasses import dataclass

from hatchery_api.conditions import Reason


@dataclass(frozen=True)
class Problem:
    """Something that is wrong, in the words of a condition."""

    reason: Reason
    message: str


@dataclass(frozen=True)
class Failure(Problem):
    """Why an attempt failed."""

    permanent: bool = False
    """Whether no further attempt can help."""
