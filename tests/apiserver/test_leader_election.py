"""Two replicas of the operator as processes of their own: one acts, and the other takes over whatever happens to it.

Each has an account of its own, so that the API server's audit log says which of them did what.
"""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.cluster.console import wait_for
from tests.cluster.control_plane import ControlPlane
from tests.support.operator.process import SYSTEM, OperatorProcess, Team, install

pytestmark = pytest.mark.apiserver

ELECTED = {"leaderElection": {"enabled": True}}
WRITES = {"create", "update", "patch", "delete", "deletecollection"}
FAILOVER_SECONDS = 20.0
HANDOVER_SECONDS = 5.0
LIVENESS_SECONDS = 180.0

Start = Callable[[str], OperatorProcess]


@pytest.fixture
def start(control_plane: ControlPlane, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Start]:
    """Starts replicas that compete for the lease of this test."""
    made: list[OperatorProcess] = []

    def begin(name: str) -> OperatorProcess:
        folder = tmp_path / name
        folder.mkdir()
        install(control_plane, f"replica-{name}")
        lease = request.node.name.replace("_", "-")[:60].strip("-")
        made.append(OperatorProcess(control_plane, folder, f"replica-{name}", operatorName=lease, **ELECTED))
        made[-1].start()
        return made[-1]

    yield begin
    for operator in made:
        operator.kill()


def leads(operator: OperatorProcess) -> bool:
    return operator.metric("hatchery_leader").get("") == 1.0


def two(start: Start, team: Team) -> tuple[OperatorProcess, OperatorProcess]:
    """A leader and a replica that stands by; both are ready."""
    a = start("a")
    team.wait("a leader", lambda: leads(a))
    return a, start("b")


@contextmanager
def within(seconds: float, what: str, figures: Callable[..., None]) -> Iterator[None]:
    begun = time.monotonic()
    yield
    took = time.monotonic() - begun
    figures(**{what: round(took, 1)})
    assert took <= seconds


def audit(plane: ControlPlane) -> list[dict[str, Any]]:
    return [json.loads(line) for line in plane.audit_log.read_text().splitlines()]


def writes(plane: ControlPlane, account: str, namespace: str) -> list[dict[str, Any]]:
    """Requests of an account that changed something in a namespace, or tried to."""
    user = f"system:serviceaccount:{SYSTEM}:{account}"
    return [
        event
        for event in audit(plane)
        if event["user"]["username"] == user
        and event["verb"] in WRITES
        and event["objectRef"].get("namespace") == namespace
    ]


def test_after_a_crash_of_the_leader_the_other_acts_within_20_seconds(api, start, figures) -> None:
    team = Team(api.request, "crash")
    a, b = two(start, team)
    team.apply("CorpusBuild", "before")
    team.run_pods("before-build-a1")
    assert (leads(a), leads(b)) == (True, False)
    with within(FAILOVER_SECONDS, "failover_seconds", figures):
        a.kill()
        team.end_job("before-build-a1")
        team.apply("CorpusBuild", "after")
        team.wait_reason("CorpusBuild", "before", "Completed")
        team.wait_job("after-build-a1")
    assert leads(b)


def test_a_leader_that_is_stopped_hands_over_within_5_seconds(api, start, figures) -> None:
    team = Team(api.request, "handover")
    a, b = two(start, team)
    with within(HANDOVER_SECONDS, "handover_seconds", figures):
        assert a.stop() == 0
        team.apply("CorpusBuild", "corpus")
        team.wait_job("corpus-build-a1")
    assert leads(b)


