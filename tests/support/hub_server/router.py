"""The route table and who may use which route."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from urllib.parse import unquote

from .store import KINDS, Repo, Store
from .wire import Caller, Problem, Request, Response, bad_token, repo_not_found

REPO = r"(?P<repo>(?!api/|-/)[^/]+/[^/]+?)"
"""No repository lies below the two words, so the order of the routes does not matter."""
KIND = r"(?P<kind>models|datasets|spaces)"
API = rf"/api/{KIND}/{REPO}"
WEB = rf"/(?:(?P<kind>datasets|spaces)/)?{REPO}"
"""Web addresses carry no word for models."""


@dataclass(frozen=True)
class Hub:
    """Everything a handler may use."""

    store: Store
    tokens: Mapping[str, Caller]
    namespaces: frozenset[str] | None = None
    """Where repositories may be made; none given means anywhere."""
    part_bytes: int | None = None
    """Uploads above this size are asked for in parts."""
    page_size: int = 1000
    secret: bytes = field(default_factory=lambda: secrets.token_bytes(16))
    """Signs upload links, which carry no token; new in each process, so old links expire with it."""

    def visible(self, repo: Repo, caller: Caller | None) -> bool:
        """Private repositories exist only for callers with a token."""
        return caller is not None or not repo.private

    def repo(self, request: Request) -> Repo:
        """The repository that the route names, or a 404."""
        repo = self.store.repo(request.params.get("kind") or KINDS[0], request.params["repo"])
        if not self.visible(repo, request.caller):
            raise repo_not_found(repo.id)
        return repo


Handler = Callable[[Hub, Request], Response]


class Access(Enum):
    """What a route asks of its caller."""

    READ = "anyone; private repositories need a token"
    IDENTITY = "a token"
    WRITE = "a token that can write"
    SIGNED = "a signed link"


@dataclass(frozen=True)
class Route:
    """One line of the table."""

    method: str
    pattern: re.Pattern[str]
    handler: Handler
    access: Access


_TABLE: list[Route] = []


def route(method: str, pattern: str, access: Access = Access.READ) -> Callable[[Handler], Handler]:
    """Puts a handler into the table. The pattern meets the percent-encoded path, so a revision is one segment."""

    def add(handler: Handler) -> Handler:
        _TABLE.append(Route(method, re.compile(pattern), handler, access))
        return handler

    return add


def dispatch(hub: Hub, request: Request) -> Response:
    """Finds the route, checks the caller and answers."""
    method = "GET" if request.method == "HEAD" else request.method
    for line in _TABLE:
        match = line.pattern.fullmatch(request.path)
        if match and line.method == method:
            caller = None if line.access is Access.SIGNED else _caller(hub, request)
            params = {name: unquote(value) for name, value in match.groupdict().items() if value is not None}
            known = replace(request, caller=caller, params=params)
            _check(hub, line.access, known)
            return line.handler(hub, known)
    raise Problem(404, f"No such route: {request.method} {request.path}")


def _caller(hub: Hub, request: Request) -> Caller | None:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if not scheme:
        return None
    if scheme.lower() != "bearer" or token not in hub.tokens:
        raise bad_token()
    return hub.tokens[token]


def _check(hub: Hub, access: Access, request: Request) -> None:
    if access not in {Access.IDENTITY, Access.WRITE}:
        return
    if request.caller is None:
        raise Problem(401, "This action needs a token: send it as 'Authorization: Bearer …'")
    if access is Access.WRITE and not request.caller.can_write:
        if "repo" in request.params:
            hub.repo(request)
        raise Problem(403, "Forbidden: this token has no write permission")
