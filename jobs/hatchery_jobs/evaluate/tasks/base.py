"""What a task is given and what it returns."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from hatchery_jobs.evaluate.model import LoadedModel
from hatchery_jobs.readers import CorpusSplit


@dataclass(frozen=True)
class TaskContext:
    """What a task works with."""

    field: str
    """Path of the task's settings in the spec, for messages."""
    loaded: LoadedModel
    """Model and tokenizer."""
    open_corpus: Callable[[str], CorpusSplit]
    """Opens a split of the corpus that the task names in `corpusRef`."""
    progress: Callable[[int, int, str], None]
    """Called with done, total and unit after each batch; raises Interrupted on SIGTERM."""


@dataclass(frozen=True)
class Measure:
    """One number."""

    metric: str
    """Name."""
    value: float
    """Value; may be infinite."""
    n: int
    """Count the value is a mean over."""


@dataclass(frozen=True)
class Completion:
    """One continuation of a prompt."""

    prompt_index: int
    """Index of the prompt; those of the preset come first."""
    completion_index: int
    """Index among the continuations of the prompt."""
    prompt: str
    """The prompt."""
    raw: str
    """The continuation as generated."""
    completion: str
    """The continuation after the cut."""
    tokens: int
    """Generated tokens, without the end token."""
    stop_reason: str
    """`block`: cut before the next top-level block; `eos`: end token; `length`: `maxLength` reached."""


@dataclass(frozen=True)
class TaskResult:
    """Everything a task measured."""

    measures: list[Measure]
    """Its numbers, the most important first."""
    definition: dict[str, Any]
    """How they are defined, for results.json and the card."""
    samples: list[Completion] = field(default_factory=list)
    """Continuations."""


def number(value: float) -> float | str:
    """The value for JSON, which has no infinity."""
    return value if math.isfinite(value) else text(value)


def text(value: float) -> str:
    """The value as text that parses to the same float."""
    return repr(float(value))
