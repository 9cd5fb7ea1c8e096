"""Detects a hung worker, dumps the stacks of its threads and exits; the launcher then restarts the workers.

Usually all workers hang at once, because each waits for the others in a collective. Every one dumps its stacks, and the
one that is not in a collective is the culprit.
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
"""Timeouts allowed before the first update: compiling and filling caches take time."""

USUAL_FACTOR: Final = 5.0
"""A step may take this many times the median step, however short the timeout is."""

MEDIAN_STEPS: Final = 32
"""Steps that the median covers."""

STDERR: Final = 2
"""File descriptor of stderr; `sys.stderr` may have been replaced."""

EXIT_CODE: Final = 70
"""Exit code of a hung worker: EX_SOFTWARE of sysexits.h."""


class Watchdog:
    """A thread that exits the process when `beat` is not called in time; a context manager."""

    def __init__(
        self, timeout_seconds: float, on_hang: Callable[[str], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Prepares the thread; it calls `on_hang` with a description before the process exits."""
        self._timeout = timeout_seconds
        self._on_hang = on_hang
        self._clock = clock
        self._last = clock()
        self._steps: deque[float] = deque(maxlen=MEDIAN_STEPS)
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
        """Reports progress; `phase` comes next, and `step` says that an update was completed."""
        now = self._clock()
        if step:
            self._steps.append(now - self._last)
        self._last, self._phase = now, phase

    @property
    def limit_seconds(self) -> float:
        """Seconds without a beat after which the worker counts as hung."""
        if not self._steps:
            return FIRST_FACTOR * self._timeout
        return max(self._timeout, USUAL_FACTOR * statistics.median(self._steps))

    def check(self) -> str | None:
        """Describes the hang, or None while beats come in time."""
        silence = self._clock() - self._last
        if silence <= self.limit_seconds:
            return None
        return f"no progress for {silence:.0f} s in phase {self._phase}; the limit is {self.limit_seconds:.0f} s"

    def _watch(self) -> None:
        while not self._done.wait(min(1.0, self._timeout / 4)):
            hang = self.check()
            if hang is not None:
                faulthandler.dump_traceback(STDERR, all_threads=True)
                self._on_hang(hang)
                os._exit(EXIT_CODE)
