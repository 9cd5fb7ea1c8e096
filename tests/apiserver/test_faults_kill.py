"""The operator killed at fifty points of a full run: before a write arrives, or after it, when only its answer is lost."""

import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.kube.fault_proxy import FaultProxy
from tests.support.kube.faults import is_write, lose_answer, lose_request
from tests.support.kube.kubelet import JobRecord
from tests.support.operator.forked_process import ForkedOperator
from tests.support.operator.pipelines import SCRIPTS, Pipeline
from tests.support.operator.process import Team, install

pytestmark = [pytest.mark.apiserver, pytest.mark.long]

SEED = 20_260
KILLS = 50
MOST_WRITES = 6
"""A life ends at one of its first writes; a pass over an object needs up to five."""
AT_ONCE = 3
"""Pipelines at once, so that writes of several objects are under way at every point."""
PATIENCE_SECONDS = 600.0


@pytest.mark.timeout(900)
def test_fifty_kills_at_any_write_cost_no_run_and_make_no_job_twice(
    control_plane, api, tmp_path: Path, figures: Callable[..., None]
) -> None:
    install(control_plane)
    dice, started = random.Random(SEED), time.monotonic()
    with (
        FaultProxy(control_plane.server, control_plane.authority.certificate) as proxy,
        JobRecord(control_plane) as record,
    ):
        operator = ForkedOperator(control_plane, tmp_path, server=proxy.url)
        pipelines: list[Pipeline] = []
        running: list[Pipeline] = []
        kills = 0
        while kills < KILLS or running:
            fault = dice.choice((lose_request, lose_answer))(operator.strike)
            with proxy.fault(fault, is_write, skip=dice.randrange(MOST_WRITES), times=int(kills < KILLS)) as rule:
                operator.launch()
                while operator.exit_code() is None and (kills < KILLS or running):
                    if len(running) < AT_ONCE and kills < KILLS:
                        script = SCRIPTS[len(pipelines) % len(SCRIPTS)]
                        pipelines.append(Pipeline(Team(api.request, f"kill-{len(pipelines)}"), script))
                        running.append(pipelines[-1])
                    running = [pipeline for pipeline in running if not pipeline.step()]
                    in_time = time.monotonic() - started < PATIENCE_SECONDS
                    assert in_time, [(pipeline.team.name, pipeline.states()) for pipeline in running]
                kills += rule.hits
                assert operator.exit_code() in (None, -signal.SIGKILL), "it ended by itself"
        operator.kill()
        wrong = {p.team.name: p.states() for p in pipelines if p.states() != p.expected}
        made = {p.team.name: (dict(record.created(p.team.name)), p.jobs()) for p in pipelines}
    duplicates = {name: jobs for name, (jobs, _) in made.items() if any(count > 1 for count in jobs.values())}
    unaccounted = {name: both for name, both in made.items() if both[0] != both[1]}
    figures(
        kills=kills,
        runs=4 * len(pipelines),
        jobs=sum(len(jobs) for jobs, _ in made.values()),
        duplicate_jobs=len(duplicates),
        wrong_states=len(wrong),
        seconds=round(time.monotonic() - started),
    )
    assert (duplicates, wrong, unaccounted) == ({}, {}, {})
    assert kills == KILLS
