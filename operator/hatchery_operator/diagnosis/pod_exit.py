"""What ended pods report: why an attempt failed, which pods were lost, the report of the successful one."""

import re
import signal
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from pydantic import ValidationError

from hatchery_api.conditions import Reason
from hatchery_api.contract import PERMANENT, ExitCode, Report
from hatchery_operator.domain.labels import JOB_INDEX_LABEL
from hatchery_operator.domain.objects import AttemptFailure, Diagnosis, JobSummary, Manifest
from hatchery_operator.domain.spec_paths import RESOURCES, SpecPaths

LAST_LINES_CHARACTERS: Final = 1000
"""Characters of a crash's last log lines that a condition quotes, below the line that names the error."""

_MEMORY_REQUEST: Final = f"`{RESOURCES}.requests.memory`"
_MEMORY_LIMIT: Final = f"`{RESOURCES}.limits.memory`"
_OOM_KILLED: Final = "OOMKilled"
_NOT_STARTED: Final = frozenset({"StartError", "ContainerCannotRun"})
_KILLED: Final = 128 + signal.SIGKILL
_SIGNALLED: Final = range(129, 128 + 65)
_TRACEBACK: Final = "Traceback (most recent call last)"
_ERROR_LINE: Final = re.compile(r"[\w.]*(?:Error|Exception|Exit)\b(?::.*)?")
_FATAL_LINE: Final = re.compile(r"(?:Fatal Python error|terminate called|fatal|panic|error)\b.*", re.IGNORECASE)
_DEVICE_MEMORY: Final = re.compile(r"(?:CUDA|HIP|XPU|MPS backend) out of memory|torch\.(?:cuda\.)?OutOfMemoryError")
_HOST_MEMORY: Final = re.compile(r"^MemoryError\b|Cannot allocate memory|DefaultCPUAllocator: (?:can't|not enough)")


@dataclass(frozen=True)
class ContainerExit:
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


def success_report(pods: Sequence[Manifest]) -> Report | None:
    """The report of the pod that finished the work: the one with index 0."""
    for exited in _exits(pod for pod in pods if _index(pod) == 0):
        if exited.code == ExitCode.DONE and (report := exited.report) and report.artifact:
            return report
    return None


def why_failed(job: JobSummary, pods: Sequence[Manifest], paths: SpecPaths) -> AttemptFailure:
    """Why a Job failed: by its pods' reports, or by the Job's own condition when no pod is left."""
    if job.reason == "DeadlineExceeded":
        message = f"Job {job.name} exceeded activeDeadlineSeconds, which the operator never sets: {job.message}"
        return AttemptFailure(Reason.DEADLINE_EXCEEDED, message)
    message = f"Job {job.name} failed: {job.reason}: {job.message}; its pods are gone and left no report"
    gone = AttemptFailure(Reason.ATTEMPT_FAILED, message, job.reason == "PodFailurePolicy")
    return first_failure(pods, paths) or gone


def first_failure(pods: Sequence[Manifest], paths: SpecPaths) -> AttemptFailure | None:
    """Why an attempt failed: by the first container that ended on its own; those sent a signal ended after it."""
    own = [e for e in _exits(pods) if e.code not in (ExitCode.DONE, ExitCode.INTERRUPTED) or _is_evicted(e.pod)]
    # a pod that was preempted or drained is the cause only when there is no other
    candidates = [exited for exited in own if not _disruption(exited.pod)] or own
    if not candidates:
        return None
    first = min(candidates, key=lambda exited: (exited.code not in PERMANENT, exited.finished_at))
    return _why_exited(first, paths)


def why_replaced(pods: Sequence[Manifest], paths: SpecPaths) -> Diagnosis | None:
    """What happened to pods that the Job replaces within the same attempt."""
    failed = [pod for pod in pods if _phase(pod) == "Failed"]
    lost = [(pod, disruption) for pod in pods if (disruption := _disruption(pod))]
    if lost and all(_disruption(pod) for pod in failed):
        pod, disruption = lost[-1]
        cause = str(disruption.get("message", "")).strip() or disruption.get("reason", "")
        return Diagnosis(Reason.DISRUPTED, f"pod {pod['metadata']['name']} was lost and will be replaced: {cause}")
    if not any_pending(pods):
        return None
    if (failure := first_failure(failed, paths)) and failure.reason == Reason.ATTEMPT_FAILED:
        return Diagnosis(Reason.POD_FAILED, failure.message)
    return failure


