"""What the operator knows of the cluster: resources and reduced Jobs, from watches, listings and its own writes.

The newest version of an object wins, whatever order news arrive in, so a late watch event never undoes what the
operator has just written and read back.
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
    """A resource with what is derived from it."""

    run: Run
    version: int
    references: frozenset[Key]
    """Resources its spec names."""


class Cache:
    """All resources and Jobs; not locked, since one event loop uses it."""

    def __init__(self, references: Callable[[Run], frozenset[Key]]) -> None:
        """`references` gives the resources that a resource's spec names."""
        self._references = references
        self._runs: dict[Key, Entry] = {}
        self._dependents: dict[Key, set[Key]] = defaultdict(set)
        self._jobs: dict[str, dict[str, JobSummary]] = defaultdict(dict)

    def __len__(self) -> int:
        return len(self._runs)

    def all_keys(self) -> list[Key]:
        """All resources."""
        return list(self._runs)

    def runs(self) -> Iterable[Run]:
        """All resources, parsed."""
        return (entry.run for entry in self._runs.values())

    def get(self, key: Key) -> Run | None:
        """A resource, if it exists."""
        entry = self._runs.get(key)
        return entry.run if entry else None

    def version(self, key: Key) -> int:
        """The version known of a resource; -1 for an unknown one."""
        entry = self._runs.get(key)
        return entry.version if entry else -1

    def put(self, manifest: Mapping[str, Any]) -> frozenset[Key]:
        """Takes a resource as read or written; an older one than known is ignored.

        Returns who must look again: the resource when anything but its metadata has changed, and the resources that
        name it when what they see of it has changed.
        """
        key, version = key_of(manifest), resource_version(manifest)
        known = self._runs.get(key)
        if known and version <= known.version:
            return frozenset()
        before = known.run if known else None
        run = parse_run(manifest, before)
        if known and run == (same := replace(known.run, resource_version=run.resource_version)):
            self._runs[key] = replace(known, run=same, version=version)
            return frozenset()
        self._unlink(key)
        entry = self._runs[key] = Entry(run, version, self._references(run))
        for named in entry.references:
            self._dependents[named].add(key)
        return (self._dependents_of(key) if _offer(before) != _offer(run) else frozenset()) | {key}

    def put_or_log(self, manifest: Mapping[str, Any]) -> frozenset[Key]:
        """`put`, but a resource whose status does not validate is logged and left out of the cache."""
        try:
            return self.put(manifest)
        except ValidationError as error:
            metadata = manifest["metadata"]
            LOG.error(  # noqa: TRY400 - the trace says nothing about the object
                "%s %s/%s has a status that cannot be read; repair or delete it: %s",
                manifest["kind"],
                metadata["namespace"],
                metadata["name"],
                error.errors(include_url=False)[:3],
            )
            return frozenset()

    def remove(self, key: Key, version: int | None = None) -> frozenset[Key]:
        """Forgets a resource, unless it is newer than the version given: one of the same name was made since.

        Returns the resources that name it.
        """
        if key not in self._runs or (version is not None and self.version(key) > version):
            return frozenset()
        self._unlink(key)
        del self._runs[key]
        return self._dependents_of(key)

    def _dependents_of(self, key: Key) -> frozenset[Key]:
        return frozenset(self._dependents.get(key, ()))

    def put_job(self, job: JobSummary) -> bool:
        """Takes a Job as read or written; an older one than known is ignored. Returns whether it says anything new."""
        known = self._jobs[job.owner_uid].get(job.name)
        if known and job.version <= known.version:
            return False
        self._jobs[job.owner_uid][job.name] = job
        return known is None or job != replace(known, version=job.version)

    def remove_job(self, job: JobSummary) -> bool:
        """Forgets a Job; returns whether it was known."""
        jobs = self._jobs.get(job.owner_uid, {})
        is_known = job.name in jobs and jobs[job.name].uid == job.uid
        if is_known:
            del jobs[job.name]
        if not jobs:
            self._jobs.pop(job.owner_uid, None)
        return is_known

    def jobs_of(self, uid: str) -> dict[str, JobSummary]:
        """Jobs of a resource, by name."""
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


def _offer(run: Run | None) -> tuple[object, ...]:
    """What others see of a resource: whether it exists, whether it has ended, what it made."""
    if run is None:
        return ()
    succeeded = find_condition(run.status.conditions, ConditionType.SUCCEEDED)
    digest = run.status.artifact.digest if run.status.artifact else None
    return run.uid, run.deleting, succeeded.status if succeeded else None, digest
