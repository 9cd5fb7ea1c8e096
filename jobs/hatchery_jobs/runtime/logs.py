"""Structured logs without secrets: one JSON object a line, with the run it belongs to.

Every process of a gang can also write a more detailed log to a file of its own.

Secrets reach a pod through its environment (`secretKeyRef`). A server may echo a token in an error message, which then
goes into logs, reports and statuses, so all text that leaves the pod passes `redact`.
"""

import json
import os
import re
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Literal, TextIO, cast

from hatchery_api.contract import JobInput

SECRET_NAMES: Final = re.compile(r"TOKEN|SECRET|PASSWORD|CREDENTIAL|_KEY", re.IGNORECASE)
"""Environment variables whose values are secrets."""

MIN_SECRET_CHARS: Final = 8
"""Shorter values are words like `true`, which are not secrets and would be redacted everywhere."""

REDACTED: Final = "[redacted]"
"""Replaces a secret."""

MAX_FILE_BYTES: Final = 8 << 20
"""Size at which a log file is rotated; one previous file is kept."""

_subject: dict[str, object] = {}


def bind(job: JobInput[Any]) -> None:
    """Adds the identity of the run to every line from now on."""
    _subject.update(
        kind=job.kind, namespace=job.namespace, name=job.name, uid=job.uid, stage=job.stage, attempt=job.attempt
    )


class LogFile:
    """A log file that takes at most twice `MAX_FILE_BYTES`; a full disk stops the log, not the process."""

    def __init__(self, path: Path) -> None:
        """Appends to the file of an earlier process."""
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._stream = path.open("a")

    def write(self, line: str) -> None:
        """Writes a line."""
        try:
            if self._stream.tell() >= MAX_FILE_BYTES:
                self._stream.close()
                self.path.replace(self.path.with_suffix(f".previous{self.path.suffix}"))
                self._stream = self.path.open("a")
            self._stream.write(line)
            self._stream.flush()
        except OSError:
            self.close()
            _output.file = None

    def close(self) -> None:
        """Closes the file; lines that a full disk rejects are lost."""
        with suppress(OSError):
            self._stream.close()


class _Output:
    """Destinations of the log."""

    file: LogFile | None = None
    console: bool = True


_output = _Output()


def to_file(path: Path | None, *, console: bool = True) -> None:
    """Also writes all lines to a file from now on, or to none; without `console` only errors are printed."""
    if _output.file is not None:
        _output.file.close()
    _output.file, _output.console = None, console
    try:
        _output.file = LogFile(path) if path else None
    except OSError as error:  # a missing log must not stop a run
        log("no-log-file", path=str(path), error=str(error), level="error")


def log(event: str, *, level: Literal["info", "error"] = "info", **facts: object) -> None:
    """Writes one JSON line to standard output and to the process's log file, if it has one."""
    _write(level, event, facts)
    if _output.console or level == "error":
        sys.stdout.write(redact(json.dumps({"event": event, **_subject, **facts}, default=str)) + "\n")
        sys.stdout.flush()


def debug(event: str, **facts: object) -> None:
    """Writes one JSON line to the process's log file, if it has one."""
    _write("debug", event, facts)


def _write(level: str, event: str, facts: Mapping[str, object]) -> None:
    if _output.file is not None:
        line = json.dumps({"time": round(time.time(), 3), "level": level, "event": event, **facts}, default=str)
        # numbers hold no secrets, and redaction would dominate the cost of logging an update
        is_safe = all(isinstance(value, int | float | None) for value in facts.values())
        _output.file.write((line if is_safe else redact(line)) + "\n")


def redact(text: str, environment: Mapping[str, str] = os.environ) -> str:
    """Replaces the secrets of the environment in a text, in plain and in JSON-escaped form."""
    for name, value in environment.items():
        secret = value.strip()
        # the path of a token file is not secret, and messages need it
        if len(secret) >= MIN_SECRET_CHARS and not secret.startswith("/") and SECRET_NAMES.search(name):
            text = text.replace(secret, REDACTED).replace(json.dumps(secret)[1:-1], REDACTED)
    return text


class _Redacting:
    """A stream that redacts what libraries and the interpreter write."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Writes the redacted text; returns the length of the original, as callers expect."""
        self._stream.write(redact(text))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def guard_streams() -> None:
    """Redacts everything that this process writes to standard output and standard error."""
    sys.stdout, sys.stderr = (cast("TextIO", _Redacting(stream)) for stream in (sys.stdout, sys.stderr))
