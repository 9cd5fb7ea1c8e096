"""Liveness and readiness: the probes measure whether the operator does its work, not only whether a port is open."""

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from hatchery_operator.telemetry.metrics import CONTENT_TYPE, Metrics

BEAT_SECONDS: Final = 5.0
"""Interval between measurements of the event loop's lag."""

LONGEST_LAG_SECONDS: Final = 30.0
"""Lag above which the event loop counts as blocked."""

LONGEST_SILENCE_SECONDS: Final = 300.0
"""Time without a successful API server response before a restart; an ordinary outage is shorter than this."""

LONGEST_REJECTION_SECONDS: Final = 100.0
"""Time for which the API server may reject the credentials; each rejection reloads them, so by then they are lost."""

LONGEST_WAIT_SECONDS: Final = 300.0
"""Time keys may wait while no reconcile finishes; a long queue that moves needs no restart."""

MOST_MISSES: Final = 2
"""Consecutive resyncs that may find changes no watch delivered."""


@dataclass
class Pulse:
    """Vital signs of the operator; each component updates its own."""

    last_success: Callable[[], float]
    """Time of the last successful API server response."""
    stuck_seconds: Callable[[], float]
    """How long keys have waited while no reconcile finished."""
    last_beat: float
    """Time of the last heartbeat of the event loop."""
    last_rejection: float = -math.inf
    """Time at which the API server last rejected the credentials."""
    lag_seconds: float = 0.0
    """How late the last heartbeat was."""
    is_loaded: bool = False
    """Whether the cache holds the initial listing."""
    misses: int = 0
    """Consecutive resyncs that found changes no watch delivered."""

    def resynced(self, missed: int) -> None:
        """Records how many changes a resync found that no watch had delivered."""
        self.misses = self.misses + 1 if missed else 0

    def complaints(self, now: float) -> list[str]:
        """One sentence per problem; empty while the operator is healthy."""
        lag = max(self.lag_seconds, now - self.last_beat - BEAT_SECONDS)
        silence, wait = now - self.last_success(), self.stuck_seconds()
        is_rejected = self.last_rejection > self.last_success()
        checks = (
            (lag > LONGEST_LAG_SECONDS, f"the event loop lags by {lag:.0f} s"),
            (silence > LONGEST_SILENCE_SECONDS, f"no successful API server response for {silence:.0f} s"),
            (
                is_rejected and silence > LONGEST_REJECTION_SECONDS,
                f"the API server has rejected the operator's credentials for {silence:.0f} s",
            ),
            (wait > LONGEST_WAIT_SECONDS, f"no reconcile has finished for {wait:.0f} s while keys are waiting"),
            (self.misses > MOST_MISSES, f"watches missed changes in {self.misses} consecutive resyncs"),
        )
        return [text for is_wrong, text in checks if is_wrong]


async def beat(pulse: Pulse, clock: Callable[[], float]) -> None:
    """Measures the event loop's lag until cancelled."""
    while True:
        before = clock()
        await asyncio.sleep(BEAT_SECONDS)
        pulse.last_beat = clock()
        pulse.lag_seconds = pulse.last_beat - before - BEAT_SECONDS


def health_app(pulse: Pulse, clock: Callable[[], float]) -> web.Application:
    """Serves `/healthz` for liveness and `/readyz` for readiness."""

    async def _live(_: web.Request) -> web.Response:
        complaints = pulse.complaints(clock())
        return web.Response(text="\n".join(complaints) or "ok", status=503 if complaints else 200)

    async def _ready(_: web.Request) -> web.Response:
        return web.Response(text="ok" if pulse.is_loaded else "loading", status=200 if pulse.is_loaded else 503)

    app = web.Application()
    app.router.add_get("/healthz", _live)
    app.router.add_get("/readyz", _ready)
    return app


def metrics_app(metrics: Metrics) -> web.Application:
    """Serves `/metrics`."""

    async def _text(_: web.Request) -> web.Response:
        return web.Response(body=metrics.text(), headers={"Content-Type": CONTENT_TYPE})

    app = web.Application()
    app.router.add_get("/metrics", _text)
    return app


async def serve(app: web.Application, port: int) -> web.AppRunner:
    """Serves an application on a port until the returned runner is cleaned up."""
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    await web.TCPSite(runner, None, port).start()
    return runner
