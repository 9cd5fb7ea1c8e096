"""Assembles the operator and runs it: `python -m hatchery_operator [--config PATH]`."""

import argparse
import asyncio
import logging
import random
import signal
import sys
import time
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, Final
from uuid import uuid4

import kopf

from hatchery_operator.controller import Reconciler, referenced_keys, register, silence_kopf
from hatchery_operator.domain.objects import Key
from hatchery_operator.errors import ApiError
from hatchery_operator.kube import Cache, Cluster, CrdCheck, Elector, Resync, WorkQueue, kubeconfig_from_environment
from hatchery_operator.progress import ProgressService
from hatchery_operator.settings import (
    Settings,
    SettingsError,
    load_settings,
    own_namespace,
    replica_name,
    settings_path,
)
from hatchery_operator.telemetry import Metrics, Pulse, beat, configure_logs, health_app, metrics_app, serve

LOG: Final = logging.getLogger(__name__)

LOAD_RETRY_SECONDS: Final = 2.0
"""Delay before the initial listing is retried, for an operator that starts before the API server."""


class Operator:
    """All components, wired together."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._metrics = Metrics()
        self._cache = Cache(referenced_keys)
        self._cluster = Cluster(kubeconfig_from_environment(), time.monotonic, self._answered)
        self._elector = _elector(self._cluster, settings)
        self._cluster.guard = self._elector.guard
        self._progress = (
            ProgressService(self._cluster, self._cache, settings) if settings.progress.service_url else None
        )
        self._crd_check = CrdCheck(self._cluster, self._metrics.crd_outdated)
        self._queue: WorkQueue[Key] | None = None
        self._watching = asyncio.Event()
        self._pulse = Pulse(lambda: self._cluster.last_success, self._stuck_seconds, last_beat=time.monotonic())
        self._resync = Resync(
            self._cluster,
            self._cache,
            namespaces=list(settings.namespaces),
            check_crds=self._crd_check.check,
            report=self._resynced,
            wake=self._wake,
        )
        self._watch_metrics()

    def _watch_metrics(self) -> None:
        metrics, pulse = self._metrics, self._pulse
        # a standby caches the resources too, but a sum over replicas must count each once
        metrics.watch_runs(lambda: self._cache.runs() if self._elector.is_leading else ())
        metrics.watch("hatchery_leader", "1 on the leader, 0 on a standby.", lambda: self._elector.is_leading)
        resync = float(self._settings.resync_seconds)
        metrics.watch("hatchery_resync_interval_seconds", "Interval between resyncs.", lambda: resync)
        metrics.watch("hatchery_workqueue_depth", "Queued keys.", lambda: self._queue.depth if self._queue else 0)
        metrics.watch("hatchery_workqueue_oldest_seconds", "Time the oldest key has waited.", self._oldest_seconds)
        metrics.watch("hatchery_event_loop_lag_seconds", "Delay of the last heartbeat.", lambda: pulse.lag_seconds)

    def _answered(self, verb: str, code: int) -> None:
        self._metrics.answered(verb, code)
        if code == HTTPStatus.UNAUTHORIZED:
            self._pulse.last_rejection = time.monotonic()

    def _resynced(self, missed: list[str]) -> None:
        self._metrics.resynced(missed)
        self._pulse.resynced(len(missed))

    def _oldest_seconds(self) -> float:
        return self._queue.oldest_seconds if self._queue else 0.0

    def _stuck_seconds(self) -> float:
        return self._queue.stuck_seconds if self._queue else 0.0

    async def run(self) -> None:
        """Runs until a signal arrives or a component fails."""
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self._cluster.close)
            for app, port in (
                (health_app(self._pulse, time.monotonic), self._settings.health_port),
                (metrics_app(self._metrics), self._settings.metrics_port),
            ):
                runner = await serve(app, port)
                stack.push_async_callback(runner.cleanup)
            heart = asyncio.create_task(beat(self._pulse, time.monotonic))
            stack.callback(heart.cancel)
            await self._load()
            await _run_until_first_ends(
                self._elector.run(self._lead),
                self._resync.run(self._settings.resync_seconds),
                self._resync.ping(),
                self._watch(),
                self._until_stopped(),
                *([self._progress.run()] if self._progress else []),
            )

    async def _load(self) -> None:
        while True:
            try:
                await self._resync.load()
            except ApiError as error:
                LOG.warning("initial listing failed: %s", error)
                await asyncio.sleep(max(LOAD_RETRY_SECONDS, error.retry_after_seconds or 0.0))
            else:
                break
        self._pulse.is_loaded = True
        LOG.info("cache loaded", extra={"objects": len(self._cache)})

    async def _lead(self) -> None:
        """One term of the leader; its state ends with it, since another replica may lead before the next."""
        bundle = self._progress.bundle() if self._progress else None
        reconcile = Reconciler(
            self._cluster,
            self._cache,
            self._settings,
            metrics=self._metrics,
            crd_check=self._crd_check,
            now=lambda: datetime.now(UTC),
            wake=self._wake,
            ca_bundle=bundle,
        )
        queue = self._queue = WorkQueue(reconcile, self._settings.workers, time.monotonic, random.random)
        for key in self._cache.all_keys():
            queue.add(key)
        try:
            await _run_until_first_ends(queue.run(), *([bundle.run()] if bundle else []))
        finally:
            self._queue = None

    async def _watch(self) -> None:
        registry = kopf.OperatorRegistry()
        register(registry, self._cache, self._wake, self._cluster.credentials, self._metrics.heard)
        settings = kopf.OperatorSettings()
        namespaces = [name for name in self._settings.namespaces if name not in self._resync.forbidden]
        settings.scanning.disabled = bool(self._settings.namespaces)
        await kopf.operator(
            registry=registry,
            settings=settings,
            ready_flag=self._watching,
            standalone=True,
            clusterwide=not self._settings.namespaces,
            namespaces=namespaces,
        )

    async def _until_stopped(self) -> None:
        """Returns on a signal, which stops all components: kopf's own shutdown takes seconds without a leader."""
        await self._watching.wait()
        stopped, loop = asyncio.Event(), asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stopped.set)
        await stopped.wait()
        LOG.info("stopping on a signal")

    def _wake(self, key: Key) -> None:
        """Queues a resource that may have changed; a standby drops the key and queues all resources when it leads."""
        if self._progress:
            self._progress.notice(key)
        if self._queue:
            self._queue.add(key)


