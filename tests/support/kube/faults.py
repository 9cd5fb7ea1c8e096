"""Faults between an operator and the API server, and the requests they hit."""

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from aiohttp import web

WRITES = frozenset({"POST", "PUT", "PATCH", "DELETE"})
"""Verbs of writes."""


@dataclass
class Call:
    """One request of the operator."""

    verb: str
    path: str
    query: dict[str, str]
    at: float
    """Arrival time, in seconds of the monotonic clock."""
    body: bytes = field(default=b"", repr=False)
    status: int = 0
    """Status code of the response; 0 before one arrives."""

    @property
    def is_watch(self) -> bool:
        """Whether it opens a watch."""
        return self.query.get("watch") == "true"

    @property
    def is_write(self) -> bool:
        """Whether it is a write."""
        return self.verb in WRITES

    @property
    def namespace(self) -> str:
        """Namespace of the request; empty for none."""
        return self.path.partition("/namespaces/")[2].partition("/")[0]


@dataclass
class Exchange:
    """A call, and the way to forward it."""

    call: Call
    forward: Callable[[], Awaitable[web.StreamResponse]]
    """Forwards the call; returns the response."""


Fault = Callable[[Exchange], Awaitable[web.StreamResponse]]
"""Handles a call in place of forwarding it; a ConnectionError cuts the connection."""


@dataclass
class Rule:
    """A fault and the calls it hits."""

    fault: Fault
    when: Callable[[Call], bool]
    skip: int = 0
    """Calls to let through first."""
    times: int | None = None
    """Calls to hit; None for all."""
    hits: int = 0
    """Calls hit so far."""

    def takes(self, call: Call) -> bool:
        """Whether the fault hits this call."""
        if self.hits == self.times or not self.when(call):
            return False
        if self.skip:
            self.skip -= 1
            return False
        self.hits += 1
        return True


def is_any(_: Call) -> bool:
    """Matches all calls."""
    return True


def is_write(call: Call) -> bool:
    """Matches writes."""
    return call.is_write


def is_watch(call: Call) -> bool:
    """Matches watches."""
    return call.is_watch


def refuse(code: int, reason: str = "", retry_after_seconds: int | None = None) -> Fault:
    """Answers with an error without forwarding the call."""
    status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason}
    headers = {} if retry_after_seconds is None else {"Retry-After": str(retry_after_seconds)}

    async def _refuse(_: Exchange) -> web.StreamResponse:
        return web.json_response({**status, "message": f"injected {code}"}, status=code, headers=headers)

    return _refuse


def stream_error(code: int) -> Fault:
    """Opens a watch that sends only an ERROR event, as the API server does for expired resourceVersions."""

    async def _fail(_: Exchange) -> web.StreamResponse:
        return web.Response(body=error_event(code))

    return _fail


def error_event(code: int) -> bytes:
    """The line of an ERROR event."""
    status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "message": f"injected {code}"}
    return json.dumps({"type": "ERROR", "object": status}).encode() + b"\n"


def lose_request(then: Callable[[], object] = lambda: None) -> Fault:
    """Drops the request and calls `then`."""

    async def _lose(_: Exchange) -> web.StreamResponse:
        then()
        raise ConnectionResetError

    return _lose


def lose_answer(then: Callable[[], object] = lambda: None) -> Fault:
    """Forwards the request, drops the response and calls `then`."""

    async def _lose(exchange: Exchange) -> web.StreamResponse:
        await exchange.forward()
        then()
        raise ConnectionResetError

    return _lose
