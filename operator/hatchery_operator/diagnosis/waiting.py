"""Why pods do not start, from what scheduler and kubelet say of them; pure."""

import re
from collections.abc import Sequence
from typing import Final

from hatchery_api.conditions import Reason
from hatchery_operator.diagnosis.scheduling import unscheduled
from hatchery_operator.domain.diagnosis import Diagnosis
from hatchery_operator.domain.objects import Manifest
from hatchery_operator.domain.spec_paths import SpecPaths

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
_ON_ITS_WAY: Final = frozenset({"ContainerCreating", "PodInitializing", ""})
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


def blocked(pods: Sequence[Manifest], events: Sequence[Manifest], names: SpecPaths) -> Diagnosis | None:
    """Why pods do not start, as far as pods and their events know; what only a person can heal comes first."""
    pending = sorted((pod for pod in pods if is_pending(pod)), key=lambda pod: str(pod["metadata"]["name"]))
    problems = [problem for pod in pending if (problem := _pending(pod, events, names))]
    return min(problems, key=lambda problem: problem.reason == Reason.UNSCHEDULABLE, default=None)


def pulling(pods: Sequence[Manifest], events: Sequence[Manifest]) -> str | None:
    """The image that is being pulled for a pod."""
    for pod in pods:
        if is_pending(pod) and (step := _last_step(pod, events)) and step["reason"] == "Pulling":
            return _image_of(pod)
    return None


def is_pending(pod: Manifest) -> bool:
    """Whether a pod has not started."""
    return bool(pod.get("status", {}).get("phase") == "Pending")


def needs_events(pod: Manifest) -> bool:
    """Whether only the events of a pod can say why it does not start."""
    return is_pending(pod) and _schedule(pod) is None and _waiting(pod).get("reason", "") in _ON_ITS_WAY


def _pending(pod: Manifest, events: Sequence[Manifest], names: SpecPaths) -> Diagnosis | None:
    if schedule := _schedule(pod):
        return unscheduled(pod, schedule.get("message", ""), names)
    waiting = _waiting(pod)
    reason, message = waiting.get("reason", ""), waiting.get("message", "")
    if reason in _IMAGE:
        return _image(pod, message, names)
    if reason not in _ON_ITS_WAY:
        return _missing(message, names) or _cannot_start(pod, f"{reason}: {message}")
    step = _last_step(pod, events)
    if step and step["reason"] in _MOUNT:
        return _missing(step["message"], names) or _unmounted(pod, step["message"])
    if step and step["reason"] in _SANDBOX:
        return _cannot_start(pod, step["message"])
    return None


def _schedule(pod: Manifest) -> Manifest | None:
    """The condition that says that a pod has no node."""
    conditions = pod.get("status", {}).get("conditions", [])
    return next((c for c in conditions if c["type"] == "PodScheduled" and c["status"] == "False"), None)


def _waiting(pod: Manifest) -> Manifest:
    statuses = [
        *pod.get("status", {}).get("initContainerStatuses", []),
        *pod.get("status", {}).get("containerStatuses", []),
    ]
    found = [status["state"]["waiting"] for status in statuses if status.get("state", {}).get("waiting")]
    return next((one for one in found if one.get("reason", "") not in _ON_ITS_WAY), {})


def _last_step(pod: Manifest, events: Sequence[Manifest]) -> Manifest | None:
    """The newest event that says how far the kubelet is with a pod."""
    uid = pod["metadata"].get("uid")
    own = [e for e in events if e.get("involvedObject", {}).get("uid") == uid and e.get("reason") in _STEPS]
    # a pod is scheduled within the second of its first step
    return max(own, key=lambda e: (str(e.get("lastTimestamp") or ""), e["reason"] != "Scheduled"), default=None)


def _image_of(pod: Manifest) -> str:
    containers = pod.get("spec", {}).get("containers") or pod.get("status", {}).get("containerStatuses", [])
    return str(containers[0].get("image", "")) if containers else ""


def _image(pod: Manifest, message: str, names: SpecPaths) -> Diagnosis:
    image = _image_of(pod)
    answer = _PULL_NOISE.sub("", message)
    text = f"image {image}{names.origin(image)} cannot be pulled for pod {pod['metadata']['name']}"
    return Diagnosis(Reason.IMAGE_PULL_ERROR, f"{text}: {answer}" if answer else text)


def _missing(message: str, names: SpecPaths) -> Diagnosis | None:
    if found := _OBJECT.search(message):
        return Diagnosis(Reason.MISSING_REFERENCE, names.missing(_KINDS[found["kind"].lower()], found["name"]))
    if found := _KEY.search(message):
        held = f"{found['kind']} {found['name']}{names.origin(found['name'])}"
        return Diagnosis(Reason.MISSING_REFERENCE, f"{held} has no key {found['key']}: add it, the pods then start")
    if _ABSENT_KEY.search(message):
        return Diagnosis(Reason.MISSING_REFERENCE, message)
    return None


def _unmounted(pod: Manifest, message: str) -> Diagnosis:
    return Diagnosis(Reason.VOLUME_NOT_READY, f"pod {pod['metadata']['name']} waits for a volume: {message}")


def _cannot_start(pod: Manifest, message: str) -> Diagnosis:
    return Diagnosis(Reason.CONTAINER_CANNOT_START, f"pod {pod['metadata']['name']} cannot start: {message}")
