"""The listings: all objects at start, and now and then again, to find what watches have missed."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from hatchery_api.kinds import KINDS
from hatchery_operator.domain.labels import UID_LABEL
from hatchery_operator.domain.objects import JobSummary, Key, Manifest, key_of, resource_version, summarize_job
from hatchery_operator.errors import ApiError, RefusedError
from hatchery_operator.kube.cache import Cache
from hatchery_operator.kube.client import Cluster

LOG: Final = logging.getLogger(__name__)

WATCH_GRACE_SECONDS: Final = 10.0
"""Time a watch has to tell a change that a listing shows."""

PING_SECONDS: Final = 30.0
"""Time between two questions whether the API server still answers us."""

_FORBIDDEN: Final = 403

Sleep = Callable[[float], Awaitable[None]]
"""Waits some seconds."""

Report = Callable[[list[str]], None]
"""Receives, after every resync, the kind of each change that the listing showed and no watch had delivered."""


@dataclass(frozen=True)
class _Listing:
    """A listing against what the cache knew before it."""

    known: frozenset[Key]
    newer: list[Manifest]
    gone: dict[Key, int]
    known_jobs: frozenset[str]
    """UIDs."""
    newer_jobs: list[JobSummary]
    gone_jobs: list[JobSummary]


class Resync:
    """Keeps the cache true to the cluster, whatever watches tell or miss."""

    def __init__(
        self,
        cluster: Cluster,
        cache: Cache,
        *,
        namespaces: list[str],
        check_crds: Callable[[], Awaitable[None]],
        report: Report,
        wake: Callable[[Key], None],
    ) -> None:
        self._cluster = cluster
        self._cache = cache
        self._namespaces: list[str | None] = [*namespaces] or [None]
        self._check_crds = check_crds
        self._report = report
        self._wake = wake
        self.refused: frozenset[str] = frozenset()
        """Namespaces whose resources may not be listed, as the last listing found."""

    async def load(self) -> None:
        """Lists everything into the cache; nothing is reconciled before."""
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
        for key in [key for key in known if key.namespace in self.refused]:
            del known[key]
        newer_jobs = [job async for job in self._all_jobs() if _is_news(job, jobs.pop(job.uid, None))]
        return _Listing(
            were_known,
            runs,
            known,
            jobs_were_known,
            newer_jobs,
            [j for j in jobs.values() if j.namespace not in self.refused],
        )

    def _merge(self, listing: "_Listing") -> list[tuple[str, Key]]:
        """Takes what the cache does not have yet; returns what those changes were in, and whose they are."""
        cache = self._cache
        changed = [key for manifest in listing.newer if (key := self._take(manifest, listing.known))]
        gone = [key for key, version in listing.gone.items() if cache.version(key) == version]
        for key in gone:
            cache.remove(key)
        changed_jobs = [job for job in listing.newer_jobs if self._is_untold(job, listing.known_jobs)]
        for job in changed_jobs:
            cache.put_job(job)
        gone_jobs = [job for job in listing.gone_jobs if job == self._known(job)]
        for job in gone_jobs:
            cache.remove_job(job)
        runs = (*changed, *gone)
        return [*((key.kind, key) for key in runs), *(("Job", job.owner) for job in (*changed_jobs, *gone_jobs))]

    def _take(self, manifest: Manifest, known: frozenset[Key]) -> Key | None:
        """Takes a resource that no watch has told of; None when one has, or when the resource cannot be read."""
        key, before = key_of(manifest), self._cache.version(key_of(manifest))
        was_deleted = key in known and self._cache.get(key) is None
        if was_deleted or resource_version(manifest) <= before:
            return None
        self._cache.put_or_log(manifest)
        return key if self._cache.version(key) > before else None

    def _is_untold(self, job: JobSummary, known: frozenset[str]) -> bool:
        """Whether no watch has told of a Job; one that was known and is not any more was deleted since."""
        now = self._known(job)
        was_deleted = job.uid in known and (now is None or now.uid != job.uid)
        return _is_news(job, now) and not was_deleted

    def _known(self, job: JobSummary) -> JobSummary | None:
        return self._cache.jobs_of(job.owner_uid).get(job.name)

    async def _all_runs(self) -> AsyncIterator[Manifest]:
        self.refused = frozenset()
        for namespace in self._namespaces:
            try:
                for kind in KINDS:
                    async for manifest in self._cluster.list(kind.kind, namespace):
                        yield manifest
            except RefusedError as error:
                self._leave_out(namespace, error)

    async def _all_jobs(self) -> AsyncIterator[JobSummary]:
        for namespace in self._namespaces:
            if namespace in self.refused:
                continue
            async for manifest in self._cluster.list("Job", namespace, UID_LABEL):
                if job := summarize_job(manifest):
                    yield job

    def _leave_out(self, namespace: str | None, error: RefusedError) -> None:
        """One of several namespaces that was deleted, and its Role with it, must not stop the others."""
        refused = self.refused | {namespace or ""}
        if error.status != _FORBIDDEN or len(refused) == len(set(self._namespaces)):
            raise error
        self.refused = refused
        LOG.error("namespace %s is not served until its resources may be listed: %s", namespace, error)

    async def run(self, seconds: float, sleep: Sleep = asyncio.sleep) -> None:
        """Lists again and again until cancelled, and looks at every resource, whatever watches have told.

        Ends when other namespaces may be listed than at start, since the watches are those of then.
        """
        watched = self.refused
        while True:
            await sleep(seconds)
            try:
                await self._check_crds()
                listing = await self._list()
            except ApiError as error:
                LOG.warning("resync failed: %s", error)
                continue
            if self.refused != watched:
                LOG.warning("the operator may list other namespaces than before and starts afresh")
                return
            await sleep(WATCH_GRACE_SECONDS)
            missed = self._merge(listing)
            self._report([kind for kind, _ in missed])
            if missed:
                LOG.warning("watches missed %d changes", len(missed))
            for key in {*self._cache.all_keys(), *(key for _, key in missed)}:
                self._wake(key)

    async def ping(self, sleep: Sleep = asyncio.sleep) -> None:
        """Asks the API server something small now and then until cancelled, so that silence means trouble."""
        while True:
            await sleep(PING_SECONDS)
            try:
                await self._cluster.ping()
            except ApiError as error:
                LOG.warning("the API server does not answer: %s", error)


def _is_news(job: JobSummary, known: JobSummary | None) -> bool:
    return known is None or job.version > known.version or job.uid != known.uid
