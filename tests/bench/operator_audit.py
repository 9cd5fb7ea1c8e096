"""What an operator writes, from the API server's audit log.

The log is one clock for creations, children and statuses of both operators, tells writers apart by their account, and costs
no watcher beside the operators that share the machine's cores.
"""

import json
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path

import yaml
from tests.bench.operator_budget import percentile
from tests.cluster.control_plane import ADMIN, ControlPlane

POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [{"level": "None", "verbs": ["get", "list", "watch"]}, {"level": "Metadata"}],
}
"""Writes only, without their bodies."""

CREATED = 201
"""Status code of a write that made an object, be it a create or an apply."""

NOT_CHILDREN = ("events", "leases")
"""Objects that an operator makes and that are no object's children."""


class AuditedPlane(ControlPlane):
    """An API server that keeps an audit log of all writes."""

    @property
    def audit_log(self) -> Path:
        """One event a line."""
        return self.state / "audit.log"

    def apiserver_arguments(self) -> list[str]:
        """The usual ones and the log."""
        policy = self.state / "audit-policy.yaml"
        policy.write_text(yaml.safe_dump(POLICY), encoding="utf-8")
        return [*super().apiserver_arguments(), f"--audit-policy-file={policy}", f"--audit-log-path={self.audit_log}"]


@dataclass(frozen=True, slots=True)
class Write:
    """One answered write."""

    user: str
    verb: str
    resource: str
    """Plural, with its subresource: `jobs/status`."""
    name: str
    code: int
    received: float
    """When the API server got the request, seconds of the Unix clock."""
    done: float
    """When it had answered."""

    @property
    def good(self) -> bool:
        """Whether the API server did it."""
        return 200 <= self.code < 300


def parse_write(line: str) -> Write:
    """A line of the log."""
    event = json.loads(line)
    target = event.get("objectRef", {})
    resource = "/".join(filter(None, (target.get("resource", ""), target.get("subresource"))))
    received, done = (
        datetime.fromisoformat(event[f"{stage}Timestamp"]).timestamp() for stage in ("requestReceived", "stage")
    )
    code = event.get("responseStatus", {}).get("code", 0)
    return Write(event["user"]["username"], event["verb"], resource, target.get("name", ""), code, received, done)


class Journal:
    """The log while it grows."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._writes: list[Write] = []

    def read(self, start: int = 0) -> list[Write]:
        """All writes from a position on, up to now."""
        with self._path.open("rb") as file:
            file.seek(self._offset)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        self._offset += len(whole)
        self._writes += [parse_write(line) for line in whole.decode().splitlines()]
        return self._writes[start:]

    def position(self) -> int:
        """Where the next write will be."""
        self.read()
        return len(self._writes)


@dataclass(frozen=True)
class Burst:
    """Objects created at once, and what their operator wrote for them."""

    writes: Sequence[Write]
    """Everything from the first creation on, until the operator was quiet."""
    operator: str
    """The operator's account."""
    resource: str
    """Plural of the objects."""
    prefix: str = ""
    """How the names of the objects begin."""

    @cached_property
    def applied(self) -> dict[str, Write]:
        """Creations of the objects by name."""
        return {
            write.name: write
            for write in self.writes
            if write.user == ADMIN.common_name and write.resource == self.resource and write.code == CREATED
            and write.name.startswith(self.prefix)
        }  # fmt: skip

    @cached_property
    def own(self) -> list[Write]:
        """The operator's writes without leases."""
        return [write for write in self.writes if write.user == self.operator and write.resource != "leases"]

    @cached_property
    def children(self) -> list[Write]:
        """Creations of what the objects own; such names begin with their owner's."""
        made = (write for write in self.own if write.code == CREATED and write.resource not in NOT_CHILDREN)
        return [write for write in made if write.name.startswith(self.prefix)]

    @cached_property
    def first_status_seconds(self) -> dict[str, float]:
        """Time from an object's creation to its first status, by name."""
        waits: dict[str, float] = {}
        for write in self.own:
            if write.resource == f"{self.resource}/status" and write.good and write.name in self.applied:
                waits.setdefault(write.name, write.done - self.applied[write.name].received)
        return waits

    @property
    def seconds(self) -> float:
        """Time from the first creation until every child existed."""
        return max(write.done for write in self.children) - self._began

    @property
    def objects_per_second(self) -> float:
        """Objects in that time."""
        return len(self.applied) / self.seconds

    @property
    def applied_per_second(self) -> float:
        """How fast the objects came."""
        return len(self.applied) / (max(write.done for write in self.applied.values()) - self._began)

    @property
    def _began(self) -> float:
        return min(write.received for write in self.applied.values())

    def per_object(self, writes: Iterable[Write]) -> float:
        """A number of writes, shared out."""
        return len(list(writes)) / len(self.applied)

    def p(self, percent: float) -> float:
        """A percentile of the time to the first status."""
        return percentile(self.first_status_seconds.values(), percent)

    def made(self) -> Counter[str]:
        """How many children of each resource exist."""
        return Counter(write.resource for write in self.children)


def median_burst(bursts: Sequence[Burst]) -> Burst:
    """The burst of median speed."""
    middle = statistics.median_low(burst.seconds for burst in bursts)
    return next(burst for burst in bursts if burst.seconds == middle)
