"""Back-off: the arithmetic of every retry and polling interval.

All waits follow one policy: they grow by a factor from a first to a longest wait. `after_failures` serves callers that
count failures. `after_seconds` serves callers that only know the time since the first try, and yields the same series:
in a geometric series each wait is a constant share of the time elapsed.
"""

from dataclasses import dataclass
from typing import Final

SETTLE_SECONDS: Final = 5.0
"""Age of a Job below which the operator does not examine why its pods do not run."""

TERMINATION_POLL_SECONDS: Final = 10.0
"""Polling interval for pods that outlive their Job: no watch reports when they are gone."""

LONGEST_ATTEMPT_SECONDS: Final = 600.0
"""Longest wait between two attempts."""


@dataclass(frozen=True)
class Backoff:
    """Waits that grow by a factor."""

    first_seconds: float
    longest_seconds: float
    factor: float = 2.0
    jitter: float = 0.0
    """Share of a wait that is random, so that keys that failed together do not come back together."""

    def after_failures(self, count: int, random: float = 0.0) -> float:
        """Seconds to wait after a number of consecutive failures, from 1; `random` is from 0 to 1."""
        # the exponent is bounded: a key that fails for weeks must not overflow a float
        wait = min(self.longest_seconds, self.first_seconds * self.factor ** min(count - 1, 100))
        return wait * (1 - self.jitter * random)

    def after_seconds(self, elapsed: float) -> float:
        """Seconds to wait when so many have elapsed since the first try."""
        return min(self.longest_seconds, max(self.first_seconds, (self.factor - 1) * elapsed))


RECONCILE: Final = Backoff(1.0, 20.0, jitter=0.25)
"""After a failed reconcile; short, so that all keys recover soon after the API server does."""

REFUSED_CHILD: Final = Backoff(1.0, 10.0, factor=3.0)
"""After the API server has rejected a child. The first wait covers the remains of a deleted run of the same name; the
longest is short because no watch reports that a quota was raised."""

CREATE_CHILD: Final = Backoff(10.0, 300.0, factor=1.25)
"""Reconciles that create a child again, by the time since its first rejection."""

UNEXPLAINED_PODS: Final = Backoff(10.0, 30.0, factor=1.25)
"""Polling of pods that do not run for an unknown reason; such pods are few, since they have a node."""

EXPLAINED_PODS: Final = Backoff(20.0, 300.0, factor=1.25)
"""Polling of pods that do not run for a known reason: a thousand waiting Jobs must cost next to nothing."""


def between_attempts(first_seconds: float) -> Backoff:
    """The back-off of a spec's `retry.backoff`."""
    return Backoff(first_seconds, LONGEST_ATTEMPT_SECONDS)


def pod_poll_seconds(age: float, *, explained: bool) -> float:
    """Polling interval for pods that do not run; `age` is the time in seconds since they last changed."""
    if age < SETTLE_SECONDS:
        return SETTLE_SECONDS - max(0.0, age)
    return (EXPLAINED_PODS if explained else UNEXPLAINED_PODS).after_seconds(age)
