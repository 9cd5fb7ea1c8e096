"""Exit codes, and the error that ends a command."""

from enum import IntEnum


class Exit(IntEnum):
    """Exit codes; scripts may rely on them."""

    OK = 0
    """The command succeeded."""
    FAILED = 1
    """A run failed, or the cluster rejected the request."""
    USAGE = 2
    """The command line is invalid, or names something that does not exist."""
    TIMEOUT = 3
    """`--timeout` expired; the runs keep running."""
    DETACHED = 130
    """Interrupted by the user; the runs keep running."""


class CommandError(Exception):
    """Ends the command with a message and an exit code."""

    def __init__(self, message: str, code: Exit = Exit.USAGE) -> None:
        """The message says what is wrong, where, and what to do."""
        super().__init__(message)
        self.code = code
