"""Why the API server rejects a pod or another child, as a message that names the field to change.

Each pattern comes from a real answer. Unrecognised messages pass through verbatim.
"""

import re
from collections.abc import Callable
from typing import Final

from hatchery_api.conditions import Reason
from hatchery_operator.domain.objects import Diagnosis
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
    r'admission webhook "(?P<webhook>[^"]+)" denied the) request: (?P<answer>.+)',
    re.DOTALL,
)
_TERMINATING: Final = "because it is being terminated"
_RIGHTS: Final = re.compile(r'User "(?P<user>[^"]+)" cannot (?P<verb>\w+) resource "(?P<resource>[^"]+)"')


def why_rejected(message: str, paths: SpecPaths) -> Diagnosis:
    """The problem behind an answer of the API server. The pod's name is left out: each retry has another one."""
    found = _PREFIX.match(message)
    what = {"pods": "the pods", "jobs.batch": "the Job"}.get(found["what"], found["what"]) if found else "a child"
    answer = message[found.end() :] if found else message.removeprefix("Error creating: ")
    for rule in _RULES:
        if diagnosis := rule(answer, what, paths):
            return diagnosis
    return Diagnosis(Reason.POD_REFUSED, f"the API server rejects {what}: {answer}")


def _quota(answer: str, what: str, paths: SpecPaths) -> Diagnosis | None:
    if not (found := _QUOTA.search(answer)):
        return None
    requested, used, limited = (_amounts(text) for text in found.groups()[1:])
    parts = [
        f"{name}: requested {amount}, used {used.get(name, '?')} of {limited.get(name, '?')}"
        for name, amount in requested.items()
    ]
    too_large = what == "the pods" and any(name.startswith(("requests.", "limits.")) for name in requested)
    less = f"request less in `{RESOURCES}`, " if too_large else ""
    text = f"ResourceQuota {found['quota']} of namespace {paths.namespace} rejects {what}: {'; '.join(parts)}"
    return Diagnosis(Reason.QUOTA_EXCEEDED, f"{text}; {less}wait for other runs to finish, or have the quota raised")


def _amounts(text: str) -> dict[str, str]:
    return dict(sorted(part.split("=", 1) for part in text.split(",") if "=" in part))


def _unset(answer: str, what: str, _: SpecPaths) -> Diagnosis | None:
    if not (found := _UNSET.search(answer)):
        return None
    fields = [
        f"`{RESOURCES}.{amount}`" if amount.startswith(("requests.", "limits.")) else f"`{RESOURCES}.requests.{amount}`"
        for amount in sorted(found["amounts"].split(","))
    ]
    text = f"ResourceQuota {found['quota']} rejects {what} without explicit amounts"
    return Diagnosis(Reason.POD_REFUSED, f"{text}: set {', '.join(fields)}")


def _bounds(answer: str, what: str, paths: SpecPaths) -> Diagnosis | None:
    if not (found := sorted(_BOUND.findall(answer))):
        return None
    parts = []
    for side, resource, per, bound, part, value in found:
        beyond = "above" if side == "maximum" else "below"
        where = paths.amount_field(resource) if part == "request" else f"`{RESOURCES}.limits.{resource}`"
        parts.append(f"{resource} {part} {value} ({where}) is {beyond} the {side} of {bound} per {per}")
    text = f"a LimitRange of namespace {paths.namespace} rejects {what}: {'; '.join(parts)}"
    return Diagnosis(Reason.LIMIT_RANGE_VIOLATED, text)


def _security(answer: str, what: str, paths: SpecPaths) -> Diagnosis | None:
    if not (found := _SECURITY.search(answer)):
        return None
    text = f"Pod Security level {found['level']} of namespace {paths.namespace} rejects {what}: {found['violations']}"
    return Diagnosis(Reason.POD_SECURITY_VIOLATED, text)


def _missing_object(answer: str, _: str, paths: SpecPaths) -> Diagnosis | None:
    for kind, pattern, own_field in (
        ("PriorityClass", _PRIORITY, "spec.placement.priorityClassName"),
        ("RuntimeClass", _RUNTIME, "spec.placement.runtimeClassName"),
        ("ServiceAccount", _ACCOUNT, ""),
    ):
        if not (found := pattern.search(answer)):
            continue
        if own_field:
            text = f"{kind} {found['name']} of `{own_field}` does not exist: create it, or name another one"
        else:
            text = paths.missing(kind, found["name"])
        return Diagnosis(Reason.MISSING_REFERENCE, text)
    return None


def _policy(answer: str, what: str, _: SpecPaths) -> Diagnosis | None:
    if not (found := _POLICY.search(answer)):
        return None
    policy = f"ValidatingAdmissionPolicy {found['policy']}" if found["policy"] else f"webhook {found['webhook']}"
    return Diagnosis(Reason.POD_REFUSED, f"{policy} rejects {what}: {found['answer']}")


def _terminating(answer: str, what: str, paths: SpecPaths) -> Diagnosis | None:
    if _TERMINATING not in answer:
        return None
    return Diagnosis(
        Reason.NAMESPACE_TERMINATING, f"namespace {paths.namespace} is being deleted; {what} cannot be created in it"
    )


def _rights(answer: str, _: str, paths: SpecPaths) -> Diagnosis | None:
    if not (found := _RIGHTS.search(answer)):
        return None
    text = f"{found['user']} is not allowed to {found['verb']} {found['resource']} in namespace {paths.namespace}"
    return Diagnosis(Reason.POD_REFUSED, f"{text}: install the roles of this version of the operator")


_RULES: Final[tuple[Callable[[str, str, SpecPaths], Diagnosis | None], ...]] = (
    _quota,
    _unset,
    _bounds,
    _security,
    _missing_object,
    _policy,
    _terminating,
    _rights,
)
