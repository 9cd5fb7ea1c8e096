"""Leader election by a Lease: of all replicas one works, and another takes over soon after it has gone.

Nobody compares clocks of machines. A candidate waits until the holder's record has not changed for the holder's own
term by the candidate's clock; the holder stops writing when by its clock the last renewal is too long ago. The holder
counts from before it sent the renewal and candidates from after they saw it, so the two never overlap.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import datetime
from typing import Any, Final

from hatchery_operator.domain.objects import MANAGED_BY_LABEL, MANAGER, Manifest, micro_time
from hatchery_operator.errors import AlreadyExistsError, ApiError, ConflictError, GoneError, NotLeaderError
from hatchery_operator.kube.client import REQUEST_SECONDS, Cluster
from hatchery_operator.settings import LeaderElection

LOG: Final = logging.getLogger(__name__)

WRITE_MARGIN_SECONDS: Final = 1.0
"""A write is given up so long before another replica may lead, in case the API server is still busy with it."""

RELEASE_SECONDS: Final = 3.0
"""Longest time giving the lease back may take at the end; after that the others wait for its end instead."""

Term = Callable[[], Awaitable[None]]
"""What the leader does, until it is cancelled."""


class Election:
    """What one candidate knows of the lease: plain data, told the time by its caller."""

    def __init__(self, identity: str, settings: LeaderElection) -> None:
        self.identity = identity
        self._settings = settings
        self._lease: Manifest | None = None
        self._record: tuple[Any, ...] = ()
        self._changed = 0.0
        self._renewed: float | None = None
        self.is_current = False
        """Whether the version that is known is surely the newest, so that it may be replaced without reading it."""

    @property
    def exists(self) -> bool:
        """Whether there is a lease to replace."""
        return self._lease is not None

    @property
    def holder(self) -> str:
        """Who holds the lease, as far as it is known; empty for nobody."""
        return str(self._spec().get("holderIdentity") or "")

    def _spec(self) -> dict[str, Any]:
        return self._lease.get("spec", {}) if self._lease else {}

    def observe(self, lease: Manifest | None, now: float) -> None:
        """Takes what was read; a lease that was deleted is a change too, since its holder may still work."""
        was_held = self._lease is not None
        self._lease = lease
        spec = self._spec()
        record = (self.holder, spec.get("renewTime"), spec.get("leaseTransitions"))
        if record != self._record and (lease is not None or was_held):
            self._record, self._changed = record, now
        if self.holder != self.identity and lease is not None:
            self._renewed = None

    def wait(self, now: float) -> float:
        """Seconds until this candidate may take the lease, if the holder is silent from now on."""
        if self._lease is None:
            if not self._record or self.seconds_left(now) > 0:
                return 0.0
            # it was seen once and is gone: deleted by somebody, not released by its holder, who may still write
            return max(0.0, self._changed + self._settings.lease_seconds - now)
        if self.holder in ("", self.identity):
            return 0.0
        term = self._spec().get("leaseDurationSeconds") or self._settings.lease_seconds
        return max(0.0, self._changed + term - now)

    def claim(self, namespace: str, name: str, at: datetime) -> Manifest:
        """The lease as this candidate wants it, bound to the version it knows."""
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
        """The lease without a holder, for others to take at once; None when it is not this candidate's."""
        self._renewed = None
        if self._lease is None or self.holder != self.identity:
            return None
        spec = {**self._spec(), "holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": micro_time(at)}
        return _manifest(self._lease["metadata"], spec)

    def won(self, lease: Manifest, sent: float) -> None:
        """A claim was taken; it counts from when it was sent."""
        self.observe(lease, sent)
        self._renewed = sent

    def seconds_left(self, now: float) -> float:
        """Seconds until this candidate must not begin a write any more; 0 when it does not lead."""
        if self._renewed is None:
            return 0.0
        return max(0.0, self._renewed + self._settings.renew_deadline_seconds - now)

    def write_seconds(self, now: float) -> float:
        """Seconds a write that is begun now may take.

        Raises:
            NotLeaderError: none may be begun.
        """
        if self._renewed is None or self.seconds_left(now) <= 0:
            raise NotLeaderError("this replica does not surely hold the lease, so it writes nothing")
        return self._renewed + self._settings.lease_seconds - WRITE_MARGIN_SECONDS - now


def _manifest(metadata: Manifest, spec: dict[str, Any]) -> Manifest:
    kept = {key: value for key, value in metadata.items() if key != "managedFields"}
    return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": kept, "spec": spec}


class Elector:
    """Competes for the lease, lets a term run while it is held, and competes again."""

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
        """Takes its parts.

        Args:
            cluster: the API server.
            settings: how long a lease lasts.
            identity: unique for each process, so that a restarted one is another candidate.
            namespace: where the lease is.
            name: its name.
            clock: seconds that never go back and do not stop while the machine sleeps.
            now: the time written into the lease, for people only.
        """
        self._cluster = cluster
        self._settings = settings
        self._namespace, self._name = namespace, name
        self._clock, self._now = clock, now
        self._election = Election(identity, settings)

    @property
    def identity(self) -> str:
        """This candidate."""
        return self._election.identity

    @property
    def is_leading(self) -> bool:
        """Whether this process may write."""
        return not self._settings.enabled or self._election.seconds_left(self._clock()) > 0

    def guard(self) -> float:
        """Seconds a write may take; the fence around every write of the leader."""
        return self._election.write_seconds(self._clock()) if self._settings.enabled else REQUEST_SECONDS

    async def run(self, term: Term) -> None:
        """Runs terms until cancelled, or until a term ends by itself; then what it raised is raised."""
        if not self._settings.enabled:
            await term()
            return
        try:
            while True:
                await self._acquire()
                LOG.info("this replica leads", extra={"identity": self.identity})
                if await self._hold(asyncio.ensure_future(term())):
                    return
                LOG.warning("this replica leads no longer", extra={"identity": self.identity})
        finally:
            await self._release()

    async def _acquire(self) -> None:
        while not await self._attempt(self._settings.renew_deadline_seconds):
            expiry = self._election.wait(self._clock())
            await asyncio.sleep(min(self._settings.retry_seconds, expiry) or self._settings.retry_seconds)

    async def _hold(self, term: asyncio.Future[None]) -> bool:
        """Renews while the term runs; returns whether the term has ended by itself."""
        attempted = self._clock()
        try:
            while (left := self._election.seconds_left(self._clock())) > 0:
                # an attempt that has taken long is followed by the next one at once
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
        """Reads what is not known, and claims the lease if it may be had; returns whether it is held now."""
        # two attempts fit between a pause and the deadline, so that a single lost answer costs no lease
        longest = (self._settings.renew_deadline_seconds - self._settings.retry_seconds) / 2
        try:
            async with asyncio.timeout(min(seconds, longest)):
                return await self._claim()
        except (ConflictError, AlreadyExistsError):
            return False
        except (ApiError, TimeoutError) as error:
            LOG.warning("the lease cannot be read or written: %s", error or "no answer in time")
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
                    # a renewal was cut off: whether it arrived is not known
                    election.observe(await self._cluster.get("Lease", self._namespace, self._name), self._clock())
                if lease := election.release(self._now()):
                    await self._cluster.replace(lease, fenced=False)
        except (ApiError, TimeoutError) as error:
            LOG.warning("the lease was not given back: %s", error or "no answer in time")