def _elector(cluster: Cluster, settings: Settings) -> Elector:
    return Elector(
        cluster,
        settings.leader_election,
        identity=f"{replica_name()}_{uuid4().hex[:8]}",
        namespace=own_namespace(settings) if settings.leader_election.enabled else "",
        name=settings.operator_name,
        # counts while the machine sleeps, unlike the monotonic clock
        clock=lambda: time.clock_gettime(time.CLOCK_BOOTTIME),
        now=lambda: datetime.now(UTC),
    )


async def _run_until_first_ends(*parts: Coroutine[Any, Any, None]) -> None:
    """Runs coroutines concurrently; when one ends, cancels the others and raises its exception."""
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
    """Loads the settings and runs the operator; returns the exit code."""
    parser = argparse.ArgumentParser(prog="hatchery-operator", description="Reconciles the resources of hatchery.dev.")
    parser.add_argument(
        "--config", metavar="PATH", help="settings file; default: $HATCHERY_SETTINGS, else the mounted file"
    )
    try:
        settings = load_settings(settings_path(parser.parse_args(arguments).config))
        operator = Operator(settings)
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    configure_logs(settings.log_level)
    silence_kopf()
    # PID 1 of a container ignores signals without a handler; `_until_stopped` replaces this one after startup
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    asyncio.run(operator.run())
    return 0


if __name__ == "__main__":
    sys.exit(main())
