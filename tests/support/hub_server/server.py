"""The HTTP server around the routes: reading requests, sending answers, failing on request, keeping a log."""

from __future__ import annotations

import logging
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self

# Imported for their routes.
from . import downloads, pages, repositories, uploads  # noqa: F401
from .faults import Fault, FaultPlan
from .router import Hub, dispatch
from .store import Store
from .wire import Caller, FileSlice, Problem, Request, Response, Stream, answer

LOG = logging.getLogger("hub_server")
CHUNK_BYTES = 1 << 20
KEPT_REQUESTS = 10_000
IDLE_SECONDS = 120
"""After this long without a byte a connection is closed, so that no thread waits for ever."""


@dataclass(frozen=True)
class Seen:
    """One request as it came; tokens are not kept."""

    method: str
    path: str
    query: str
    status: int
    range: str
    authorized: bool

    @property
    def line(self) -> str:
        """METHOD /path."""
        return f"{self.method} {self.path}"


class HubServer:
    """A Hub on a port of this machine, usable as a context manager.

    `tokens` can write, `read_tokens` cannot; both act as `user`.
    """

    def __init__(
        self,
        root: Path,
        *,
        tokens: tuple[str, ...] = ("hf_test",),
        read_tokens: tuple[str, ...] = (),
        user: str = "hatchery",
        namespaces: frozenset[str] | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        part_bytes: int | None = None,
        page_size: int = 1000,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        callers = {token: Caller(user, can_write=False) for token in read_tokens}
        callers |= {token: Caller(user, can_write=True) for token in tokens}
        self.hub = Hub(Store(root), callers, namespaces, part_bytes, page_size)
        self.faults = FaultPlan(sleep)
        self._seen: deque[Seen] = deque(maxlen=KEPT_REQUESTS)
        self._http = _Listener((host, port), _Handler, self)
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    @property
    def url(self) -> str:
        """What clients on this machine set as HF_ENDPOINT."""
        host, port = self._http.server_address[:2]
        return f"http://{'127.0.0.1' if host == '0.0.0.0' else str(host)}:{port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()

    def serve_forever(self) -> None:
        """Serves in this thread until interrupted."""
        try:
            self._http.serve_forever()
        finally:
            self._http.server_close()

    def fail(self, route: str, **fault: Any) -> None:
        """Plans a failure; see `Fault` for what can happen."""
        self.faults.add(Fault(route, **fault))

    @property
    def requests(self) -> list[Seen]:
        """The newest requests, oldest first."""
        return list(self._seen)

    def forget(self) -> None:
        """Empties the log."""
        self._seen.clear()

    def answer(self, request: Request) -> tuple[Response, Fault | None]:
        """The answer to one request and the failure to apply while sending it."""
        if request.path.startswith("/-/") and not request.path.startswith("/-/lfs/"):
            return self._guarded(request), None
        fault = self.faults.take(request.method, request.path)
        response = (fault.replaces() if fault else None) or self._guarded(request)
        authorized = "Authorization" in request.headers
        seen_range = request.headers.get("Range", "")
        query = "" if request.path.startswith("/-/") else request.query  # a signature is a secret
        seen = Seen(request.method, request.path, query, response.status, seen_range, authorized)
        self._seen.append(seen)
        LOG.info("%s %s %s", seen.line, seen.query, seen.status)
        return response, fault

    def _guarded(self, request: Request) -> Response:
        try:
            return self._control(request) or dispatch(self.hub, request)
        except Problem as problem:
            return problem.response()
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            LOG.warning("unreadable request %s %s: %r", request.method, request.path, error)
            return Problem(400, f"The request cannot be read: {error!r}").response()
        except OSError as error:
            LOG.exception("failed request %s %s", request.method, request.path)
            return Problem(500, f"Internal error: {error}").response()

    def _control(self, request: Request) -> Response | None:
        """The log and the planned failures over HTTP, for tests that reach the server only through a Service."""
        line = f"{request.method} {request.path}"
        if line not in {"GET /-/requests", "DELETE /-/requests", "PUT /-/faults"}:
            return None
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if not (token in self.hub.tokens and self.hub.tokens[token].can_write):
            raise Problem(401, "This needs a token that can write")
        if request.method == "PUT":
            self.faults.replace(request.json().get("faults", []))
        if request.method == "DELETE":
            self.forget()
        return answer([vars(seen) for seen in self.requests])


class _Listener(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler], owner: HubServer) -> None:
        super().__init__(address, handler)
        self.owner = owner

    def handle_error(self, request: Any, client_address: Any) -> None:
        LOG.debug("connection from %s ended early", client_address, exc_info=True)  # noqa: LOG014  (called from one)


