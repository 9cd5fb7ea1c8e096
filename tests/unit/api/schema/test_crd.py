"""Models to structural schemas, rule by rule; a real API server judges the result in tests/apiserver."""

from dataclasses import replace
from typing import Annotated, Literal

import pytest
from pydantic import Field

from hatchery_api.base import Model, ResourceName, cel, spelled_out
from hatchery_api.kinds import KINDS
from hatchery_api.placement import MUTABLE_FIELDS, RunSpec
from hatchery_api.schema import custom_resource_definition, structural
from hatchery_api.schema.files import dump_yaml, write_or_check


class Inner(Model):
    """Inner things."""

    size: Annotated[int, Field(gt=0, le=9)] = 3
    """Its size."""
    label: str | None = None
    """Its label."""


class Ruled(Model):
    """With a rule."""

    model_config = {"json_schema_extra": cel(("self.low <= self.high", "low must not be above high"))}
    low: int = 1
    """Low."""
    high: int = 2
    """High."""
    note: str | None = None
    """Note."""


class Brief(Model):
    """With one field spelled out."""

    model_config = {"json_schema_extra": spelled_out("path")}
    path: str
    """Path."""
    rest: str
    """The rest."""


class Outer(Model):
    """Outer things."""

    inner: Inner = Inner()
    """One inner
    thing."""
    ruled: Ruled = Ruled()
    """One with a rule."""
    mode: Literal["only"] = "only"
    """The mode."""
    count: Annotated[int, Field(ge=1, le=8)] | Literal["auto"] = "auto"
    """A number or a word."""
    names: Annotated[dict[str, int], Field(max_length=4)] = {}
    """A map."""
    many: list[Inner]
    """A list."""
    brief: list[Brief] = []
    """A list of brief ones."""
    name: ResourceName = "x"
    """A name."""


SCHEMA = structural(Outer.model_json_schema(by_alias=True))
FIELDS = SCHEMA["properties"]


def every_node(node):
    yield node
    for child in (*node.get("properties", {}).values(), node.get("items"), node.get("additionalProperties")):
        if isinstance(child, dict):
            yield from every_node(child)


def test_references_are_inlined_and_titles_gone() -> None:
    assert not [node for node in every_node(SCHEMA) if {"$ref", "$defs", "title"} & node.keys()]
    assert FIELDS["many"]["items"]["properties"]["size"]["default"] == 3


def test_a_description_is_one_line() -> None:
    assert FIELDS["inner"]["description"] == "One inner thing."


def test_an_optional_field_is_a_plain_field_without_default() -> None:
    assert FIELDS["inner"]["properties"]["label"] == {"description": "Its label.", "type": "string"}


def test_exclusive_bounds_have_the_boolean_form() -> None:
    size = FIELDS["inner"]["properties"]["size"]
    assert (size["minimum"], size["exclusiveMinimum"], size["maximum"]) == (0, True, 9)


def test_a_nested_default_is_filled_in_by_its_fields() -> None:
    assert FIELDS["inner"]["default"] == {}


def test_a_nested_default_under_a_rule_is_whole_and_without_nulls() -> None:
    """The server checks it against the rule before it fills in the fields' own defaults."""
    assert FIELDS["ruled"]["default"] == {"low": 1, "high": 2}


def test_of_a_brief_model_one_field_is_spelled_out_and_the_others_are_kept_as_they_come() -> None:
    assert FIELDS["brief"]["items"] == {
        "type": "object",
        "required": ["path"],
        "properties": {"path": {"type": "string", "description": "Path."}},
        "x-kubernetes-preserve-unknown-fields": True,
    }


def test_one_word_is_an_enum() -> None:
    assert FIELDS["mode"]["enum"] == ["only"]
    assert "const" not in FIELDS["mode"]


def test_a_number_or_a_word_is_an_int_or_string_with_a_rule() -> None:
    [rule] = FIELDS["count"]["x-kubernetes-validations"]
    assert FIELDS["count"]["x-kubernetes-int-or-string"] is True
    assert rule["message"] == "must be auto or a number from 1 to 8"


def test_a_map_has_typed_values_and_a_limit() -> None:
    assert FIELDS["names"]["additionalProperties"] == {"type": "integer"}
    assert FIELDS["names"]["maxProperties"] == 4


def test_an_explained_pattern_is_a_rule_that_says_it() -> None:
    assert "pattern" not in FIELDS["name"]
    [rule] = FIELDS["name"]["x-kubernetes-validations"]
    assert rule["message"].startswith("must be lower-case letters")


def test_any_other_union_is_refused() -> None:
    class Union(Model):
        """Two types."""

        both: str | int
        """Either."""

    with pytest.raises(TypeError, match="no structural schema"):
        structural(Union.model_json_schema(by_alias=True))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.kind)
def test_every_field_is_either_mutable_or_under_a_rule_that_names_it(kind) -> None:
    [version] = custom_resource_definition(kind)["spec"]["versions"]
    schema = version["schema"]["openAPIV3Schema"]
    named = {rule["message"].split()[0].removeprefix("spec.") for rule in schema["x-kubernetes-validations"][1:]}
    fields = schema["properties"]["spec"]["properties"].keys()
    assert named | (MUTABLE_FIELDS & fields) == fields
    assert not named & MUTABLE_FIELDS


def test_a_kind_may_have_no_required_field() -> None:
    kind = replace(KINDS[0], spec=RunSpec)
    [version] = custom_resource_definition(kind)["spec"]["versions"]
    assert "required" not in version["schema"]["openAPIV3Schema"]["properties"]["spec"]


def test_words_that_older_yaml_reads_as_booleans_are_quoted() -> None:
    assert dump_yaml({"a": ["n", "y", "N", "no", "name"]}) == "a:\n- 'n'\n- 'y'\n- 'N'\n- 'no'\n- name\n"


def test_only_files_that_differ_are_written(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "same").write_text("1")
    files = {"same": "1", "folder/new": "2"}
    assert write_or_check(files, check=True) == ["folder/new"]
    assert not (tmp_path / "folder").exists()
    assert write_or_check(files, check=False) == ["folder/new"]
    assert (tmp_path / "folder/new").read_text() == "2"
    assert write_or_check(files, check=True) == []
