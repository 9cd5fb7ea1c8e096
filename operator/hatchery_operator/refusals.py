"""What the API server refuses to create, until it takes it: kept in memory, since the next try says it again."""

from dataclasses import dataclass, field
from datetime import datetime

from hatchery_operator.objects import Key
from hatchery_operator.problem import Problem


@dataclass
class Refusals:
    """Refusals of children, by resource."""

    known: dict[Key, tuple[datetime, Problem]] = field(default_factory=dict)
    """Since when, and why."""

    def of(self, key: Key) -> tuple[datetime | None, Problem | None]:
        """Since when children of a resource are refused, and why."""
        return self.known.get(key, (None, None))

    def is_news(self, key: Key, problem: Problem | None, now: datetime) -> bool:
        """Keeps a refusal for the next plan; news is only another reason, since messages may hold changing numbers."""
        since, before = self.known.pop(key, (now, None))
        if problem is None:
            return False
        self.known[key] = (since, problem)
        return before is None or before.reason != problem.reason

    def forget(self, key: Key) -> None:
        """Forgets a resource that is gone."""
        self.known.pop(key, None)
