"""From a name in a Kubernetes message to the field of the spec that holds it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self

from hatchery_api.contract import CLAIM_SCHEME
from hatchery_api.placement import RunSpec

RESOURCES: Final = "spec.placement.resources"
"""Field with the resources of each pod."""


@dataclass(frozen=True)
class SpecPaths:
    """The fields of a resource's spec by the names they hold."""

    namespace: str = ""
    spec: Mapping[str, Any] = field(default_factory=dict)
    """The spec by wire names."""
    default_claim: str = ""
    """Claim of the operator's settings."""

    @classmethod
    def of(cls, namespace: str, spec: RunSpec | None, default_claim: str = "") -> Self:
        """The fields of a spec; none for a spec that cannot be parsed."""
        return cls(namespace, spec.wire() if spec else {}, default_claim)

    def origin(self, name: str) -> str:
        """Where a name comes from, as an insertion into a sentence; empty when unknown."""
        path = next((path for path, value in _leaves(self.spec, "spec") if name in (value, claim_of(str(value)))), None)
        if path:
            return f", named in `{path}`,"
        if name == self.default_claim:
            return ", the operator's default if `spec.storage` is not set,"
        return ""

    def missing(self, kind: str, name: str, remedy: str = "create it, and the pods start") -> str:
        """The sentence about an object that does not exist."""
        return f"{kind} {name}{self.origin(name)} does not exist in namespace {self.namespace}: {remedy}"

    def amount_field(self, resource: str) -> str:
        """The field that sets the request for a resource; a limit without a request is a request too."""
        own = self.spec.get("placement", {}).get("resources", {})
        is_limit = resource in (own.get("limits") or {}) and resource not in (own.get("requests") or {})
        return f"`{RESOURCES}.{'limits' if is_limit else 'requests'}.{resource}`"


def claim_of(url: str) -> str | None:
    """The PersistentVolumeClaim of a `claim://` URL; None for any other URL."""
    return url.removeprefix(CLAIM_SCHEME).partition("/")[0] if url.startswith(CLAIM_SCHEME) else None


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _leaves(inner, f"{path}.{key}")
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _leaves(inner, f"{path}[{index}]")
    else:
        yield path, value