def disrupted_pods(pods: Sequence[Manifest]) -> list[str]:
    """Names of pods that were evicted, preempted or drained, or that got SIGTERM before the work was done."""
    done = min((exited.finished_at for exited in _exits(pods) if exited.code == ExitCode.DONE), default="9999")
    return [pod["metadata"]["name"] for pod in pods if _is_disrupted(pod, done)]


def unfinished_pods(pods: Sequence[Manifest]) -> list[str]:
    """Names of the pods that have not ended, terminating ones included."""
    return sorted(pod["metadata"]["name"] for pod in pods if _phase(pod) not in ("Succeeded", "Failed"))


def any_pending(pods: Sequence[Manifest]) -> bool:
    """Whether a pod has not started."""
    return any(_phase(pod) == "Pending" for pod in pods)


def error_line(text: str) -> str | None:
    """The line of a log's end that names the error: below a Python traceback's frames, not the noise that follows."""
    lines = [line for line in text.splitlines() if line.strip()]
    tracebacks = [number for number, line in enumerate(lines) if line.startswith(_TRACEBACK)]
    if tracebacks:
        below = (line for line in lines[tracebacks[-1] + 1 :] if not line[0].isspace())
        if error := next(below, None):
            return error.strip()
    for pattern in (_ERROR_LINE, _FATAL_LINE):
        if error := next((line.strip() for line in reversed(lines) if pattern.fullmatch(line.strip())), None):
            return error
    return None


def _exits(pods: Iterable[Manifest]) -> list[ContainerExit]:
    """Exits of containers, the earliest first."""
    found = (_exit(pod, container) for pod in pods for container in pod.get("status", {}).get("containerStatuses", []))
    return sorted((exited for exited in found if exited), key=lambda exited: exited.finished_at)


def _exit(pod: Manifest, container: Manifest) -> ContainerExit | None:
    terminated = container.get("state", {}).get("terminated")
    if not terminated:
        return None
    return ContainerExit(
        pod=pod,
        code=terminated["exitCode"],
        reason=terminated.get("reason", ""),
        message=terminated.get("message", ""),
        finished_at=terminated.get("finishedAt") or "",
    )


def _why_exited(exited: ContainerExit, paths: SpecPaths) -> AttemptFailure:
    """Why a container ended: by its node's eviction, else its own report, else the last lines of its log."""
    permanent = exited.code in PERMANENT
    if _is_evicted(exited.pod):
        # the report, if there is one, only says that the pod got SIGTERM
        return _evicted(exited)
    if report := exited.report:
        return _reported(exited, report, permanent=permanent, paths=paths)
    if exited.reason == _OOM_KILLED:
        return AttemptFailure(Reason.OUT_OF_MEMORY, _oom_killed(exited))
    if exited.reason in _NOT_STARTED:
        message = f"pod {exited.name} cannot start: {exited.message}"
        return AttemptFailure(Reason.CONTAINER_CANNOT_START, message, permanent)
    return _crashed(exited, exited.message, permanent=permanent, paths=paths)


def _reported(exited: ContainerExit, report: Report, *, permanent: bool, paths: SpecPaths) -> AttemptFailure:
    """A report with a known reason is a sentence of the jobs; one without holds a traceback."""
    if report.reason == Reason.ATTEMPT_FAILED:
        return _crashed(exited, report.message, permanent=permanent, paths=paths)
    is_host_memory = report.reason == Reason.OUT_OF_MEMORY and not _DEVICE_MEMORY.search(report.message)
    if is_host_memory and (limit := _memory_limit(exited.pod)):
        return AttemptFailure(report.reason, f"{report.message} ({_MEMORY_LIMIT} is {limit})", permanent)
    return AttemptFailure(report.reason, report.message, permanent)


