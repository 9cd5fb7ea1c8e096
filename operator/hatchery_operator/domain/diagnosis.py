"""A diagnosis: the reason and message of a condition."""

from dataclasses import dataclass

from hatchery_api.conditions import Reason


@dataclass(frozen=True)
class Diagnosis:
    """A problem, as a condition reports it."""

    reason: Reason
    message: str
    """A sentence; the last lines of a log may follow below it."""

    def sentence_with(self, suffix: str) -> str:
        """The message with a suffix to its sentence."""
        sentence, line_break, below = self.message.partition("\n")
        return f"{sentence}{suffix}{line_break}{below}"


@dataclass(frozen=True)
class AttemptFailure(Diagnosis):
    """Why an attempt failed."""

    permanent: bool = False
    """Whether a further attempt cannot help."""
