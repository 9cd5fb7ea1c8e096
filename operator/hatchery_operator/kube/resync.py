"""Lists all objects at start and periodically, to find changes that watches missed."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from hatchery_api.kinds import KINDS
from hatchery_operator.domain.job_summary import summarize_job
from hatchery_operator.domain.labels import UID_LABEL
from hatchery_operator.domain.objects import JobSummary, Key, Manifest, key_of, resource_version
from hatchery_operator.errors import ApiError, RefusedError
from hatchery_operator.kube.cache import Cache
from hatchery_operator.kube.client import Cluster

LOG: Final = logging.getLogger(__name__)

WATCH_GRACE_SECONDS: Final = 10.0
"""Time a watch has to deliver a change that a listing shows."""

PING_SECONDS: Final = 30.0
"""Interval of the liveness requests to the API server."""

_FORBIDDEN: Final = 403

Sleep = Callable[[float], Awaitable[None]]
"""Sleeps for some seconds."""

ReportMissed = Callable[[list[str]], None]
"""Receives, after every resync, the kind of each change that the listing showed and no watch had delivered."""


@dataclass(frozen=True)
class _Listing:
    """The difference between a listing and the cache as it was before the listing."""

    known: frozenset[Key]
    """Resources in the cache."""
    newer: list[Manifest]
    """Listed resources that are newer than in the cache or missing from it."""
    gone: dict[Key, int]
    """Cached versions of resources that were not listed."""
    known_jobs: frozenset[str]
    """UIDs of Jobs in the cache."""
    newer_jobs: list[JobSummary]
    gone_jobs: list[JobSummary]


class Resync:
    """Keeps the cache consistent with the cluster even when watches miss changes."""

    def __init__(
        self,
        cluster: Cluster,
        cache: Cache,
        *,
        namespaces: list[str],
        check_crds: Callable[[], Awaitable[None]],
        report: ReportMissed,
        wake: Callable[[Key], None],
    ) -> None:
        self._cluster = cluster
        self._cache = cache
        self._namespaces: list[str | None] = [*namespaces] or [None]
        self._check_crds = check_crds
        self._report = report
        self._wake = wake
        self.forbidden: frozenset[str] = frozenset()
        """Namespaces in which the last listing was forbidden."""

    async def load(self) -> None:
        """Fills the cache; must finish before the first reconcile."""
        await self._check_crds()
        self._merge(await self._list())

    async def _list(self) -> "_Listing":
        known = {key: self._cache.version(key) for key in self._cache.all_keys()}
        jobs = {job.uid: job for job in self._cache.jobs()}
        were_known, jobs_were_known = frozenset(known), frozenset(jobs)
        runs = [
            manifest
            async for manifest in self._all_runs()
            if resource_version(manifest) > known.pop(key_of(manifest), -1)
        ]
        for key in [key for key in known if key.namespace in self.forbidden]:
            del known[key]
        newer_jobs = [job async for job in self._all_jobs() if _is_news(job, jobs.pop(job.uid, None))]
        return _Listing(
            known=were_known,
            newer=runs,
            gone=known,
            known_jobs=jobs_were_known,
            newer_jobs=newer_jobs,
            gone_jobs=[job for job in jobs.values() if job.namespace not in self.forbidden],
        )

    def _merge(self, listing: "_Listing") -> list[tuple[str, Key]]:
        """Merges a listing into the cache; returns kind and owner of each change that no watch had delivered."""
        cache = self._cache
        changed = [key for manifest in listing.newer if (key := self._take(manifest, listing.known))]
        gone = [key for key, version in listing.gone.items() if cache.version(key) == version]
        for key in gone:
            cache.remove(key)
        changed_jobs = [job for job in listing.newer_jobs if self._was_missed(job, listing.known_jobs)]
        for job in changed_jobs:
            cache.put_job(job)
        gone_jobs = [job for job in listing.gone_jobs if job == self._known(job)]
        for job in gone_jobs:
            cache.remove_job(job)
        runs = (*changed, *gone)
        return [*((key.kind, key) for key in runs), *(("Job", job.owner) for job in (*changed_jobs, *gone_jobs))]

    def _take(self, manifest: Manifest, known: frozenset[Key]) -> Key | None:
        """Stores a resource; returns its key if no watch had delivered it and its status is valid."""
        key, before = key_of(manifest), self._cache.version(key_of(manifest))
        was_deleted = key in known and self._cache.get(key) is None
        if was_deleted or resource_version(manifest) <= before:
            return None
        self._cache.put_or_log(manifest)
        return key if self._cache.version(key) > before else None

    def _was_missed(self, job: JobSummary, known: frozenset[str]) -> bool:
        """Whether no watch has delivered a Job; one that was cached and no longer is was deleted meanwhile."""
        now = self._known(job)
        was_deleted = job.uid in known and (now is None or now.uid != job.uid)
        return _is_news(job, now) and not was_deleted

    def _known(self, job: JobSummary) -> JobSummary | None:
        return self._cache.jobs_of(job.owner_uid).get(job.name)

    async def _all_runs(self) -> AsyncIterator[Manifest]:
        self.forbidden = frozenset()
        for namespace in self._namespaces:
            try:
                for kind in KINDS:
                    async for manifest in self._cluster.list(kind.kind, namespace):
                        yield manifest
            except RefusedError as error:
                self._skip(namespace, error)

    async def _all_jobs(self) -> AsyncIterator[JobSummary]:
        for namespace in self._namespaces:
            if namespace in self.forbidden:
                continue
            async for manifest in self._cluster.list("Job", namespace, UID_LABEL):
                if job := summarize_job(manifest):
                    yield job

    def _skip(self, namespace: str | None, error: RefusedError) -> None:
        """Skips a namespace that was deleted together with its Role; fails if no namespace is left."""
        forbidden = self.forbidden | {namespace or ""}
        if error.status != _FORBIDDEN or len(forbidden) == len(set(self._namespaces)):
            raise error
        self.forbidden = forbidden
        LOG.error("not serving namespace %s until listing its resources is allowed: %s", namespace, error)

    async def run(self, seconds: float, sleep: Sleep = asyncio.sleep) -> None:
        """Lists periodically and reconciles every resource, until cancelled.

        Returns when the set of forbidden namespaces differs from that at start, since the watches still cover the old
        one.
        """
        watched = self.forbidden
        while True:
            await sleep(seconds)
            try:
                await self._check_crds()
                listing = await self._list()
            except ApiError as error:
                LOG.warning("resync failed: %s", error)
                continue
            if self.forbidden != watched:
                LOG.warning("the set of readable namespaces has changed; restarting")
                return
            await sleep(WATCH_GRACE_SECONDS)
            missed = self._merge(listing)
            self._report([kind for kind, _ in missed])
            if missed:
                LOG.warning("watches missed %d changes", len(missed))
            for key in {*self._cache.all_keys(), *(key for _, key in missed)}:
                self._wake(key)

    async def ping(self, sleep: Sleep = asyncio.sleep) -> None:
        """Pings the API server until cancelled, so that a healthy but idle operator still gets responses."""
        while True:
            await sleep(PING_SECONDS)
            try:
                await self._cluster.ping()
            except ApiError as error:
                LOG.warning("the API server does not respond: %s", error)


def _is_news(job: JobSummary, known: JobSummary | None) -> bool:
    return known is None or job.version > known.version or job.uid != known.uid
