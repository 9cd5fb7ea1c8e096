"""The operator is driven through all it does, and the API server's audit log says which permissions that took."""

import json
import socket
import ssl
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.cluster.console import wait_for
from tests.cluster.control_plane import ControlPlane
from tests.cluster.errors import ClusterError
from tests.support.kube.permissions import account_user, beyond, granted, unused, usage
from tests.support.operator.process import SYSTEM, OperatorProcess, Team, install

from hatchery_operator.domain.progress_route import AUDIENCE

pytestmark = pytest.mark.apiserver

ACCOUNT = "hatchery-permissions"
"""An account that no other test uses."""

USER = account_user(SYSTEM, ACCOUNT)
DISTURBED_SECONDS = 60.0


def finish_all_kinds(team: Team) -> None:
    team.apply("CorpusBuild", "corpus")
    team.apply("TokenizerBuild", "tokenizer")
    team.apply("PretrainRun", "model", parallelism={"nodes": 2}, ttlSecondsAfterFinished=0)
    team.apply("EvalRun", "eval")
    for job in ("corpus-build", "tokenizer-vocabulary", "model-encode", "model-train", "eval-evaluate"):
        team.run_pods(f"{job}-a1")
        team.end_job(f"{job}-a1")
    team.wait_reason("EvalRun", "eval", "Completed")
    team.wait("the gang has gone", lambda: not [name for name in team.jobs() if name.startswith("model")])


def suspend_and_resume(team: Team) -> None:
    team.apply("CorpusBuild", "suspended")
    team.run_pods("suspended-build-a1")

    def is_suspended() -> bool:
        return bool(team.jobs()["suspended-build-a1"]["spec"].get("suspend"))

    team.patch("CorpusBuild", "suspended", suspend=True)
    team.wait("the Job is suspended", is_suspended)
    team.patch("CorpusBuild", "suspended", suspend=False)
    team.wait("the Job goes on", lambda: not is_suspended())


def let_pods_be_refused(team: Team) -> None:
    team.apply("CorpusBuild", "refused")
    uid = team.wait_job("refused-build-a1")["metadata"]["uid"]
    about = {"kind": "Job", "namespace": team.name, "name": "refused-build-a1", "uid": uid, "apiVersion": "batch/v1"}
    event = {"metadata": {"name": "refused"}, "involvedObject": about, "reason": "FailedCreate", "type": "Warning"}
    team.send("POST", team.core("events"), {**event, "message": "Error creating: exceeded quota"})
    team.wait_reason("CorpusBuild", "refused", "PodRefused")


def let_names_be_taken(team: Team) -> None:
    """Of a Service and whatever else goes before the Job of a gang."""
    team.apply("PretrainRun", "taken", parallelism={"nodes": 2})
    team.run_pods("taken-encode-a1")
    service = {"metadata": {"name": "taken-train-a1"}, "spec": {"clusterIP": "None", "ports": [{"port": 1}]}}
    config = {"metadata": {"name": "taken-train-a1"}}
    team.send("POST", team.core("services"), service)
    team.send("POST", team.core("configmaps"), config)
    team.end_job("taken-encode-a1")
    team.wait_reason("PretrainRun", "taken", "NameConflict")
    team.send("DELETE", team.core("configmaps", "taken-train-a1"))
    team.wait("the next conflict", lambda: "Service taken" in str(team.run("PretrainRun", "taken")["status"]))


