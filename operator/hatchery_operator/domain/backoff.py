"""When to look again at what does not go on by itself; pure.

That pods run is told by the Job without asking. Why they do not is asked for: soon at first, then ever more rarely,
since a thousand Jobs that wait for hours must cost next to nothing.
"""

from typing import Final

from hatchery_operator.domain.observed import SETTLE_SECONDS

LOOK_AGAIN_SECONDS: Final = 10.0
"""Shortest time between two questions why pods do not run, and between two tries to create a child."""

EXPLAINED_SECONDS: Final = 20.0
"""The same for a question that has been answered."""

LOOK_AGAIN_SHARE: Final = 0.25
"""Later times, as a share of the time since something changed."""

UNEXPLAINED_MOST_SECONDS: Final = 30.0
"""Longest time without an answer; pods that have a node and do not start are never many."""

LOOK_AGAIN_MOST_SECONDS: Final = 300.0
"""Longest time with an answer, or between two tries."""


def next_look(age: float, *, explained: bool) -> float:
    """Seconds until pods are asked again why they do not run; `age` is the time since something happened to them."""
    if age < SETTLE_SECONDS:
        return SETTLE_SECONDS - max(0.0, age)
    if explained:
        return _between(EXPLAINED_SECONDS, age, LOOK_AGAIN_MOST_SECONDS)
    return _between(LOOK_AGAIN_SECONDS, age, UNEXPLAINED_MOST_SECONDS)


def next_try(age: float) -> float:
    """Seconds until a child is created again that was refused; `age` is the time since it first was."""
    return _between(LOOK_AGAIN_SECONDS, age, LOOK_AGAIN_MOST_SECONDS)


def _between(least: float, age: float, most: float) -> float:
    return min(most, max(least, LOOK_AGAIN_SHARE * age))