class _Body:
    """The body of one request, never read past its end."""

    def __init__(self, stream: Stream, headers: Message[str, str]) -> None:
        self._stream: Any = stream
        self._chunked = "chunked" in headers.get("Transfer-Encoding", "").lower()
        self._left = 0 if self._chunked else int(headers.get("Content-Length", "") or 0)

    def read(self, size: int = -1, /) -> bytes:
        if size < 0:
            return b"".join(iter(lambda: self.read(CHUNK_BYTES), b""))
        if self._chunked and not self._left:
            self._next_chunk()
        data = bytes(self._stream.read(min(size, self._left))) if self._left else b""
        if self._left and not data:
            raise ConnectionAbortedError("the client left in the middle of its request")
        self._left -= len(data)
        if self._chunked and data and not self._left:
            self._stream.readline()
        return data

    def _next_chunk(self) -> None:
        self._left = int(self._stream.readline().split(b";")[0], 16)
        if not self._left:
            self._chunked = False
            while self._stream.readline().strip():
                pass


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "hub"
    sys_version = ""
    timeout = IDLE_SECONDS
    disable_nagle_algorithm = True  # head and body are two writes; together with delayed ACKs each answer took 40 ms
    server: _Listener

    def _serve(self) -> None:
        path, _, query = self.path.partition("?")
        scheme = self.headers.get("X-Forwarded-Proto", "http")
        host = self.headers.get("Host") or "{}:{}".format(*self.server.server_address[:2])
        body = _Body(self.rfile, self.headers)
        request = Request(self.command, path, query, self.headers, body, f"{scheme}://{host}")
        response, fault = self.server.owner.answer(request)
        while body.read(CHUNK_BYTES):  # the next request on this connection begins after the body
            pass
        self._send(response, fault)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _serve  # noqa: N815  (names the base class looks for)

    def _send(self, response: Response, fault: Fault | None) -> None:
        if fault and fault.truncate_bytes is not None:
            response = _shortened(response, fault.truncate_bytes)
        limit = fault.drop_after_bytes if fault else None
        self.send_response(response.status)
        for name, value in response.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Type", response.content_type)
        self.send_header("Content-Length", str(response.length))
        self.end_headers()
        if self.command != "HEAD":
            self._send_body(response, limit, corrupt=bool(fault and fault.corrupt))
        if fault and limit is not None:
            self._lose(reset=fault.reset)

    def _send_body(self, response: Response, limit: int | None, *, corrupt: bool) -> None:
        left = response.length if limit is None else min(limit, response.length)
        for chunk in _chunks(response):
            part = chunk[:left]
            if corrupt and part:
                part, corrupt = bytes([part[0] ^ 0xFF]) + part[1:], False
            self.wfile.write(part)
            left -= len(part)
            if left <= 0:
                return

    def _lose(self, *, reset: bool) -> None:
        self.close_connection = True
        if reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  (the base class's name)
        LOG.debug(format, *args)


def _shortened(response: Response, size: int) -> Response:
    if isinstance(response.body, FileSlice):
        return replace(response, body=replace(response.body, length=min(size, response.length)))
    return replace(response, body=response.body[:size])


def _chunks(response: Response) -> Any:
    if isinstance(response.body, bytes):
        yield response.body
        return
    left = response.body.length
    with response.body.path.open("rb") as file:
        file.seek(response.body.start)
        while left and (chunk := file.read(min(CHUNK_BYTES, left))):
            left -= len(chunk)
            yield chunk