def _crashed(exited: ContainerExit, text: str, *, permanent: bool, paths: SpecPaths) -> AttemptFailure:
    how = f"pod {exited.name} failed {_with_code(exited)}"
    error = error_line(text)
    if error and _DEVICE_MEMORY.search(error):
        return AttemptFailure(Reason.OUT_OF_MEMORY, f"{how}: {error}{_smaller_batch(paths)}")
    if error and _HOST_MEMORY.search(error):
        return AttemptFailure(Reason.OUT_OF_MEMORY, f"{how}: {error}; {_raise_memory(exited)}")
    lines = text.strip()
    if not lines:
        return AttemptFailure(Reason.ATTEMPT_FAILED, f"{how} and logged nothing", permanent)
    first = f"{how}: {error or lines.splitlines()[-1].strip()}"
    below = f"\n{lines[-LAST_LINES_CHARACTERS:]}" if "\n" in lines else ""
    return AttemptFailure(Reason.ATTEMPT_FAILED, first + below, permanent)


def _with_code(exited: ContainerExit) -> str:
    if exited.code not in _SIGNALLED:
        return f"with exit code {exited.code}"
    try:
        name = signal.Signals(exited.code - 128).name
    except ValueError:
        return f"with exit code {exited.code}"
    sender = ", sent from outside the pod or by a node short of memory" if exited.code == _KILLED else ""
    return f"with exit code {exited.code} ({name}{sender})"


def _oom_killed(exited: ContainerExit) -> str:
    if _memory_limit(exited.pod):
        return f"pod {exited.name} was OOM-killed; {_raise_memory(exited)}"
    return (
        f"pod {exited.name} has no memory limit and was OOM-killed by its node: set {_MEMORY_REQUEST} to what it "
        "needs, so that the scheduler finds a node with room"
    )


def _raise_memory(exited: ContainerExit) -> str:
    limit = _memory_limit(exited.pod)
    now = f" (now {limit}; files in /dev/shm count)" if limit else ""
    return f"raise {_MEMORY_LIMIT}{now} or process less at a time"


def _smaller_batch(paths: SpecPaths) -> str:
    batch = paths.spec.get("batch")
    if isinstance(batch, dict) and "perDevice" in batch:
        return f"; lower `spec.batch.perDevice` (now {batch['perDevice']}), the global batch stays the same"
    return "; use smaller batches or a device with more memory"


def _evicted(exited: ContainerExit) -> AttemptFailure:
    cause = str(exited.pod["status"].get("message", "")).strip()
    message = f"pod {exited.name} was evicted by its node: {cause}"
    if "resource: memory" in cause:
        return AttemptFailure(Reason.OUT_OF_MEMORY, f"{message} Set {_MEMORY_REQUEST} to what it needs")
    if "ephemeral" in cause or "EmptyDir" in cause:
        room = f"`{RESOURCES}.limits.ephemeral-storage`"
        return AttemptFailure(Reason.EVICTED, f"{message} Files outside of claims count; raise {room}")
    return AttemptFailure(Reason.EVICTED, message)


def _memory_limit(pod: Manifest) -> str | None:
    """The memory limit of the pod's container."""
    containers = pod.get("spec", {}).get("containers", [])
    limits = containers[0].get("resources", {}).get("limits", {}) if containers else {}
    return str(limits["memory"]) if "memory" in limits else None


def _disruption(pod: Manifest) -> Manifest | None:
    """The condition by which Kubernetes marks a pod that it ended for reasons outside the pod."""
    conditions = pod.get("status", {}).get("conditions", [])
    return next((c for c in conditions if c["type"] == "DisruptionTarget" and c["status"] == "True"), None)


def _is_evicted(pod: Manifest) -> bool:
    return bool(pod.get("status", {}).get("reason") == "Evicted")


def _is_disrupted(pod: Manifest, done: str) -> bool:
    """Peers of a pod that has done the work get SIGTERM as well; that is not a disruption."""
    return _disruption(pod) is not None or any(
        exited.code == ExitCode.INTERRUPTED and exited.finished_at < done for exited in _exits([pod])
    )


def _phase(pod: Manifest) -> str:
    return str(pod.get("status", {}).get("phase", ""))


def _index(pod: Manifest) -> int:
    metadata = pod["metadata"]
    text = {**metadata.get("annotations", {}), **metadata.get("labels", {})}.get(JOB_INDEX_LABEL, "0")
    return int(text)
