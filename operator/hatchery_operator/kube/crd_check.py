"""Checks that the served CustomResourceDefinitions have every field of this version: the API server prunes the others.

The API server publishes the served schemas as an OpenAPI document readable by every account, so the check needs no
permission on definitions and works for a namespaced installation too.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from hatchery_api import __version__
from hatchery_api.base import API_VERSION, GROUP, VERSION
from hatchery_api.conditions import Reason
from hatchery_api.kinds import KINDS, Kind
from hatchery_api.schema import custom_resource_definition
from hatchery_operator.domain.objects import Diagnosis
from hatchery_operator.kube.client import Cluster

LOG: Final = logging.getLogger(__name__)

DOCUMENT: Final = f"/openapi/v3/apis/{API_VERSION}"
"""Path of the schemas of our API group."""

NAMED_FIELDS: Final = 3
"""Most missing fields named in a message; there may be hundreds."""


class CrdCheck:
    """Compares the served definitions with this version and remembers which are outdated."""

    def __init__(self, cluster: Cluster, report: Callable[[str, bool], None]) -> None:
        """`report` receives each kind and whether its definition is outdated, after every check."""
        self._cluster = cluster
        self._report = report
        self._problems: dict[str, Diagnosis] = {}

    def problem(self, kind: str) -> Diagnosis | None:
        """Why resources of a kind lose fields; None for an up-to-date definition."""
        return self._problems.get(kind)

    async def check(self) -> None:
        """Compares the served definitions with this version.

        Raises:
            ApiError: the request failed.
        """
        served = (await self._cluster.read(DOCUMENT))["components"]["schemas"]
        problems = {kind.kind: found for kind in KINDS if (found := outdated(kind, served))}
        for kind in KINDS:
            self._report(kind.kind, kind.kind in problems)
        for name in problems.keys() - self._problems.keys():
            LOG.error("CustomResourceDefinition outdated", extra={"kind": name, "details": problems[name].message})
        self._problems = problems


def outdated(kind: Kind, served: Mapping[str, Any]) -> Diagnosis | None:
    """The problem of a served definition that lacks fields; `served` maps names to the schemas of the document."""
    group = ".".join(reversed(GROUP.split(".")))
    ours = custom_resource_definition(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    missing = list(missing_fields(ours, served.get(f"{group}.{VERSION}.{kind.kind}", {})))
    if not missing:
        return None
    more = len(missing) - NAMED_FIELDS
    named = ", ".join(missing[:NAMED_FIELDS]) + (f" and {more} more" if more > 0 else "")
    return Diagnosis(
        Reason.CRD_OUTDATED,
        f"the CustomResourceDefinition {kind.plural}.{GROUP} is older than operator {__version__} and drops "
        f"{named}: apply this version's definitions (set crds.enabled=true in the chart, or apply manifests/crds)",
    )


def missing_fields(ours: Mapping[str, Any], served: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """Paths of fields that `ours` has and `served` lacks, without those below a missing field."""
    for name, schema in ours.get("properties", {}).items():
        where = f"{path}.{name}" if path else name
        if name not in served.get("properties", {}):
            yield where
        elif where != "metadata":
            yield from missing_fields(schema, served["properties"][name], where)
    for values, mark in (("items", "[]"), ("additionalProperties", "{}")):
        if isinstance(ours.get(values), dict):
            yield from missing_fields(ours[values], served.get(values) or {}, path + mark)
