"""The operator's permissions, and above all their limits."""

import pytest

from hatchery_api.kinds import KINDS
from hatchery_operator.codegen import rbac

EVERY_ROLE = [*rbac.operator_roles("home"), *rbac.operator_roles("home", namespaces=["team"]), *rbac.user_roles()]
RULES = [rule for role in EVERY_ROLE for rule in role["rules"]]
OPERATOR_RULES = [rule for role in rbac.operator_roles("home") for rule in role["rules"]]


def allowed(rules, group: str, resource: str) -> set[str]:
    return {v for r in rules if group in r["apiGroups"] and resource in r["resources"] for v in r["verbs"]}


def test_nothing_is_a_wildcard() -> None:
    assert not [rule for rule in RULES for values in rule.values() if "*" in values]


@pytest.mark.parametrize(
    "resource",
    [
        "secrets",
        "pods/exec",
        "pods/attach",
        "pods/portforward",
        "pods/ephemeralcontainers",
        "serviceaccounts/token",
        "nodes",
    ],
)
def test_secrets_and_the_ways_into_a_pod_are_out_of_reach(resource) -> None:
    assert allowed(RULES, "", resource) == set()


def test_permissions_cannot_be_widened() -> None:
    groups = {group for rule in RULES for group in rule["apiGroups"]}
    assert "rbac.authorization.k8s.io" not in groups
    assert not {v for rule in RULES for v in rule["verbs"]} & {"escalate", "bind", "impersonate", "approve", "sign"}


def test_pods_are_only_read() -> None:
    assert allowed(OPERATOR_RULES, "", "pods") == {"get", "list"}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.kind)
def test_of_the_resources_only_the_status_is_written(kind) -> None:
    assert allowed(OPERATOR_RULES, "hatchery.dev", kind.plural) == {"get", "list", "watch"}
    assert allowed(OPERATOR_RULES, "hatchery.dev", f"{kind.plural}/status") == {"patch", "update"}


def test_an_operator_of_all_namespaces_has_one_cluster_role() -> None:
    _, role = rbac.operator_roles("home", "operator")
    assert (role["kind"], role["metadata"]) == ("ClusterRole", {"name": "operator"})


def test_an_operator_of_some_namespaces_has_no_cluster_role_and_sees_nothing_elsewhere() -> None:
    roles = rbac.operator_roles("home", "operator", ["a", "b"])
    assert [(r["kind"], r["metadata"]["namespace"]) for r in roles] == [("Role", n) for n in ("home", "a", "b")]


def test_an_operator_that_serves_its_own_namespace_has_two_roles_there() -> None:
    names = {role["metadata"]["name"] for role in rbac.operator_roles("home", "operator", ["home"])}
    assert len(names) == 2


def test_leases_are_written_in_the_operators_own_namespace_only() -> None:
    own, *served = rbac.operator_roles("home")
    assert allowed(own["rules"], "coordination.k8s.io", "leases") == {"get", "create", "update"}
    assert not [role for role in served if allowed(role["rules"], "coordination.k8s.io", "leases")]


def test_a_role_in_a_namespace_is_the_cluster_role_less_what_is_not_namespaced() -> None:
    (_, cluster), (_, role) = rbac.operator_roles("home"), rbac.operator_roles("home", namespaces=["a"])
    beyond = [rule for rule in cluster["rules"] if rule not in role["rules"]]
    assert [rule["resources"] for rule in beyond] == [["customresourcedefinitions"]]
    assert all(rule in cluster["rules"] for rule in role["rules"])


@pytest.mark.parametrize("namespaces", [[], ["team"]])
def test_a_binding_has_the_roles_scope_and_names_the_account(namespaces) -> None:
    for role in rbac.operator_roles("home", "operator", namespaces):
        bound = rbac.binding(role, "account", "home")
        assert bound["kind"] == role["kind"] + "Binding"
        assert bound["metadata"] == role["metadata"]
        assert bound["roleRef"] == {
            "apiGroup": "rbac.authorization.k8s.io",
            "kind": role["kind"],
            "name": role["metadata"]["name"],
        }
        assert bound["subjects"] == [{"kind": "ServiceAccount", "name": "account", "namespace": "home"}]


def test_viewers_look_and_editors_change_the_resources_but_not_their_status() -> None:
    viewer, editor = rbac.user_roles()
    assert viewer["metadata"]["labels"] == {"rbac.authorization.k8s.io/aggregate-to-view": "true"}
    assert editor["metadata"]["labels"].keys() == {
        "rbac.authorization.k8s.io/aggregate-to-edit",
        "rbac.authorization.k8s.io/aggregate-to-admin",
    }
    for kind in KINDS:
        assert allowed(viewer["rules"], "hatchery.dev", kind.plural) == {"get", "list", "watch"}
        assert {"create", "patch", "delete"} <= allowed(editor["rules"], "hatchery.dev", kind.plural)
        assert allowed(editor["rules"], "hatchery.dev", f"{kind.plural}/status") == set()


def test_every_permission_says_what_it_is_for() -> None:
    assert all(permission.why.startswith("to ") for permission in (*rbac.CLUSTER, *rbac.OWN))
