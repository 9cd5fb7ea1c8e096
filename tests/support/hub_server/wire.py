"""What a route handler reads and what it answers: requests, responses and the problems clients understand."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.message import Message
from http import HTTPStatus
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import parse_qs


class Problem(Exception):  # noqa: N818  (an answer as much as an error)
    """A request that cannot be served; clients choose their exception class by `X-Error-Code`."""

    def __init__(
        self, status: int, message: str, code: str | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = dict(headers or {})
        self.headers["X-Error-Message"] = message
        if code:
            self.headers["X-Error-Code"] = code

    def response(self) -> Response:
        """The problem as an answer."""
        return Response(self.status, json.dumps({"error": self.message}).encode(), "application/json", self.headers)


def repo_not_found(repo_id: str) -> Problem:
    """A repository that is absent, or private to the caller: the two look the same on purpose."""
    return Problem(404, f"Repository not found: {repo_id}", "RepoNotFound")


def revision_not_found(revision: str) -> Problem:
    """A branch, tag or commit that the repository does not have."""
    return Problem(404, f"Invalid rev id: {revision}", "RevisionNotFound")


def entry_not_found(path: str, commit: str) -> Problem:
    """A file the commit does not hold; the commit is named because clients cache the absence."""
    return Problem(404, f"Entry not found: {path}", "EntryNotFound", {"X-Repo-Commit": commit})


def bad_token() -> Problem:
    """A token nobody knows. The sentence is the one clients compare against."""
    return Problem(401, "Invalid credentials in Authorization header")


class Stream(Protocol):
    """Anything bytes can be read from."""

    def read(self, size: int = -1, /) -> bytes:
        """Up to `size` bytes; empty at the end."""
        ...


@dataclass(frozen=True)
class Caller:
    """Who sent the request."""

    name: str
    can_write: bool


@dataclass(frozen=True)
class Request:
    """One parsed request; `params` are the unquoted groups of the matched route."""

    method: str
    path: str
    """Still percent-encoded, without the query."""
    query: str
    headers: Message[str, str]
    body: Stream
    base_url: str
    """Scheme and host as the client wrote them: links in answers must work from where the client is."""
    caller: Caller | None = None
    params: Mapping[str, str] = field(default_factory=dict)

    def json(self) -> dict[str, Any]:
        """The body as a JSON object; empty where there is no body."""
        raw = self.body.read()
        try:
            value = json.loads(raw) if raw else {}
        except ValueError as error:
            raise Problem(400, f"The body is not JSON: {error}") from error
        if not isinstance(value, dict):
            raise Problem(400, "The body must be a JSON object")
        return value

    def argument(self, name: str, default: str = "") -> str:
        """The first value of a query argument."""
        return parse_qs(self.query, keep_blank_values=True).get(name, [default])[0]

    def flag(self, name: str) -> bool:
        """Whether a query argument is switched on."""
        return self.argument(name).lower() in {"1", "true", "yes"}


@dataclass(frozen=True)
class FileSlice:
    """Part of a file on disk, sent without being held in memory."""

    path: Path
    start: int
    length: int


@dataclass(frozen=True)
class Response:
    """One answer."""

    status: int = HTTPStatus.OK
    body: bytes | FileSlice = b""
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def length(self) -> int:
        """Bytes of the body."""
        return self.body.length if isinstance(self.body, FileSlice) else len(self.body)


def answer(value: Any, status: int = HTTPStatus.OK, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON answer."""
    return Response(status, json.dumps(value).encode(), headers=headers or {})
