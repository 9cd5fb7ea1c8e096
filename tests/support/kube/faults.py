"""What can happen to a request between an operator and the API server, and which requests it happens to."""

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from aiohttp import web

WRITES = frozenset({"POST", "PUT", "PATCH", "DELETE"})
"""Verbs that change something."""


@dataclass
class Call:
    """One request of the operator."""

    verb: str
    path: str
    query: dict[str, str]
    at: float
    """When it came, in seconds of the monotonic clock."""
    body: bytes = field(default=b"", repr=False)
    status: int = 0
    """Status code of the answer; 0 while there is none."""

    @property
    def is_watch(self) -> bool:
        """Whether it opens a watch."""
        return self.query.get("watch") == "true"

    @property
    def is_write(self) -> bool:
        """Whether it changes something."""
        return self.verb in WRITES

    @property
    def namespace(self) -> str:
        """The namespace it is about, empty for none."""
        return self.path.partition("/namespaces/")[2].partition("/")[0]


@dataclass
class Exchange:
    """A call, and the way on to the API server."""

    call: Call
    forward: Callable[[], Awaitable[web.StreamResponse]]
    """Asks the API server; returns its answer."""


Fault = Callable[[Exchange], Awaitable[web.StreamResponse]]
"""What happens to a call instead of being forwarded; a ConnectionError cuts the connection."""


@dataclass
class Rule:
    """A fault and the calls it happens to."""

    fault: Fault
    when: Callable[[Call], bool]
    skip: int = 0
    """Calls that are let through first."""
    times: int | None = None
    """Calls it happens to; None for all."""
    hits: int = 0
    """Calls it has happened to."""

    def takes(self, call: Call) -> bool:
        """Whether the fault happens to this call."""
        if self.hits == self.times or not self.when(call):
            return False
        if self.skip:
            self.skip -= 1
            return False
        self.hits += 1
        return True


def is_any(_: Call) -> bool:
    """All calls."""
    return True


def is_write(call: Call) -> bool:
    """All calls that change something."""
    return call.is_write


def is_watch(call: Call) -> bool:
    """All calls that open a watch."""
    return call.is_watch


def refuse(code: int, reason: str = "", retry_after_seconds: int | None = None) -> Fault:
    """An answer of the API server that is no success, without asking it."""
    status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason}
    headers = {} if retry_after_seconds is None else {"Retry-After": str(retry_after_seconds)}

    async def _refuse(_: Exchange) -> web.StreamResponse:
        return web.json_response({**status, "message": f"injected {code}"}, status=code, headers=headers)

    return _refuse


def stream_error(code: int) -> Fault:
    """A watch that is opened and says nothing but an ERROR event, as the API server does for versions that are gone."""

    async def _fail(_: Exchange) -> web.StreamResponse:
        return web.Response(body=error_event(code))

    return _fail


def error_event(code: int) -> bytes:
    """The line of a watch that says an error."""
    status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "message": f"injected {code}"}
    return json.dumps({"type": "ERROR", "object": status}).encode() + b"\n"


def lose_request(then: Callable[[], object] = lambda: None) -> Fault:
    """The request never arrives; `then` happens at that moment."""

    async def _lose(_: Exchange) -> web.StreamResponse:
        then()
        raise ConnectionResetError

    return _lose


def lose_answer(then: Callable[[], object] = lambda: None) -> Fault:
    """The API server does what was asked, and its answer is lost; `then` happens at that moment."""

    async def _lose(exchange: Exchange) -> web.StreamResponse:
        await exchange.forward()
        then()
        raise ConnectionResetError

    return _lose
