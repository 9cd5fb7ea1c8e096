"""NetworkPolicies of the runs' pods: one for all of a namespace, and one for each gang; pure.

Policies only ever add up: what one of them allows, no other takes away.
"""

from typing import Final
from urllib.parse import urlsplit

from hatchery_api.base import GROUP
from hatchery_api.contract import METRICS_PORT
from hatchery_operator.domain.objects import MANAGED_BY_LABEL, MANAGER, Manifest
from hatchery_operator.settings import Settings

RUNS_POLICY: Final = "hatchery-runs"
"""The policy of all runs' pods in a namespace; no run owns it, it stays with the namespace."""

ISOLATED_LABEL: Final = f"{GROUP}/isolated"
"""Label of pods that the policies are about. Pods of an older operator, or made while policies were off, have none: a
gang among them has no policy of its own and must stay open to itself."""

_DNS_PORT: Final = 53
_API_VERSION: Final = "networking.k8s.io/v1"


def isolation(settings: Settings) -> dict[str, str]:
    """Labels that put a pod under the policies, if there are any."""
    return {ISOLATED_LABEL: "true"} if settings.network_policies.enabled else {}


def runs_policy(namespace: str, settings: Settings) -> Manifest:
    """Nobody connects to a run's pods but to read metrics; they connect to names, the Hub, stores and the operator."""
    names = [{"port": _DNS_PORT, "protocol": protocol} for protocol in ("UDP", "TCP")]
    ports = _tcp(*_outward_ports(settings))
    # a rule with an empty list of ports would allow all of them
    outward = [{"ports": ports, "to": _outside(settings)}] if ports else []
    return {
        "apiVersion": _API_VERSION,
        "kind": "NetworkPolicy",
        "metadata": {"name": RUNS_POLICY, "namespace": namespace, "labels": {MANAGED_BY_LABEL: MANAGER}},
        "spec": {
            "podSelector": {"matchLabels": {ISOLATED_LABEL: "true"}},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"ports": _tcp(METRICS_PORT)}],
            "egress": [{"ports": names}, *outward],
        },
    }


def gang_policy(metadata: Manifest, labels: dict[str, str]) -> Manifest:
    """The pods of one attempt reach each other on every port, since collectives choose theirs at random."""
    peers = [{"podSelector": {"matchLabels": labels}}]
    return {
        "apiVersion": _API_VERSION,
        "kind": "NetworkPolicy",
        "metadata": metadata,
        "spec": {
            "podSelector": {"matchLabels": labels},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"from": peers}],
            "egress": [{"to": peers}],
        },
    }


def _tcp(*ports: int) -> list[Manifest]:
    return [{"port": port, "protocol": "TCP"} for port in ports]


def _outward_ports(settings: Settings) -> list[int]:
    hub = urlsplit(settings.hub_endpoint).port
    own = [settings.progress.port] if settings.progress.service_url else []
    return sorted({*settings.network_policies.egress_ports, *own, *([hub] if hub else [])})


def _outside(settings: Settings) -> list[Manifest]:
    """Everywhere but the blocked addresses; pods are named apart, since not every network counts their addresses."""
    blocked = settings.network_policies.blocked_cidrs
    blocks = [
        {"ipBlock": {"cidr": "0.0.0.0/0", "except": [cidr for cidr in blocked if ":" not in cidr]}},
        {"ipBlock": {"cidr": "::/0", "except": [cidr for cidr in blocked if ":" in cidr]}},
    ]
    return [*blocks, {"namespaceSelector": {}}]
