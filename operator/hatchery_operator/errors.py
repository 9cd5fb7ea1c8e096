"""Errors of requests to the API server; the class decides what happens next.

OperatorError
├── NotLeaderError      another replica may lead: write nothing
└── ApiError            any unsuccessful response: back off and retry
    ├── UnreachableError     no response, or the server is overloaded
    ├── ConflictError        the object has changed since it was read: read it again and decide again
    ├── GoneError            the object no longer exists: forget it
    ├── AlreadyExistsError   an object has this name: check who owns it
    └── RefusedError         the server rejects the object: report it in the conditions and retry later
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
    """Base class."""

    retry_after_seconds: float | None = None
    """Delay requested by `Retry-After`; None without one."""


class NotLeaderError(OperatorError):
    """This process may have lost the lease."""


class ApiError(OperatorError):
    """An unsuccessful response of the API server."""

    def __init__(self, action: str, message: str, status: int = 0, retry_after_seconds: float | None = None) -> None:
        super().__init__(f"{action}: {message}")
        self.message = message
        self.status = status
        self.retry_after_seconds = retry_after_seconds


class UnreachableError(ApiError):
    """No response, or one that asks to retry later."""


class ConflictError(ApiError):
    """The object has changed since it was read."""


class GoneError(ApiError):
    """The object does not exist."""


class AlreadyExistsError(ApiError):
    """An object of this name exists."""


class RefusedError(ApiError):
    """The object is invalid, or admission, a quota or RBAC rejects it."""


def api_error(action: str, status: int, headers: Mapping[str, str], data: bytes) -> ApiError:
    """The error for an unsuccessful response."""
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
    """The Status object of a response; a proxy may return anything."""
    try:
        details = json.loads(data)
    except ValueError:
        details = None
    return details if isinstance(details, dict) else {"message": data[:500].decode(errors="replace")}
