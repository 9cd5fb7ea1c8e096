"""The evaluator by the rules of the API reference, so that what it says of our policies can be believed."""

import pytest
from tests.support.kube.network_policies import Endpoint, allowed, selects

A = Endpoint("10.0.0.1", "team", {"app": "a"})
B = Endpoint("10.0.0.2", "team", {"app": "b"}, {"web": 8080})
ELSEWHERE = Endpoint("10.0.0.3", "other", {"app": "a"})
OUTSIDE = Endpoint("192.0.2.7")


def policy(**spec):
    return {"metadata": {"namespace": "team"}, "spec": {"podSelector": {"matchLabels": {"app": "b"}}, **spec}}


def test_without_policies_everything_is_allowed() -> None:
    assert allowed([], A, B, 80)
    assert allowed([], OUTSIDE, B, 80)


def test_a_selected_pod_takes_only_what_a_rule_names_and_others_are_free() -> None:
    closed = [policy()]
    assert not allowed(closed, A, B, 80)
    assert allowed(closed, B, A, 80)
    assert allowed([policy(ingress=[{}])], A, B, 80)


def test_a_policy_of_another_namespace_selects_nothing_here() -> None:
    foreign = {**policy(), "metadata": {"namespace": "other"}}
    assert allowed([foreign], A, B, 80)


def test_policies_add_up() -> None:
    assert allowed([policy(), policy(ingress=[{}])], A, B, 80)


def test_egress_is_only_closed_where_the_policy_has_a_word_on_it() -> None:
    assert allowed([policy()], B, A, 80)
    assert not allowed([policy(egress=[])], B, A, 80)
    assert not allowed([policy(policyTypes=["Egress"])], B, A, 80)
    assert allowed([policy(policyTypes=["Egress"])], A, B, 80)


@pytest.mark.parametrize(
    ("peer", "source", "is_allowed"),
    [
        ({"podSelector": {}}, A, True),
        ({"podSelector": {}}, ELSEWHERE, False),
        ({"podSelector": {"matchLabels": {"app": "x"}}}, A, False),
        ({"namespaceSelector": {}}, ELSEWHERE, True),
        ({"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "x"}}}, ELSEWHERE, False),
        ({"namespaceSelector": {}}, OUTSIDE, False),
        ({"ipBlock": {"cidr": "192.0.2.0/24"}}, OUTSIDE, True),
        ({"ipBlock": {"cidr": "192.0.2.0/24", "except": ["192.0.2.0/28"]}}, OUTSIDE, False),
        ({"ipBlock": {"cidr": "::/0"}}, OUTSIDE, False),
    ],
)
def test_peers(peer, source, is_allowed) -> None:
    assert allowed([policy(ingress=[{"from": [peer]}])], source, B, 80) is is_allowed


@pytest.mark.parametrize(
    ("port", "number", "protocol", "is_allowed"),
    [
        ({"port": 80}, 80, "TCP", True),
        ({"port": 80}, 81, "TCP", False),
        ({"port": 80}, 80, "UDP", False),
        ({"port": 80, "protocol": "UDP"}, 80, "UDP", True),
        ({"port": 80, "endPort": 90}, 85, "TCP", True),
        ({"port": "web"}, 8080, "TCP", True),
        ({"port": "web"}, 80, "TCP", False),
        ({"protocol": "TCP"}, 9999, "TCP", True),
    ],
)
def test_ports(port, number, protocol, is_allowed) -> None:
    assert allowed([policy(ingress=[{"ports": [port]}])], A, B, number, protocol) is is_allowed


@pytest.mark.parametrize(
    ("expression", "is_selected"),
    [
        ({"key": "app", "operator": "Exists"}, True),
        ({"key": "app", "operator": "DoesNotExist"}, False),
        ({"key": "app", "operator": "In", "values": ["a", "c"]}, True),
        ({"key": "app", "operator": "NotIn", "values": ["a"]}, False),
        ({"key": "none", "operator": "NotIn", "values": ["a"]}, True),
    ],
)
def test_expressions(expression, is_selected) -> None:
    assert selects({"matchExpressions": [expression]}, A.labels) is is_selected
