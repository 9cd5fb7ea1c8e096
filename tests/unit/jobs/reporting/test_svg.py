"""Charts as a browser reads them: well-formed, complete, and the same for the same numbers."""

import math
import re
from itertools import pairwise
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hatchery_jobs.reporting.svg import (
    BUCKETS,
    LEFT,
    RIGHT,
    TOP,
    Chart,
    Line,
    Mark,
    label,
    log_ticks,
    segments,
    smoothed,
    thinned,
    ticks,
)

SVG = "{http://www.w3.org/2000/svg}"


def drawn(chart):
    """Corners of each polyline of a chart."""
    root = ET.fromstring(chart.svg())
    lines = root.findall(f"{SVG}polyline")
    return [[tuple(map(float, corner.split(","))) for corner in line.get("points").split()] for line in lines]


def test_a_line_goes_through_its_points_in_proportion():
    chart = Chart("c", [Line("x", [(0, 0.0), (5, 10.0), (10, 5.0)])], width=1000, height=300, from_zero=True)
    [[first, middle, last]] = drawn(chart)
    assert (first[0], last[0]) == (LEFT, 1000 - RIGHT)
    assert middle[0] == pytest.approx((first[0] + last[0]) / 2, abs=0.1)
    assert first[1] > last[1] > middle[1] > TOP  # pixels count downwards
    assert last[1] == pytest.approx((first[1] + middle[1]) / 2, abs=0.1)


def test_on_a_logarithmic_axis_equal_ratios_are_equal_distances():
    [[a, b, c]] = drawn(Chart("c", [Line("x", [(0, 1.0), (1, 10.0), (2, 100.0)])], is_log=True))
    assert a[1] - b[1] == pytest.approx(b[1] - c[1], abs=0.2)
    [[a, b, c]] = drawn(Chart("c", [Line("x", [(0, 0.0), (1, 10.0), (2, 20.0)])], is_log=True))
    assert a[1] - b[1] == pytest.approx(b[1] - c[1], abs=0.2)  # a zero has no logarithm: the axis is linear


def test_numbers_that_are_none_are_left_out():
    assert [
        len(line) for line in drawn(Chart("c", [Line("x", [(0, 1.0), (1, math.nan), (2, math.inf), (3, 2.0)])]))
    ] == [2]


@pytest.mark.parametrize("points", [[], [(0, math.nan)], [(3, 5.0)], [(0, 0.0), (1, 0.0)], [(7, -2.0)]])
def test_hardly_any_numbers_still_make_a_chart(points):
    root = ET.fromstring(Chart("c", [Line("x", points, dots=True)]).svg(alone=True))
    said = [text.text for text in root.findall(f"{SVG}text")]
    assert ("no data" in said) == (not points or math.isnan(points[0][1]))


def test_marks_stand_where_they_happened_and_say_what():
    chart = Chart("c", [Line("x", [(0, 1.0), (100, 2.0)])], [Mark(50, "restart", "restart at 50: <killed>")])
    root = ET.fromstring(chart.svg())
    [polygon] = root.findall(f"{SVG}polygon")
    assert polygon.find(f"{SVG}title").text == "restart at 50: <killed>"
    [line] = [line for line in root.findall(f"{SVG}line") if "mark" in line.get("class")]
    assert float(line.get("x1")) == pytest.approx((LEFT + 1080 - RIGHT) / 2, abs=0.1)
    assert [t.text for t in root.findall(f"{SVG}text")][1:3] == ["restart", "x"]  # the legend, from the right


def test_a_chart_that_stands_alone_brings_its_style_and_fetches_nothing():
    text = Chart("c", [Line("x", [(0, 1.0), (1, 2.0)])]).svg(alone=True)
    assert "prefers-color-scheme" in text
    assert "script" not in text
    assert re.findall(r"https?://[^\"]+", text) == ["http://www.w3.org/2000/svg"]  # a name, not an address


def test_where_updates_fall_the_line_is_interrupted():
    points = [(1, 1.0), (2, 1.0), (3, 1.0), (2, 5.0), (3, 5.0)]
    assert segments(points) == [points[:3], points[3:]]
    assert [len(line) for line in drawn(Chart("c", [Line("x", points)]))] == [3, 2]


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=3000))
def test_thinning_keeps_order_and_extremes_and_bounds_the_size(values):
    points = list(enumerate(values))
    kept = thinned(points)
    assert len(kept) <= 2 * BUCKETS
    assert kept == sorted(kept)
    assert set(kept) <= set(points)
    assert {min(v for _, v in kept), max(v for _, v in kept)} == {min(values), max(values)}


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=400))
def test_smoothing_is_the_mean_of_a_window(values):
    half = max(1, len(values) // 100)
    for n, (step, mean) in enumerate(smoothed(list(enumerate(values)))):
        window = values[max(0, n - half) : n + half + 1]
        assert step == n
        assert mean == pytest.approx(sum(window) / len(window), abs=1e-6)


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6))
def test_ticks_are_few_round_and_in_range(low, width):
    found = ticks(low, low + width)
    assert 2 <= len(found) <= 7
    slack = 1e-6 * width + 1e-9 * abs(low)
    assert all(low - slack <= tick <= low + width + slack for tick in found)
    gaps = [b - a for a, b in pairwise(found)]
    assert max(gaps) == pytest.approx(min(gaps), rel=1e-3, abs=1e-9 * abs(low))


@given(st.floats(1e-6, 1e6), st.floats(1.5, 1e6))
def test_logarithmic_ticks_are_in_range(low, ratio):
    found = log_ticks(low, low * ratio)
    assert all(low <= tick <= low * ratio for tick in found)
    assert len(found) <= 15
    assert found or ratio < 10


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (20_000, "20k"), (1_529_600_000, "1.53G"), (0.0005, "0.0005"), (2.5, "2.5"), (-1500, "-1.5k")],
)
def test_labels_are_short(value, text):
    assert label(value) == text
