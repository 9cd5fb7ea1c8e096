import math

import pytest
from tests.bench.bars import bar_line, processor


@pytest.mark.parametrize(
    ("value", "goal", "below", "word"),
    [(1.2, 1.2, False, "pass"), (1.19, 1.2, False, "short"), (0.03, 0.03, True, "pass"), (0.031, 0.03, True, "short")],
)
def test_a_bar_passes_at_its_goal(value: float, goal: float, below: bool, word: str) -> None:
    assert bar_line("speed", value, goal, below=below) == f"bar speed {value:.3f} {goal:g} {word}"


@pytest.mark.parametrize("below", [True, False])
def test_no_number_is_short(below: bool) -> None:
    assert bar_line("loss", math.nan, 3.1, below=below).endswith("short")


def test_the_processors_name() -> None:
    assert processor("processor\t: 0\nmodel name\t: A Chip: fast\nflags: x\n") == "A Chip: fast"
    assert processor("CPU architecture: 8\n")
