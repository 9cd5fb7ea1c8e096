"""Why the API server refuses a pod, or another child, in words that say what to change; pure.

Only texts that are known are reworded, each pattern taken from a real answer; any other text is passed on as it is.
"""

import re
from collections.abc import Callable
from typing import Final

from hatchery_api.conditions import Reason
from hatchery_operator.domain.diagnosis import Diagnosis
from hatchery_operator.domain.spec_paths import RESOURCES, SpecPaths

_PREFIX: Final = re.compile(r'^(?:Error creating: )?(?P<what>[\w.]+)(?: "[^"]*")? is forbidden: ')
_QUOTA: Final = re.compile(r"exceeded quota: (?P<quota>\S+), requested: (\S+), used: (\S+), limited: (\S+)")
_UNSET: Final = re.compile(r"failed quota: (?P<quota>\S+): must specify (?P<amounts>\S+)")
_BOUND: Final = re.compile(r"(?P<side>maximum|minimum) (\S+) usage per (\S+) is ([^,\s]+), but (\w+) is ([^,\s\]]+)")
_SECURITY: Final = re.compile(r'violates PodSecurity "(?P<level>[^"]+)": (?P<violations>.+)', re.DOTALL)
_PRIORITY: Final = re.compile(r"no PriorityClass with name (?P<name>\S+) was found")
_RUNTIME: Final = re.compile(r'RuntimeClass "(?P<name>[^"]+)" not found')
_ACCOUNT: Final = re.compile(r'serviceaccount "(?P<name>[^"]+)" not found')
_POLICY: Final = re.compile(
    r"(?:ValidatingAdmissionPolicy '(?P<policy>[^']+)' with binding '[^']+' denied|"
    r'admission webhook "(?P<webhook>[^"]+)" denied the) request: (?P<said>.+)',
    re.DOTALL,
)
_TERMINATING: Final = "because it is being terminated"
_RIGHTS: Final = re.compile(r'User "(?P<user>[^"]+)" cannot (?P<verb>\w+) resource "(?P<resource>[^"]+)"')


def explain(message: str, names: SpecPaths) -> Diagnosis:
    """The problem behind an answer of the API server. A pod's name is left out: each try has another one."""
    found = _PREFIX.match(message)
    what = {"pods": "the pods", "jobs.batch": "the Job"}.get(found["what"], found["what"]) if found else "a child"
    said = message[found.end() :] if found else message.removeprefix("Error creating: ")
    for reading in _READINGS:
        if problem := reading(said, what, names):
            return problem
    return Diagnosis(Reason.POD_REFUSED, f"the API server refuses {what}: {said}")


def _quota(said: str, what: str, names: SpecPaths) -> Diagnosis | None:
    if not (found := _QUOTA.search(said)):
        return None
    asked, used, most = (_amounts(text) for text in found.groups()[1:])
    parts = [
        f"{name}: asked {amount}, used {used.get(name, '?')} of {most.get(name, '?')}" for name, amount in asked.items()
    ]
    too_large = what == "the pods" and any(name.startswith(("requests.", "limits.")) for name in asked)
    less = f"ask for less in `{RESOURCES}`, " if too_large else ""
    text = f"ResourceQuota {found['quota']} of namespace {names.namespace} refuses {what}: {'; '.join(parts)}"
    return Diagnosis(Reason.QUOTA_EXCEEDED, f"{text}; {less}wait until others end, or have the quota raised")


def _amounts(text: str) -> dict[str, str]:
    return dict(sorted(part.split("=", 1) for part in text.split(",") if "=" in part))


def _unset(said: str, what: str, _: SpecPaths) -> Diagnosis | None:
    if not (found := _UNSET.search(said)):
        return None
    fields = [
        f"`{RESOURCES}.{amount}`" if amount.startswith(("requests.", "limits.")) else f"`{RESOURCES}.requests.{amount}`"
        for amount in sorted(found["amounts"].split(","))
    ]
    text = f"ResourceQuota {found['quota']} refuses {what} since they must say their amounts"
    return Diagnosis(Reason.POD_REFUSED, f"{text}: set {', '.join(fields)}")


def _bounds(said: str, what: str, names: SpecPaths) -> Diagnosis | None:
    if not (found := sorted(_BOUND.findall(said))):
        return None
    parts = []
    for side, resource, per, bound, part, value in found:
        where = names.amount_field(resource) if part == "request" else f"`{RESOURCES}.limits.{resource}`"
        parts.append(f"{resource} {part} {value} ({where}) is {_BEYOND[side]} {bound} per {per}")
    text = f"a LimitRange of namespace {names.namespace} refuses {what}: {'; '.join(parts)}"
    return Diagnosis(Reason.LIMIT_RANGE_VIOLATED, text)


_BEYOND: Final = {"maximum": "above the most allowed,", "minimum": "below the least allowed,"}


def _security(said: str, what: str, names: SpecPaths) -> Diagnosis | None:
    if not (found := _SECURITY.search(said)):
        return None
    text = f"Pod Security level {found['level']} of namespace {names.namespace} refuses {what}: {found['violations']}"
    return Diagnosis(Reason.POD_SECURITY_VIOLATED, text)


def _missing(said: str, _: str, names: SpecPaths) -> Diagnosis | None:
    for kind, pattern, own_field in (
        ("PriorityClass", _PRIORITY, "spec.placement.priorityClassName"),
        ("RuntimeClass", _RUNTIME, "spec.placement.runtimeClassName"),
        ("ServiceAccount", _ACCOUNT, ""),
    ):
        if not (found := pattern.search(said)):
            continue
        if own_field:
            text = f"{kind} {found['name']} of `{own_field}` does not exist: create it or name another"
        else:
            text = names.missing(kind, found["name"])
        return Diagnosis(Reason.MISSING_REFERENCE, text)
    return None


def _policy(said: str, what: str, _: SpecPaths) -> Diagnosis | None:
    if not (found := _POLICY.search(said)):
        return None
    judge = f"ValidatingAdmissionPolicy {found['policy']}" if found["policy"] else f"webhook {found['webhook']}"
    return Diagnosis(Reason.POD_REFUSED, f"{judge} refuses {what}: {found['said']}")


def _terminating(said: str, what: str, names: SpecPaths) -> Diagnosis | None:
    if _TERMINATING not in said:
        return None
    return Diagnosis(
        Reason.NAMESPACE_TERMINATING, f"namespace {names.namespace} is being deleted and takes {what} no more"
    )


def _rights(said: str, _: str, names: SpecPaths) -> Diagnosis | None:
    if not (found := _RIGHTS.search(said)):
        return None
    text = f"{found['user']} may not {found['verb']} {found['resource']} in namespace {names.namespace}"
    return Diagnosis(Reason.POD_REFUSED, f"{text}: install the roles of this version of the operator")


_READINGS: Final[tuple[Callable[[str, str, SpecPaths], Diagnosis | None], ...]] = (
    _quota,
    _unset,
    _bounds,
    _security,
    _missing,
    _policy,
    _terminating,
    _rights,
)
