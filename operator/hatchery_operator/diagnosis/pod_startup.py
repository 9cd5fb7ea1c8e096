"""Why pods do not start, by what the scheduler and the kubelet report; and how often to poll them.

The operator reads no nodes: their free capacity would take the right to read every pod of the cluster. The scheduler
has counted already, and says whether even an empty node is too small.
"""

import re
from collections.abc import Sequence
from typing import Final

from hatchery_api.conditions import Reason
from hatchery_operator.domain import backoff
from hatchery_operator.domain.objects import Diagnosis, JobSummary, Manifest, Observed, parse_time
from hatchery_operator.domain.spec_paths import SpecPaths

YOUNG_SECONDS: Final = 10.0
"""Age of a Job below which its status stays unwritten: the write would cost as much as starting another Job."""

_IMAGE: Final = frozenset(
    {
        "ErrImagePull",
        "ImagePullBackOff",
        "InvalidImageName",
        "ErrImageNeverPull",
        "ImageInspectError",
        "RegistryUnavailable",
        "SignatureValidationFailed",
    }
)
_STARTING: Final = frozenset({"ContainerCreating", "PodInitializing", ""})
_MOUNT: Final = frozenset({"FailedMount", "FailedAttachVolume", "FailedMapVolume"})
_SANDBOX: Final = frozenset({"FailedCreatePodSandBox", "FailedPodSandBoxStatus", "NetworkNotReady"})
_STEPS: Final = frozenset({*_MOUNT, *_SANDBOX, "Pulling", "Pulled", "Created", "Started", "Scheduled"})
_PULL_NOISE: Final = re.compile(
    r'^(?:Back-off pulling image "[^"]*"(?:: ErrImagePull: )?)?(?:rpc error: code = \w+ desc = )?'
    r'(?:failed to pull and unpack image "[^"]*": )?(?:failed to resolve reference "[^"]*": )?'
)
_OBJECT: Final = re.compile(r'(?i)\b(?P<kind>secret|configmap)s? "(?P<name>[^"]+)" not found')
_KEY: Final = re.compile(r"couldn't find key (?P<key>\S+) in (?P<kind>Secret|ConfigMap) \S+?/(?P<name>\S+)")
_ABSENT_KEY: Final = re.compile(r"references non-existent (?P<kind>secret|config) key: (?P<key>\S+)")
_KINDS: Final = {"secret": "Secret", "configmap": "ConfigMap"}

_HEAD: Final = re.compile(r"^0/(?P<nodes>\d+) nodes are available: (?P<causes>.*)", re.DOTALL)
_CAUSE: Final = re.compile(r"(\d+) (.+?)(?=, \d+ |$)")
_INSUFFICIENT: Final = re.compile(r"Insufficient (\S+)")
_TAINT: Final = re.compile(r"node\(s\) had untolerated taint(?:\(s\))? (?P<taint>\{.*\})")
_NO_LABELS: Final = "node(s) didn't match Pod's node affinity/selector"
_CORDONED: Final = "node(s) were unschedulable"
_MISSING_CLAIM: Final = re.compile(r'persistentvolumeclaim "(?P<name>[^"]+)" not found')
_BAD_CLAIM: Final = re.compile(r'persistentvolumeclaim "(?P<name>[^"]+)" (?P<what>[^.]+)')
_UNBOUND: Final = "unbound immediate PersistentVolumeClaims"
_TAIL: Final = re.compile(r"\.?\s*(?:no new claims to deallocate,?)?\s*$")


def why_pending(pods: Sequence[Manifest], events: Sequence[Manifest], paths: SpecPaths) -> Diagnosis | None:
    """Why pods do not start, by the pods and their events; a problem that only a person can fix comes first."""
    pending = sorted((pod for pod in pods if _is_pending(pod)), key=_name)
    diagnoses = [diagnosis for pod in pending if (diagnosis := _why_not_started(pod, events, paths))]
    return min(diagnoses, key=lambda diagnosis: diagnosis.reason == Reason.UNSCHEDULABLE, default=None)


def needs_events(pod: Manifest) -> bool:
    """Whether only the events of a pod can say why it does not start."""
    return _is_pending(pod) and _unscheduled(pod) is None and _waiting(pod).get("reason", "") in _STARTING


def starting_message(job: str) -> str:
    """The message of a Job from the moment it is about to be created."""
    return f"Job {job} and its pods are starting"