def report_progress(plane: ControlPlane, team: Team) -> None:
    team.apply("CorpusBuild", "reporting")
    pod = team.run_pods("reporting-build-a1")
    [container] = pod["spec"]["containers"]
    told = {entry["name"]: entry.get("value", "") for entry in container["env"]}
    bound = ["--bound-object-kind=Pod", f"--bound-object-name={pod['metadata']['name']}", f"--audience={AUDIENCE}"]
    # a report of a Job that the operator has not yet seen at work is dropped
    team.wait_reason("CorpusBuild", "reporting", "Running")
    token = plane.kubectl("create", "token", "default", f"--namespace={team.name}", *bound).strip()
    authority = team.send("GET", team.core("configmaps", "hatchery-progress-ca"))["data"]["ca.crt"]
    body = {"trainerStatus": {"progressPercentage": 40, "metrics": []}}
    request = urllib.request.Request(
        told["KUBEFLOW_TRAINER_SERVER_URL"],
        json.dumps(body).encode(),
        {"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
        method="POST",
    )
    with urllib.request.urlopen(request, context=ssl.create_default_context(cadata=authority), timeout=10) as answer:
        assert answer.status == 200
    team.wait(
        "progress", lambda: team.run("CorpusBuild", "reporting")["status"].get("progress", {}).get("percentage") == 40
    )


def disturb(plane: ControlPlane, team: Team, begun: int) -> None:
    """Writes a resource again and again while its Job goes on, until a write of the operator meets a newer version."""
    team.apply("CorpusBuild", "disturbed")
    team.run_pods("disturbed-build-a1")
    numbers = iter(range(10**6))

    def has_read_again() -> bool:
        for _ in range(20):
            number = next(numbers)
            metadata = {"annotations": {"example.com/number": str(number)}}
            team.send("PATCH", team.path("CorpusBuild", "disturbed"), {"metadata": metadata})
            team.job_status("disturbed-build-a1", {"active": 1, "ready": number % 2})
        used = usage(plane.audit_log, USER, begun).used
        return any((action.verb, action.resource) == ("get", "corpusbuilds") for action in used)

    wait_for("a conflict", has_read_again, why="two writers meet", timeout_seconds=DISTURBED_SECONDS)


@pytest.fixture(scope="module")
def driven(control_plane: ControlPlane, api, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Does everything that makes the operator ask the API server for something; gives the log's size before."""
    install(control_plane, ACCOUNT)
    begun = control_plane.audit_log.stat().st_size if control_plane.audit_log.exists() else 0
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    operator = OperatorProcess(
        control_plane,
        tmp_path_factory.mktemp("operator"),
        ACCOUNT,
        progress={"port": port, "serviceUrl": f"https://127.0.0.1:{port}"},
        leaderElection={"enabled": True},
    )
    try:
        operator.start()
        team = Team(api.request, "permissions")
        finish_all_kinds(team)
        suspend_and_resume(team)
        let_pods_be_refused(team)
        let_names_be_taken(team)
        report_progress(control_plane, team)
        disturb(control_plane, team, begun)
        yield begun
        assert operator.stop() == 0
    finally:
        operator.kill()


def test_every_permission_is_used(control_plane: ControlPlane, driven: int) -> None:
    used = usage(control_plane.audit_log, USER, driven).used
    assert unused(granted(control_plane.kubectl, SYSTEM, ACCOUNT), used) == []


def test_nothing_is_refused_and_nothing_beyond_the_permissions_is_done(
    control_plane: ControlPlane, driven: int
) -> None:
    found = usage(control_plane.audit_log, USER, driven)
    assert [str(action) for action in found.refused] == []
    assert beyond(granted(control_plane.kubectl, SYSTEM, ACCOUNT), found.used) == []


def test_the_log_does_show_a_refusal(control_plane: ControlPlane, driven: int, tmp_path: Path) -> None:
    kubeconfig = control_plane.service_account_kubeconfig(SYSTEM, ACCOUNT, tmp_path / "kubeconfig")
    position = control_plane.audit_log.stat().st_size
    with pytest.raises(ClusterError, match="secrets is forbidden"):
        control_plane.kubectl("get", "secrets", f"--kubeconfig={kubeconfig}")
    refused = usage(control_plane.audit_log, USER, position).refused
    assert [str(action) for action in refused] == ["list secrets in hatchery-system"]


def finish_a_corpus(operator: OperatorProcess, team: Team) -> int:
    """The whole life of an operator that has one run to do; returns its exit code."""
    try:
        operator.start()
        team.apply("CorpusBuild", "corpus")
        team.run_pods("corpus-build-a1")
        team.end_job("corpus-build-a1")
        team.wait_reason("CorpusBuild", "corpus", "Completed")
        return operator.stop()
    finally:
        operator.kill()


def test_an_operator_of_one_namespace_asks_for_nothing_elsewhere(
    control_plane: ControlPlane, api, tmp_path: Path
) -> None:
    """Beside what every account may read, it has a Role in its namespace and is never refused."""
    account, team = f"{ACCOUNT}-single", Team(api.request, "permissions-single")
    install(control_plane, account, [team.name])
    operator = OperatorProcess(control_plane, tmp_path, account, namespaces=[team.name])
    assert finish_a_corpus(operator, team) == 0
    found = usage(control_plane.audit_log, account_user(SYSTEM, account))
    assert [str(action) for action in found.refused] == []
    assert {action.namespace for action in found.used} <= {team.name, SYSTEM}


def test_a_deleted_namespace_does_not_stop_the_operator_of_several(
    control_plane: ControlPlane, api, tmp_path: Path
) -> None:
    """Its Role went with it, so nothing may be listed there any more."""
    account, team = f"{ACCOUNT}-several", Team(api.request, "permissions-several")
    install(control_plane, account, [team.name])
    operator = OperatorProcess(control_plane, tmp_path, account, namespaces=["permissions-deleted", team.name])
    assert finish_a_corpus(operator, team) == 0
