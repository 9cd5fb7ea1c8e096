"""Contestants that take turns in one process, a few steps each, so that other work on the machine meets all alike."""

import threading
import time
from collections.abc import Callable
from typing import Self


class Enough(BaseException):
    """Ends a contestant: no `except Exception` of a library may hold it up."""


class Contestant:
    """A training loop in a thread of its own, which runs only in its turns; a context manager that ends it."""

    def __init__(self, train: Callable[[Callable[[], None]], None]) -> None:
        """Runs `train` up to its first step; it must call the function it is given before every step."""
        self._go, self._done = threading.Semaphore(0), threading.Semaphore(0)
        self._left, self._is_enough = 0, False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(train,), daemon=True)
        self._thread.start()
        self._wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._is_enough = True
        self._go.release()
        self._thread.join()

    def play(self, steps: int) -> float:
        """CPU seconds of this process for so many steps.

        Raises:
            RuntimeError: the loop failed or ended.
        """
        self._left = steps
        began = time.process_time()
        self._go.release()
        self._wait()
        return time.process_time() - began

    def _wait(self) -> None:
        self._done.acquire()
        if self._error is not None:
            raise RuntimeError("a contestant ended before its time") from self._error

    def _run(self, train: Callable[[Callable[[], None]], None]) -> None:
        try:
            train(self._step)
            self._error = EOFError("no more steps")
        except Enough:
            pass
        except BaseException as error:  # noqa: BLE001 - told by the thread that measures
            self._error = error
        self._done.release()

    def _step(self) -> None:
        if self._left == 0:
            self._done.release()
            self._go.acquire()
        if self._is_enough:
            raise Enough
        self._left -= 1
