"""From models to CustomResourceDefinitions: one pure function."""

from typing import Any, Final

from hatchery_api.base import GROUP, HINT, KEPT, VERSION
from hatchery_api.kinds import Column, Kind
from hatchery_api.placement import MUTABLE_FIELDS

NAME_LIMIT: Final = 40
"""Longest name of a resource: `<name>-<stage>-a<attempt>-<index>` must fit a DNS label of 63 characters."""

_DROPPED: Final = ("title", "additionalProperties", "discriminator")


def custom_resource_definition(kind: Kind) -> dict[str, Any]:
    """The CRD of one kind."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{kind.plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": kind.kind,
                "listKind": f"{kind.kind}List",
                "plural": kind.plural,
                "singular": kind.singular,
                "shortNames": [kind.short],
                "categories": ["hatchery"],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": [_column(c) for c in kind.columns],
                    "schema": {"openAPIV3Schema": _root_schema(kind)},
                }
            ],
        },
    }


def _column(column: Column) -> dict[str, Any]:
    printed: dict[str, Any] = {"name": column.name, "type": column.type, "jsonPath": column.path}
    if column.priority:
        printed["priority"] = column.priority
    if column.description:
        printed["description"] = column.description
    return printed


def _root_schema(kind: Kind) -> dict[str, Any]:
    spec = structural(kind.spec.model_json_schema(by_alias=True))
    return {
        "type": "object",
        "description": _sentence(kind.spec.__doc__),
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": spec,
            "status": structural(kind.status.model_json_schema(by_alias=True)),
        },
        "x-kubernetes-validations": [
            {
                "rule": f"self.metadata.name.size() <= {NAME_LIMIT}",
                "message": f"metadata.name must have at most {NAME_LIMIT} characters;"
                " Job and pod names are derived from it",
            },
            *_immutability(kind.kind, spec),
        ],
    }


def _immutability(kind: str, spec: dict[str, Any]) -> list[dict[str, Any]]:
    """A transition rule for each field, so that the message names it."""
    fields = spec["properties"]
    always = {*spec.get("required", ()), *(name for name, field in fields.items() if "default" in field)}
    return [
        {
            "rule": f"!oldSelf.?status.startTime.hasValue() || {_unchanged(name, always=name in always)}",
            "message": f"spec.{name} is immutable once the run has started; create a new {kind} instead",
        }
        for name in sorted(fields.keys() - MUTABLE_FIELDS)
    ]


def _unchanged(name: str, *, always: bool) -> str:
    """The CEL expression that a field is unchanged; comparing optional values would exceed the cost limit."""
    new, old = f"self.spec.{name}", f"oldSelf.spec.{name}"
    equal = f"{new} == {old}"
    return equal if always else f"(has({new}) ? has({old}) && {equal} : !has({old}))"


def structural(schema: dict[str, Any]) -> dict[str, Any]:
    """A pydantic JSON schema as a structural schema: references inlined, nulls and titles removed."""
    return _convert(schema, schema.get("$defs", {}))


def _convert(node: dict[str, Any], defs: dict[str, Any]) -> dict[str, Any]:
    node = _resolve(node, defs)
    node = _without_null(node, defs)
    if KEPT in node:
        node = _shortened(node)
    elif node.get("x-kubernetes-preserve-unknown-fields"):
        return {k: v for k, v in node.items() if k not in ("title", "default")}
    out = {k: v for k, v in node.items() if k not in (*_DROPPED, "$defs", "anyOf", "properties", "items")}
    if "const" in out:
        out["enum"] = [out.pop("const")]
    for exclusive, bound in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if exclusive in out:
            out |= {bound: out[exclusive], exclusive: True}
    if node.get("x-kubernetes-int-or-string"):
        out["anyOf"] = node["anyOf"]
    if HINT in out:
        out |= _explained_pattern(out.pop("pattern"), out.pop(HINT), numbers="anyOf" in out)
    if "description" in out:
        out["description"] = _sentence(out["description"])
    out |= _children(node, defs)
    _tidy_default(out)
    return out


def _shortened(node: dict[str, Any]) -> dict[str, Any]:
    """The node with the fields that the CRD describes; the server accepts others, and the operator validates them."""
    kept = node[KEPT]
    short = {k: v for k, v in node.items() if k not in (KEPT, "properties", "required")}
    if kept:
        short["properties"] = {name: node["properties"][name] for name in kept}
        short["required"] = [name for name in node.get("required", ()) if name in kept]
    return {**short, "x-kubernetes-preserve-unknown-fields": True}


def _explained_pattern(pattern: str, sentence: str, *, numbers: bool) -> dict[str, Any]:
    """A pattern as a rule with a message, since the server would print the bare pattern."""
    rule = f"self.matches(r'{pattern}')"
    if numbers:
        rule = f"type(self) == int ? self >= 0 : {rule}"
    return {"x-kubernetes-validations": [{"rule": rule, "message": sentence}]}


def _children(node: dict[str, Any], defs: dict[str, Any]) -> dict[str, Any]:
    """The converted schemas of fields, items and map values."""
    out: dict[str, Any] = {}
    if "properties" in node:
        out["properties"] = {k: _convert(v, defs) for k, v in node["properties"].items()}
    for values in ("items", "additionalProperties"):
        if isinstance(node.get(values), dict):
            out[values] = _convert(node[values], defs)
            # the field above has a description, and definitions must stay small
            out[values].pop("description", None)
    return out


def _resolve(node: dict[str, Any], defs: dict[str, Any]) -> dict[str, Any]:
    if "$ref" not in node:
        return node
    target = defs[node["$ref"].rsplit("/", 1)[1]]
    return {**target, **{k: v for k, v in node.items() if k != "$ref"}}


def _without_null(node: dict[str, Any], defs: dict[str, Any]) -> dict[str, Any]:
    """`X | None` becomes X; `int | "auto"` becomes an int-or-string."""
    if "anyOf" not in node or node.get("x-kubernetes-int-or-string"):
        return node
    choices = [c for c in node["anyOf"] if c.get("type") != "null"]
    rest = {k: v for k, v in node.items() if k != "anyOf"}
    if len(choices) == 1:
        return {**_without_null(_resolve(choices[0], defs), defs), **rest}
    constants = [c["const"] for c in choices if isinstance(c.get("const"), str)]
    numbers = [c for c in choices if c.get("type") == "integer"]
    if len(choices) != len(constants) + len(numbers):
        raise TypeError(f"a union other than `X | None` or `int | word` has no structural schema: {node}")
    allowed = " || ".join(f"self == '{word}'" for word in constants)
    low, high = numbers[0]["minimum"], numbers[0]["maximum"]
    return {
        **rest,
        "x-kubernetes-int-or-string": True,
        "anyOf": [{"type": "integer"}, {"type": "string"}],
        "x-kubernetes-validations": [
            {
                "rule": f"type(self) == int ? (self >= {low} && self <= {high}) : ({allowed})",
                "message": f"must be {' or '.join(constants)} or a number from {low} to {high}",
            }
        ],
    }


def _tidy_default(node: dict[str, Any]) -> None:
    if "default" not in node:
        return
    default = _pruned(node["default"])
    if default is None:
        del node["default"]
    elif "properties" in node and "x-kubernetes-validations" not in node:
        # shorter: the fields' own defaults fill it in
        node["default"] = {}
    else:
        # rules are checked before the fields' own defaults are filled in, so the default must be complete
        node["default"] = default


def _pruned(value: Any) -> Any:
    """The value without nulls, which a structural schema rejects."""
    if isinstance(value, dict):
        return {k: _pruned(v) for k, v in value.items() if v is not None}
    if isinstance(value, list):
        return [_pruned(v) for v in value]
    return value


def _sentence(text: str | None) -> str:
    return " ".join((text or "").split())
