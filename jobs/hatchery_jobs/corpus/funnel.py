"""Counts what every step let through and why documents were dropped."""

from collections import Counter
from dataclasses import dataclass, field

from hatchery_api.resources.corpus import FunnelStep


@dataclass
class Funnel:
    """Documents and bytes on their way through the steps, in the order of the steps."""

    steps: list[str]
    """Names of the steps after `read`; a later one of the same name gets a number."""
    rows: int = 0
    """Documents read."""
    text_bytes: int = 0
    """Their bytes."""
    set_aside: int = 0
    """Rows and files that could not be read."""
    dropped: Counter[int] = field(default_factory=Counter)
    """Documents dropped, by number of the step."""
    dropped_bytes: Counter[int] = field(default_factory=Counter)
    """Their bytes."""
    reasons: Counter[str] = field(default_factory=Counter)
    """Documents dropped, by reason."""

    def read(self, size: int) -> None:
        """Counts a document that was read."""
        self.rows += 1
        self.text_bytes += size

    def drop(self, step: int, reason: str, rows: int, size: int) -> None:
        """Counts documents that a step drops."""
        self.dropped[step] += rows
        self.dropped_bytes[step] += size
        self.reasons[reason] += rows

    def then(self, step: str, reason: str = "", rows: int = 0, size: int = 0) -> None:
        """Adds a step that has looked at all documents, and what it dropped."""
        self.steps.append(step)
        self.drop(len(self.steps) - 1, reason, rows, size)

    def table(self) -> list[FunnelStep]:
        """The documents after each step."""
        rows, size = self.rows, self.text_bytes
        table = [FunnelStep(step="read", rows=rows, bytes=size, dropped=self.set_aside)]
        for number, name in enumerate(self.steps):
            rows -= self.dropped[number]
            size -= self.dropped_bytes[number]
            seen = self.steps[:number].count(name)
            label = f"{name}{seen + 1}" if seen else name
            table.append(FunnelStep(step=label, rows=rows, bytes=size, dropped=self.dropped[number]))
        return table

    def sentence(self) -> str:
        """The funnel in words, for messages."""
        drops = [f"{step.step} dropped {step.dropped}" for step in self.table()[1:] if step.dropped]
        aside = f"{self.set_aside} set aside as unreadable, " if self.set_aside else ""
        return f"{self.rows} read, {aside}{', '.join(drops) or 'nothing dropped'}"
