"""Counts the documents after every step, and why the others were dropped."""

from collections import Counter
from dataclasses import dataclass, field

from hatchery_api.resources.corpus import FunnelStep


@dataclass
class Funnel:
    """Documents and bytes after each step, in the order of the steps."""

    steps: list[str]
    """Names of the steps after `read`; a later one of the same name gets a number."""
    rows: int = 0
    """Documents read."""
    text_bytes: int = 0
    """Their bytes."""
    quarantined: int = 0
    """Unreadable rows and files that were skipped."""
    dropped: Counter[int] = field(default_factory=Counter)
    """Documents dropped, by index of the step."""
    dropped_bytes: Counter[int] = field(default_factory=Counter)
    """Their bytes."""
    reasons: Counter[str] = field(default_factory=Counter)
    """Documents dropped, by reason."""

    def read(self, size: int) -> None:
        """Counts a document as read."""
        self.rows += 1
        self.text_bytes += size

    def drop(self, step: int, reason: str, rows: int, size: int) -> None:
        """Counts documents as dropped by a step."""
        self.dropped[step] += rows
        self.dropped_bytes[step] += size
        self.reasons[reason] += rows

    def then(self, step: str, reason: str = "", rows: int = 0, size: int = 0) -> None:
        """Appends a step over all documents, with what it dropped."""
        self.steps.append(step)
        self.drop(len(self.steps) - 1, reason, rows, size)

    def table(self) -> list[FunnelStep]:
        """Documents after each step."""
        rows, size = self.rows, self.text_bytes
        table = [FunnelStep(step="read", rows=rows, bytes=size, dropped=self.quarantined)]
        for number, name in enumerate(self.steps):
            rows -= self.dropped[number]
            size -= self.dropped_bytes[number]
            earlier = self.steps[:number].count(name)
            label = f"{name}{earlier + 1}" if earlier else name
            table.append(FunnelStep(step=label, rows=rows, bytes=size, dropped=self.dropped[number]))
        return table

    def sentence(self) -> str:
        """The funnel as a phrase, for messages."""
        drops = [f"{step.step} dropped {step.dropped}" for step in self.table()[1:] if step.dropped]
        skipped = f"{self.quarantined} unreadable skipped, " if self.quarantined else ""
        return f"{self.rows} read, {skipped}{', '.join(drops) or 'nothing dropped'}"
