"""Polling of pods that do not run: soon enough for people, rare enough for a thousand Jobs."""

import itertools

import pytest

from hatchery_operator.domain import backoff


def looks(*, explained: bool, until: float) -> list[float]:
    """When is looked, from the start of a Job."""
    ages, age = [], 0.0
    while age < until:
        age += backoff.pod_poll_seconds(age, explained=explained)
        ages.append(age)
    return ages


def test_the_first_answer_comes_within_thirty_seconds_of_its_cause_however_late_that_is() -> None:
    ages = looks(explained=False, until=86_400)
    assert ages[:3] == [5, 15, 25]
    assert max(after - before for before, after in itertools.pairwise(ages)) <= 30


def test_a_thousand_explained_jobs_are_asked_about_three_times_a_second_in_the_long_run() -> None:
    ages = looks(explained=True, until=86_400)
    in_the_last_hour = [age for age in ages if age > 86_400 - 3600]
    assert 1000 * len(in_the_last_hour) / 3600 < 4
    assert len([age for age in ages if age <= 60]) <= 4


@pytest.mark.parametrize(("age", "wait"), [(0, 10), (30, 10), (60, 15), (3600, 300)])
def test_a_refused_child_is_tried_ever_more_rarely(age: float, wait: float) -> None:
    assert backoff.CREATE_CHILD.after_seconds(age) == wait
