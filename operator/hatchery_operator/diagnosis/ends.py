"""How the containers of pods ended, and what that means in words; pure."""

import re
import signal
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from pydantic import ValidationError

from hatchery_api.conditions import Reason
from hatchery_api.contract import PERMANENT, Report
from hatchery_operator.domain.diagnosis import AttemptFailure
from hatchery_operator.domain.objects import Manifest
from hatchery_operator.domain.spec_paths import RESOURCES, SpecPaths, limit

LAST_LINES_CHARACTERS: Final = 1000
"""How much of a crash's last lines goes into a condition, below the line that names the error."""

_MEMORY_REQUEST: Final = f"`{RESOURCES}.requests.memory`"
_KILLED_FOR_MEMORY: Final = "OOMKilled"
_NOT_STARTED: Final = frozenset({"StartError", "ContainerCannotRun"})
_KILLED: Final = 128 + signal.SIGKILL
_SIGNALLED: Final = range(129, 128 + 65)
_TRACEBACK: Final = "Traceback (most recent call last)"
_ERROR_LINE: Final = re.compile(r"[\w.]*(?:Error|Exception|Exit)\b(?::.*)?")
_FATAL_LINE: Final = re.compile(r"(?:Fatal Python error|terminate called|fatal|panic|error)\b.*", re.IGNORECASE)
_DEVICE: Final = re.compile(r"(?:CUDA|HIP|XPU|MPS backend) out of memory|torch\.(?:cuda\.)?OutOfMemoryError")
_HOST: Final = re.compile(r"^MemoryError\b|Cannot allocate memory|DefaultCPUAllocator: (?:can't|not enough)")


@dataclass(frozen=True)
class End:
    """How a container ended."""

    pod: Manifest
    code: int
    reason: str
    message: str
    finished_at: str

    @property
    def name(self) -> str:
        """Name of the pod."""
        return str(self.pod["metadata"]["name"])

    @property
    def report(self) -> Report | None:
        """The report, when the pod left one."""
        try:
            return Report.model_validate_json(self.message)
        except ValidationError:
            return None


def ends(pods: Iterable[Manifest]) -> list[End]:
    """Ends of containers, the earliest first."""
    found = (_end(pod, container) for pod in pods for container in pod.get("status", {}).get("containerStatuses", []))
    return sorted((end for end in found if end), key=lambda end: end.finished_at)


def _end(pod: Manifest, container: Manifest) -> End | None:
    ended = container.get("state", {}).get("terminated")
    if not ended:
        return None
    return End(
        pod=pod,
        code=ended["exitCode"],
        reason=ended.get("reason", ""),
        message=ended.get("message", ""),
        finished_at=ended.get("finishedAt") or "",
    )


def failure_of(end: End, names: SpecPaths) -> AttemptFailure:
    """What a container's end means: what its node did, else the pod's own report, else the last lines of its log."""
    permanent = end.code in PERMANENT
    if end.pod.get("status", {}).get("reason") == "Evicted":
        # the report, if there is one, only says that the pod was asked to end
        return _evicted(end)
    if report := end.report:
        return _reported(end, report, permanent=permanent, names=names)
    if end.reason == _KILLED_FOR_MEMORY:
        return AttemptFailure(Reason.OUT_OF_MEMORY, _over_the_limit(end))
    if end.reason in _NOT_STARTED:
        return AttemptFailure(Reason.CONTAINER_CANNOT_START, f"pod {end.name} cannot start: {end.message}", permanent)
    return _crashed(end, f"pod {end.name} ended {_with_code(end)}", end.message, permanent=permanent, names=names)


