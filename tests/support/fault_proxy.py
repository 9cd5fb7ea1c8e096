"""A proxy between an operator and the API server that counts requests and makes the faults which networks make.

It speaks plain HTTP to the operator and TLS to the API server, on a thread and an event loop of its own.
"""

import asyncio
import json
import ssl
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import aiohttp
from aiohttp import web
from yarl import URL

WRITES = frozenset({"POST", "PUT", "PATCH", "DELETE"})
"""Verbs that change something."""

LINE_BYTES = 1 << 20
"""Longest line of a watch."""

LEAVE_SECONDS = 0.25
"""Time in which connections with TLS close."""

_HOP_BY_HOP = frozenset({"host", "connection", "transfer-encoding", "content-length", "keep-alive"})


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
        return web.Response(body=_error_event(code))

    return _fail


def _error_event(code: int) -> bytes:
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


class FaultProxy:
    """The proxy; a context manager."""

    def __init__(self, server: str, authority: Path) -> None:
        self.url = ""
        self.calls: list[Call] = []
        self._server = server
        self._authority = authority
        self._rules: list[Rule] = []
        self._watches: set[_Watch] = set()
        self._sent: set[asyncio.Task[web.StreamResponse]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault proxy", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._wait(self._open())
        return self

    def __exit__(self, *_: object) -> None:
        self._wait(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _wait(self, what: Any) -> Any:
        done: Future[Any] = asyncio.run_coroutine_threadsafe(what, self._loop)
        return done.result(timeout=30)

    async def _open(self) -> None:
        context = ssl.create_default_context(cafile=str(self._authority))
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=context, limit=0),
            auto_decompress=False,
            read_bufsize=LINE_BYTES,
            timeout=aiohttp.ClientTimeout(total=None),
        )
        application = web.Application(client_max_size=0)
        application.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def _close(self) -> None:
        for watch in [*self._watches]:
            watch.close()
        await self._runner.cleanup()
        await asyncio.gather(*self._sent, return_exceptions=True)
        await self._session.close()
        # connections with TLS take leave of their server before they close
        await asyncio.sleep(LEAVE_SECONDS)

    @contextmanager
    def fault(
        self, fault: Fault, when: Callable[[Call], bool], *, skip: int = 0, times: int | None = None
    ) -> Iterator[Rule]:
        """Makes a fault happen to some calls for as long as the block lasts."""
        rule = Rule(fault, when, skip, times)
        self._rules.append(rule)
        try:
            yield rule
        finally:
            self._rules.remove(rule)

    def freeze_watches(self) -> int:
        """Drops from now on every byte of the watches that are open, and leaves their connections open."""
        watches = [*self._watches]
        for watch in watches:
            watch.is_frozen = True
        return len(watches)

    def end_watches(self, code: int) -> int:
        """Sends an ERROR event down every open watch."""
        watches = [*self._watches]
        for watch in watches:
            self._wait(watch.fail(code))
        return len(watches)

    def since(self, moment: float, when: Callable[[Call], bool] = is_write) -> list[Call]:
        """Calls that came after a moment of the monotonic clock."""
        return [call for call in [*self.calls] if call.at >= moment and when(call)]

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        call = Call(request.method, request.path, dict(request.query), time.monotonic(), await request.read())
        self.calls.append(call)
        exchange = Exchange(call, lambda: self._send(request, call))
        rule = next((rule for rule in [*self._rules] if rule.takes(call)), None)
        try:
            answer = await (rule.fault(exchange) if rule else exchange.forward())
        except (aiohttp.ClientError, OSError):
            if request.transport:
                request.transport.abort()
            return web.Response(status=502)
        call.status = answer.status
        return answer

    async def _send(self, request: web.Request, call: Call) -> web.StreamResponse:
        """Forwards; what was sent arrives even when its sender has died meanwhile, watches end with him."""
        if call.is_watch:
            return await self._forward(request, call)
        sent = asyncio.create_task(self._forward(request, call))
        self._sent.add(sent)
        sent.add_done_callback(self._sent.discard)
        return await asyncio.shield(sent)

    async def _forward(self, request: web.Request, call: Call) -> web.StreamResponse:
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _HOP_BY_HOP}
        url = URL(self._server + request.raw_path, encoded=True)
        asked = self._session.request(
            call.verb, url, headers=headers, data=call.body or None, skip_auto_headers=("Content-Type",)
        )
        async with asked as upstream:
            kept = {name: value for name, value in upstream.headers.items() if name.lower() not in _HOP_BY_HOP}
            if call.is_watch and upstream.status == 200:
                return await self._stream(request, upstream, kept)
            return web.Response(status=upstream.status, headers=kept, body=await upstream.read())

    async def _stream(
        self, request: web.Request, upstream: aiohttp.ClientResponse, headers: dict[str, str]
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers=headers)
        response.enable_chunked_encoding()
        await response.prepare(request)
        watch = _Watch(upstream, response)
        self._watches.add(watch)
        try:
            await watch.run()
        finally:
            self._watches.discard(watch)
        return response


class _Watch:
    """A watch that is open."""

    def __init__(self, upstream: aiohttp.ClientResponse, response: web.StreamResponse) -> None:
        self.is_frozen = False
        self._is_closed = False
        self._upstream = upstream
        self._response = response

    async def run(self) -> None:
        """Passes events on until either side ends it; a frozen one never ends by itself."""
        try:
            async for line in self._upstream.content:
                if not self.is_frozen:
                    await self._response.write(line)
        except aiohttp.ClientError:
            if not self._is_closed:
                raise
        if self.is_frozen:
            await asyncio.Event().wait()

    async def fail(self, code: int) -> None:
        """Sends an ERROR event and ends the watch."""
        status = {
            "kind": "Status",
            "apiVersion": "v1",
            "status": "Failure",
            "code": code,
            "message": f"injected {code}",
        }
        await self._response.write(json.dumps({"type": "ERROR", "object": status}).encode() + b"\n")
        self.close()

    def close(self) -> None:
        """Ends the watch."""
        self._is_closed = True
        self._upstream.close()
