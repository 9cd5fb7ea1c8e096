"""Work queue: each key is queued and processed at most once at a time, with backoff, deadlines and fair order."""

import asyncio
import heapq
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from typing import Final, Generic, TypeVar

from hatchery_operator.domain import backoff
from hatchery_operator.errors import OperatorError

KeyT = TypeVar("KeyT", bound=Hashable)

LOG: Final = logging.getLogger(__name__)

SPACING_SECONDS: Final = 0.2
"""Minimum time between the end of a key's reconcile and its next one. All changes meanwhile share that reconcile, so an
object that changes constantly costs at most five a second and delays no other."""

MOST_STALE: Final = 4
"""Compact the heap once it exceeds this multiple of the live deadlines."""


class Schedule(Generic[KeyT]):
    """The queue's state as plain data; callers pass the time."""

    def __init__(self, jitter: Callable[[], float]) -> None:
        self._jitter = jitter
        self._ready: OrderedDict[KeyT, float] = OrderedDict()
        self._busy: set[KeyT] = set()
        self._again: dict[KeyT, float] = {}
        self._due: dict[KeyT, float] = {}
        self._heap: list[tuple[float, int, KeyT]] = []
        self._sequence = 0
        self._failures: dict[KeyT, int] = {}
        self._rested: OrderedDict[KeyT, float] = OrderedDict()
        """Recently processed keys, with the time from which each may be processed again, in that order."""

    def __len__(self) -> int:
        return len(self._ready) + len(self._again)

    @property
    def busy(self) -> int:
        """Number of keys being processed."""
        return len(self._busy)

    def add(self, key: KeyT, now: float) -> None:
        """Queues a key: at the tail, or again once its current processing ends.

        A key that has just failed keeps its backoff; otherwise an object that changes constantly would be retried
        without pause.
        """
        if key in self._failures and key in self._due:
            return
        if key in self._busy:
            self._again.setdefault(key, now)
        elif (rested := self._rested.get(key, now)) > now:
            self.add_at(key, rested)
        else:
            self._due.pop(key, None)
            self._ready.setdefault(key, now)

    def add_at(self, key: KeyT, due: float) -> None:
        """Queues a key for a time; the earliest of several deadlines counts."""
        if key in self._ready or self._due.get(key, due + 1) <= due:
            return
        self._due[key] = due
        self._sequence += 1
        heapq.heappush(self._heap, (due, self._sequence, key))
        if len(self._heap) > MOST_STALE * len(self._due) + MOST_STALE:
            # otherwise a deadline next week that every reconcile renews would be kept each time until next week
            self._heap = [(due, number, key) for number, (key, due) in enumerate(self._due.items())]
            heapq.heapify(self._heap)

    def take(self, now: float) -> KeyT | None:
        """Takes the next key, if there is one; it counts as busy until `done` or `failed`."""
        self._promote(now)
        if not self._ready:
            return None
        key, _ = self._ready.popitem(last=False)
        self._due.pop(key, None)
        self._busy.add(key)
        return key

    def done(self, key: KeyT, now: float, requeue_after: float | None) -> None:
        """Records that a key succeeded; it is queued again after some seconds, or only on a change.

        0 seconds puts it at the tail without spacing: the same work continues.
        """
        self._failures.pop(key, None)
        self._rest(key, now)
        self._release(key)
        if requeue_after == 0:
            self._due.pop(key, None)
            self._ready.setdefault(key, now)
        elif requeue_after is not None:
            self.add_at(key, now + requeue_after)

    def failed(self, key: KeyT, now: float, at_least: float | None = None) -> float:
        """Records that a key failed; returns the seconds until its retry, never less than `at_least`."""
        count = self._failures[key] = self._failures.get(key, 0) + 1
        wait = max(backoff.RECONCILE.after_failures(count, self._jitter()), at_least or 0.0)
        self._again.pop(key, None)
        self._release(key)
        self.add_at(key, now + wait)
        return wait

    def next_due(self) -> float | None:
        """Time of the next deadline."""
        while self._heap and self._due.get(self._heap[0][2]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def oldest(self) -> float | None:
        """Time since which the key at the head has waited."""
        return next(iter(self._ready.values()), None)

    def _promote(self, now: float) -> None:
        while (due := self.next_due()) is not None and due <= now:
            key = heapq.heappop(self._heap)[2]
            del self._due[key]
            self.add(key, due)

    def _rest(self, key: KeyT, now: float) -> None:
        while self._rested and next(iter(self._rested.values())) <= now:
            self._rested.popitem(last=False)
        self._rested[key] = now + SPACING_SECONDS
        self._rested.move_to_end(key)

    def _release(self, key: KeyT) -> None:
        self._busy.discard(key)
        if key in self._again:
            self.add(key, self._again.pop(key))


class WorkQueue(Generic[KeyT]):
    """Runs one function over keys, several concurrently, never two for the same key."""

    def __init__(
        self,
        work: Callable[[KeyT], Awaitable[float | None]],
        workers: int,
        clock: Callable[[], float],
        jitter: Callable[[], float],
    ) -> None:
        self._work = work
        self._workers = workers
        self._clock = clock
        self._schedule: Schedule[KeyT] = Schedule(jitter)
        self._wake = asyncio.Event()
        self._ended = clock()

    def add(self, key: KeyT) -> None:
        """Queues a key."""
        self._schedule.add(key, self._clock())
        self._wake.set()

    @property
    def depth(self) -> int:
        """Number of queued keys."""
        return len(self._schedule)

    @property
    def oldest_seconds(self) -> float:
        """How long the key at the head has waited."""
        since = self._schedule.oldest()
        return 0.0 if since is None else max(0.0, self._clock() - since)

    @property
    def stuck_seconds(self) -> float:
        """How long keys have waited while no call finished; a long queue that moves is not stuck."""
        return min(self.oldest_seconds, self._clock() - self._ended)

    async def run(self) -> None:
        """Processes keys until cancelled, which also cancels running calls; each must be safe to repeat."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                self._wake.clear()
                while self._schedule.busy < self._workers and (key := self._schedule.take(self._clock())) is not None:
                    tasks.create_task(self._process(key), name=f"reconcile {key}")
                await self._rest()

    async def _rest(self) -> None:
        due = self._schedule.next_due()
        # with every worker busy a past deadline must wait for one of them, not spin
        timeout = None if due is None or self._schedule.busy >= self._workers else max(0.0, due - self._clock())
        try:
            async with asyncio.timeout(timeout):
                await self._wake.wait()
        except TimeoutError:
            return

    async def _process(self, key: KeyT) -> None:
        try:
            requeue_after = await self._work(key)
        except OperatorError as error:
            wait = self._schedule.failed(key, self._clock(), error.retry_after_seconds)
            LOG.warning("%s: %s; retrying in %.1f s", key, error, wait)
        except Exception:
            wait = self._schedule.failed(key, self._clock())
            LOG.exception("%s: unexpected error; retrying in %.1f s", key, wait)
        else:
            self._schedule.done(key, self._clock(), requeue_after)
        self._ended = self._clock()
        self._wake.set()
