"""The timeline: one line of JSON per update and per event, across all restarts of a run.

Unlike the loss curve it holds times and discarded updates, and is not part of the artifact's content.
"""

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from hatchery_jobs.pretrain.state import Times
from hatchery_jobs.runtime import log, redact

TIMELINE: Final = "timeline.jsonl"
"""Name of the file in the run's record."""


class Event(StrEnum):
    """Events of a run, as the file names them."""

    UPDATE = "update"
    BEGAN = "began"
    """The workers started."""
    ENDED = "ended"
    """The workers exited; `cause` says why."""
    CHECKPOINT = "checkpoint"
    CHECKPOINT_FAILED = "checkpointFailed"
    INTERVENED = "intervened"
    """The guard skipped a batch or rolled back."""


KILLED: Final = "killed"
"""Cause of a restart for which there is no ENDED event."""

EventLine = Mapping[str, Any]
"""`time` in seconds since 1970, `event`, `step`, and further fields by event."""


class Timeline:
    """Appends to the timeline from any thread; after an I/O error it stops writing, and training continues."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        """Opens the file for appending."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._clock, self._lock = clock, threading.Lock()
        self._stream = path.open("a")
        if self._stream.tell() > 0:
            self._stream.write("\n")  # terminates the line that a killed process left torn

    def updated(self, step: int, tokens: int, times: Times) -> None:
        """Appends an update."""
        self.add(Event.UPDATE, step, tokens=tokens, **{name: round(value, 6) for name, value in asdict(times).items()})

    def add(self, event: Event, step: int, **facts: object) -> None:
        """Appends an event."""
        line = json.dumps({"time": round(self._clock(), 3), "event": event, "step": step, **facts}, default=str)
        with self._lock:
            if self._stream.closed:
                return
            try:
                self._stream.write((line if event == Event.UPDATE else redact(line)) + "\n")
                self._stream.flush()
            except OSError as error:
                log("timeline-not-written", error=str(error))
                self._close()

    def close(self) -> None:
        """Closes the file."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        with suppress(OSError):  # on a full disk the buffered lines are lost
            self._stream.close()


def read_timeline(path: Path) -> list[EventLine]:
    """All complete lines; torn ones are skipped."""
    if not path.exists():
        return []
    lines: list[EventLine] = []
    with path.open(errors="replace") as stream:
        for text in stream:
            try:
                line = json.loads(text)
            except ValueError:
                continue
            if isinstance(line, dict) and {"time", "event", "step"} <= line.keys():
                lines.append(line)
    return lines


def worker_seconds(lines: Iterable[EventLine]) -> float:
    """Total lifetime of the workers; of killed ones up to their last line."""
    total, began, last = 0.0, None, 0.0
    for line in lines:
        if line["event"] == Event.BEGAN:
            total += last - began if began is not None else 0.0
            began = line["time"]
        last = line["time"]
    return total + (last - began if began is not None else 0.0)


def restarts(lines: Iterable[EventLine]) -> list[tuple[int, str]]:
    """Step and cause of each restart of the workers."""
    found: list[tuple[int, str]] = []
    cause: str | None = None
    for line in lines:
        if line["event"] == Event.BEGAN:
            if cause is not None:
                found.append((line["step"], cause))
            cause = KILLED
        elif line["event"] == Event.ENDED:
            cause = str(line["cause"])
    return found


def restarts_by_cause(lines: Iterable[EventLine]) -> dict[str, int]:
    """Number of restarts by cause."""
    return dict(Counter(cause for _, cause in restarts(lines)))
