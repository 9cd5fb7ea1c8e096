"""Liveness and readiness: what makes the operator useful is measured, not only that a port is open."""

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from hatchery_operator.telemetry.metrics import CONTENT_TYPE, Metrics

BEAT_SECONDS: Final = 5.0
"""Time between two measurements of the event loop's lag."""

LONGEST_LAG_SECONDS: Final = 30.0
"""Lag at which the event loop counts as blocked."""

LONGEST_SILENCE_SECONDS: Final = 300.0
"""Time without a good answer of the API server after which a restart is worth a try; an outage passes by itself."""

LONGEST_REFUSAL_SECONDS: Final = 100.0
"""Time for which the API server may refuse our credentials: they are read afresh at each refusal, so they are lost."""

LONGEST_WAIT_SECONDS: Final = 300.0
"""Time keys may wait while no worker ends a pass; a restart does not help where the line is long and moves."""

MOST_MISSES: Final = 2
"""Resyncs in a row that may find changes which no watch had told."""


@dataclass
class Pulse:
    """What health is judged by; each part is kept current by the part of the operator it is about."""

    last_success: Callable[[], float]
    """When the API server last gave a good answer."""
    stuck_seconds: Callable[[], float]
    """How long keys have waited while no worker has ended a pass."""
    last_beat: float
    """When the event loop last ran the heartbeat."""
    last_refusal: float = -math.inf
    """When the API server last refused our credentials."""
    lag_seconds: float = 0.0
    """How late the last heartbeat was."""
    is_loaded: bool = False
    """Whether the first listing is in the cache."""
    misses: int = 0
    """Resyncs in a row that found changes which no watch had told."""

    def resynced(self, missed: int) -> None:
        """Records how many changes a resync found that no watch had delivered."""
        self.misses = self.misses + 1 if missed else 0

    def complaints(self, now: float) -> list[str]:
        """What is wrong; empty while the operator is alive."""
        lag = max(self.lag_seconds, now - self.last_beat - BEAT_SECONDS)
        silence, wait = now - self.last_success(), self.stuck_seconds()
        is_refused = self.last_refusal > self.last_success()
        checks = (
            (lag > LONGEST_LAG_SECONDS, f"the event loop lags by {lag:.0f} s"),
            (silence > LONGEST_SILENCE_SECONDS, f"no good answer of the API server for {silence:.0f} s"),
            (
                is_refused and silence > LONGEST_REFUSAL_SECONDS,
                f"the API server refuses our credentials for {silence:.0f} s",
            ),
            (wait > LONGEST_WAIT_SECONDS, f"keys wait and no worker has ended a pass for {wait:.0f} s"),
            (self.misses > MOST_MISSES, f"watches missed changes in {self.misses} resyncs in a row"),
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
    """`/healthz` for liveness, `/readyz` for readiness."""

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
    """`/metrics`."""

    async def _text(_: web.Request) -> web.Response:
        return web.Response(body=metrics.text(), headers={"Content-Type": CONTENT_TYPE})

    app = web.Application()
    app.router.add_get("/metrics", _text)
    return app


async def serve(app: web.Application, port: int) -> web.AppRunner:
    """Serves an application until its runner is cleaned up."""
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    await web.TCPSite(runner, None, port).start()
    return runner
