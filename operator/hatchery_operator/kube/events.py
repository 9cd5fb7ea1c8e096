"""Reads events about Jobs and pods that explain why pods do not start."""

import asyncio
from datetime import datetime
from typing import Final

from hatchery_operator.domain.objects import JobSummary, Manifest, event_time, parse_time
from hatchery_operator.kube.client import Cluster

SHARED_SECONDS: Final = 5.0
"""How long one listing serves all Jobs of a namespace: a thousand Jobs over a quota ask almost simultaneously."""


class Events:
    """Reads events, sharing one listing among all Jobs of a namespace."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._shared: dict[str, tuple[datetime, dict[str, Manifest]]] = {}
        self._listing = asyncio.Lock()

    async def failed_create(self, job: JobSummary, after: datetime, now: datetime) -> Manifest | None:
        """The latest event that explains why a Job's pods cannot be created, unless it precedes `after`."""
        async with self._listing:
            self._shared = {where: kept for where, kept in self._shared.items() if _is_fresh(kept[0], now)}
            if job.namespace not in self._shared:
                self._shared[job.namespace] = (now, await self._failed_creates(job.namespace))
            event = self._shared[job.namespace][1].get(job.uid)
        when = event_time(event) if event else ""
        return event if event and (not when or parse_time(when) >= after) else None

    async def _failed_creates(self, namespace: str) -> dict[str, Manifest]:
        newest: dict[str, Manifest] = {}
        async for event in self._cluster.list("Event", namespace, fields="reason=FailedCreate"):
            uid = event.get("involvedObject", {}).get("uid", "")
            if uid not in newest or event_time(newest[uid]) <= event_time(event):
                newest[uid] = {k: event.get(k) for k in ("message", "lastTimestamp", "eventTime", "firstTimestamp")}
        return newest

    async def of_pod(self, pod: Manifest) -> tuple[Manifest, ...]:
        """All events of one pod."""
        metadata = pod["metadata"]
        fields = f"involvedObject.uid={metadata['uid']}"
        return tuple([event async for event in self._cluster.list("Event", metadata["namespace"], fields=fields)])


def _is_fresh(at: datetime, now: datetime) -> bool:
    return abs((now - at).total_seconds()) < SHARED_SECONDS
