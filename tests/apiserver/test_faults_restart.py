"""What a new operator makes of what happened while there was none: ends stay ends, budgets stay used, edits are seen."""

import itertools
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.support.kube.fault_proxy import FaultProxy
from tests.support.kube.kubelet import JobRecord
from tests.support.operator.pipelines import DISK, EMPTY
from tests.support.operator.process import OperatorProcess, Team, install

pytestmark = pytest.mark.apiserver

QUIET_SECONDS = 15.0
END_BAR_SECONDS = 10.0
TEAMS = itertools.count()


@pytest.fixture
def proxy(control_plane) -> Iterator[FaultProxy]:
    with FaultProxy(control_plane.server, control_plane.authority.certificate) as proxy:
        yield proxy


@pytest.fixture
def team(api) -> Team:
    """A namespace for each test."""
    return Team(api.request, f"restart-{next(TEAMS)}")


@pytest.fixture
def operator(control_plane, proxy: FaultProxy, team: Team, tmp_path: Path) -> Iterator[OperatorProcess]:
    """An operator for this namespace only, not started: what other tests have left behind costs it nothing."""
    install(control_plane, team.name, [team.name])
    process = OperatorProcess(control_plane, tmp_path, team.name, server=proxy.url, namespaces=[team.name])
    yield process
    process.kill()


def passes(operator: OperatorProcess) -> float:
    """Passes since the operator was started."""
    return sum(operator.metric("hatchery_reconcile_total").values())


def delete_children(team: Team) -> None:
    """Deletes everything that belongs to the runs of a namespace."""
    for path in (team.batch(), team.core("pods"), team.core("configmaps"), team.core("services")):
        team.send("DELETE", path, {"propagationPolicy": "Background", "gracePeriodSeconds": 0})
    assert team.jobs() == {}


def test_finished_runs_whose_children_are_gone_are_left_alone_by_a_new_operator(
    team: Team, operator: OperatorProcess, proxy: FaultProxy, figures: Callable[..., None]
) -> None:
    """One that succeeded, one whose attempts are used up, one that can never work."""
    operator.start()
    for name in ("good", "used-up", "hopeless"):
        team.apply("CorpusBuild", name, retry={"maxAttempts": 2, "backoff": "1s"})
    for job, end in (
        ("good-build-a1", (None, 0)),
        ("used-up-build-a1", DISK),
        ("hopeless-build-a1", EMPTY),
        ("used-up-build-a2", DISK),
    ):
        team.run_pods(job)
        team.end_job(job, *end)
    ends = {"good": ("True", "Completed"), "used-up": ("False", "StorageError"), "hopeless": ("False", "EmptyCorpus")}
    for name, (_, reason) in ends.items():
        team.wait_reason("CorpusBuild", name, reason)
    operator.kill()
    delete_children(team)
    versions = {name: team.run("CorpusBuild", name)["metadata"]["resourceVersion"] for name in ends}
    begun = time.monotonic()
    operator.start()
    loaded = passes(operator)
    team.wait("nothing happens", lambda: time.monotonic() - begun > QUIET_SECONDS)
    writes = proxy.since(begun)
    figures(new_children=len(team.jobs()), writes=len(writes), passes_of_a_settled_cluster=passes(operator) - loaded)
    assert (team.jobs(), writes) == ({}, [])
    assert {name: team.condition("CorpusBuild", name) for name in ends} == ends
    assert {name: team.run("CorpusBuild", name)["metadata"]["resourceVersion"] for name in ends} == versions


def test_a_budget_of_attempts_is_used_up_once_whatever_is_deleted_and_restarted(
    control_plane, team: Team, operator: OperatorProcess, figures: Callable[..., None]
) -> None:
    most = 3
    with JobRecord(control_plane) as record:
        team.apply("CorpusBuild", "corpus", retry={"maxAttempts": most, "backoff": "1s"})
        for attempt in range(1, most + 1):
            operator.start()
            team.run_pods(f"corpus-build-a{attempt}")
            operator.kill()
            team.end_job(f"corpus-build-a{attempt}", *DISK)
            if attempt < most:
                operator.start()
                team.wait("the failure is counted", lambda n=attempt: failures(team) == n)
                operator.kill()
                delete_children(team)
        operator.start()
        team.wait_reason("CorpusBuild", "corpus", "StorageError")
        created = record.created(team.name)
    status = team.run("CorpusBuild", "corpus")["status"]
    figures(attempts=status["attempts"], failures=status["failures"], jobs=sum(created.values()), budget=most)
    assert (status["attempts"], status["failures"]) == (most, most)
    assert created == {f"corpus-build-a{attempt}": 1 for attempt in range(1, most + 1)}


