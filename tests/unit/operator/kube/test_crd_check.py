"""Outdated definitions are detected field by field."""

import copy
from typing import Any

import pytest
from tests.support.operator.fake_cluster import served_schemas

from hatchery_api.kinds import KINDS, Kind
from hatchery_operator.kube.crd_check import missing_fields, outdated


def served(kind: Kind, *without: str) -> dict[str, Any]:
    """The served schemas without some fields."""
    schemas = copy.deepcopy(served_schemas())
    for path in without:
        node = schemas[f"dev.hatchery.v1alpha1.{kind.kind}"]
        *parents, last = path.split(".")
        for name in parents:
            node = node["items"] if name == "[]" else node["properties"][name]
        del node["properties"][last]
    return schemas


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.kind)
def test_definitions_of_this_version_are_not_outdated(kind: Kind) -> None:
    assert outdated(kind, served(kind)) is None


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.kind)
@pytest.mark.parametrize("path", ["spec.retry.backoff", "status.attempts", "status.stages", "status.stages.[].job"])
def test_a_field_that_would_be_dropped_is_named(kind: Kind, path: str) -> None:
    problem = outdated(kind, served(kind, path))
    assert problem is not None
    assert f" {path.replace('.[]', '[]')}: " in problem.message
    assert f"{kind.plural}.hatchery.dev" in problem.message


def test_a_definition_that_is_not_served_at_all_lacks_everything_and_names_a_few() -> None:
    problem = outdated(KINDS[0], {})
    assert problem is not None
    assert "apiVersion, kind, metadata and 2 more" in problem.message


def test_fields_only_the_served_definition_has_are_of_a_newer_version_and_no_problem() -> None:
    ours = {"properties": {"spec": {"properties": {"a": {}}}}}
    newer = {"properties": {"spec": {"properties": {"a": {}, "b": {}}}, "other": {}}}
    assert list(missing_fields(ours, newer)) == []
    assert list(missing_fields(newer, ours)) == ["spec.b", "other"]


def test_fields_in_lists_and_maps_are_compared_too() -> None:
    inner = {"properties": {"x": {}}}
    ours = {"properties": {"l": {"items": inner}, "m": {"additionalProperties": inner}}}
    assert list(missing_fields(ours, {"properties": {"l": {"items": {}}, "m": {}}})) == ["l[].x", "m{}.x"]
