"""Receives the pods' live progress: Kubeflow Trainer's status protocol (KEP-2779) over TLS.

A request passes four checks: the token belongs to a pod (signed by the API server for our audience), the pod's labels
name the resource in the URL, the pod stays within its rate limit, and the body is a small, valid `TrainerProgress`.
Accepted reports go to a callback. No error reaches the operator: the pod gets a status code and tries again.
"""

import asyncio
import logging
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from aiohttp import web
from pydantic import ValidationError

from hatchery_api.contract import TrainerProgress, TrainerStatus
from hatchery_api.kinds import KINDS
from hatchery_operator.domain.labels import KIND_LABEL, NAME_LABEL, UID_LABEL
from hatchery_operator.domain.progress_route import AUDIENCE, status_path

LOG: Final = logging.getLogger(__name__)

BODY_LIMIT_BYTES: Final = 64 * 1024
"""Largest body the protocol allows."""

BODY_SECONDS: Final = 10.0
"""Timeout for the arrival of a body."""

STOP_SECONDS: Final = 1.0
"""Grace period of open requests when the operator stops."""

LABELS_SECONDS: Final = 300.0
"""Lifetime of a pod's cached labels."""

ABSENCE_SECONDS: Final = 10.0
"""Lifetime of the answer that a pod does not exist: short, since a new pod may not be visible yet."""

CACHE_ENTRIES: Final = 20_000
"""Most pods in a cache."""

POD_BURST: Final = 10
"""Burst of requests allowed for a pod; clients send one in five seconds, and one more at start and end."""

POD_PER_SECOND: Final = 1.0
"""Sustained request rate allowed for a pod."""

_PLURALS: Final = {k.plural: k.kind for k in KINDS}
_ValueT = TypeVar("_ValueT")


@dataclass(frozen=True)
class Identity:
    """The pod of a verified token."""

    pod_name: str
    pod_uid: str
    namespace: str


@dataclass(frozen=True)
class Received:
    """A progress report about one resource, from a pod that belongs to it."""

    kind: str
    """Kind of the resource, CamelCase."""
    namespace: str
    name: str
    uid: str
    """UID of the resource the pod was created for; a later resource of the same name has another one."""
    pod: str
    status: TrainerStatus


Identify = Callable[[str], Awaitable[Identity | None]]
"""The pod of a token; None for a token that is not a pod's, has expired, or has an audience other than `AUDIENCE`."""

PodLabels = Callable[[Identity], Awaitable[Mapping[str, str] | None]]
"""Labels of a pod; None when it does not exist."""

Deliver = Callable[[Received], None]
"""Takes an accepted report; it must not block."""


