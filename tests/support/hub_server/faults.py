"""Failures on request: what a Hub does on a bad day, one rule for each, spent when it fired often enough."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .wire import Response


@dataclass
class Fault:
    """One failure. `route` is a regular expression searched in "METHOD /path" (the path percent-encoded)."""

    route: str
    times: int | None = 1
    """Requests it hits; null hits for ever."""
    status: int | None = None
    """Answered instead of the real answer, and the request has no effect."""
    message: str = "injected fault"
    code: str | None = None
    """`X-Error-Code` of that answer."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Added to that answer, for example Retry-After."""
    delay_seconds: float = 0
    """Waited before anything else happens."""
    truncate_bytes: int | None = None
    """The body ends here and Content-Length agrees: only a hash or a size can tell."""
    drop_after_bytes: int | None = None
    """The request takes effect, then the connection is lost after the head and this many bytes of body."""
    reset: bool = True
    """How a connection is lost: a TCP reset, or false for an early end, which clients take for something else."""
    corrupt: bool = False
    """The first byte of the body is changed."""

    def replaces(self) -> Response | None:
        """The answer given instead of the real one."""
        if self.status is None:
            return None
        headers = {"X-Error-Message": self.message, **self.headers}
        if self.code:
            headers["X-Error-Code"] = self.code
        return Response(self.status, f'{{"error": "{self.message}"}}'.encode(), headers=headers)


class FaultPlan:
    """The failures still to come, in order; the first that matches a request is used."""

    def __init__(self, sleep: Callable[[float], None]) -> None:
        self._faults: list[Fault] = []
        self._lock = threading.Lock()
        self._sleep = sleep

    def add(self, fault: Fault) -> None:
        """Plans one more failure."""
        re.compile(fault.route)
        with self._lock:
            self._faults.append(fault)

    def replace(self, faults: Iterable[Mapping[str, Any]]) -> None:
        """Plans exactly these, given as JSON objects."""
        planned = [Fault(**fault) for fault in faults]
        with self._lock:
            self._faults = planned

    def left(self) -> list[Fault]:
        """What has not fired (often enough) yet: a test ends with none."""
        with self._lock:
            return list(self._faults)

    def take(self, method: str, path: str) -> Fault | None:
        """The failure for this request, counted as used; waits when it says so."""
        line = f"{method} {path}"
        with self._lock:
            fault = next((fault for fault in self._faults if re.search(fault.route, line)), None)
            if fault is not None and fault.times is not None:
                fault.times -= 1
                if fault.times <= 0:
                    self._faults.remove(fault)
        if fault is not None and fault.delay_seconds:
            self._sleep(fault.delay_seconds)
        return fault
