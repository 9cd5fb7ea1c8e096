"""The budget of the operator bench: named figures with their bounds, read from `operator.yaml`, and the verdict on a run."""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Self

import yaml
from pydantic import Field, TypeAdapter, ValidationError, model_validator

from hatchery_api.base import Model

BUDGET = Path(__file__).with_name("operator.yaml")
"""The budget in force."""

FigureName = Annotated[str, Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")]
"""How a figure is called in the budget and in its `bar` line."""


class BudgetError(ValueError):
    """The budget is wrong, or does not fit what was measured; the message names the figure."""


class Bound(Model):
    """What a figure may be at worst; exactly one side is set."""

    at_least: float | None = None
    """Smallest good value."""

    at_most: float | None = None
    """Largest good value."""

    why: Annotated[str, Field(min_length=10)]
    """How the bound was set: a bound that nobody can derive is changed by whoever misses it."""

    @model_validator(mode="after")
    def _one_side(self) -> Self:
        if (self.at_least is None) == (self.at_most is None):
            raise ValueError("set exactly one of atLeast and atMost")
        return self

    @property
    def goal(self) -> float:
        """The bound's value."""
        return self.at_most if self.at_least is None else self.at_least

    def holds(self, value: float) -> bool:
        """Whether a value is within the bound; what could not be measured is not."""
        return value >= self.at_least if self.at_least is not None else value <= self.goal


Budget = dict[str, Bound]
"""Bounds by the name of their figure."""

_SCHEMA: TypeAdapter[Budget] = TypeAdapter(dict[FigureName, Bound])


def load_budget(path: Path = BUDGET) -> Budget:
    """The bounds of a file.

    Raises:
        BudgetError: the file is no budget.
    """
    try:
        return _SCHEMA.validate_python(yaml.safe_load(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in error.errors()]
        raise BudgetError(f"{path.name}: " + "; ".join(problems)) from error
    except yaml.YAMLError as error:
        raise BudgetError(f"{path.name}: is no YAML: {error}") from error


def bar_lines(budget: Budget, figures: Mapping[str, float]) -> list[str]:
    """One line per bound, `bar <name> <value> <goal> pass|short`.

    Raises:
        BudgetError: a bound has no figure, or a figure no bound: both are spelling mistakes.
    """
    if strays := budget.keys() ^ figures.keys():
        raise BudgetError(f"measured or bounded, not both: {', '.join(sorted(strays))}")
    return [
        f"bar {name} {figures[name]:.4g} {bound.goal:g} {'pass' if bound.holds(figures[name]) else 'short'}"
        for name, bound in budget.items()
    ]


def percentile(values: Iterable[float], percent: float) -> float:
    """The smallest value that at least `percent` of all do not exceed (nearest rank); nan without values."""
    ranked = sorted(values)
    return ranked[max(0, math.ceil(percent / 100 * len(ranked)) - 1)] if ranked else math.nan
