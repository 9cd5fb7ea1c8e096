"""Logs as one JSON object a line; each line of a pass says what the pass is about."""

import json
import logging
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Final

_STANDARD: Final = frozenset(vars(logging.LogRecord("", 0, "", 0, "", None, None))) | {"message", "asctime", "taskName"}


_SUBJECT: ContextVar[dict[str, str | int] | None] = ContextVar("subject", default=None)


def begin_subject(**facts: str | int) -> None:
    """From here on every line of this task, and of those it starts, carries these facts and no others."""
    _SUBJECT.set(facts)


def add_subject(**facts: str | int) -> None:
    """Every further line of this task carries these facts too."""
    _SUBJECT.set({**(_SUBJECT.get() or {}), **facts})


class JsonFormatter(logging.Formatter):
    """A record as JSON, with the fields given as `extra`."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= _SUBJECT.get() or {}
        line |= {key: value for key, value in vars(record).items() if key not in _STANDARD and _is_plain(value)}
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def _is_plain(value: object) -> bool:
    """Kopf hangs whole objects on its records."""
    return isinstance(value, str | int | float | bool)


def configure_logs(level: str) -> None:
    """Sends all logs to standard error as JSON."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