def startup_message(job: JobSummary, observed: Observed) -> str:
    """The message of a Job whose pods do not run while nothing is wrong."""
    if image := pulled_image(observed.pods, observed.events):
        return f"{starting_message(job.name)}: image {image} is being pulled"
    if job.active or is_young(job, observed):
        return starting_message(job.name)
    return f"Job {job.name} has no pods yet"


def is_young(job: JobSummary, observed: Observed) -> bool:
    """Whether a Job was created moments ago."""
    return job.age_seconds(observed.now) < YOUNG_SECONDS


def recheck_seconds(job: JobSummary, observed: Observed, *, explained: bool) -> float:
    """Polling interval for pods that do not run, by the time since the Job or a pod last changed."""
    age = max(0.0, job.age_seconds(observed.now))
    changes = [pod["metadata"].get("creationTimestamp") for pod in observed.pods]
    for pod in observed.pods:
        changes += [condition.get("lastTransitionTime") for condition in pod.get("status", {}).get("conditions", [])]
    if times := [parse_time(change) for change in changes if change]:
        age = min(age, (observed.now - max(times)).total_seconds())
    return backoff.pod_poll_seconds(age, explained=explained)


def pulled_image(pods: Sequence[Manifest], events: Sequence[Manifest]) -> str | None:
    """The image that a node is pulling for one of the pods."""
    for pod in pods:
        if _is_pending(pod) and (step := _last_step(pod, events)) and step["reason"] == "Pulling":
            return _image_of(pod)
    return None


def _why_not_started(pod: Manifest, events: Sequence[Manifest], paths: SpecPaths) -> Diagnosis | None:
    if condition := _unscheduled(pod):
        return _why_unscheduled(pod, condition.get("message", ""), paths)
    waiting = _waiting(pod)
    reason, message = waiting.get("reason", ""), waiting.get("message", "")
    if reason in _IMAGE:
        return _not_pulled(pod, message, paths)
    if reason not in _STARTING:
        return _missing_reference(message, paths) or _cannot_start(pod, f"{reason}: {message}")
    step = _last_step(pod, events)
    if step and step["reason"] in _MOUNT:
        return _missing_reference(step["message"], paths) or _not_mounted(pod, step["message"])
    if step and step["reason"] in _SANDBOX:
        return _cannot_start(pod, step["message"])
    return None


def _name(pod: Manifest) -> str:
    return str(pod["metadata"]["name"])


def _is_pending(pod: Manifest) -> bool:
    return bool(pod.get("status", {}).get("phase") == "Pending")


def _unscheduled(pod: Manifest) -> Manifest | None:
    """The condition of a pod that has no node."""
    conditions = pod.get("status", {}).get("conditions", [])
    return next((c for c in conditions if c["type"] == "PodScheduled" and c["status"] == "False"), None)


def _waiting(pod: Manifest) -> Manifest:
    """The waiting state of the first container that does not just start."""
    statuses = [
        *pod.get("status", {}).get("initContainerStatuses", []),
        *pod.get("status", {}).get("containerStatuses", []),
    ]
    found = [status["state"]["waiting"] for status in statuses if status.get("state", {}).get("waiting")]
    return next((state for state in found if state.get("reason", "") not in _STARTING), {})


def _last_step(pod: Manifest, events: Sequence[Manifest]) -> Manifest | None:
    """The newest event that says how far the kubelet has got with a pod."""
    uid = pod["metadata"].get("uid")
    own = [e for e in events if e.get("involvedObject", {}).get("uid") == uid and e.get("reason") in _STEPS]
    # a pod is scheduled within the second of its first step
    return max(own, key=lambda e: (str(e.get("lastTimestamp") or ""), e["reason"] != "Scheduled"), default=None)


def _image_of(pod: Manifest) -> str:
    containers = pod.get("spec", {}).get("containers") or pod.get("status", {}).get("containerStatuses", [])
    return str(containers[0].get("image", "")) if containers else ""


def _not_pulled(pod: Manifest, message: str, paths: SpecPaths) -> Diagnosis:
    image = _image_of(pod)
    answer = _PULL_NOISE.sub("", message)
    text = f"image {image}{paths.origin(image)} cannot be pulled for pod {_name(pod)}"
    return Diagnosis(Reason.IMAGE_PULL_ERROR, f"{text}: {answer}" if answer else text)


