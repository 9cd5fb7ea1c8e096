"""Structured logs: one JSON object a line; every line of a reconcile carries its resource."""

import json
import logging
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Final

_STANDARD: Final = frozenset(vars(logging.LogRecord("", 0, "", 0, "", None, None))) | {"message", "asctime", "taskName"}
_CONTEXT: ContextVar[dict[str, str | int] | None] = ContextVar("log_context", default=None)


def set_log_context(**fields: str | int) -> None:
    """Replaces the fields that every further line of this task, and of the tasks it starts, carries."""
    _CONTEXT.set(fields)


def add_log_context(**fields: str | int) -> None:
    """Adds fields to those that every further line of this task carries."""
    _CONTEXT.set({**(_CONTEXT.get() or {}), **fields})


class JsonFormatter(logging.Formatter):
    """Formats a record as JSON, with its `extra` fields and the log context."""

    def format(self, record: logging.LogRecord) -> str:
        """Returns the line."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= _CONTEXT.get() or {}
        line |= {key: value for key, value in vars(record).items() if key not in _STANDARD and _is_plain(value)}
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def _is_plain(value: object) -> bool:
    """Whether a value belongs in a line; kopf attaches whole objects to its records."""
    return isinstance(value, str | int | float | bool)


def configure_logs(level: str) -> None:
    """Sends all logs to standard error as JSON lines."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
