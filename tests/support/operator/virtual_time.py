"""An event loop whose clock advances only while it is idle, so that minutes cost milliseconds."""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any

STEP_SECONDS = 1e-6
"""Time that one turn of the loop takes."""


class _Selector(selectors.SelectSelector):
    """Waits by advancing the clock."""

    now = 0.0

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        # work takes time too: a deadline that rounding puts a breath ahead would otherwise never come
        self.now += STEP_SECONDS if ready or not timeout else timeout
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop that never really sleeps; only for code that waits for nothing outside it."""

    def __init__(self) -> None:
        self._virtual = _Selector()
        super().__init__(self._virtual)

    def time(self) -> float:
        return self._virtual.now


def run_virtually(scenario: Coroutine[Any, Any, Any]) -> Any:
    """`asyncio.run` in virtual time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(scenario)


async def pass_time(seconds: float) -> None:
    """Advances virtual time."""
    assert isinstance(asyncio.get_running_loop(), VirtualLoop)
    await asyncio.sleep(seconds)
