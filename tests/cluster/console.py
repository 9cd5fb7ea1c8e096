"""Progress on standard error with elapsed seconds, and waits that say what they wait for and why.

Standard output is left to results (a path, JSON), so that `export KUBECONFIG=$(… kubeconfig)` works.
"""

import sys
import time
from collections.abc import Callable

from tests.cluster.errors import ClusterError

_STARTED = time.monotonic()

POLL_SECONDS = 0.1
"""Pause between two probes of a wait: short against the seconds that a component needs to start."""


def say(text: str) -> None:
    """Print one line of progress with the seconds since this process started."""
    print(f"[{time.monotonic() - _STARTED:6.1f} s] {text}", file=sys.stderr, flush=True)


def wait_for(
    what: str,
    probe: Callable[[], object],
    *,
    why: str,
    timeout_seconds: float,
    still_possible: Callable[[], str | None] = lambda: None,
) -> None:
    """Poll until `probe` is true; `still_possible` may return a reason to give up before the timeout."""
    started = time.monotonic()
    if probe():
        return
    say(f"waiting for {what}: {why}")
    while not probe():
        reason = still_possible()
        if reason is None and time.monotonic() - started > timeout_seconds:
            reason = f"no success in {timeout_seconds:.0f} s"
        if reason is not None:
            msg = f"{what}: {reason}"
            raise ClusterError(msg)
        time.sleep(POLL_SECONDS)
    say(f"  {what} after {time.monotonic() - started:.1f} s")
