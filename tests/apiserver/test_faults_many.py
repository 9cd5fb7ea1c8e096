"""A thousand runs applied at once."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.kube.kubelet import JobRecord
from tests.support.operator.process import OperatorProcess, Team, install

pytestmark = [pytest.mark.apiserver, pytest.mark.long]

RUNS = 1000
PATIENCE_SECONDS = 240.0
PAGE = "100"
"""Objects deleted in one request."""


def delete_all(team: Team, path: str) -> None:
    while team.send("GET", path, limit="1")["items"]:
        team.send("DELETE", path, {"propagationPolicy": "Background"}, limit=PAGE)


def test_a_thousand_runs_at_once_get_one_job_each(
    control_plane, api, tmp_path: Path, figures: Callable[..., None]
) -> None:
    install(control_plane)
    operator, team = OperatorProcess(control_plane, tmp_path), Team(api.request, "thousand")
    operator.start()
    begun = time.monotonic()
    with JobRecord(control_plane) as record:
        for number in range(RUNS):
            team.apply("CorpusBuild", f"c{number}")
        team.wait("all Jobs", lambda: len(record.created(team.name)) == RUNS, PATIENCE_SECONDS)
        seconds = time.monotonic() - begun
        created = record.created(team.name)
    assert operator.stop() == 0
    figures(runs=RUNS, jobs=sum(created.values()), seconds_with_their_creation=round(seconds))
    assert created == {f"c{number}-build-a1": 1 for number in range(RUNS)}
    delete_all(team, team.path("CorpusBuild"))
    delete_all(team, team.batch())
