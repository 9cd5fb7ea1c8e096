"""How a command ends."""

from enum import IntEnum


class Exit(IntEnum):
    """Exit codes; scripts may rely on them."""

    OK = 0
    """Everything asked for is there."""
    FAILED = 1
    """A run failed, or the cluster refused."""
    USAGE = 2
    """The command cannot be understood or names something that is not there."""
    TIMEOUT = 3
    """It took longer than `--timeout`; the runs go on."""
    DETACHED = 130
    """Interrupted by the user; the runs go on."""


class CommandError(Exception):
    """Ends the command with a message for people and an exit code."""

    def __init__(self, message: str, code: Exit = Exit.USAGE) -> None:
        """What went wrong, where, and what to do."""
        super().__init__(message)
        self.code = code
