"""Evaluates NetworkPolicies by the rules of their API reference, without a cluster.

The test cluster's network does not enforce policies, so their meaning is checked here and their form by the API server.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import Any

Object = dict[str, Any]


@dataclass(frozen=True)
class Endpoint:
    """One end of a connection: a pod, or an address outside of the cluster."""

    ip: str
    namespace: str = ""
    """Empty for an address outside of the cluster."""
    labels: Mapping[str, str] = field(default_factory=dict)
    ports: Mapping[str, int] = field(default_factory=dict)
    """Named ports of the pod."""


def allowed(policies: Iterable[Object], source: Endpoint, target: Endpoint, port: int, protocol: str = "TCP") -> bool:
    """Whether a connection is allowed; no namespace has labels."""
    policies = list(policies)
    return _passes(policies, source, target, "Egress", port, protocol, named=target) and _passes(
        policies, target, source, "Ingress", port, protocol, named=target
    )


def _passes(
    policies: list[Object], pod: Endpoint, peer: Endpoint, direction: str, port: int, protocol: str, *, named: Endpoint
) -> bool:
    isolating = [policy for policy in policies if _selects_pod(policy, pod) and direction in _types(policy["spec"])]
    rules, key = direction.lower(), "from" if direction == "Ingress" else "to"
    return not isolating or any(
        _peer_matches(rule.get(key, []), policy["metadata"]["namespace"], peer)
        and _port_matches(rule.get("ports", []), port, protocol, named)
        for policy in isolating
        for rule in policy["spec"].get(rules) or []
    )


def _types(spec: Object) -> list[str]:
    return spec.get("policyTypes") or ["Ingress", *(["Egress"] if "egress" in spec else [])]


def _selects_pod(policy: Object, pod: Endpoint) -> bool:
    return policy["metadata"]["namespace"] == pod.namespace and selects(policy["spec"]["podSelector"], pod.labels)


def selects(selector: Object, labels: Mapping[str, str]) -> bool:
    """Whether a label selector selects; an empty one selects everything."""
    if any(labels.get(key) != value for key, value in selector.get("matchLabels", {}).items()):
        return False
    return all(_holds(expression, labels) for expression in selector.get("matchExpressions", []))


def _holds(expression: Object, labels: Mapping[str, str]) -> bool:
    key, operator, values = expression["key"], expression["operator"], expression.get("values", [])
    return {
        "Exists": key in labels,
        "DoesNotExist": key not in labels,
        "In": labels.get(key) in values,
        "NotIn": labels.get(key) not in values,
    }[operator]


def _peer_matches(peers: list[Object], namespace: str, peer: Endpoint) -> bool:
    return not peers or any(_is_peer(one, namespace, peer) for one in peers)


def _is_peer(peer: Object, namespace: str, other: Endpoint) -> bool:
    if block := peer.get("ipBlock"):
        # what is a pod is left to selectors: not every network counts a pod's address
        address = ip_address(other.ip)
        excepted = any(address in ip_network(cidr) for cidr in block.get("except", []))
        return not other.namespace and address in ip_network(block["cidr"]) and not excepted
    if not other.namespace:
        return False
    if "namespaceSelector" in peer:
        in_namespace = selects(peer["namespaceSelector"], {})
    else:
        in_namespace = other.namespace == namespace
    return in_namespace and selects(peer.get("podSelector", {}), other.labels)


def _port_matches(ports: list[Object], port: int, protocol: str, target: Endpoint) -> bool:
    return not ports or any(_is_port(one, port, protocol, target) for one in ports)


def _is_port(one: Object, port: int, protocol: str, target: Endpoint) -> bool:
    if one.get("protocol", "TCP") != protocol:
        return False
    wanted = one.get("port")
    if isinstance(wanted, str):
        wanted = target.ports.get(wanted, -1)
    return wanted is None or wanted <= port <= one.get("endPort", wanted)
