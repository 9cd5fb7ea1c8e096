"""In-memory cache of resources and Job summaries, fed by watches, listings and the operator's own writes.

The highest resourceVersion of an object wins, in whatever order updates arrive, so a late watch event never overwrites
what the operator has just written.
"""

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from pydantic import ValidationError

from hatchery_api.conditions import ConditionType, find_condition
from hatchery_operator.domain.objects import JobSummary, Key, Run, key_of, parse_run, resource_version

LOG: Final = logging.getLogger(__name__)


@dataclass(frozen=True)
class Entry:
    """A cached resource."""

    run: Run
    version: int
    references: frozenset[Key]
    """Resources named in its spec."""


class Cache:
    """All resources and Jobs; unlocked, since a single event loop uses it."""

    def __init__(self, references: Callable[[Run], frozenset[Key]]) -> None:
        """`references` returns the resources named in a resource's spec."""
        self._references = references
        self._runs: dict[Key, Entry] = {}
        self._dependents: dict[Key, set[Key]] = defaultdict(set)
        self._jobs: dict[str, dict[str, JobSummary]] = defaultdict(dict)

    def __len__(self) -> int:
        return len(self._runs)

    def all_keys(self) -> list[Key]:
        """Keys of all resources."""
        return list(self._runs)

    def runs(self) -> Iterable[Run]:
        """All resources."""
        return (entry.run for entry in self._runs.values())

    def get(self, key: Key) -> Run | None:
        """A resource; None for an unknown one."""
        entry = self._runs.get(key)
        return entry.run if entry else None

    def version(self, key: Key) -> int:
        """The cached resourceVersion of a resource; -1 for an unknown one."""
        entry = self._runs.get(key)
        return entry.version if entry else -1

    def put(self, manifest: Mapping[str, Any]) -> frozenset[Key]:
        """Stores a resource unless the cached version is newer.

        Returns the keys to reconcile: the resource if more than its metadata has changed, and the resources that name
        it if the part visible to them has changed.
        """
        key, version = key_of(manifest), resource_version(manifest)
        cached = self._runs.get(key)
        if cached and version <= cached.version:
            return frozenset()
        before = cached.run if cached else None
        run = parse_run(manifest, before)
        if cached and run == (same := replace(cached.run, resource_version=run.resource_version)):
            self._runs[key] = replace(cached, run=same, version=version)
            return frozenset()
        self._unlink(key)
        entry = self._runs[key] = Entry(run, version, self._references(run))
        for named in entry.references:
            self._dependents[named].add(key)
        return (self._dependents_of(key) if _visible(before) != _visible(run) else frozenset()) | {key}

    def put_or_log(self, manifest: Mapping[str, Any]) -> frozenset[Key]:
        """Like `put`, but logs a resource whose status does not validate and leaves it out of the cache."""
        try:
            return self.put(manifest)
        except ValidationError as error:
            metadata = manifest["metadata"]
            LOG.error(  # noqa: TRY400 - the trace says nothing about the object
                "%s %s/%s has an invalid status; repair or delete the resource: %s",
                manifest["kind"],
                metadata["namespace"],
                metadata["name"],
                error.errors(include_url=False)[:3],
            )
            return frozenset()

    def remove(self, key: Key, version: int | None = None) -> frozenset[Key]:
        """Removes a resource unless the cached one is newer than `version`, which means that it was created again.

        Returns the keys of the resources that name it.
        """
        if key not in self._runs or (version is not None and self.version(key) > version):
            return frozenset()
        self._unlink(key)
        del self._runs[key]
        return self._dependents_of(key)

    def _dependents_of(self, key: Key) -> frozenset[Key]:
        return frozenset(self._dependents.get(key, ()))

    def put_job(self, job: JobSummary) -> bool:
        """Stores a Job unless the cached version is newer; returns whether more than its version has changed."""
        cached = self._jobs[job.owner_uid].get(job.name)
        if cached and job.version <= cached.version:
            return False
        self._jobs[job.owner_uid][job.name] = job
        return cached is None or job != replace(cached, version=job.version)

    def remove_job(self, job: JobSummary) -> bool:
        """Removes a Job; returns whether it was cached."""
        jobs = self._jobs.get(job.owner_uid, {})
        was_cached = job.name in jobs and jobs[job.name].uid == job.uid
        if was_cached:
            del jobs[job.name]
        if not jobs:
            self._jobs.pop(job.owner_uid, None)
        return was_cached

    def jobs_of(self, uid: str) -> dict[str, JobSummary]:
        """Jobs of a resource by name; `uid` is that of the resource."""
        return dict(self._jobs.get(uid, {}))

    def jobs(self) -> list[JobSummary]:
        """All Jobs."""
        return [job for jobs in self._jobs.values() for job in jobs.values()]

    def _unlink(self, key: Key) -> None:
        entry = self._runs.get(key)
        for named in entry.references if entry else ():
            self._dependents[named].discard(key)
            if not self._dependents[named]:
                del self._dependents[named]


def _visible(run: Run | None) -> tuple[object, ...]:
    """The part of a resource that its dependents read: existence, outcome and artifact."""
    if run is None:
        return ()
    succeeded = find_condition(run.status.conditions, ConditionType.SUCCEEDED)
    digest = run.status.artifact.digest if run.status.artifact else None
    return run.uid, run.deleting, succeeded.status if succeeded else None, digest
