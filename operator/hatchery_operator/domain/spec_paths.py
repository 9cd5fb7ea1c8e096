"""From what Kubernetes complains about to the field of the spec that a user can change; pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from hatchery_operator.domain.objects import Manifest, Run
from hatchery_operator.settings import Settings
from hatchery_operator.stages.base import claim_of

RESOURCES: Final = "spec.placement.resources"
"""Field with what each pod asks for."""


@dataclass(frozen=True)
class SpecPaths:
    """Where a resource names what its pods need."""

    namespace: str = ""
    spec: Mapping[str, Any] = field(default_factory=dict)
    default_claim: str = ""
    """Claim of the operator's settings."""

    @classmethod
    def of(cls, run: Run, settings: Settings | None = None) -> "SpecPaths":
        """The names in a resource's spec."""
        spec = run.spec.wire() if run.spec else {}
        return cls(run.namespace, spec, settings.claim_name if settings else "")

    def origin(self, name: str) -> str:
        """Where a name comes from, as an insertion; empty when that is not known."""
        path = next((path for path, value in _leaves(self.spec, "spec") if name in (value, claim_of(str(value)))), None)
        if path:
            return f", named in `{path}`,"
        if name == self.default_claim:
            return ", the operator's default where `spec.storage` is silent,"
        return ""

    def missing(self, kind: str, name: str, remedy: str = "create it, the pods then start") -> str:
        """The sentence about an object that does not exist."""
        return f"{kind} {name}{self.origin(name)} does not exist in namespace {self.namespace}: {remedy}"

    def amount_field(self, resource: str) -> str:
        """The field that decides how much of something the pods ask for: a limit alone is a request as well."""
        own = self.spec.get("placement", {}).get("resources", {})
        is_limit = resource in (own.get("limits") or {}) and resource not in (own.get("requests") or {})
        return f"`{RESOURCES}.{'limits' if is_limit else 'requests'}.{resource}`"


def asked(pod: Manifest) -> str:
    """What a pod asks for."""
    requests: dict[str, str] = {}
    for container in pod.get("spec", {}).get("containers", []):
        requests |= container.get("resources", {}).get("requests", {})
    return ", ".join(f"{name} {amount}" for name, amount in sorted(requests.items())) or "no particular amount"


def limit(pod: Manifest, resource: str) -> str | None:
    """The limit of a pod's container."""
    containers = pod.get("spec", {}).get("containers", [])
    limits = containers[0].get("resources", {}).get("limits", {}) if containers else {}
    return str(limits[resource]) if resource in limits else None


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _leaves(inner, f"{path}.{key}")
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _leaves(inner, f"{path}[{index}]")
    else:
        yield path, value
