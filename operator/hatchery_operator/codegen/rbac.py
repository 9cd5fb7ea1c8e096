"""The operator's permissions as data: no wildcard, no verb on Secrets, no exec into pods. One entry adds one."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from hatchery_api.base import GROUP
from hatchery_api.kinds import KINDS

RBAC_API: Final = "rbac.authorization.k8s.io"
"""API group of roles and bindings."""

OPERATOR: Final = "hatchery-operator"
"""Name of the operator's ServiceAccount, roles and bindings in the manifests."""

PLURALS: Final = tuple(kind.plural for kind in KINDS)
"""The resources users write."""

READ: Final = ("get", "list", "watch")
WRITE: Final = ("create", "update", "patch", "delete", "deletecollection")


@dataclass(frozen=True)
class Permission:
    """Verbs on resources of one API group, with the reason."""

    group: str
    """API group; empty for the core group."""
    resources: tuple[str, ...]
    """Plural names, with subresources such as `/status`."""
    verbs: tuple[str, ...]
    """Allowed verbs."""
    why: str
    """What the operator uses it for."""

    def rule(self) -> dict[str, Any]:
        """The rule of a Role or ClusterRole."""
        return {"apiGroups": [self.group], "resources": list(self.resources), "verbs": list(self.verbs)}


NAMESPACED: Final = (
    Permission(GROUP, PLURALS, READ, "to read the desired state"),
    Permission(
        GROUP, tuple(f"{plural}/status" for plural in PLURALS), ("patch", "update"), "to report progress and outcome"
    ),
    Permission("batch", ("jobs",), (*READ, "create", "patch", "delete"), "to run stages"),
    Permission("", ("configmaps",), ("create", "patch"), "to distribute the CA bundle of the progress endpoint"),
    Permission("", ("services",), ("get", "create", "delete"), "to let the pods of a run discover each other"),
    Permission(
        "networking.k8s.io",
        ("networkpolicies",),
        ("get", "create", "patch", "delete"),
        "to isolate the pods of runs",
    ),
    Permission("", ("pods",), ("get", "list"), "to read reports, and why pods do not start"),
    Permission("", ("events",), ("list", "create"), "to read why pods are rejected, and to inform users"),
)
"""Permissions in every watched namespace."""

OWN: Final = (
    Permission("coordination.k8s.io", ("leases",), ("get", "create", "update"), "to elect the leader"),
    Permission("", ("configmaps",), ("get", "create", "patch"), "to publish the replicas' certificates"),
)
"""Permissions in the operator's own namespace."""

DISCOVERY: Final = Permission(
    "apiextensions.k8s.io",
    ("customresourcedefinitions",),
    ("list", "watch"),
    "to detect definitions installed after the operator",
)
"""Only for a cluster-wide operator; otherwise kopf's scanning is disabled."""

CLUSTER: Final = (*NAMESPACED, DISCOVERY)
"""Permissions of a cluster-wide operator."""


def cluster_role(name: str, permissions: Sequence[Permission], labels: dict[str, str] | None = None) -> dict[str, Any]:
    """A ClusterRole."""
    return _role("ClusterRole", {"name": name}, permissions, labels)


def role(name: str, namespace: str, permissions: Sequence[Permission] = NAMESPACED) -> dict[str, Any]:
    """A Role in one namespace."""
    return _role("Role", {"name": name, "namespace": namespace}, permissions, None)


def _role(
    kind: str, metadata: dict[str, Any], permissions: Sequence[Permission], labels: dict[str, str] | None
) -> dict[str, Any]:
    if labels:
        metadata = {**metadata, "labels": labels}
    rules = [permission.rule() for permission in permissions]
    return {"apiVersion": f"{RBAC_API}/v1", "kind": kind, "metadata": metadata, "rules": rules}


def binding(role: dict[str, Any], account: str, account_namespace: str) -> dict[str, Any]:
    """The binding of a role to the operator's ServiceAccount; it has the role's name."""
    metadata = {k: v for k, v in role["metadata"].items() if k in ("name", "namespace")}
    return {
        "apiVersion": f"{RBAC_API}/v1",
        "kind": f"{role['kind']}Binding",
        "metadata": metadata,
        "roleRef": {"apiGroup": RBAC_API, "kind": role["kind"], "name": metadata["name"]},
        "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": account_namespace}],
    }


def operator_roles(home: str, name: str = OPERATOR, namespaces: Iterable[str] = ()) -> list[dict[str, Any]]:
    """All roles of the operator: one in its own namespace, and a ClusterRole or a Role in each watched namespace."""
    served = [role(name, namespace) for namespace in namespaces] or [cluster_role(name, CLUSTER)]
    # a name of its own, since the operator may watch its own namespace too
    return [role(f"{name}-replicas", home, OWN), *served]


def user_roles() -> list[dict[str, Any]]:
    """ClusterRoles for users, aggregated into Kubernetes' view, edit and admin roles."""
    return [
        cluster_role(
            "hatchery-viewer",
            [Permission(GROUP, PLURALS, READ, "to view runs")],
            {f"{RBAC_API}/aggregate-to-view": "true"},
        ),
        cluster_role(
            "hatchery-editor",
            [Permission(GROUP, PLURALS, (*READ, *WRITE), "to create, change and delete runs")],
            {f"{RBAC_API}/aggregate-to-{role}": "true" for role in ("edit", "admin")},
        ),
    ]
