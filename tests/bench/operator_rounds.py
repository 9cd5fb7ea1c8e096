"""One operator measured at one number of objects: burst, settled state, restart, hot object, single object."""

import os
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.bench.operator_audit import Burst, Journal, Write, median_burst
from tests.bench.operator_contestants import Contestant
from tests.bench.operator_load import MERGE_PATCH, TURN, Load, Request, send, steady
from tests.cluster.console import say
from tests.cluster.control_plane import ControlPlane
from tests.cluster.errors import ClusterError

QUIET_SECONDS = 3.0
"""An operator is settled when for so long it writes nothing, leases apart, and hardly computes."""

QUIET_CORES = 0.1
"""What it may compute meanwhile."""

IDLE_SECONDS = 60.0
"""Window in which a settled operator is watched."""

RESTART_SECONDS = 17.0
"""Time after readiness in which a restarted operator's writes count at least: longer than taking over a lease."""

LONGEST_BURST_SECONDS = 240.0
"""The peer takes 100 s for 1,000 objects."""

HOT_UPDATES_PER_SECOND = 100.0
NEW_OBJECTS = 100
"""New objects beside a hot one."""

SINGLES = 5
"""Single objects, one after the other; their median counts."""

POLL_SECONDS = 0.2
"""Between two looks at the journal; times are taken from the journal itself."""

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_USER_TICKS, _SYSTEM_TICKS = 11, 12
"""Indices in /proc/PID/stat after the command's closing parenthesis."""

_KIB_PER_MIB = 1024


def cpu_seconds(pid: int) -> float:
    """Processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[_USER_TICKS]) + int(fields[_SYSTEM_TICKS])) / _TICKS_PER_SECOND


def memory_mib(pid: int, line: str) -> float:
    """Memory of a process: `VmRSS` now or `VmHWM` at its highest."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    return next(int(text.split()[1]) for text in lines if text.startswith(f"{line}:")) / _KIB_PER_MIB


@dataclass(frozen=True)
class Idle:
    """A settled operator over a window."""

    writes_per_minute: float
    leases_per_minute: float
    cores: float


@dataclass(frozen=True)
class Restart:
    """An operator ended and started again over settled objects."""

    ready_seconds: float
    writes: int
    """Without leases, and without those below."""
    certificate_writes: int
    """Of ConfigMaps, which hold no object's data: a new process publishes its new certificate, once a namespace."""


@dataclass(frozen=True)
class Hot:
    """99th percentile of the time to the first status, without and with a hot object, a value a round."""

    calm_seconds: Sequence[float]
    hot_seconds: Sequence[float]
    updates_per_second: float
    """Updates that the hot object got in fact."""

    @property
    def ratio(self) -> float:
        """How much the hot object slows the others down."""
        return statistics.median(self.hot_seconds) / statistics.median(self.calm_seconds)


@dataclass(frozen=True)
class Settled:
    """What is measured once the objects are there and run."""

    idle: Idle
    single_seconds: float


@dataclass(frozen=True)
class Disturbed:
    """What is measured of ours alone: the peer's answer would take a minute more and bound nothing."""

    restart: Restart
    hot: Hot


@dataclass(frozen=True)
class Measured:
    """All figures of one operator at one number of objects."""

    burst: Burst
    """The median one."""
    speeds: Sequence[float]
    """Objects a second of every burst of this size."""
    cpu_seconds: float
    """Processor time of a burst until the operator was quiet, median."""
    settled_mib: float
    peak_mib: float
    settled: Settled | None = None
    disturbed: Disturbed | None = None


