"""A proxy between an operator and the API server that counts requests and injects network faults.

It speaks plain HTTP to the operator and TLS to the API server, on a thread and an event loop of its own.
"""

import asyncio
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import aiohttp
from aiohttp import web
from tests.support.kube.faults import Call, Exchange, Fault, Rule, error_event, is_write
from yarl import URL

LINE_BYTES = 1 << 20
"""Longest line of a watch."""

LEAVE_SECONDS = 0.25
"""Time for TLS connections to close."""

_HOP_BY_HOP = frozenset({"host", "connection", "transfer-encoding", "content-length", "keep-alive"})


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
        """Injects a fault into some calls for the duration of the block."""
        rule = Rule(fault, when, skip, times)
        self._rules.append(rule)
        try:
            yield rule
        finally:
            self._rules.remove(rule)

    def freeze_watches(self) -> int:
        """Drops every further byte of the open watches but keeps their connections open."""
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
        """Calls after a time of the monotonic clock."""
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
        """Forwards a call; a request arrives even if its sender has died meanwhile, a watch ends with its sender."""
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
    """An open watch."""

    def __init__(self, upstream: aiohttp.ClientResponse, response: web.StreamResponse) -> None:
        self.is_frozen = False
        self._is_closed = False
        self._upstream = upstream
        self._response = response

    async def run(self) -> None:
        """Relays events until either side closes; a frozen watch never ends by itself."""
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
        await self._response.write(error_event(code))
        self.close()

    def close(self) -> None:
        """Ends the watch."""
        self._is_closed = True
        self._upstream.close()
