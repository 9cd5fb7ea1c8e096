"""Scalars of the API: quantities and durations against independent arithmetic."""

import datetime as dt
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from hatchery_api.base import Duration, Quantity, Ref, ResourceName, parse_duration, parse_quantity


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (2, 2),
        ("2", 2),
        ("500m", "0.5"),
        ("1k", 1000),
        ("4Gi", 4294967296),
        ("1.5Gi", 1610612736),
        ("3T", 3 * 10**12),
        ("1Pi", 2**50),
    ],
)
def test_quantities_have_the_values_kubernetes_gives_them(text, value) -> None:
    assert parse_quantity(text) == Decimal(value)


@pytest.mark.parametrize("text", ["", "lots", "4GiB", "4 Gi", "-1", "1e3", "Gi", "4Gi\n"])
def test_an_invalid_quantity_is_an_error_with_an_example(text) -> None:
    with pytest.raises(ValueError, match="use for example 500m, 2 or 4Gi"):
        parse_quantity(text)


def test_a_field_rejects_an_invalid_quantity() -> None:
    with pytest.raises(ValidationError, match="is not a quantity"):
        TypeAdapter(Quantity).validate_python("lots")
    assert TypeAdapter(Quantity).validate_python("4Gi") == "4Gi"


@given(
    hours=st.integers(0, 99),
    minutes=st.integers(0, 999),
    seconds=st.integers(0, 999),
    milliseconds=st.integers(0, 9999),
)
def test_durations_are_the_sum_of_their_parts(hours, minutes, seconds, milliseconds) -> None:
    expected = dt.timedelta(hours=hours, minutes=minutes, seconds=seconds, milliseconds=milliseconds)
    found = parse_duration(f"{hours}h{minutes}m{seconds}s{milliseconds}ms")
    assert found == pytest.approx(expected.total_seconds())


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("1.5h", 5400), ("250ms", 0.25)])
def test_durations_with_one_unit(text, seconds) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "90", "1 h", "1d", "-5s", "h", "5s\n"])
def test_an_invalid_duration_is_an_error_with_an_example(text) -> None:
    with pytest.raises(ValueError, match="use for example 90s or 1h30m"):
        parse_duration(text)
    with pytest.raises(ValidationError):
        TypeAdapter(Duration).validate_python(text)


@pytest.mark.parametrize("name", ["a", "run-1", "0", "a" * 63])
def test_names_of_objects(name) -> None:
    assert Ref(name=name).name == name


@pytest.mark.parametrize("name", ["", "Run", "run_1", "-run", "run-", "a" * 64, "run.1"])
def test_invalid_names_of_objects(name) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(ResourceName).validate_python(name)
