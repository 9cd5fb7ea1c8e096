"""What the pods of one Job say together: their report, why they failed, whether they were disrupted; pure."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from hatchery_api.conditions import Reason
from hatchery_api.contract import PERMANENT, ExitCode, Report
from hatchery_operator.diagnosis.ends import ends, failure_of
from hatchery_operator.diagnosis.waiting import is_pending
from hatchery_operator.domain.diagnosis import AttemptFailure, Diagnosis
from hatchery_operator.domain.objects import Manifest, parse_time
from hatchery_operator.domain.spec_paths import SpecPaths

INDEX_LABEL: Final = "batch.kubernetes.io/job-completion-index"
"""Label and annotation of the pods of an Indexed Job."""


def success_report(pods: Sequence[Manifest]) -> Report | None:
    """The report of the pod that finished the work, which is the one with index 0."""
    for end in ends(pod for pod in pods if _index(pod) == 0):
        if end.code == ExitCode.DONE and (report := end.report) and report.artifact:
            return report
    return None


def failure(pods: Sequence[Manifest], names: SpecPaths | None = None) -> AttemptFailure | None:
    """Why the attempt failed: the first container that ended by itself; those that were told to end came after."""
    own = [end for end in ends(pods) if end.code not in (ExitCode.DONE, ExitCode.INTERRUPTED) or _is_evicted(end.pod)]
    # a pod that was preempted or drained is not the reason, unless there is no other
    candidates = [end for end in own if not _target(end.pod)] or own
    if not candidates:
        return None
    first = min(candidates, key=lambda end: (end.code not in PERMANENT, end.finished_at))
    return failure_of(first, names or SpecPaths())


def setback(pods: Sequence[Manifest], names: SpecPaths) -> Diagnosis | None:
    """What happened to pods that the Job replaces; its attempt goes on."""
    over = [pod for pod in pods if pod.get("status", {}).get("phase") == "Failed"]
    lost = [(pod, target) for pod in pods if (target := _target(pod))]
    if lost and all(_target(pod) for pod in over):
        pod, target = lost[-1]
        said = str(target.get("message", "")).strip() or target.get("reason", "")
        return Diagnosis(Reason.DISRUPTED, f"pod {pod['metadata']['name']} is lost and will be replaced: {said}")
    if not any_pending(pods):
        return None
    if (found := failure(over, names)) and found.reason == Reason.ATTEMPT_FAILED:
        return Diagnosis(Reason.POD_FAILED, found.message)
    return found


def disrupted(pods: Sequence[Manifest]) -> list[str]:
    """Names of pods that were evicted, preempted or drained, or that were asked to end before the work was done."""
    done = min((end.finished_at for end in ends(pods) if end.code == ExitCode.DONE), default="9999")
    return [pod["metadata"]["name"] for pod in pods if _is_disrupted(pod, done)]


def any_pending(pods: Sequence[Manifest]) -> bool:
    """Whether a pod has not started."""
    return any(is_pending(pod) for pod in pods)


def changed_at(pods: Sequence[Manifest]) -> datetime | None:
    """When a pod last was made or got further."""
    times = [pod["metadata"]["creationTimestamp"] for pod in pods if "creationTimestamp" in pod["metadata"]]
    times += [c["lastTransitionTime"] for p in pods for c in p.get("status", {}).get("conditions", []) if _has_time(c)]
    return max(map(parse_time, times), default=None)


def at_work(pods: Sequence[Manifest]) -> list[str]:
    """Names of the pods that have not ended, whether they have been asked to or not."""
    phases = {pod["metadata"]["name"]: pod.get("status", {}).get("phase") for pod in pods}
    return sorted(name for name, phase in phases.items() if phase not in ("Succeeded", "Failed"))


def _has_time(condition: Manifest) -> bool:
    return bool(condition.get("lastTransitionTime"))


def _target(pod: Manifest) -> Manifest | None:
    """The condition by which Kubernetes marks a pod that it ended for reasons outside of the pod."""
    conditions = pod.get("status", {}).get("conditions", [])
    return next((c for c in conditions if c["type"] == "DisruptionTarget" and c["status"] == "True"), None)


def _is_evicted(pod: Manifest) -> bool:
    return bool(pod.get("status", {}).get("reason") == "Evicted")


def _is_disrupted(pod: Manifest, done: str) -> bool:
    """Peers of a pod that has done the work are asked to end as well; that is no disruption."""
    return _target(pod) is not None or any(
        end.code == ExitCode.INTERRUPTED and end.finished_at < done for end in ends([pod])
    )


def _index(pod: Manifest) -> int:
    metadata = pod["metadata"]
    text = {**metadata.get("annotations", {}), **metadata.get("labels", {})}.get(INDEX_LABEL, "0")
    return int(text)