def failures(team: Team) -> int:
    """Failures that the status counts."""
    return int(team.run("CorpusBuild", "corpus").get("status", {}).get("failures", 0))


def test_edits_and_deletions_made_while_no_operator_ran_are_seen_at_its_start(
    team: Team, operator: OperatorProcess, figures: Callable[..., None]
) -> None:
    operator.start()
    for name in ("stopped", "removed"):
        team.apply("CorpusBuild", name)
        team.run_pods(f"{name}-build-a1")
        team.wait_reason("CorpusBuild", name, "Running")
    operator.kill()
    team.patch("CorpusBuild", "stopped", suspend=True)
    team.send("DELETE", team.path("CorpusBuild", "removed"), {"propagationPolicy": "Orphan"})
    team.apply("CorpusBuild", "fresh")
    operator.start()
    begun = time.monotonic()
    team.wait_reason("CorpusBuild", "stopped", "Suspending")
    team.wait("its Job is suspended", lambda: team.jobs()["stopped-build-a1"]["spec"].get("suspend"))
    team.wait_job("fresh-build-a1")
    figures(seconds=round(time.monotonic() - begun, 1))
    assert team.run("CorpusBuild", "stopped")["status"]["attempts"] == 1


@pytest.mark.parametrize("code", [64, 65])
def test_an_exit_code_that_no_retry_can_help_ends_the_run_at_once(
    team: Team, operator: OperatorProcess, figures: Callable[..., None], code: int
) -> None:
    operator.start()
    team.apply("CorpusBuild", "corpus", retry={"maxAttempts": 5, "backoff": "1s"})
    team.run_pods("corpus-build-a1")
    team.wait_reason("CorpusBuild", "corpus", "Running")
    begun = time.monotonic()
    team.end_job("corpus-build-a1", EMPTY[0], code)
    team.wait_reason("CorpusBuild", "corpus", "EmptyCorpus")
    seconds = time.monotonic() - begun
    status = team.run("CorpusBuild", "corpus")["status"]
    figures(seconds=round(seconds, 2), bar=END_BAR_SECONDS, retries=status["attempts"] - 1)
    assert seconds <= END_BAR_SECONDS
    assert team.condition("CorpusBuild", "corpus") == ("False", "EmptyCorpus")
    assert (status["attempts"], list(team.jobs())) == (1, ["corpus-build-a1"])


def test_a_settled_cluster_costs_no_pass_and_no_write(
    team: Team, operator: OperatorProcess, proxy: FaultProxy, figures: Callable[..., None]
) -> None:
    """A run that is finished, one that is suspended, one that runs, one that waits for what does not exist."""
    operator.start()
    team.apply("CorpusBuild", "finished")
    team.run_pods("finished-build-a1")
    team.end_job("finished-build-a1")
    team.apply("CorpusBuild", "suspended", suspend=True)
    team.apply("CorpusBuild", "runs")
    team.run_pods("runs-build-a1")
    team.apply("TokenizerBuild", "waits", corpusRef={"name": "nowhere"})
    team.wait_reason("CorpusBuild", "finished", "Completed")
    team.wait_reason("CorpusBuild", "suspended", "Suspended")
    team.wait_reason("CorpusBuild", "runs", "Running")
    team.wait_reason("TokenizerBuild", "waits", "Waiting")
    settled = [time.monotonic(), passes(operator)]

    def is_quiet() -> bool:
        if (now := passes(operator)) != settled[1]:
            settled[:] = [time.monotonic(), now]
        return time.monotonic() - settled[0] > QUIET_SECONDS

    begun = time.monotonic()
    team.wait("no pass for a while", is_quiet)
    writes = proxy.since(settled[0])
    figures(seconds_until_quiet=round(settled[0] - begun, 1), quiet_seconds=QUIET_SECONDS, passes=0, writes=len(writes))
    assert settled[0] - begun <= END_BAR_SECONDS
    assert writes == []
