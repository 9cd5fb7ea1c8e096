"""What is wrong, in the words of a condition; pure."""

from dataclasses import dataclass

from hatchery_api.conditions import Reason


@dataclass(frozen=True)
class Diagnosis:
    """Something that is wrong, in the words of a condition."""

    reason: Reason
    message: str
    """A sentence; below it there may be the last lines of a log."""

    def sentence_with(self, suffix: str) -> str:
        """The message with something added to its sentence."""
        sentence, line_break, below = self.message.partition("\n")
        return f"{sentence}{suffix}{line_break}{below}"


@dataclass(frozen=True)
class AttemptFailure(Diagnosis):
    """Why an attempt failed."""

    permanent: bool = False
    """Whether no further attempt can help."""
