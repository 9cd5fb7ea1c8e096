import math
from pathlib import Path

import pytest
from tests.bench.operator_budget import Bound, BudgetError, bar_lines, load_budget, percentile

WHY = "as fast as it was before"


@pytest.mark.parametrize(
    ("percent", "expected"), [(0, 1), (1, 1), (50, 50), (50.1, 51), (98, 98), (99, 99), (99.1, 100), (100, 100)]
)
def test_a_percentile_is_the_smallest_value_that_so_many_do_not_exceed(percent: float, expected: float) -> None:
    values = [float(n) for n in range(100, 0, -1)]
    assert percentile(values, percent) == expected


def test_the_percentile_of_one_value_is_that_value() -> None:
    assert percentile([3.0], 99) == 3.0


def test_the_percentile_of_nothing_is_no_number() -> None:
    assert math.isnan(percentile([], 50))


@pytest.mark.parametrize(
    ("bound", "value", "verdict"),
    [
        (Bound(at_least=8, why=WHY), 8.0, "pass"),
        (Bound(at_least=8, why=WHY), 7.99, "short"),
        (Bound(at_most=0, why=WHY), 0, "pass"),
        (Bound(at_most=0, why=WHY), 1, "short"),
        (Bound(at_most=2, why=WHY), math.nan, "short"),
        (Bound(at_least=2, why=WHY), math.nan, "short"),
    ],
)
def test_a_figure_passes_up_to_its_bound_and_not_beyond(bound: Bound, value: float, verdict: str) -> None:
    (line,) = bar_lines({"speed": bound}, {"speed": value})
    assert line.split() == ["bar", "speed", f"{value:.4g}", f"{bound.goal:g}", verdict]


@pytest.mark.parametrize("figures", [{}, {"speed": 1.0, "sped": 1.0}])
def test_a_bound_without_figure_and_a_figure_without_bound_are_errors(figures: dict[str, float]) -> None:
    with pytest.raises(BudgetError, match=r"spee?d"):
        bar_lines({"speed": Bound(at_least=1, why=WHY)}, figures)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("speed: {atLeast: 1, atMost: 2, why: because of both}", "speed: .*exactly one"),
        ("speed: {why: because of neither}", "speed: .*exactly one"),
        ("speed: {atLeast: 1}", r"speed\.why"),
        ("speed: {atLeast: 1, why: so}", r"speed\.why"),
        ("speed: {atleast: 1, why: a misspelt side}", r"speed\.atleast"),
        ("Speed!: {atLeast: 1, why: no name for a bar}", "Speed!"),
        ("[]", "dict"),
        ("a: b: c", "no YAML"),
    ],
)
def test_a_budget_is_read_strictly(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "budget.yaml"
    path.write_text(text)
    with pytest.raises(BudgetError, match=said):
        load_budget(path)


def test_no_bound_of_the_budget_is_below_what_was_promised() -> None:
    """The bars of the operator's checklist; a budget may be tighter, never looser."""
    promised = {
        "objects-ratio-300": 8,
        "objects-ratio-1000": 8,
        "all-jobs-seconds-1000": 12,
        "first-status-p99-seconds-1000": 5,
        "single-first-status-seconds": 1,
        "memory-mib-1000": 150,
        "memory-ratio-300": 2,
        "memory-ratio-1000": 2,
        "restart-ready-seconds": 15,
        "restart-writes": 0,
        "idle-writes-per-minute": 1,
        "idle-cores": 0.02,
        "hot-object-p99-ratio": 2,
    }
    budget = load_budget()
    for name, value in promised.items():
        assert budget[name].holds(value), name
        looser = value - 0.01 if budget[name].at_least is not None else value + 0.01
        assert not budget[name].holds(looser), name
