"""What the API server refuses to create, until it takes it: kept in memory, since the next try says it again."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from hatchery_operator.domain import Diagnosis, Key, backoff


@dataclass(frozen=True)
class Refusal:
    """The refusal of a child."""

    since: datetime
    problem: Diagnosis
    count: int
    """Refusals so far."""
    wait_seconds: float
    until: datetime
    """Time before which the child is not tried again, whatever happens to its resource."""


@dataclass
class Refusals:
    """Refusals of children, by resource."""

    known: dict[Key, Refusal] = field(default_factory=dict)

    def of(self, key: Key) -> tuple[datetime | None, Diagnosis | None]:
        """Since when children of a resource are refused, and why."""
        refusal = self.known.get(key)
        return (refusal.since, refusal.problem) if refusal else (None, None)

    def wait_seconds(self, key: Key, now: datetime) -> float:
        """How long children of a resource are not to be tried again."""
        refusal = self.known.get(key)
        # never longer than meant, also when the clock was set back
        return max(0.0, min(refusal.wait_seconds, (refusal.until - now).total_seconds())) if refusal else 0.0

    def is_news(self, key: Key, problem: Diagnosis | None, now: datetime) -> bool:
        """Keeps a refusal for the next plan; news is only another reason, since messages may hold changing numbers."""
        before = self.known.pop(key, None)
        if problem is None:
            return False
        count = before.count + 1 if before else 1
        wait = backoff.REFUSED_CHILD.after_failures(count)
        since = before.since if before else now
        self.known[key] = Refusal(since, problem, count, wait, now + timedelta(seconds=wait))
        return before is None or before.problem.reason != problem.reason

    def forget(self, key: Key) -> None:
        """Forgets a resource that is gone."""
        self.known.pop(key, None)
