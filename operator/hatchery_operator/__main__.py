"""`python -m hatchery_operator [--config PATH]`: puts the operator together and runs it."""

import argparse
import asyncio
import logging
import random
import sys
import time
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import urlsplit

import kopf

from hatchery_operator import handlers
from hatchery_operator.cache import Cache
from hatchery_operator.certificate import Certificate, make_certificate
from hatchery_operator.cluster import Cluster, kubeconfig_from_environment
from hatchery_operator.definitions import Definitions
from hatchery_operator.errors import ApiError
from hatchery_operator.health import Pulse, beat, health_app, metrics_app, serve
from hatchery_operator.logs import configure_logs
from hatchery_operator.metrics import Metrics
from hatchery_operator.objects import Key
from hatchery_operator.progress import ProgressReceiver, Received
from hatchery_operator.progress_access import ProgressAccess
from hatchery_operator.queue import WorkQueue
from hatchery_operator.reconcile import Reconciler
from hatchery_operator.resync import Resync
from hatchery_operator.settings import Settings, SettingsError, load_settings, settings_path

LOG: Final = logging.getLogger(__name__)

LOAD_RETRY_SECONDS: Final = 2.0
"""Wait before the first listing is tried again, for an operator that starts before the API server."""


class Operator:
    """All parts, put together."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._certificate = _certificate(settings)
        self._metrics = Metrics()
        self._cache = Cache()
        self._cluster = Cluster(kubeconfig_from_environment(), time.monotonic, self._metrics.answered)
        definitions = Definitions(self._cluster, self._metrics)
        self._reconcile = Reconciler(
            self._cluster,
            self._cache,
            settings,
            metrics=self._metrics,
            definitions=definitions,
            now=lambda: datetime.now(UTC),
            wake=self._wake,
            progress_ca=self._certificate.ca_pem if self._certificate else None,
        )
        self._queue: WorkQueue[Key] = WorkQueue(self._reconcile, settings.workers, time.monotonic, random.random)
        self._pulse = Pulse(
            lambda: self._cluster.last_success, lambda: self._queue.oldest_seconds, last_beat=time.monotonic()
        )
        self._resync = Resync(
            self._cluster,
            self._cache,
            namespaces=list(settings.namespaces),
            metrics=self._metrics,
            definitions=definitions,
            pulse=self._pulse,
            wake=self._wake,
        )
        self._watch_metrics()

    def _watch_metrics(self) -> None:
        metrics, queue, pulse = self._metrics, self._queue, self._pulse
        metrics.watch_runs(self._cache.runs)
        metrics.watch("hatchery_leader", "1 on the replica that acts, 0 on one that stands by.", lambda: 1.0)
        resync = float(self._settings.resync_seconds)
        metrics.watch("hatchery_resync_interval_seconds", "Time between two listings of everything.", lambda: resync)
        metrics.watch("hatchery_workqueue_depth", "Keys that wait.", lambda: float(queue.depth))
        metrics.watch("hatchery_workqueue_oldest_seconds", "Wait of the oldest key.", lambda: queue.oldest_seconds)
        metrics.watch("hatchery_event_loop_lag_seconds", "How late the last heartbeat was.", lambda: pulse.lag_seconds)

    async def run(self) -> None:
        """Runs until a signal ends it or a part fails."""
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self._cluster.close)
            for app, port in (
                (health_app(self._pulse, time.monotonic), self._settings.health_port),
                (metrics_app(self._metrics), self._settings.metrics_port),
            ):
                runner = await serve(app, port)
                stack.push_async_callback(runner.cleanup)
            if self._certificate:
                stack.push_async_callback((await self._receive(self._certificate)).stop)
            heart = asyncio.create_task(beat(self._pulse, time.monotonic))
            stack.callback(heart.cancel)
            await self._load()
            await _first_to_end(
                self._queue.run(),
                self._resync.run(self._settings.resync_seconds),
                self._resync.ping(),
                self._watch(),
            )

    async def _load(self) -> None:
        while True:
            try:
                await self._resync.load()
            except ApiError as error:
                LOG.warning("the first listing failed: %s", error)
                await asyncio.sleep(max(LOAD_RETRY_SECONDS, error.retry_after_seconds or 0.0))
            else:
                break
        for key in self._cache.all_keys():
            self._queue.add(key)
        LOG.info("loaded", extra={"objects": len(self._cache)})

    async def _watch(self) -> None:
        registry = kopf.OperatorRegistry()
        handlers.register(registry, self._cache, self._wake, self._cluster.credentials, self._metrics.heard)
        settings = kopf.OperatorSettings()
        settings.scanning.disabled = bool(self._settings.namespaces)
        await kopf.operator(
            registry=registry,
            settings=settings,
            standalone=True,
            clusterwide=not self._settings.namespaces,
            namespaces=self._settings.namespaces,
        )

    async def _receive(self, certificate: Certificate) -> ProgressReceiver:
        access = ProgressAccess(self._cluster)
        receiver = ProgressReceiver(access.review, access.pod_labels, self._take_progress)
        await receiver.start(self._settings.progress.port, certificate.server_context())
        return receiver

    def _take_progress(self, received: Received) -> None:
        self._wake(self._reconcile.take_progress(received))

    def _wake(self, key: Key) -> None:
        self._queue.add(key)


def _certificate(settings: Settings) -> Certificate | None:
    if not settings.progress.service_url:
        return None
    host = urlsplit(settings.progress.service_url).hostname
    return make_certificate([host], datetime.now(UTC)) if host else None


async def _first_to_end(*parts: Coroutine[Any, Any, None]) -> None:
    """Runs parts side by side; when one ends, all do, and what it raised is raised."""
    tasks = [asyncio.create_task(part) for part in parts]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()


def main(arguments: list[str] | None = None) -> int:
    """Reads the settings and runs the operator."""
    parser = argparse.ArgumentParser(prog="hatchery-operator", description="Reconciles the resources of hatchery.dev.")
    parser.add_argument(
        "--config", metavar="PATH", help="settings file; default: HATCHERY_SETTINGS, else where it is mounted"
    )
    try:
        settings = load_settings(settings_path(parser.parse_args(arguments).config))
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    configure_logs(settings.log_level)
    handlers.silence_kopf()
    asyncio.run(Operator(settings).run())
    return 0


if __name__ == "__main__":
    sys.exit(main())
