"""What can go wrong between the operator and the API server; the class decides what happens next.

OperatorError
└── ApiError            any answer that is no success: back off, try again
    ├── UnreachableError     no answer, or the server is overloaded
    ├── ConflictError        the object has changed since it was read: read it again, decide again
    ├── GoneError            the object does not exist any more: forget it
    ├── AlreadyExistsError   something has this name: look whose it is
    └── RefusedError         the server will not have it: say so in the object's conditions, try again later
"""


class OperatorError(Exception):
    """The root of the tree."""

    retry_after_seconds: float | None = None
    """Time for which the other side has asked to be left alone."""


class ApiError(OperatorError):
    """An answer of the API server that is no success."""

    def __init__(self, action: str, message: str, status: int = 0, retry_after_seconds: float | None = None) -> None:
        super().__init__(f"{action}: {message}")
        self.message = message
        self.status = status
        self.retry_after_seconds = retry_after_seconds


class UnreachableError(ApiError):
    """No answer, or one that says to come back later."""


class ConflictError(ApiError):
    """The object has changed since it was read."""


class GoneError(ApiError):
    """The object does not exist."""


class AlreadyExistsError(ApiError):
    """An object of this name exists."""


class RefusedError(ApiError):
    """The object is invalid, or a rule, a quota or a permission forbids it."""