def _reported(end: End, report: Report, *, permanent: bool, names: SpecPaths) -> AttemptFailure:
    """A report of a known reason is the jobs' own sentence; one of no known reason holds a traceback."""
    if (
        report.reason == Reason.OUT_OF_MEMORY
        and not _DEVICE.search(report.message)
        and (most := limit(end.pod, "memory"))
    ):
        return AttemptFailure(report.reason, f"{report.message} (`{RESOURCES}.limits.memory` is {most})", permanent)
    if report.reason != Reason.ATTEMPT_FAILED:
        return AttemptFailure(report.reason, report.message, permanent)
    return _crashed(end, f"pod {end.name} ended {_with_code(end)}", report.message, permanent=permanent, names=names)


def _crashed(end: End, how: str, text: str, *, permanent: bool, names: SpecPaths) -> AttemptFailure:
    error = error_line(text)
    if error and _DEVICE.search(error):
        return AttemptFailure(Reason.OUT_OF_MEMORY, f"{how}: {error}{_smaller_batch(names)}")
    if error and _HOST.search(error):
        return AttemptFailure(Reason.OUT_OF_MEMORY, f"{how}: {error}; {_raise_memory(end)}")
    lines = text.strip()
    if not lines:
        return AttemptFailure(Reason.ATTEMPT_FAILED, f"{how} and left no last lines", permanent)
    first = f"{how}: {error or lines.splitlines()[-1].strip()}"
    below = f"\n{lines[-LAST_LINES_CHARACTERS:]}" if "\n" in lines else ""
    return AttemptFailure(Reason.ATTEMPT_FAILED, first + below, permanent)


def error_line(text: str) -> str | None:
    """The line of a log's end that names the error: below a Python traceback's frames, not the noise that follows."""
    lines = [line for line in text.splitlines() if line.strip()]
    traced = [number for number, line in enumerate(lines) if line.startswith(_TRACEBACK)]
    if traced:
        below = (line for line in lines[traced[-1] + 1 :] if not line[0].isspace())
        if named := next(below, None):
            return named.strip()
    for pattern in (_ERROR_LINE, _FATAL_LINE):
        if named := next((line.strip() for line in reversed(lines) if pattern.fullmatch(line.strip())), None):
            return named
    return None


def _with_code(end: End) -> str:
    if end.code not in _SIGNALLED:
        return f"with exit code {end.code}"
    try:
        name = signal.Signals(end.code - 128).name
    except ValueError:
        return f"with exit code {end.code}"
    by = ", from outside or by a node that is short of memory" if end.code == _KILLED else ""
    return f"with exit code {end.code} ({name}{by})"


def _over_the_limit(end: End) -> str:
    if limit(end.pod, "memory"):
        return f"pod {end.name} was killed for memory; {_raise_memory(end)}"
    return (
        f"pod {end.name} was killed for memory, by its node, since it has no limit: say in {_MEMORY_REQUEST} what it "
        "needs, so that it gets a node with room"
    )


def _raise_memory(end: End) -> str:
    most = limit(end.pod, "memory")
    now = f" (now {most}; files in /dev/shm count)" if most else ""
    return f"raise `{RESOURCES}.limits.memory`{now} or do less at once"


def _smaller_batch(names: SpecPaths) -> str:
    batch = names.spec.get("batch")
    if isinstance(batch, dict) and "perDevice" in batch:
        return f"; lower `spec.batch.perDevice` (now {batch['perDevice']}), the global batch stays the same"
    return "; take smaller batches or a device with more memory"


def _evicted(end: End) -> AttemptFailure:
    said = str(end.pod["status"].get("message", "")).strip()
    text = f"pod {end.name} was evicted by its node: {said}"
    if "resource: memory" in said:
        return AttemptFailure(Reason.OUT_OF_MEMORY, f"{text} Ask in {_MEMORY_REQUEST} for what it needs")
    if "ephemeral" in said or "EmptyDir" in said:
        room = f"`{RESOURCES}.limits.ephemeral-storage`"
        return AttemptFailure(Reason.EVICTED, f"{text} Files outside of claims count; raise {room}")
    return AttemptFailure(Reason.EVICTED, text)
