"""NetworkPolicies of the runs' pods: one for each namespace, and one for each gang.

Policies are additive: no policy revokes what another one allows.
"""

from typing import Final
from urllib.parse import urlsplit

from hatchery_api.contract import METRICS_PORT
from hatchery_operator.domain.labels import ISOLATED_LABEL, MANAGED_BY_LABEL, MANAGER
from hatchery_operator.domain.objects import Manifest
from hatchery_operator.settings import Settings

RUNS_POLICY: Final = "hatchery-runs"
"""Name of the policy of all runs' pods in a namespace; no run owns it, so it stays."""

_DNS_PORT: Final = 53
_API_VERSION: Final = "networking.k8s.io/v1"


def isolation(settings: Settings) -> dict[str, str]:
    """Labels by which the policies select a pod; empty when policies are disabled."""
    return {ISOLATED_LABEL: "true"} if settings.network_policies.enabled else {}


def runs_policy(namespace: str, settings: Settings) -> Manifest:
    """Ingress for metrics only; egress to DNS, the Hub, artifact stores and the operator."""
    dns = [{"port": _DNS_PORT, "protocol": protocol} for protocol in ("UDP", "TCP")]
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
            "egress": [{"ports": dns}, *outward],
        },
    }


def gang_policy(metadata: Manifest, selector: dict[str, str]) -> Manifest:
    """Traffic between the pods of one attempt on every port, since collectives pick random ones."""
    peers = [{"podSelector": {"matchLabels": selector}}]
    return {
        "apiVersion": _API_VERSION,
        "kind": "NetworkPolicy",
        "metadata": metadata,
        "spec": {
            "podSelector": {"matchLabels": selector},
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
    """All addresses but the blocked ones; and all pods, which some network plugins do not match by address."""
    blocked = settings.network_policies.blocked_cidrs
    blocks = [
        {"ipBlock": {"cidr": "0.0.0.0/0", "except": [cidr for cidr in blocked if ":" not in cidr]}},
        {"ipBlock": {"cidr": "::/0", "except": [cidr for cidr in blocked if ":" in cidr]}},
    ]
    return [*blocks, {"namespaceSelector": {}}]