def test_a_frozen_leader_writes_nothing_after_the_other_has_taken_over(control_plane, api, start) -> None:
    team = Team(api.request, "frozen")
    a, b = two(start, team)
    for number in range(60):
        team.apply("CorpusBuild", f"busy{number}")
    os.kill(a.pid, signal.SIGSTOP)  # in the middle of its work
    team.wait("the other leads", lambda: leads(b))
    team.apply("CorpusBuild", "later")
    team.wait_job("later-build-a1")
    os.kill(a.pid, signal.SIGCONT)
    team.wait("the first one knows", lambda: not leads(a))
    for number in range(60):
        team.wait_job(f"busy{number}-build-a1")
    team.wait("the first one stands by", lambda: any("lost the lease" in line["message"] for line in a.log()))
    for number in range(10):
        team.apply("CorpusBuild", f"last{number}")
    for number in range(10):
        team.wait_job(f"last{number}-build-a1")
    first_of_b = min(event["requestReceivedTimestamp"] for event in writes(control_plane, "replica-b", "frozen"))
    late = [
        event
        for event in writes(control_plane, "replica-a", "frozen")
        if event["requestReceivedTimestamp"] > first_of_b
    ]
    # one that froze between the fence and the socket may be sent; it is bound to a version that is gone
    assert {event["responseStatus"]["code"] for event in late} <= {409}
    assert len(writes(control_plane, "replica-a", "frozen")) > 1, "it was at work when it froze"
    assert len(team.jobs()) == 71
    attempts = {team.run("CorpusBuild", f"busy{number}")["status"]["attempts"] for number in range(60)}
    assert attempts == {1}


def test_a_rolling_update_of_the_operator_touches_no_job(control_plane, api, start) -> None:
    team = Team(api.request, "rolling")
    a = start("a")
    for number in range(10):
        team.apply("CorpusBuild", f"c{number}")
    for number in range(10):
        team.run_pods(f"c{number}-build-a1")
        team.wait_reason("CorpusBuild", f"c{number}", "Running")
    before = {name: job["metadata"]["resourceVersion"] for name, job in team.jobs().items()}
    c = start("c")
    assert a.stop() == 0
    team.wait("the new one leads", lambda: leads(c))
    team.apply("CorpusBuild", "next")
    team.wait_job("next-build-a1")
    after = {name: job["metadata"]["resourceVersion"] for name, job in team.jobs().items()}
    del after["next-build-a1"]
    assert after == before
    touched = [event["requestURI"] for event in writes(control_plane, "replica-c", "rolling")]
    assert [path for path in touched if "/jobs/" in path] == []


def test_replicas_that_stand_by_are_ready_and_write_nothing(control_plane, api, start) -> None:
    team = Team(api.request, "standby")
    a, _ = two(start, team)
    spare = start("spare")
    team.apply("CorpusBuild", "corpus")
    team.run_pods("corpus-build-a1")
    team.end_job("corpus-build-a1")
    team.wait_reason("CorpusBuild", "corpus", "Completed")
    assert leads(a)
    assert spare.get(spare.health, "/readyz") == (200, "ok")
    assert spare.get(spare.health, "/healthz") == (200, "ok")
    assert writes(control_plane, "replica-spare", "standby") == []
    assert sum(spare.metric("hatchery_reconcile_total").values()) == 0


def test_a_replica_without_credentials_or_with_a_blocked_loop_is_not_alive(control_plane, api, start, figures) -> None:
    """Both within the 180 s in which the kubelet is to know; a frozen process does not even answer."""
    spare = start("spare")
    os.kill(spare.pid, signal.SIGSTOP)
    assert spare.get(spare.health, "/healthz")[0] == 0
    os.kill(spare.pid, signal.SIGCONT)
    assert spare.get(spare.health, "/healthz")[0] == 200
    control_plane.kubectl("delete", "serviceaccount", "replica-spare", f"--namespace={SYSTEM}")
    with within(LIVENESS_SECONDS, "lost_credentials_seconds", figures):
        wait_for(
            "the liveness probe to fail, or the process to end",
            lambda: spare.get(spare.health, "/healthz")[0] != 200,
            why="its token was withdrawn: a watch that begins anew ends the process, all others fail the probe",
            timeout_seconds=LIVENESS_SECONDS,
        )
    code, text = spare.get(spare.health, "/healthz")
    assert code == 0 or "rejected the operator's credentials" in text
