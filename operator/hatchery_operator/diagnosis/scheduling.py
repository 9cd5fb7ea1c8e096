"""The scheduler's message as a sentence: what the pod asks for, what nodes lack, what to change; pure.

The operator reads no nodes: what is free on them would take the right to read every pod of the cluster as well. The
scheduler has counted already, and it says whether even an empty node is too small.
"""

import re
from typing import Final

from hatchery_api.conditions import Reason
from hatchery_operator.domain.diagnosis import Diagnosis
from hatchery_operator.domain.objects import Manifest
from hatchery_operator.domain.spec_paths import SpecPaths, asked

_HEAD: Final = re.compile(r"^0/(?P<nodes>\d+) nodes are available: (?P<causes>.*)", re.DOTALL)
_CAUSE: Final = re.compile(r"(\d+) (.+?)(?=, \d+ |$)")
_LACKING: Final = re.compile(r"Insufficient (\S+)")
_TAINT: Final = re.compile(r"node\(s\) had untolerated taint(?:\(s\))? (?P<taint>\{.*\})")
_NO_LABELS: Final = "node(s) didn't match Pod's node affinity/selector"
_CORDONED: Final = "node(s) were unschedulable"
_MISSING_CLAIM: Final = re.compile(r'persistentvolumeclaim "(?P<name>[^"]+)" not found')
_BAD_CLAIM: Final = re.compile(r'persistentvolumeclaim "(?P<name>[^"]+)" (?P<what>[^.]+)')
_UNBOUND: Final = "unbound immediate PersistentVolumeClaims"
_TAIL: Final = re.compile(r"\.?\s*(?:no new claims to deallocate,?)?\s*$")


def unscheduled(pod: Manifest, message: str, names: SpecPaths) -> Diagnosis:
    """Why the scheduler finds no node for a pod."""
    name = pod["metadata"]["name"]
    if problem := _claims(pod, name, message, names):
        return problem
    asks = f"pod {name} asks for {asked(pod)}"
    if not (read := _read(message)):
        return Diagnosis(Reason.UNSCHEDULABLE, f"{asks} and has no node; the scheduler says: {message}")
    nodes, causes = read
    lacking = [found[1] for _, cause in causes if (found := _LACKING.fullmatch(cause))]
    is_too_large = len(lacking) == len(causes) and f" {nodes} Preemption is not helpful" in message
    where = "the only node" if nodes == "1" else f"any of {nodes} nodes"
    why = "; ".join(f"{_cause(cause)}{_on(count, nodes)}" for count, cause in causes)
    size = "; even an empty node is too small" if is_too_large else ""
    text = f"{asks} and does not fit on {where}: {why}{size}.{_advice(lacking, is_too_large, names)}"
    return Diagnosis(Reason.UNSCHEDULABLE, f"{text} The scheduler says: {message}")


def _read(message: str) -> tuple[str, list[tuple[str, str]]] | None:
    """The number of nodes, and each cause with the nodes it holds for."""
    found = _HEAD.match(message.partition("preemption:")[0])
    causes = _CAUSE.findall(_TAIL.sub("", found["causes"])) if found else []
    return (found["nodes"], causes) if found and causes else None


def _on(count: str, nodes: str) -> str:
    return "" if count == nodes else f" on {count}"


def _cause(cause: str) -> str:
    if found := _LACKING.fullmatch(cause):
        return f"too little {found[1]}"
    if found := _TAINT.fullmatch(cause):
        return f"taint {found['taint']} is not in `spec.placement.tolerations`"
    if cause == _NO_LABELS:
        return "no label as `spec.placement.nodeSelector` or `spec.placement.affinity` wants it"
    return "cordoned" if cause == _CORDONED else cause


def _advice(lacking: list[str], is_too_large: bool, names: SpecPaths) -> str:
    if not lacking:
        return ""
    fields = " and ".join(names.amount_field(resource) for resource in lacking)
    other = "add a larger node" if is_too_large else "wait until enough is free"
    return f" Ask for less in {fields}, or {other}."


def _claims(pod: Manifest, name: str, message: str, names: SpecPaths) -> Diagnosis | None:
    if found := _MISSING_CLAIM.search(message):
        return Diagnosis(Reason.MISSING_REFERENCE, names.missing("PersistentVolumeClaim", found["name"]))
    if found := _BAD_CLAIM.search(message):
        claim = f"PersistentVolumeClaim {found['name']}{names.origin(found['name'])}"
        return Diagnosis(Reason.VOLUME_NOT_READY, f"{claim} {found['what']}; pod {name} waits for it")
    if _UNBOUND in message:
        claims = [v["persistentVolumeClaim"]["claimName"] for v in _volumes(pod) if "persistentVolumeClaim" in v]
        listed = " or ".join(f"{claim}{names.origin(claim)}" for claim in claims)
        text = f"PersistentVolumeClaim {listed} is not bound: `kubectl -n {names.namespace} describe pvc` says why"
        return Diagnosis(Reason.VOLUME_NOT_READY, text)
    return None


def _volumes(pod: Manifest) -> list[Manifest]:
    volumes: list[Manifest] = pod.get("spec", {}).get("volumes", [])
    return volumes
