"""Notices a worker that hangs, says where, and ends it; the launcher starts the workers again.

A hang is mostly seen by all workers at once, since each waits for the others in a collective; every one of them leaves
the stacks of its threads, and the one that is not in a collective is the culprit.
"""

import faulthandler
import os
import statistics
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final, Self

FIRST_FACTOR: Final = 10.0
"""Patience before the first update, in timeouts: compiling and filling caches take their time."""

USUAL_FACTOR: Final = 5.0
"""A step may take this many times the median one, however short the timeout."""

REMEMBERED_STEPS: Final = 32
"""Steps the median is taken of."""

STDERR: Final = 2
"""Descriptor of the error output, whatever was put over it."""

EXIT_CODE: Final = 70
"""Exit code of a worker that was ended: an internal error, as in sysexits.h."""


class Watchdog:
    """A thread that ends the process when `beat` is not called for too long; a context manager."""

    def __init__(self, timeout_seconds: float, hung: Callable[[str], None], clock: Callable[[], float]) -> None:
        """Prepares it; `hung` is told what happened before the process ends."""
        self._timeout = timeout_seconds
        self._hung = hung
        self._clock = clock
        self._last = clock()
        self._steps: deque[float] = deque(maxlen=REMEMBERED_STEPS)
        self._phase = "start"
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self) -> Self:
        self._last = self._clock()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def beat(self, phase: str, *, step: bool = False) -> None:
        """Something was done; `phase` is what comes next, `step` says that an update was completed."""
        now = self._clock()
        if step:
            self._steps.append(now - self._last)
        self._last, self._phase = now, phase

    @property
    def patience_seconds(self) -> float:
        """Silence after which the worker counts as hung."""
        if not self._steps:
            return FIRST_FACTOR * self._timeout
        return max(self._timeout, USUAL_FACTOR * statistics.median(self._steps))

    def complaint(self) -> str | None:
        """What is wrong now, if anything is."""
        silence = self._clock() - self._last
        if silence <= self.patience_seconds:
            return None
        return f"nothing for {silence:.0f} s in phase {self._phase}; patience is {self.patience_seconds:.0f} s"

    def _watch(self) -> None:
        while not self._done.wait(min(1.0, self._timeout / 4)):
            said = self.complaint()
            if said is not None:
                faulthandler.dump_traceback(STDERR, all_threads=True)
                self._hung(said)
                os._exit(EXIT_CODE)


def started(timeout_seconds: float, hung: Callable[[str], None]) -> Watchdog:
    """A watchdog by the monotonic clock."""
    return Watchdog(timeout_seconds, hung, time.monotonic)
