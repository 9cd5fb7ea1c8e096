"""The base of every model, the scalar types of the API, and CEL rules as data."""

import re
from decimal import Decimal
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WithJsonSchema
from pydantic.alias_generators import to_camel

GROUP: Final = "hatchery.dev"
"""API group of the resources, and prefix of every label and annotation."""

VERSION: Final = "v1alpha1"
"""The served and stored API version."""

API_VERSION: Final = f"{GROUP}/{VERSION}"
"""`apiVersion` of every resource."""


HINT: Final = "x-hint"
"""Schema key of the sentence that explains a pattern; the CRD reports it instead of the pattern."""

KEPT: Final = "x-kept"
"""Schema key of the fields of a model that the CRD describes; only the model itself validates the others."""


class Model(BaseModel):
    """Base of all models: camelCase on the wire, frozen, rejects unknown keys; docstrings are the descriptions."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
    )

    def wire(self) -> dict[str, Any]:
        """The model as JSON-ready data with wire names, without absent fields."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


class Record(Model):
    """Base of what the product writes: ignores unknown keys, so that a newer writer never breaks an older reader."""

    model_config = ConfigDict(extra="ignore")


def cel(*rules: tuple[str, str], keyed_list: str | None = None) -> dict[str, Any]:
    """Schema extras for CEL rules.

    Args:
        rules: pairs of a CEL expression over `self` and the error message when it is false.
        keyed_list: key field of a list that merges by key.
    """
    extras: dict[str, Any] = {}
    if rules:
        extras["x-kubernetes-validations"] = [{"rule": rule, "message": message} for rule, message in rules]
    if keyed_list:
        extras |= {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [keyed_list]}
    return extras


def hint(sentence: str) -> dict[str, str]:
    """Schema extras with the error message for a value that does not match the field's pattern."""
    return {HINT: sentence}


def spelled_out(*fields: str) -> dict[str, Any]:
    """Schema extras that keep a CRD small: it describes only these wire-named fields of the model."""
    return {KEPT: list(fields)}


def exactly_one(*fields: str) -> tuple[str, str]:
    """The CEL rule that exactly one of these wire-named fields is set."""
    present = ", ".join(f"has(self.{name})" for name in fields)
    return f"[{present}].filter(x, x).size() == 1", f"set exactly one of {', '.join(fields)}"


def one_field(schema: dict[str, Any]) -> None:
    """Schema extras for a model of which exactly one field is set: the CEL rule names all its fields."""
    schema |= cel(exactly_one(*schema["properties"]))


_QUANTITY = r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$"
_DURATION = r"^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$"
_SUFFIXES: Final = {
    "": Decimal(1),
    "m": Decimal("0.001"),
    **{s: Decimal(1000) ** n for n, s in enumerate("kMGTP", 1)},
    **{f"{s}i": Decimal(1024) ** n for n, s in enumerate("KMGTP", 1)},
}
_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}

_QUANTITY_HINT: Final = "is not a quantity; use for example 500m, 2 or 4Gi"
_DURATION_HINT: Final = "is not a duration; use for example 90s or 1h30m"
_NAME_HINT: Final = "must be lower-case letters, digits and hyphens, with a letter or digit at both ends"


def parse_quantity(quantity: int | str) -> Decimal:
    """The value of a Kubernetes quantity in its base unit: bytes, cores.

    Raises:
        ValueError: the text is not a quantity.
    """
    text = str(quantity)
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([a-zA-Z]*)", text)
    if not match or match[2] not in _SUFFIXES:
        raise ValueError(f"{text!r} {_QUANTITY_HINT}")
    return Decimal(match[1]) * _SUFFIXES[match[2]]


def _checked_quantity(quantity: int | str) -> int | str:
    parse_quantity(quantity)
    return quantity


Quantity = Annotated[
    int | str,
    AfterValidator(_checked_quantity),
    WithJsonSchema(
        {
            "x-kubernetes-int-or-string": True,
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "pattern": _QUANTITY,
            "maxLength": 32,
            **hint(_QUANTITY_HINT),
        }
    ),
]
"""A Kubernetes quantity: `2`, `500m`, `4Gi`."""

FreeObject = Annotated[dict[str, Any], WithJsonSchema({"type": "object", "x-kubernetes-preserve-unknown-fields": True})]
"""A core Kubernetes type, passed through unchanged; the API server validates it when the Job is created."""

Duration = Annotated[str, Field(pattern=_DURATION, max_length=32, json_schema_extra=hint(_DURATION_HINT))]
"""A Go duration: `30s`, `1h30m`."""

ResourceName = Annotated[
    str,
    Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", min_length=1, max_length=63, json_schema_extra=hint(_NAME_HINT)),
]
"""Name of an object in the same namespace."""

Text = Annotated[str, Field(max_length=1024)]
"""A short text."""

Url = Annotated[str, Field(min_length=1, max_length=2048)]
"""A path or fsspec URL."""

Seed = Annotated[int, Field(ge=0, le=2**31 - 1)]
"""Seed of a random generator; equal seeds give equal results."""


def parse_duration(duration: str) -> float:
    """The seconds of a Go duration.

    Raises:
        ValueError: the text is not a duration.
    """
    if not re.fullmatch(_DURATION, duration):
        raise ValueError(f"{duration!r} {_DURATION_HINT}")
    return sum(float(n) * _SECONDS[unit] for n, _, unit in re.findall(r"([0-9]+(\.[0-9]+)?)(ms|s|m|h)", duration))


class Ref(Model):
    """A resource in the same namespace; the run waits until it is ready."""

    name: ResourceName
    """Name of the resource."""
