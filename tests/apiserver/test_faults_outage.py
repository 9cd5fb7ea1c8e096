"""The API server away for a minute, and two operators at work on the same resources for a minute."""

import itertools
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.cluster.control_plane import ControlPlane
from tests.support.kube.kubelet import JobRecord
from tests.support.operator.pipelines import PIPELINE, SCRIPTS, Pipeline
from tests.support.operator.process import OperatorProcess, Team, install

pytestmark = [pytest.mark.apiserver, pytest.mark.long]

MINUTE_SECONDS = 60.0
RECOVERY_BAR_SECONDS = 30.0
SEED = 5
AT_ONCE = 4
"""Pipelines under way at once."""


@pytest.fixture
def record(control_plane: ControlPlane) -> Iterator[JobRecord]:
    with JobRecord(control_plane) as record:
        yield record


@pytest.fixture
def operators(control_plane: ControlPlane, tmp_path: Path) -> Iterator[list[OperatorProcess]]:
    """Two operators, not started."""
    install(control_plane)
    both = []
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        both.append(OperatorProcess(control_plane, tmp_path / name))
    yield both
    for operator in both:
        operator.kill()


def events(team: Team) -> list[tuple[str, str]]:
    """Reasons of all events, by the name of their resource."""
    return sorted(
        (event["involvedObject"]["name"], event["reason"]) for event in team.send("GET", team.core("events"))["items"]
    )


def test_an_api_server_away_for_a_minute_is_waited_for_and_nothing_is_done_twice(
    control_plane: ControlPlane, api, operators, record: JobRecord, figures: Callable[..., None]
) -> None:
    operator, team = operators[0], Team(api.request, "outage")
    operator.start()
    team.apply("CorpusBuild", "before")
    team.run_pods("before-build-a1")
    team.wait_reason("CorpusBuild", "before", "Running")
    away = time.monotonic()
    control_plane.processes.stop("kube-apiserver")
    api.close()
    team.wait("a minute has passed", lambda: time.monotonic() - away > MINUTE_SECONDS, 2 * MINUTE_SECONDS)
    assert operator.exit_code() is None
    assert operator.get(operator.health, "/healthz") == (200, "ok")
    control_plane.start()
    back = time.monotonic()
    team.end_job("before-build-a1")
    team.apply("CorpusBuild", "after")
    team.wait_reason("CorpusBuild", "before", "Completed")
    team.wait_job("after-build-a1")
    recovery = time.monotonic() - back
    figures(away_seconds=round(back - away), recovery_seconds=round(recovery, 1), bar=RECOVERY_BAR_SECONDS, restarts=0)
    assert recovery <= RECOVERY_BAR_SECONDS
    assert operator.exit_code() is None
    team.wait("the record knows them", lambda: len(record.created("outage")) == 2)
    assert record.created("outage") == {"before-build-a1": 1, "after-build-a1": 1}
    assert len(events(team)) == len(set(events(team)))
    assert team.run("CorpusBuild", "before")["status"]["attempts"] == 1


def test_two_operators_at_work_for_a_minute_do_nothing_twice(
    api, operators, record: JobRecord, figures: Callable[..., None]
) -> None:
    """Runs come, are edited, fail, are repeated and end all the time, and both operators act on all of it."""
    dice, numbers = random.Random(SEED), itertools.count()
    for operator in operators:
        operator.start()
    started = time.monotonic()
    pipelines: list[Pipeline] = []
    running: list[Pipeline] = []
    edits = 0
    while running or time.monotonic() - started < MINUTE_SECONDS:
        if len(running) < AT_ONCE and time.monotonic() - started < MINUTE_SECONDS:
            number = next(numbers)
            pipelines.append(Pipeline(Team(api.request, f"both-{number}"), SCRIPTS[number % len(SCRIPTS)]))
            running.append(pipelines[-1])
        one, (kind, name) = dice.choice(running), dice.choice(PIPELINE)
        one.team.patch(kind, name, ttlSecondsAfterFinished=3600 + edits)
        edits += 1
        running = [pipeline for pipeline in running if not pipeline.step()]
        in_time = time.monotonic() - started < 4 * MINUTE_SECONDS
        assert in_time, [(pipeline.team.name, pipeline.states()) for pipeline in running]
    wrong = {p.team.name: p.states() for p in pipelines if p.states() != p.expected}
    made = {p.team.name: (dict(record.created(p.team.name)), p.jobs()) for p in pipelines}
    unaccounted = {name: both for name, both in made.items() if both[0] != both[1]}
    figures(
        seconds=round(time.monotonic() - started),
        runs=len(PIPELINE) * len(pipelines),
        edits=edits,
        jobs=sum(len(jobs) for jobs, _ in made.values()),
        duplicate_jobs=sum(count - 1 for jobs, _ in made.values() for count in jobs.values()),
        wrong_states=len(wrong),
    )
    assert (wrong, unaccounted) == ({}, {})
    assert [operator.exit_code() for operator in operators] == [None, None]
