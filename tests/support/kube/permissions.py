"""Permissions of an account from its roles, and its actions from the API server's audit log."""

import json
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Object = dict[str, Any]

CREATED = 201
POD_NAME = "authentication.kubernetes.io/pod-name"
"""Annotation that names the pod of a token."""


@dataclass(frozen=True, order=True)
class Action:
    """A verb on a resource."""

    group: str
    resource: str
    """Plural with subresource, such as `jobs/status`."""
    verb: str
    namespace: str = ""
    """Empty for the whole cluster."""

    def __str__(self) -> str:
        where = f" in {self.namespace}" if self.namespace else ""
        return f"{self.verb} {self.resource}{'.' if self.group else ''}{self.group}{where}"


@dataclass(frozen=True)
class Usage:
    """Actions of an account."""

    used: frozenset[Action]
    refused: frozenset[Action]
    """Actions that authorization denied."""


@dataclass(frozen=True)
class Rule:
    """One rule of a role and its scope."""

    group: str
    resources: tuple[str, ...]
    verbs: tuple[str, ...]
    namespace: str = ""
    """Empty for the whole cluster."""

    def allows(self, action: Action) -> bool:
        """Whether it allows an action."""
        return (
            action.group == self.group
            and action.resource in self.resources
            and action.verb in self.verbs
            and self.namespace in ("", action.namespace)
        )

    def unused(self, used: Iterable[Action]) -> list[str]:
        """Verbs used on none of the resources, and resources on which no verb was used."""
        uses = [action for action in used if self.allows(action)]
        idle_verbs = set(self.verbs) - {action.verb for action in uses}
        idle_resources = set(self.resources) - {action.resource for action in uses}
        return sorted(
            f"{verb} {resources} {self.group} {self.namespace}".strip()
            for verb, resources in [
                *((verb, "/".join(self.resources)) for verb in idle_verbs),
                *(("anything on", resource) for resource in idle_resources),
            ]
        )


def account_user(namespace: str, name: str) -> str:
    """The user name of a ServiceAccount."""
    return f"system:serviceaccount:{namespace}:{name}"


def usage(log: Path, user: str, position: int = 0, pods: Collection[str] = ()) -> Usage:
    """Actions of a user after an offset in the log; of some pods only, if any are given."""
    used, refused = set(), set()
    for event in _events(log, position):
        target, pod = event.get("objectRef", {}), event["user"].get("extra", {}).get(POD_NAME, [""])[0]
        if event["user"]["username"] != user or "resource" not in target or (pods and pod not in pods):
            continue
        resource = "/".join(filter(None, (target["resource"], target.get("subresource"))))
        where = (target.get("apiGroup", ""), resource)
        action = Action(*where, event["verb"], target.get("namespace", ""))
        if event["annotations"]["authorization.k8s.io/decision"] != "allow":
            refused.add(action)
            continue
        used.add(action)
        if action.verb == "patch" and event["responseStatus"]["code"] == CREATED:
            # an apply that makes an object needs the right to create it
            used.add(Action(*where, "create", action.namespace))
    return Usage(frozenset(used), frozenset(refused))


def _events(log: Path, position: int) -> Iterable[Object]:
    with log.open("rb") as file:
        # a log that was begun anew is shorter than it was
        file.seek(position if position <= log.stat().st_size else 0)
        data = file.read()
    return [json.loads(line) for line in data[: data.rfind(b"\n") + 1].splitlines()]


def granted(kubectl: Callable[..., str], namespace: str, name: str) -> list[Rule]:
    """Every rule bound to a ServiceAccount."""
    found: list[Rule] = []
    for binding in json.loads(kubectl("get", "clusterrolebindings,rolebindings", "-A", "-o", "json"))["items"]:
        subjects = [(one["kind"], one.get("namespace"), one["name"]) for one in binding.get("subjects", [])]
        if ("ServiceAccount", namespace, name) not in subjects:
            continue
        kind, role, scope = (
            binding["roleRef"]["kind"],
            binding["roleRef"]["name"],
            binding["metadata"].get("namespace", ""),
        )
        where = [f"--namespace={scope}"] if kind == "Role" else []
        rules = json.loads(kubectl("get", kind, role, *where, "-o", "json"))["rules"]
        found += [
            Rule(group, tuple(rule["resources"]), tuple(rule["verbs"]), scope)
            for rule in rules
            for group in rule["apiGroups"]
        ]
    return found


def unused(rules: Iterable[Rule], used: Iterable[Action]) -> list[str]:
    """Permissions that were not used."""
    used = list(used)
    return [words for rule in rules for words in rule.unused(used)]


def beyond(rules: Iterable[Rule], used: Iterable[Action]) -> list[str]:
    """Actions that no rule allows, through permissions that every account has."""
    rules = list(rules)
    return sorted({str(action) for action in used if not any(rule.allows(action) for rule in rules)})
