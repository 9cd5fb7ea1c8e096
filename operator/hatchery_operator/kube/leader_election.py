"""Leader election by a Lease: one replica leads, and another takes over soon after it is gone.

Clocks of different machines are never compared. A candidate waits until the holder's record has not changed for the
lease duration by the candidate's own clock; the holder stops writing once its last renewal is too old by its own clock.
The holder counts from before it sent the renewal and candidates from after they observed it, so terms never overlap.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import datetime
from typing import Any, Final

from hatchery_operator.domain.labels import MANAGED_BY_LABEL, MANAGER
from hatchery_operator.domain.objects import Manifest, micro_time
from hatchery_operator.errors import AlreadyExistsError, ApiError, ConflictError, GoneError, NotLeaderError
from hatchery_operator.kube.client import REQUEST_SECONDS, Cluster
from hatchery_operator.settings import LeaderElection

LOG: Final = logging.getLogger(__name__)

WRITE_MARGIN_SECONDS: Final = 1.0
"""Margin between the timeout of the leader's writes and the end of the lease, for requests still being served."""

RELEASE_SECONDS: Final = 3.0
"""Timeout for releasing the lease at shutdown; after it the other replicas wait for the lease to expire."""

Term = Callable[[], Awaitable[None]]
"""What the leader runs until cancelled."""


class Election:
    """One candidate's knowledge of the lease as plain data; callers pass the time."""

    def __init__(self, identity: str, settings: LeaderElection) -> None:
        self.identity = identity
        self._settings = settings
        self._lease: Manifest | None = None
        self._record: tuple[Any, ...] = ()
        self._changed = 0.0
        self._renewed: float | None = None
        self.is_current = False
        """Whether the known version is certainly the latest, so that it can be replaced without a read."""

    @property
    def exists(self) -> bool:
        """Whether the Lease exists."""
        return self._lease is not None

    @property
    def holder(self) -> str:
        """Identity of the holder as last observed; empty for none."""
        return str(self._spec().get("holderIdentity") or "")

    def _spec(self) -> dict[str, Any]:
        return self._lease.get("spec", {}) if self._lease else {}

    def observe(self, lease: Manifest | None, now: float) -> None:
        """Takes the Lease as read; its deletion counts as a change, since the holder may still be writing."""
        was_held = self._lease is not None
        self._lease = lease
        spec = self._spec()
        record = (self.holder, spec.get("renewTime"), spec.get("leaseTransitions"))
        if record != self._record and (lease is not None or was_held):
            self._record, self._changed = record, now
        if self.holder != self.identity and lease is not None:
            self._renewed = None

    def wait(self, now: float) -> float:
        """Seconds until this candidate may take the lease, provided that the holder does not renew it."""
        if self._lease is None:
            if not self._record or self.seconds_left(now) > 0:
                return 0.0
            # deleted by somebody, not released by its holder, who may still be writing
            return max(0.0, self._changed + self._settings.lease_seconds - now)
        if self.holder in ("", self.identity):
            return 0.0
        term = self._spec().get("leaseDurationSeconds") or self._settings.lease_seconds
        return max(0.0, self._changed + term - now)

    def claim(self, namespace: str, name: str, at: datetime) -> Manifest:
        """The Lease that this candidate writes to hold it, bound to the version last observed."""
        known, now = self._spec(), micro_time(at)
        is_mine = self.holder == self.identity
        new = {"name": name, "namespace": namespace, "labels": {MANAGED_BY_LABEL: MANAGER}}
        spec = {
            "holderIdentity": self.identity,
            "leaseDurationSeconds": self._settings.lease_seconds,
            "acquireTime": known.get("acquireTime", now) if is_mine else now,
            "renewTime": now,
            "leaseTransitions": known.get("leaseTransitions", 0) + (self.exists and not is_mine),
        }
        return _manifest(self._lease["metadata"] if self._lease else new, spec)

    def release(self, at: datetime) -> Manifest | None:
        """The Lease without a holder, free for other candidates; None when this candidate does not hold it."""
        self._renewed = None
        if self._lease is None or self.holder != self.identity:
            return None
        spec = {**self._spec(), "holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": micro_time(at)}
        return _manifest(self._lease["metadata"], spec)

    def won(self, lease: Manifest, sent: float) -> None:
        """Records an accepted claim; the term counts from when it was sent."""
        self.observe(lease, sent)
        self._renewed = sent

    def seconds_left(self, now: float) -> float:
        """Seconds for which this candidate may still start writes; 0 when it does not lead."""
        if self._renewed is None:
            return 0.0
        return max(0.0, self._renewed + self._settings.renew_deadline_seconds - now)

    def write_seconds(self, now: float) -> float:
        """Timeout for a write that starts now.

        Raises:
            NotLeaderError: this candidate does not certainly hold the lease.
        """
        if self._renewed is None or self.seconds_left(now) <= 0:
            raise NotLeaderError("this replica may have lost the lease: nothing written")
        return self._renewed + self._settings.lease_seconds - WRITE_MARGIN_SECONDS - now