def _missing_reference(message: str, paths: SpecPaths) -> Diagnosis | None:
    if found := _OBJECT.search(message):
        return Diagnosis(Reason.MISSING_REFERENCE, paths.missing(_KINDS[found["kind"].lower()], found["name"]))
    if found := _KEY.search(message):
        holder = f"{found['kind']} {found['name']}{paths.origin(found['name'])}"
        return Diagnosis(Reason.MISSING_REFERENCE, f"{holder} has no key {found['key']}: add it, and the pods start")
    if _ABSENT_KEY.search(message):
        return Diagnosis(Reason.MISSING_REFERENCE, message)
    return None


def _not_mounted(pod: Manifest, message: str) -> Diagnosis:
    return Diagnosis(Reason.VOLUME_NOT_READY, f"pod {_name(pod)} is waiting for a volume: {message}")


def _cannot_start(pod: Manifest, message: str) -> Diagnosis:
    return Diagnosis(Reason.CONTAINER_CANNOT_START, f"pod {_name(pod)} cannot start: {message}")


def _why_unscheduled(pod: Manifest, message: str, paths: SpecPaths) -> Diagnosis:
    """The scheduler's message as a sentence: the pod's requests, what the nodes lack, what to change."""
    if diagnosis := _claim_problem(pod, message, paths):
        return diagnosis
    pod_requests = f"pod {_name(pod)} requests {_requests(pod)}"
    if not (parsed := _parse(message)):
        return Diagnosis(Reason.UNSCHEDULABLE, f"{pod_requests} and has no node; the scheduler says: {message}")
    nodes, causes = parsed
    insufficient = [found[1] for _, cause in causes if (found := _INSUFFICIENT.fullmatch(cause))]
    is_too_large = len(insufficient) == len(causes) and f" {nodes} Preemption is not helpful" in message
    where = "the only node" if nodes == "1" else f"any of {nodes} nodes"
    why = "; ".join(_explain(cause) + ("" if count == nodes else f" on {count}") for count, cause in causes)
    size = "; even an empty node is too small" if is_too_large else ""
    advice = ""
    if insufficient:
        fields = " and ".join(paths.amount_field(resource) for resource in insufficient)
        other = "add a larger node" if is_too_large else "wait for free capacity"
        advice = f" Request less in {fields}, or {other}."
    text = f"{pod_requests} and does not fit on {where}: {why}{size}.{advice}"
    return Diagnosis(Reason.UNSCHEDULABLE, f"{text} The scheduler says: {message}")


def _parse(message: str) -> tuple[str, list[tuple[str, str]]] | None:
    """The number of nodes, and each cause with the number of nodes it holds for."""
    found = _HEAD.match(message.partition("preemption:")[0])
    causes = _CAUSE.findall(_TAIL.sub("", found["causes"])) if found else []
    return (found["nodes"], causes) if found and causes else None


def _explain(cause: str) -> str:
    if found := _INSUFFICIENT.fullmatch(cause):
        return f"insufficient {found[1]}"
    if found := _TAINT.fullmatch(cause):
        return f"taint {found['taint']} is not in `spec.placement.tolerations`"
    if cause == _NO_LABELS:
        return "no label matches `spec.placement.nodeSelector` or `spec.placement.affinity`"
    return "cordoned" if cause == _CORDONED else cause


def _requests(pod: Manifest) -> str:
    requests: dict[str, str] = {}
    for container in pod.get("spec", {}).get("containers", []):
        requests |= container.get("resources", {}).get("requests", {})
    return ", ".join(f"{name} {amount}" for name, amount in sorted(requests.items())) or "no resources"


def _claim_problem(pod: Manifest, message: str, paths: SpecPaths) -> Diagnosis | None:
    if found := _MISSING_CLAIM.search(message):
        return Diagnosis(Reason.MISSING_REFERENCE, paths.missing("PersistentVolumeClaim", found["name"]))
    if found := _BAD_CLAIM.search(message):
        claim = f"PersistentVolumeClaim {found['name']}{paths.origin(found['name'])}"
        return Diagnosis(Reason.VOLUME_NOT_READY, f"{claim} {found['what']}; pod {_name(pod)} is waiting for it")
    if _UNBOUND in message:
        volumes = pod.get("spec", {}).get("volumes", [])
        claims = [v["persistentVolumeClaim"]["claimName"] for v in volumes if "persistentVolumeClaim" in v]
        listed = " or ".join(f"{claim}{paths.origin(claim)}" for claim in claims)
        text = f"PersistentVolumeClaim {listed} is not bound: `kubectl -n {paths.namespace} describe pvc` says why"
        return Diagnosis(Reason.VOLUME_NOT_READY, text)
    return None
