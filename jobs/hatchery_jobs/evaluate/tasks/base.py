"""What a task gives back."""

import math
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Measure:
    """One number."""

    metric: str
    """Name."""
    value: float
    """Value; may be infinite."""
    n: int
    """What it is a mean over."""


@dataclass(frozen=True)
class Sample:
    """One continuation."""

    prompt_index: int
    """Place of the prompt, presets first."""
    completion_index: int
    """Place among the continuations of the prompt."""
    prompt: str
    """The prompt."""
    raw: str
    """The continuation as the model wrote it."""
    completion: str
    """The continuation after the cut."""
    tokens: int
    """Tokens the model wrote, the end token not counted."""
    stop_reason: str
    """`block`: cut before the next top-level block; `eos`: the model ended it; `length`: no room left."""


@dataclass(frozen=True)
class TaskResult:
    """All a task found out."""

    measures: list[Measure]
    """Its numbers, the most important first."""
    definition: dict[str, Any]
    """How they are defined, for the record."""
    samples: list[Sample] = field(default_factory=list)
    """Continuations."""


def number(value: float) -> float | str:
    """The value for JSON, which has no infinity."""
    return value if math.isfinite(value) else text(value)


def text(value: float) -> str:
    """The value as text that gives the same number back."""
    return repr(float(value))