def _manifest(metadata: Manifest, spec: dict[str, Any]) -> Manifest:
    kept = {key: value for key, value in metadata.items() if key != "managedFields"}
    return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": kept, "spec": spec}


class Elector:
    """Acquires the lease, runs a term while holding it, and acquires it again after losing it."""

    def __init__(
        self,
        cluster: Cluster,
        settings: LeaderElection,
        *,
        identity: str,
        namespace: str,
        name: str,
        clock: Callable[[], float],
        now: Callable[[], datetime],
    ) -> None:
        """Creates a candidate.

        Args:
            cluster: the API server.
            settings: lease duration and intervals.
            identity: unique per process, so that a restarted one is another candidate.
            namespace: namespace of the Lease.
            name: name of the Lease.
            clock: monotonic seconds that include the time the machine sleeps.
            now: wall-clock time written into the Lease, for people only.
        """
        self._cluster = cluster
        self._settings = settings
        self._namespace, self._name = namespace, name
        self._clock, self._now = clock, now
        self._election = Election(identity, settings)

    @property
    def identity(self) -> str:
        """Identity of this candidate."""
        return self._election.identity

    @property
    def is_leading(self) -> bool:
        """Whether this process may write."""
        return not self._settings.enabled or self._election.seconds_left(self._clock()) > 0

    def guard(self) -> float:
        """Timeout for a write of the leader; the fence in front of every one."""
        return self._election.write_seconds(self._clock()) if self._settings.enabled else REQUEST_SECONDS

    async def run(self, term: Term) -> None:
        """Runs terms until cancelled or until a term returns or raises."""
        if not self._settings.enabled:
            await term()
            return
        try:
            while True:
                await self._acquire()
                LOG.info("started leading", extra={"identity": self.identity})
                if await self._hold(asyncio.ensure_future(term())):
                    return
                LOG.warning("lost the lease", extra={"identity": self.identity})
        finally:
            await self._release()

    async def _acquire(self) -> None:
        while not await self._attempt(self._settings.renew_deadline_seconds):
            expiry = self._election.wait(self._clock())
            await asyncio.sleep(min(self._settings.retry_seconds, expiry) or self._settings.retry_seconds)

    async def _hold(self, term: asyncio.Future[None]) -> bool:
        """Renews the lease while the term runs; returns whether the term ended, rather than the lease."""
        attempted = self._clock()
        try:
            while (left := self._election.seconds_left(self._clock())) > 0:
                # a slow attempt is followed by the next one without a pause
                pause = max(0.0, attempted + self._settings.retry_seconds - self._clock())
                done, _ = await asyncio.wait([term], timeout=min(pause, left))
                if done:
                    term.result()
                    return True
                attempted = self._clock()
                await self._attempt(self._election.seconds_left(attempted))
            return False
        finally:
            term.cancel()
            with suppress(asyncio.CancelledError):
                await term

    async def _attempt(self, seconds: float) -> bool:
        """Tries once to acquire or renew the lease; returns whether this candidate holds it."""
        # two attempts fit between a pause and the deadline, so that a single lost answer costs no lease
        longest = (self._settings.renew_deadline_seconds - self._settings.retry_seconds) / 2
        try:
            async with asyncio.timeout(min(seconds, longest)):
                return await self._claim()
        except (ConflictError, AlreadyExistsError):
            return False
        except (ApiError, TimeoutError) as error:
            LOG.warning("cannot acquire or renew the lease: %s", error or "timed out")
            return False

    async def _claim(self) -> bool:
        election = self._election
        if election.seconds_left(self._clock()) <= 0 or not election.is_current:
            lease = await self._cluster.get("Lease", self._namespace, self._name)
            election.observe(lease, self._clock())
            if election.wait(self._clock()) > 0:
                return False
        sent, wanted = self._clock(), election.claim(self._namespace, self._name, self._now())
        election.is_current = False
        try:
            write = self._cluster.replace if election.exists else self._cluster.create
            election.won(await write(wanted, fenced=False), sent)
        except GoneError:
            election.observe(None, self._clock())
            return False
        election.is_current = True
        return True

    async def _release(self) -> None:
        election = self._election
        try:
            async with asyncio.timeout(RELEASE_SECONDS):
                if election.holder == self.identity and not election.is_current:
                    # a renewal was interrupted: it may have arrived
                    election.observe(await self._cluster.get("Lease", self._namespace, self._name), self._clock())
                if lease := election.release(self._now()):
                    await self._cluster.replace(lease, fenced=False)
        except (ApiError, TimeoutError) as error:
            LOG.warning("cannot release the lease: %s", error or "timed out")
