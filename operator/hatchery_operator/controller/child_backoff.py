"""Backoff of children that the API server rejects; in memory only, since the next attempt yields the reason again."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from hatchery_operator.domain import backoff
from hatchery_operator.domain.objects import Diagnosis, Key


@dataclass(frozen=True)
class Rejection:
    """The rejection of a child."""

    since: datetime
    diagnosis: Diagnosis
    count: int
    """Consecutive rejections."""
    wait_seconds: float
    until: datetime
    """Time before which the child is not created again, whatever happens to its resource."""


@dataclass
class ChildBackoff:
    """Rejections of children, by resource."""

    known: dict[Key, Rejection] = field(default_factory=dict)

    def of(self, key: Key) -> tuple[datetime | None, Diagnosis | None]:
        """Since when children of a resource have been rejected, and why."""
        rejection = self.known.get(key)
        return (rejection.since, rejection.diagnosis) if rejection else (None, None)

    def wait_seconds(self, key: Key, now: datetime) -> float:
        """Seconds until the children of a resource may be created again."""
        rejection = self.known.get(key)
        # never longer than the full delay, even if the clock was set back
        return max(0.0, min(rejection.wait_seconds, (rejection.until - now).total_seconds())) if rejection else 0.0

    def record(self, key: Key, diagnosis: Diagnosis | None, now: datetime) -> bool:
        """Records an attempt's outcome; returns whether its reason is new. Messages may change: they hold numbers."""
        before = self.known.pop(key, None)
        if diagnosis is None:
            return False
        count = before.count + 1 if before else 1
        wait = backoff.REFUSED_CHILD.after_failures(count)
        since = before.since if before else now
        self.known[key] = Rejection(since, diagnosis, count, wait, now + timedelta(seconds=wait))
        return before is None or before.diagnosis.reason != diagnosis.reason

    def forget(self, key: Key) -> None:
        """Forgets a deleted resource."""
        self.known.pop(key, None)
