"""Numbers and texts for people, against decimal arithmetic."""

import math
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hatchery_api.format import counted, duration_text, shortened, significant, size_text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (90.20550417490631, "90.21"),
        (0.000123456, "0.0001235"),
        (123456.7, "123,457"),
        (3.25, "3.250"),
        (25.0, "25.00"),
        (4100.4, "4,100"),
        (9.99996, "10.00"),
        (999.96, "1,000"),
        (0.00009999996, "0.0001000"),
        (1.23456e-7, "1.235e-07"),
        (-1.23456e-7, "-1.235e-07"),
        (1.23456e17, "1.235e+17"),
        (-90.20550417490631, "-90.21"),
        (0.0, "0"),
        (-0.0, "0"),
        (math.nan, "nan"),
        (math.inf, "inf"),
        (-math.inf, "-inf"),
        (7, "7"),
        (1234567, "1,234,567"),
        (-1234567, "-1,234,567"),
    ],
)
def test_a_number_is_rounded_to_four_significant_digits(value, text) -> None:
    assert significant(value) == text


def test_the_number_of_digits_can_be_chosen() -> None:
    assert [significant(90.20550417490631, digits) for digits in (1, 2, 3, 6)] == ["90", "90", "90.2", "90.2055"]


@given(st.floats(allow_nan=False, allow_infinity=False), st.integers(1, 9))
def test_rounding_errs_by_half_of_the_last_digit_at_most(value, digits) -> None:
    shown, exact = Decimal(significant(value, digits).replace(",", "")), Decimal(value)
    assert abs(shown - exact) * 2 <= Decimal(10) ** (exact.adjusted() - digits + 1 if exact else 0)


@pytest.mark.parametrize(
    ("count", "names", "text"),
    [
        (1, ("Job",), "1 Job"),
        (0, ("Job",), "0 Jobs"),
        (2, ("Job",), "2 Jobs"),
        (1234, ("batch", "batches"), "1,234 batches"),
        (1, ("batch", "batches"), "1 batch"),
    ],
)
def test_one_thing_is_singular(count, names, text) -> None:
    assert counted(count, *names) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1, "0s"),
        (0, "0s"),
        (0.9, "0s"),
        (59, "59s"),
        (60, "1m00s"),
        (3599, "59m59s"),
        (3600, "1h00m"),
        (86_399, "23h59m"),
        (90_061, "1d01h"),
    ],
)
def test_a_duration_has_its_two_largest_units(seconds, text) -> None:
    assert duration_text(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (3 * 2**20, "3.0 MiB"), (2**50, "1024.0 TiB")]
)
def test_a_size_has_its_largest_unit(count, text) -> None:
    assert size_text(count) == text


@pytest.mark.parametrize(
    ("limit", "text"),
    [
        (19, "the quick brown fox"),
        (18, "the quick brown…"),
        (16, "the quick brown…"),
        (15, "the quick…"),
        (10, "the quick…"),
        (9, "the…"),
        (3, "th…"),
    ],
)
def test_a_text_is_cut_between_words(limit, text) -> None:
    assert shortened("the quick brown fox", limit) == text


def test_a_very_long_word_is_cut_within() -> None:
    assert shortened("a " + "x" * 100, 50) == "a " + "x" * 47 + "…"


@given(st.text(), st.integers(1, 40))
def test_a_cut_text_fits_and_is_a_beginning(text, limit) -> None:
    short = shortened(text, limit)
    assert len(short) <= limit
    assert short == text or (short.endswith("…") and text.startswith(short[:-1]))