class Bench:
    """An API server, its journal, and the operator on it that is measured."""

    def __init__(self, plane: ControlPlane, journal: Journal, operator: Contestant) -> None:
        self._plane, self._journal, self._operator = plane, journal, operator

    @contextmanager
    def running(self) -> Iterator[None]:
        """The operator runs, and all it has made is gone afterwards."""
        try:
            self._operator.start()
            self.wait_quiet()
            yield
        finally:
            self._operator.stop()
            self._clear()

    def _clear(self) -> None:
        paths = [self._operator.collection(), *self._operator.children.values()]
        query = "propagationPolicy=Background&gracePeriodSeconds=0"
        send(self._plane, [Request("DELETE", f"{path}?{query}") for path in paths])

    def own(self, start: int) -> list[Write]:
        """The operator's writes since a position."""
        return [write for write in self._journal.read(start) if write.user == self._operator.user]

    def burst(self, prefix: str, count: int, *, settles: bool = True) -> Burst:
        """Creates objects at once and waits until each has its children and its first status, and all is quiet."""
        start = self._journal.position()
        objects = [self._operator.manifest(f"{prefix}-{number:04d}") for number in range(count)]
        load = Load(self._plane, [Request("POST", self._operator.collection(), body) for body in objects])

        def seen() -> Burst:
            return Burst(self._journal.read(start), self._operator.user, self._operator.resource, prefix)

        def complete() -> bool:
            made = (burst := seen()).made()
            return len(burst.first_status_seconds) == count and all(
                made[resource] >= count for resource in self._operator.children
            )

        self._wait(f"the children of {count} objects", complete, LONGEST_BURST_SECONDS)
        load.end()
        if settles:
            self.wait_quiet()
        return seen()

    def report_running(self, *bursts: Burst) -> None:
        """Plays the kubelet and the Job controller: all that was made runs now."""
        children = [child for burst in bursts for child in burst.children]
        names = {
            resource: [child.name for child in children if child.resource == resource]
            for resource in self._operator.children
        }
        send(self._plane, self._operator.runs(names))
        self.wait_quiet()

    def idle(self) -> Idle:
        """Watches the settled operator."""
        start, before = self._journal.position(), cpu_seconds(self._operator.pid)
        began = time.monotonic()
        time.sleep(IDLE_SECONDS)
        minutes = (time.monotonic() - began) / 60
        used = cpu_seconds(self._operator.pid) - before
        own = self.own(start)
        leases = sum(write.resource == "leases" for write in own)
        return Idle((len(own) - leases) / minutes, leases / minutes, used / minutes / 60)

    def restart(self) -> Restart:
        """Ends the operator as the kubelet does and starts it again."""
        self._operator.stop()
        start, began = self._journal.position(), time.monotonic()
        self._operator.start()
        ready = time.monotonic() - began
        time.sleep(RESTART_SECONDS)
        self.wait_quiet()
        writes = Counter(write.resource for write in self.own(start) if write.resource != "leases")
        certificate_writes = writes.pop("configmaps", 0)
        return Restart(ready, writes.total(), certificate_writes)

    def hot(self, rounds: int) -> Hot:
        """New objects without and with a hot one beside them, in turn."""
        name = "hot-object"
        send(self._plane, [Request("POST", self._operator.collection(), self._operator.manifest(name))])
        self.wait_quiet()
        calm, hot, updates = [], [], []
        for number in range(rounds):
            calm.append(self.burst(f"calm-{number}", NEW_OBJECTS).p(99))
            with self._heated(name, updates):
                hot.append(self.burst(f"beside-{number}", NEW_OBJECTS, settles=False).p(99))
            self.wait_quiet()
        return Hot(calm, hot, statistics.mean(updates))

    @contextmanager
    def _heated(self, name: str, rates: list[float]) -> Iterator[None]:
        body = {"metadata": {"annotations": {"example.com/turn": TURN}}}
        request = Request("PATCH", f"{self._operator.collection()}/{name}", body, MERGE_PATCH)
        start = self._journal.position()
        with steady(self._plane, request, HOT_UPDATES_PER_SECOND):
            self._wait("the hot object", lambda: self._updates(start, name), LONGEST_BURST_SECONDS)
            yield
            seen = self._updates(start, name)
        rates.append((len(seen) - 1) / (seen[-1].done - seen[0].done))

    def _updates(self, start: int, name: str) -> list[Write]:
        resource = self._operator.resource
        return [w for w in self._journal.read(start) if (w.name, w.verb, w.resource) == (name, "patch", resource)]

    def single(self) -> float:
        """Median time from a single object's creation to its first status."""
        bursts = [self.burst(f"single-{number}", 1, settles=False) for number in range(SINGLES)]
        self.report_running(*bursts)
        return statistics.median(burst.p(100) for burst in bursts)

    def measure(self, count: int, *, bursts: int, settled: bool = False, hot_rounds: int = 0) -> Measured:
        """Everything at one number of objects; the settled and the disturbed operator where they are asked for."""
        seen, used = [], []
        for number in range(bursts):
            with self.running():
                before = cpu_seconds(self._operator.pid)
                seen.append(self.burst("run", count))
                used.append(cpu_seconds(self._operator.pid) - before)
                say(f"{self._operator.name}: {count} objects at {seen[-1].objects_per_second:.1f} a second")
                if number < bursts - 1:
                    continue
                if settled:
                    self.report_running(seen[-1])
                memory = [memory_mib(self._operator.pid, line) for line in ("VmRSS", "VmHWM")]
                calm = Settled(self.idle(), self.single()) if settled else None
                disturbed = Disturbed(self.restart(), self.hot(hot_rounds)) if hot_rounds else None
        speeds = [burst.objects_per_second for burst in seen]
        return Measured(median_burst(seen), speeds, statistics.median(used), *memory, calm, disturbed)

    def wait_quiet(self) -> None:
        """Waits until the operator is settled."""

        def is_quiet() -> bool:
            pid, start = self._operator.pid, self._journal.position()
            before = cpu_seconds(pid)
            time.sleep(QUIET_SECONDS)
            cores = (cpu_seconds(pid) - before) / QUIET_SECONDS
            return cores < QUIET_CORES and all(write.resource == "leases" for write in self.own(start))

        self._wait("a quiet operator", is_quiet, LONGEST_BURST_SECONDS)

    def _wait(self, what: str, probe: Callable[[], object], timeout_seconds: float) -> None:
        deadline = time.monotonic() + timeout_seconds
        while not probe():
            if time.monotonic() > deadline:
                raise ClusterError(f"{self._operator.name}: {what}: no success in {timeout_seconds:.0f} s")
            time.sleep(POLL_SECONDS)
