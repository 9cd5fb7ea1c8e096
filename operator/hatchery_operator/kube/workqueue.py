"""The work queue: every key at most once in it and at most once in work, with back-off, deadlines and fair order."""

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
"""Time from the end of one pass over a key to the next: what happens meanwhile is seen by one pass, however much it is,
so an object that changes all the time costs no more than five passes a second and the others wait for none of them."""

MOST_PASSED: Final = 4
"""Times as many deadlines as there are keys with one that are kept, before those that no longer count are dropped."""


class Schedule(Generic[KeyT]):
    """What is to be done when: plain data, told the time by its caller."""

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
        """When keys of the last passes may be worked on again, in this order."""

    def __len__(self) -> int:
        return len(self._ready) + len(self._again)

    @property
    def busy(self) -> int:
        """Keys in work."""
        return len(self._busy)

    def add(self, key: KeyT, now: float) -> None:
        """Wants a key worked on: at the end of the line, or again after the work on it that is under way.

        A key that has just failed keeps its back-off, or one that changes all the time would be tried without pause.
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
        """Wants a key worked on at a time; the earliest wish counts."""
        if key in self._ready or self._due.get(key, due + 1) <= due:
            return
        self._due[key] = due
        self._sequence += 1
        heapq.heappush(self._heap, (due, self._sequence, key))
        if len(self._heap) > MOST_PASSED * len(self._due) + MOST_PASSED:
            # a deadline of next week that every pass names anew would otherwise be kept each time until next week
            self._heap = [(due, number, key) for number, (key, due) in enumerate(self._due.items())]
            heapq.heapify(self._heap)

    def take(self, now: float) -> KeyT | None:
        """The next key to work on, if there is one; it is in work until `done` or `failed`."""
        self._promote(now)
        if not self._ready:
            return None
        key, _ = self._ready.popitem(last=False)
        self._due.pop(key, None)
        self._busy.add(key)
        return key

    def done(self, key: KeyT, now: float, requeue_after: float | None) -> None:
        """The work on a key went well; it is wanted again after some seconds, or only when something happens.

        After 0 seconds means at the end of the line, without a rest: it is the work itself that goes on.
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
        """The work on a key failed; returns the seconds until it is tried again, `at_least` so many."""
        count = self._failures[key] = self._failures.get(key, 0) + 1
        wait = max(backoff.RECONCILE.after_failures(count, self._jitter()), at_least or 0.0)
        self._again.pop(key, None)
        self._release(key)
        self.add_at(key, now + wait)
        return wait

    def next_due(self) -> float | None:
        """When the next deadline is."""
        while self._heap and self._due.get(self._heap[0][2]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def oldest(self) -> float | None:
        """Since when the key at the head of the line waits."""
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
    """Runs one function over keys, several at a time, never two of the same key."""

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
        self._agenda: Schedule[KeyT] = Schedule(jitter)
        self._wake = asyncio.Event()
        self._ended = clock()

    def add(self, key: KeyT) -> None:
        """Wants a key worked on soon."""
        self._agenda.add(key, self._clock())
        self._wake.set()

    @property
    def depth(self) -> int:
        """Keys that wait."""
        return len(self._agenda)

    @property
    def oldest_seconds(self) -> float:
        """How long the key at the head of the line has waited."""
        since = self._agenda.oldest()
        return 0.0 if since is None else max(0.0, self._clock() - since)

    @property
    def stuck_seconds(self) -> float:
        """How long keys have waited while no pass has ended; a long line that moves is not stuck."""
        return min(self.oldest_seconds, self._clock() - self._ended)

    async def run(self) -> None:
        """Works until cancelled; what is in work then is cancelled too, which every step of it survives."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                self._wake.clear()
                while self._agenda.busy < self._workers and (key := self._agenda.take(self._clock())) is not None:
                    tasks.create_task(self._process(key), name=f"reconcile {key}")
                await self._rest()

    async def _rest(self) -> None:
        due = self._agenda.next_due()
        # with every worker busy a passed deadline must wait for one of them, not spin
        timeout = None if due is None or self._agenda.busy >= self._workers else max(0.0, due - self._clock())
        try:
            async with asyncio.timeout(timeout):
                await self._wake.wait()
        except TimeoutError:
            return

    async def _process(self, key: KeyT) -> None:
        try:
            requeue_after = await self._work(key)
        except OperatorError as error:
            wait = self._agenda.failed(key, self._clock(), error.retry_after_seconds)
            LOG.warning("%s: %s; next try in %.1f s", key, error, wait)
        except Exception:
            wait = self._agenda.failed(key, self._clock())
            LOG.exception("work on %s failed, next try in %.1f s", key, wait)
        else:
            self._agenda.done(key, self._clock(), requeue_after)
        self._ended = self._clock()
        self._wake.set()
