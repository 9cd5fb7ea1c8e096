"""Writes pods' progress reports to `status.progress`: rate-limited, by the replica that received them."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from random import random
from typing import Final

from hatchery_api.contract import TrainerStatus
from hatchery_api.format import duration_text, significant
from hatchery_api.status import LOSSES, ProgressStatus
from hatchery_operator.domain.objects import Key, Run, rfc3339, stage_in_flight
from hatchery_operator.errors import ConflictError, GoneError
from hatchery_operator.kube import Cache, Cluster, WorkQueue
from hatchery_operator.progress.receiver import Received

PROGRESS_MANAGER: Final = "hatchery-progress"
"""Field manager of `status.progress`; the reconciler owns the rest of the status."""

WRITE_SECONDS: Final = 10.0
"""Minimum interval between writes to one resource, over all replicas; Prometheus has faster numbers."""

WORKERS: Final = 8
"""Resources whose progress is written concurrently."""

METRICS: Final = 32
"""Metrics kept of a report."""

TEXT_CHARACTERS: Final = 128
"""Longest progress text."""

_TEXT = "text"
_PAIRS: Final = (("done", "total"), ("step", "steps"), ("current_step", "total_steps"))
"""Metrics that count work: of our own jobs, of the protocol's examples, of transformers' callback."""


class ProgressWriter:
    """Keeps the latest report of each resource and writes it once the last write is old enough."""

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
        self._pending: dict[Key, tuple[Received, datetime]] = {}
        self._last_writes: dict[Key, tuple[str, float]] = {}
        self._queue: WorkQueue[Key] = WorkQueue(self._process, WORKERS, clock, random)

    def take(self, received: Received) -> None:
        """Takes a report; it replaces one that is still pending."""
        key = Key(received.kind, received.namespace, received.name)
        self._pending[key] = received, self._now()
        self._queue.add(key)

    def notice(self, key: Key) -> None:
        """Notes a write to a resource's progress by any replica.

        Its age counts from when this replica observes it, since the clocks of machines differ.
        """
        run = self._cache.get(key)
        if run is None:
            self._last_writes.pop(key, None)
            self._pending.pop(key, None)
        elif run.status.progress and (stamp := run.status.progress.updated_at):
            noted, _ = self._last_writes.get(key, ("", 0.0))
            if stamp != noted:
                self._last_writes[key] = stamp, self._clock()

    async def run(self) -> None:
        """Writes until cancelled."""
        await self._queue.run()

    async def _process(self, key: Key) -> float | None:
        """Writes the pending report if it is due; otherwise returns the seconds until it is."""
        run, pending = self._cache.get(key), self._pending.get(key)
        if pending is None or run is None or not _is_current(run, pending[0]):
            self._pending.pop(key, None)
            return None
        _, last = self._last_writes.get(key, ("", -WRITE_SECONDS))
        if (wait := last + WRITE_SECONDS - self._clock()) > 0:
            return wait
        del self._pending[key]
        await self._write(run, *pending)
        return None

    async def _write(self, run: Run, received: Received, at: datetime) -> None:
        manifest = run.with_status({"progress": progress_status(received.status, at).wire()})
        try:
            written = await self._cluster.apply(manifest, PROGRESS_MANAGER, "status", fenced=False)
        except (ConflictError, GoneError):
            return  # the next report arrives in a few seconds
        self._cache.put(written)
        self.notice(run.key)


def _is_current(run: Run, received: Received) -> bool:
    """Whether a report comes from a pod of the Job in flight."""
    stage = stage_in_flight(run.status)
    if run.uid != received.uid or run.status.completion_time or stage is None or stage.job is None:
        return False
    return stage.state in ("Pending", "Running") and received.pod.startswith(f"{stage.job}-")


def progress_status(reported: TrainerStatus, at: datetime) -> ProgressStatus:
    """`status.progress` for what a pod reported at a time."""
    remaining = reported.estimated_remaining_seconds
    return ProgressStatus(
        text=_text(reported)[:TEXT_CHARACTERS],
        percentage=reported.progress_percentage,
        eta=None if remaining is None else duration_text(remaining),
        loss=_loss(reported),
        metrics=[metric for metric in reported.metrics if metric.name != _TEXT][:METRICS],
        updated_at=rfc3339(at),
    )


def _text(reported: TrainerStatus) -> str:
    values = {metric.name: metric.value for metric in reported.metrics}
    share = "" if reported.progress_percentage is None else f"{reported.progress_percentage}%"
    if _TEXT in values:
        return values[_TEXT]
    for done, total in _PAIRS:
        if done in values and total in values:
            count = f"{values[done]}/{values[total]} {values.get('unit', '')}".rstrip()
            return f"{count} ({share})" if share else count
    return share


def _loss(reported: TrainerStatus) -> str | None:
    values = {metric.name: metric.value for metric in reported.metrics}
    try:
        return next((significant(float(values[name])) for name in LOSSES if name in values), None)
    except ValueError:
        return None
