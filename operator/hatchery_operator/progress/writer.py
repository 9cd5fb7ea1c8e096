"""From a pod's report to `status.progress`: written by the replica that got it, seldom, by a manager of its own."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from random import random
from typing import Final

from hatchery_operator.domain import Key, Run, stage_in_flight
from hatchery_operator.errors import ConflictError, GoneError
from hatchery_operator.kube.cache import Cache
from hatchery_operator.kube.client import Cluster
from hatchery_operator.kube.workqueue import WorkQueue
from hatchery_operator.progress.live import progress_status
from hatchery_operator.progress.receiver import Received

PROGRESS_MANAGER: Final = "hatchery-progress"
"""Field manager of `status.progress`; the rest of the status is the reconciler's."""

WRITE_SECONDS: Final = 10.0
"""Shortest time between two writes to one resource, over all replicas; faster numbers are in Prometheus."""

WORKERS: Final = 8
"""Resources whose progress is written at the same time."""


class ProgressWriter:
    """Keeps the newest report of each resource and writes it when the last write is long enough ago."""

    def __init__(
        self,
        cluster: Cluster,
        cache: Cache,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._cluster = cluster
        self._cache = cache
        self._clock = clock
        self._now = now
        self._waiting: dict[Key, tuple[Received, datetime]] = {}
        self._shown: dict[Key, tuple[str, float]] = {}
        self._queue: WorkQueue[Key] = WorkQueue(self._look, WORKERS, clock, random)

    def take(self, received: Received) -> None:
        """Takes a report; an older one that still waits is forgotten."""
        key = Key(received.kind, received.namespace, received.name)
        self._waiting[key] = received, self._now()
        self._queue.add(key)

    def notice(self, key: Key) -> None:
        """Looks when the progress of a resource was written, by whichever replica.

        Counted from when it is seen here, since clocks of machines differ.
        """
        run = self._cache.get(key)
        if run is None:
            self._shown.pop(key, None)
            self._waiting.pop(key, None)
        elif run.status.progress and (stamp := run.status.progress.updated_at):
            known, _ = self._shown.get(key, ("", 0.0))
            if stamp != known:
                self._shown[key] = stamp, self._clock()

    async def run(self) -> None:
        """Writes until cancelled."""
        await self._queue.run()

    async def _look(self, key: Key) -> float | None:
        """Writes what waits if it is time; returns the seconds until it is."""
        run, waiting = self._cache.get(key), self._waiting.get(key)
        if waiting is None or run is None or not _is_current(run, waiting[0]):
            self._waiting.pop(key, None)
            return None
        _, shown = self._shown.get(key, ("", -WRITE_SECONDS))
        if (wait := shown + WRITE_SECONDS - self._clock()) > 0:
            return wait
        del self._waiting[key]
        await self._write(run, *waiting)
        return None

    async def _write(self, run: Run, received: Received, at: datetime) -> None:
        manifest = run.with_status({"progress": progress_status(received.status, at).wire()})
        try:
            written = await self._cluster.apply(manifest, PROGRESS_MANAGER, "status", fenced=False)
        except (ConflictError, GoneError):
            return  # the next report comes in a few seconds
        self._cache.put(written)
        self.notice(run.key)


def _is_current(run: Run, received: Received) -> bool:
    """Whether a report is from a pod of the Job that is in flight."""
    stage = stage_in_flight(run.status)
    if run.uid != received.uid or run.status.completion_time or stage is None or stage.job is None:
        return False
    return stage.state in ("Pending", "Running") and received.pod.startswith(f"{stage.job}-")
