"""What happened when: one line of JSON per update and per event, across all restarts of a run.

Unlike the loss curve it is full of times, keeps what was done in vain, and is no part of the artifact's content.
"""

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from hatchery_jobs.pretrain.state import Times
from hatchery_jobs.runtime import log, redact

TIMELINE: Final = "timeline.jsonl"
"""Name of the file in the run's record."""

UPDATE, BEGAN, ENDED, CHECKPOINT, CHECKPOINT_FAILED, INTERVENED = (
    "update",
    "began",
    "ended",
    "checkpoint",
    "checkpointFailed",
    "intervened",
)
"""Events of a run."""

KILLED: Final = "killed"
"""Cause of a restart of which the workers could say nothing."""

Line = Mapping[str, Any]
"""`time` in seconds since 1970, `event`, `step`, and facts."""


class Timeline:
    """Appends to the timeline; a disk that fails silences it and nothing else. Threads may share it."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        """Opens the file, after what earlier workers left in it."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._clock, self._lock = clock, threading.Lock()
        self._stream = path.open("a")
        if self._stream.tell() > 0:
            self._stream.write("\n")  # ends the line that a killed process may not have

    def updated(self, step: int, tokens: int, times: Times) -> None:
        """One update is done."""
        self.add(UPDATE, step, tokens=tokens, **{name: round(value, 6) for name, value in asdict(times).items()})

    def add(self, event: str, step: int, **facts: object) -> None:
        """Appends one line."""
        line = json.dumps({"time": round(self._clock(), 3), "event": event, "step": step, **facts}, default=str)
        with self._lock:
            if self._stream.closed:
                return
            try:
                self._stream.write((line if event == UPDATE else redact(line)) + "\n")
                self._stream.flush()
            except OSError as error:
                log("timeline-not-written", error=str(error))
                self._close()

    def close(self) -> None:
        """Closes the file."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        with suppress(OSError):  # what a full disk did not take is lost
            self._stream.close()


def read_timeline(path: Path) -> list[Line]:
    """All whole lines; those that a killed process left torn are skipped."""
    if not path.exists():
        return []
    lines: list[Line] = []
    with path.open(errors="replace") as stream:
        for text in stream:
            try:
                line = json.loads(text)
            except ValueError:
                continue
            if isinstance(line, dict) and {"time", "event", "step"} <= line.keys():
                lines.append(line)
    return lines


def existed_seconds(lines: Iterable[Line]) -> float:
    """Time workers existed, of killed ones up to their last line."""
    total, began, last = 0.0, None, 0.0
    for line in lines:
        if line["event"] == BEGAN:
            total += last - began if began is not None else 0.0
            began = line["time"]
        last = line["time"]
    return total + (last - began if began is not None else 0.0)


def restarts(lines: Iterable[Line]) -> list[tuple[int, str]]:
    """For each time the workers began again: the step, and why those before them ended."""
    found: list[tuple[int, str]] = []
    cause: str | None = None
    for line in lines:
        if line["event"] == BEGAN:
            if cause is not None:
                found.append((line["step"], cause))
            cause = KILLED
        elif line["event"] == ENDED:
            cause = str(line["cause"])
    return found


def restarts_by_cause(lines: Iterable[Line]) -> dict[str, int]:
    """How often the workers began again for each cause."""
    return dict(Counter(cause for _, cause in restarts(lines)))