class ProgressReceiver:
    """The HTTPS endpoint."""

    def __init__(
        self, identify: Identify, pod_labels: PodLabels, deliver: Deliver, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._identify_token = identify
        self._pod_labels = pod_labels
        self._deliver = deliver
        self._labels: _ExpiringCache[Mapping[str, str]] = _ExpiringCache(clock)
        self._rate_limit = _RateLimit(POD_BURST, POD_PER_SECOND, clock)
        self._runner: web.AppRunner | None = None

    async def start(self, port: int, tls: ssl.SSLContext, host: str | None = None) -> int:
        """Listens on all addresses, or on one; returns the port, which the kernel chooses for port 0."""
        app = web.Application(client_max_size=BODY_LIMIT_BYTES, middlewares=[_answer_failures])
        app.router.add_post(status_path("{namespace}", "{plural}", "{name}"), self._post)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=STOP_SECONDS)
        await self._runner.setup()
        await web.TCPSite(self._runner, host, port, ssl_context=tls).start()
        return int(self._runner.addresses[0][1])

    async def stop(self) -> None:
        """Stops listening; a no-op when it never started."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _post(self, request: web.Request) -> web.Response:
        namespace, plural, name = (request.match_info[part] for part in ("namespace", "plural", "name"))
        if plural not in _PLURALS:
            raise web.HTTPNotFound(text=f"unknown resource {plural}; expected one of {', '.join(_PLURALS)}")
        identity = await self._identify(request)
        uid = await self._owner_uid(identity, _PLURALS[plural], namespace, name)
        if not self._rate_limit.allows(identity.pod_uid):
            raise web.HTTPTooManyRequests(text=f"pod {identity.pod_name} exceeds its rate limit; report every 5 s")
        status = _parse(await _body(request))
        self._deliver(Received(_PLURALS[plural], namespace, name, uid, identity.pod_name, status))
        return web.json_response({})

    async def _identify(self, request: web.Request) -> Identity:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise web.HTTPUnauthorized(text="send the pod's projected token as 'Authorization: Bearer'")
        identity = await self._identify_token(token)
        if identity is None:
            raise web.HTTPUnauthorized(text=f"the token is not a valid pod token for the audience {AUDIENCE}")
        return identity

    async def _owner_uid(self, identity: Identity, kind: str, namespace: str, name: str) -> str:
        if not self._labels.knows(identity.pod_uid):
            self._labels.put(identity.pod_uid, await self._pod_labels(identity))
        labels = self._labels.get(identity.pod_uid) or {}
        owner = (identity.namespace, labels.get(KIND_LABEL), labels.get(NAME_LABEL))
        uid = labels.get(UID_LABEL)
        if owner != (namespace, kind, name) or not uid:
            LOG.warning(
                "rejected a report: pod %s/%s does not belong to %s %s/%s",
                identity.namespace,
                identity.pod_name,
                kind,
                namespace,
                name,
            )
            raise web.HTTPForbidden(text=f"pod {identity.pod_name} does not belong to {kind} {namespace}/{name}")
        return uid


async def _body(request: web.Request) -> bytes:
    try:
        async with asyncio.timeout(BODY_SECONDS):
            return await request.read()
    except TimeoutError:
        raise web.HTTPRequestTimeout(text=f"the body did not arrive within {BODY_SECONDS:.0f} s") from None


def _parse(body: bytes) -> TrainerStatus:
    try:
        return TrainerProgress.model_validate_json(body).trainer_status
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "body"
        raise web.HTTPBadRequest(text=f"{where}: {first['msg']}") from error


@web.middleware
async def _answer_failures(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Answers each failure with a Kubernetes Status object; an unexpected one is logged and costs one report."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        return _failure(error.status, error.text or error.reason)
    except Exception:
        LOG.exception("progress request %s failed", request.path)
        return _failure(503, "the operator cannot take the report now; try again")


def _failure(code: int, message: str) -> web.Response:
    body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "message": message}
    return web.json_response(body, status=code)


class _ExpiringCache(Generic[_ValueT]):
    """Values that expire: present ones late, absent ones (None) early; a full cache evicts its oldest entry."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._entries: dict[str, tuple[float, _ValueT | None]] = {}

    def knows(self, key: str) -> bool:
        """Whether a key has an entry that has not expired."""
        return key in self._entries and self._clock() < self._entries[key][0]

    def get(self, key: str) -> _ValueT | None:
        """The value of a key; None for a known absence."""
        return self._entries[key][1]

    def put(self, key: str, value: _ValueT | None) -> None:
        """Stores a value."""
        self._entries.pop(key, None)
        while len(self._entries) >= CACHE_ENTRIES:
            del self._entries[next(iter(self._entries))]
        self._entries[key] = (self._clock() + (ABSENCE_SECONDS if value is None else LABELS_SECONDS), value)


class _RateLimit:
    """A token bucket per key."""

    def __init__(self, burst: int, per_second: float, clock: Callable[[], float]) -> None:
        self._burst = burst
        self._per_second = per_second
        self._clock = clock
        self._buckets: dict[str, tuple[float, float]] = {}

    def allows(self, key: str) -> bool:
        """Whether one more request is within the limit; counts it if so."""
        now = self._clock()
        left, since = self._buckets.pop(key, (float(self._burst), now))
        left = min(self._burst, left + (now - since) * self._per_second)
        while len(self._buckets) >= CACHE_ENTRIES:
            del self._buckets[next(iter(self._buckets))]
        allowed = left >= 1
        self._buckets[key] = (left - allowed, now)
        return allowed
