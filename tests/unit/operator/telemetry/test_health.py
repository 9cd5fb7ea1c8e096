"""Liveness and readiness."""

import asyncio
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from hatchery_operator.telemetry.health import Pulse, health_app, metrics_app
from hatchery_operator.telemetry.metrics import CONTENT_TYPE, Metrics

NOW = 1000.0


def pulse(*, success: float = NOW, waited: float = 0.0, **values: Any) -> Pulse:
    return Pulse(lambda: success, lambda: waited, **{"last_beat": NOW, **values})


def test_all_is_well() -> None:
    assert pulse().complaints(NOW) == []


@pytest.mark.parametrize(
    ("sick", "words"),
    [
        (pulse(last_beat=NOW - 60), "event loop lags"),
        (pulse(lag_seconds=45), "event loop lags"),
        (pulse(success=NOW - 301), "no successful API server response for 301 s"),
        (pulse(success=NOW - 101, last_rejection=NOW - 3), "rejected the operator's credentials for 101 s"),
        (pulse(waited=301), "no reconcile has finished for 301 s"),
        (pulse(misses=3), "watches missed changes"),
    ],
)
def test_each_sign_of_trouble_is_named(sick: Pulse, words: str) -> None:
    [complaint] = sick.complaints(NOW)
    assert words in complaint


@pytest.mark.parametrize(
    "well",
    [
        pulse(last_beat=NOW - 20),
        pulse(success=NOW - 299),
        pulse(success=NOW - 99, last_rejection=NOW),
        pulse(success=NOW - 200, last_rejection=NOW - 201),
        pulse(misses=2),
    ],
)
def test_a_short_trouble_is_no_reason_to_restart(well: Pulse) -> None:
    assert well.complaints(NOW) == []


def ask(app: Any, path: str) -> tuple[int, str, str]:
    async def scenario() -> tuple[int, str, str]:
        async with TestClient(TestServer(app)) as client:
            answer = await client.get(path)
            return answer.status, await answer.text(), answer.headers["Content-Type"]

    return asyncio.run(scenario())


def test_probes() -> None:
    state = pulse()
    assert ask(health_app(state, lambda: NOW), "/healthz")[:2] == (200, "ok")
    assert ask(health_app(state, lambda: NOW), "/readyz")[:2] == (503, "loading")
    state.is_loaded = True
    assert ask(health_app(state, lambda: NOW), "/readyz")[:2] == (200, "ok")
    status, text, _ = ask(health_app(state, lambda: NOW + 400), "/healthz")
    assert status == 503
    assert "no successful API server response" in text


def test_metrics_page() -> None:
    status, text, content = ask(metrics_app(Metrics()), "/metrics")
    assert (status, content) == (200, CONTENT_TYPE)
    assert 'hatchery_build_info{version="' in text
