"""The pods' log: one JSON object a line, which says whose it is, and never a secret.

A process of a gang also keeps a log of its own in a file, with more in it than all of them together should print.

Secrets come to a pod in its environment, by `secretKeyRef`. A server may echo a token in the text of an error, and that
text goes into logs, reports and statuses: so everything that leaves the pod as text passes `redact`.
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
"""Names of environment variables whose values are secrets."""

SHORTEST_SECRET: Final = 8
"""Characters; shorter values are words like `true`, and would redact half of every text."""

REDACTED: Final = "[redacted]"
"""Stands for a secret."""

FILE_BYTES: Final = 8 << 20
"""Length at which a log file becomes the previous one, which the one before it makes room for."""

_subject: dict[str, object] = {}


def bind(job: JobInput[Any]) -> None:
    """From here on every line says whose it is."""
    _subject.update(
        kind=job.kind, namespace=job.namespace, name=job.name, uid=job.uid, stage=job.stage, attempt=job.attempt
    )


class LogFile:
    """A file of lines that never holds more than twice `FILE_BYTES`; a full disk silences it and nothing else."""

    def __init__(self, path: Path) -> None:
        """Goes on where an earlier process of that name ended."""
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._stream = path.open("a")

    def write(self, line: str) -> None:
        """Adds a line."""
        try:
            if self._stream.tell() >= FILE_BYTES:
                self._stream.close()
                self.path.replace(self.path.with_suffix(f".previous{self.path.suffix}"))
                self._stream = self.path.open("a")
            self._stream.write(line)
            self._stream.flush()
        except OSError:
            self.close()
            _output.file = None

    def close(self) -> None:
        """Closes the file; what a full disk did not take is lost."""
        with suppress(OSError):
            self._stream.close()


class _Output:
    """Where lines go."""

    file: LogFile | None = None
    console: bool = True


_output = _Output()


def to_file(path: Path | None, *, console: bool = True) -> None:
    """From here on all lines go to a file too; without `console` only errors are printed. None: no file."""
    if _output.file is not None:
        _output.file.close()
    _output.file, _output.console = None, console
    try:
        _output.file = LogFile(path) if path else None
    except OSError as error:  # a log is no reason to stop a run
        log("no-log-file", path=str(path), error=str(error), level="error")


def log(event: str, *, level: Literal["info", "error"] = "info", **facts: object) -> None:
    """One line of JSON on standard output, and in the process's file if it has one."""
    _write(level, event, facts)
    if _output.console or level == "error":
        sys.stdout.write(redact(json.dumps({"event": event, **_subject, **facts}, default=str)) + "\n")
        sys.stdout.flush()


def debug(event: str, **facts: object) -> None:
    """One line of JSON in the process's file; nothing where there is none."""
    _write("debug", event, facts)


def _write(level: str, event: str, facts: Mapping[str, object]) -> None:
    if _output.file is not None:
        line = json.dumps({"time": round(time.time(), 3), "level": level, "event": event, **facts}, default=str)
        # numbers hold no secret, and looking for them takes longer than all else that is told of an update
        is_safe = all(isinstance(value, int | float | None) for value in facts.values())
        _output.file.write((line if is_safe else redact(line)) + "\n")


def redact(text: str, environment: Mapping[str, str] = os.environ) -> str:
    """The text without the secrets of the environment, plain or as in JSON."""
    for name, value in environment.items():
        secret = value.strip()
        # a path to a token is no secret, and people need it in messages
        if len(secret) >= SHORTEST_SECRET and not secret.startswith("/") and SECRET_NAMES.search(name):
            text = text.replace(secret, REDACTED).replace(json.dumps(secret)[1:-1], REDACTED)
    return text


class _Redacting:
    """A stream without secrets, for what libraries and the interpreter write."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Writes a text without secrets; the length is that of the text given, as callers expect."""
        self._stream.write(redact(text))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def guard_streams() -> None:
    """Takes the secrets out of whatever this process still writes."""
    sys.stdout, sys.stderr = (cast("TextIO", _Redacting(stream)) for stream in (sys.stdout, sys.stderr))
