"""What can go wrong between the operator and the API server; the class decides what happens next.

OperatorError
├── NotLeaderError      another replica may lead by now: write nothing
└── ApiError            any answer that is no success: back off, try again
    ├── UnreachableError     no answer, or the server is overloaded
    ├── ConflictError        the object has changed since it was read: read it again, decide again
    ├── GoneError            the object does not exist any more: forget it
    ├── AlreadyExistsError   something has this name: look whose it is
    └── RefusedError         the server will not have it: say so in the object's conditions, try again later
"""

import json
from collections.abc import Mapping
from typing import Any, Final

_UNAUTHORIZED: Final = 401
_NOT_FOUND: Final = 404
_CONFLICT: Final = 409
_TOO_MANY: Final = 429
_SERVER_ERRORS: Final = 500


class OperatorError(Exception):
    """The root of the tree."""

    retry_after_seconds: float | None = None
    """Time for which the other side has asked to be left alone."""


class NotLeaderError(OperatorError):
    """This process does not surely hold the lease."""


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


def api_error(action: str, status: int, headers: Mapping[str, str], data: bytes) -> ApiError:
    """The error an answer stands for."""
    details = _details(data)
    message = str(details.get("message", details))
    after = headers.get("Retry-After", "")
    retry_after_seconds = float(after) if after.isdigit() else None
    kind: type[ApiError] = RefusedError
    if status == _NOT_FOUND:
        kind = GoneError
    elif status == _CONFLICT:
        kind = AlreadyExistsError if details.get("reason") == "AlreadyExists" else ConflictError
    elif status in (_UNAUTHORIZED, _TOO_MANY) or status >= _SERVER_ERRORS:
        kind = UnreachableError
    return kind(action, message, status, retry_after_seconds)


def _details(data: bytes) -> dict[str, Any]:
    """The Status object of an answer; a proxy on the way may answer with anything."""
    try:
        details = json.loads(data)
    except ValueError:
        details = None
    return details if isinstance(details, dict) else {"message": data[:500].decode(errors="replace")}
