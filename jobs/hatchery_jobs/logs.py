"""The pods' log: one JSON object a line, which says whose it is, and never a secret.

Secrets come to a pod in its environment, by `secretKeyRef`. A server may echo a token in the text of an error, and that
text goes into logs, reports and statuses: so everything that leaves the pod as text passes `redact`.
"""

import json
import os
import re
import sys
from collections.abc import Mapping
from typing import Any, Final, TextIO, cast

from hatchery_api.contract import JobInput

SECRET_NAMES: Final = re.compile(r"TOKEN|SECRET|PASSWORD|CREDENTIAL|_KEY", re.IGNORECASE)
"""Names of environment variables whose values are secrets."""

SHORTEST_SECRET: Final = 8
"""Characters; shorter values are words like `true`, and would redact half of every text."""

REDACTED: Final = "[redacted]"
"""Stands for a secret."""

_subject: dict[str, object] = {}


def bind(job: JobInput[Any]) -> None:
    """From here on every line says whose it is."""
    _subject.update(
        kind=job.kind, namespace=job.namespace, name=job.name, uid=job.uid, stage=job.stage, attempt=job.attempt
    )


def log(event: str, **facts: object) -> None:
    """One line of JSON on standard output."""
    sys.stdout.write(redact(json.dumps({"event": event, **_subject, **facts}, default=str)) + "\n")
    sys.stdout.flush()


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
