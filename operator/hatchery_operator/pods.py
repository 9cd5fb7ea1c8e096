"""What the pods of one Job say: their reports, why they failed, why they do not start; pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from pydantic import ValidationError

from hatchery_api.conditions import Reason
from hatchery_api.contract import PERMANENT, ExitCode, Report
from hatchery_operator.objects import Manifest

INDEX_LABEL: Final = "batch.kubernetes.io/job-completion-index"
"""Label and annotation of the pods of an Indexed Job."""

LAST_LINES_CHARACTERS: Final = 1000
"""How much of a crash's last lines goes into a condition."""

_KILLED_FOR_MEMORY: Final = "OOMKilled"
_IMAGE: Final = frozenset(
    {
        "ErrImagePull",
        "ImagePullBackOff",
        "InvalidImageName",
        "ErrImageNeverPull",
        "ImageInspectError",
        "RegistryUnavailable",
    }
)
_CONFIGURATION: Final = frozenset({"CreateContainerConfigError", "CreateContainerError"})


@dataclass(frozen=True)
class Problem:
    """Something that is wrong, in the words of a condition."""

    reason: Reason
    message: str


@dataclass(frozen=True)
class Failure(Problem):
    """Why an attempt failed."""

    permanent: bool = False
    """Whether no further attempt can help."""


@dataclass(frozen=True)
class _End:
    """How a container ended."""

    pod: str
    code: int
    reason: str
    message: str
    finished_at: str

    @property
    def report(self) -> Report | None:
        """The report, when the pod left one."""
        try:
            return Report.model_validate_json(self.message)
        except ValidationError:
            return None


def success_report(pods: Sequence[Manifest]) -> Report | None:
    """The report of the pod that finished the work, which is the one with index 0."""
    for end in _ends(pod for pod in pods if _index(pod) == 0):
        if end.code == ExitCode.DONE and (report := end.report) and report.artifact:
            return report
    return None


def failure(pods: Sequence[Manifest]) -> Failure | None:
    """Why the attempt failed: the first container that ended by itself; those that were told to end came after."""
    ends = [end for end in _ends(pods) if end.code not in (ExitCode.DONE, ExitCode.INTERRUPTED)]
    if not ends:
        return None
    first = min(ends, key=lambda end: (end.code not in PERMANENT, end.finished_at))
    permanent = first.code in PERMANENT
    if report := first.report:
        return Failure(report.reason, report.message, permanent)
    if first.reason == _KILLED_FOR_MEMORY:
        return Failure(
            Reason.OUT_OF_MEMORY,
            f"pod {first.pod} was killed for memory: raise spec.placement.resources or lower the batch",
        )
    last_lines = first.message.strip()[-LAST_LINES_CHARACTERS:] or "it left no last lines"
    return Failure(Reason.ATTEMPT_FAILED, f"pod {first.pod} ended with exit code {first.code}: {last_lines}", permanent)


def disrupted(pods: Sequence[Manifest]) -> int:
    """Pods that were evicted, preempted or drained, or that were asked to end before the work was done."""
    done = min((end.finished_at for end in _ends(pods) if end.code == ExitCode.DONE), default="9999")
    return sum(_is_disrupted(pod, done) for pod in pods)


def blocked(pods: Sequence[Manifest]) -> Problem | None:
    """Why pods do not start, as far as pods know."""
    for pod in pods:
        if _is_pending(pod) and (problem := _pending(pod)):
            return problem
    killed = [end for end in _ends(pods) if end.reason == _KILLED_FOR_MEMORY]
    if killed:
        return Problem(
            Reason.OUT_OF_MEMORY,
            f"pod {killed[-1].pod} was killed for memory: raise spec.placement.resources or lower the batch",
        )
    return None


def any_pending(pods: Sequence[Manifest]) -> bool:
    """Whether a pod has not started."""
    return any(_is_pending(pod) for pod in pods)


def _is_pending(pod: Manifest) -> bool:
    return bool(pod.get("status", {}).get("phase") == "Pending")


def refused(events: Sequence[Manifest]) -> Problem | None:
    """Why the Job has no pods, from the events of the Job."""
    messages = [event.get("message", "") for event in sorted(events, key=_seen)]
    if not messages:
        return None
    return Problem(Reason.POD_REFUSED, f"the API server refuses the pods: {messages[-1]}")


def _seen(event: Manifest) -> str:
    return str(event.get("lastTimestamp") or event.get("eventTime") or event.get("firstTimestamp") or "")


def _pending(pod: Manifest) -> Problem | None:
    name, status = pod["metadata"]["name"], pod["status"]
    for container in status.get("containerStatuses", []):
        waiting = container.get("state", {}).get("waiting", {})
        if waiting.get("reason") in _IMAGE:
            text = f"pod {name} cannot pull {container.get('image', 'its image')}: {waiting.get('message', '')}"
            return Problem(Reason.IMAGE_PULL_ERROR, text)
        if waiting.get("reason") in _CONFIGURATION:
            return Problem(Reason.MISSING_REFERENCE, f"pod {name} cannot start: {waiting.get('message', '')}")
    for condition in status.get("conditions", []):
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return _unscheduled(name, condition.get("message", ""))
    return None


def _unscheduled(name: str, message: str) -> Problem:
    if "persistentvolumeclaim" in message and "not found" in message:
        return Problem(Reason.MISSING_REFERENCE, f"pod {name} waits: {message}; create the claim")
    return Problem(Reason.UNSCHEDULABLE, f"pod {name} fits on no node: {message}")


def _is_disrupted(pod: Manifest, done: str) -> bool:
    """Peers of a pod that has done the work are asked to end as well; that is no disruption."""
    conditions = pod.get("status", {}).get("conditions", [])
    targeted = any(c["type"] == "DisruptionTarget" and c["status"] == "True" for c in conditions)
    return targeted or any(end.code == ExitCode.INTERRUPTED and end.finished_at < done for end in _ends([pod]))


def _index(pod: Manifest) -> int:
    metadata = pod["metadata"]
    text = {**metadata.get("annotations", {}), **metadata.get("labels", {})}.get(INDEX_LABEL, "0")
    return int(text)


def _ends(pods: Iterable[Manifest]) -> list[_End]:
    """Ends of containers, the earliest first."""
    found = (_end(pod, container) for pod in pods for container in pod.get("status", {}).get("containerStatuses", []))
    return sorted((end for end in found if end), key=lambda end: end.finished_at)


def _end(pod: Manifest, container: Manifest) -> _End | None:
    ended = container.get("state", {}).get("terminated")
    if not ended:
        return None
    return _End(
        pod=pod["metadata"]["name"],
        code=ended["exitCode"],
        reason=ended.get("reason", ""),
        message=ended.get("message", ""),
        finished_at=ended.get("finishedAt") or "",
    )
