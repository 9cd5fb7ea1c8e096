"""Events about Jobs and pods, read when nothing else says why pods do not start."""

import asyncio
from datetime import datetime
from typing import Final

from hatchery_operator.domain.objects import JobSummary, Manifest, parse_time
from hatchery_operator.kube.client import Cluster

SHARED_SECONDS: Final = 5.0
"""How long a listing of refusals serves all Jobs of its namespace: a thousand Jobs over a quota ask at about once."""


def event_time(event: Manifest) -> str:
    """When an event last happened."""
    return str(event.get("lastTimestamp") or event.get("eventTime") or event.get("firstTimestamp") or "")


class Events:
    """Reads events of the API server, few times."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._shared: dict[str, tuple[datetime, dict[str, Manifest]]] = {}
        self._listing = asyncio.Lock()

    async def refusal(self, job: JobSummary, after: datetime, now: datetime) -> Manifest | None:
        """The newest event that says why pods of a Job cannot be created, unless pods were created since."""
        async with self._listing:
            self._shared = {where: kept for where, kept in self._shared.items() if _is_fresh(kept[0], now)}
            if job.namespace not in self._shared:
                self._shared[job.namespace] = (now, await self._refusals(job.namespace))
            event = self._shared[job.namespace][1].get(job.uid)
        when = event_time(event) if event else ""
        return event if event and (not when or parse_time(when) >= after) else None

    async def _refusals(self, namespace: str) -> dict[str, Manifest]:
        newest: dict[str, Manifest] = {}
        async for event in self._cluster.list("Event", namespace, fields="reason=FailedCreate"):
            uid = event.get("involvedObject", {}).get("uid", "")
            if uid not in newest or event_time(newest[uid]) <= event_time(event):
                newest[uid] = {k: event.get(k) for k in ("message", "lastTimestamp", "eventTime", "firstTimestamp")}
        return newest

    async def of_pod(self, pod: Manifest) -> tuple[Manifest, ...]:
        """Events of one pod."""
        metadata = pod["metadata"]
        fields = f"involvedObject.uid={metadata['uid']}"
        return tuple([event async for event in self._cluster.list("Event", metadata["namespace"], fields=fields)])


def _is_fresh(at: datetime, now: datetime) -> bool:
    return abs((now - at).total_seconds()) < SHARED_SECONDS
