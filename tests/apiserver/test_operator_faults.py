"""The operator in one namespace only, and with live progress."""

import json
import socket
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.cluster.control_plane import ControlPlane
from tests.support.operator.process import OperatorProcess, Team, install

pytestmark = pytest.mark.apiserver


@pytest.fixture
def operators(control_plane: ControlPlane, tmp_path: Path) -> Iterator[Callable[..., OperatorProcess]]:
    """Makes operators, and ends those that still run."""
    install(control_plane)
    made: list[OperatorProcess] = []

    def make(**values: object) -> OperatorProcess:
        folder = tmp_path / str(len(made))
        folder.mkdir()
        made.append(OperatorProcess(control_plane, folder, **values))
        return made[-1]

    yield make
    for operator in made:
        operator.kill()


def test_an_operator_of_one_namespace_needs_no_more_than_that(control_plane, api, operators) -> None:
    served, other = Team(api.request, "served"), Team(api.request, "other")
    install(control_plane, "hatchery-single", ["served"])
    operator = operators(account="hatchery-single", namespaces=["served"])
    operator.start()
    other.apply("CorpusBuild", "corpus")
    served.apply("CorpusBuild", "corpus")
    served.run_pods("corpus-build-a1")
    served.end_job("corpus-build-a1")
    served.wait_reason("CorpusBuild", "corpus", "Completed")
    assert other.jobs() == {}
    assert [line for line in operator.log() if line["level"] == "error"] == []


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


def post(url: str, authority: str, token: str, percentage: int) -> int:
    body = {"trainerStatus": {"progressPercentage": percentage, "metrics": [{"name": "loss", "value": "3.25"}]}}
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers, method="POST")
    try:
        with urllib.request.urlopen(
            request, context=ssl.create_default_context(cadata=authority), timeout=10
        ) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_a_pod_reports_its_progress_with_what_the_operator_gave_it(control_plane, api, operators) -> None:
    port, team = free_port(), Team(api.request, "progress")
    operator = operators(progress={"port": port, "serviceUrl": f"https://127.0.0.1:{port}"})
    operator.start()
    team.apply("CorpusBuild", "corpus")
    team.apply("CorpusBuild", "another")
    pod = team.run_pods("corpus-build-a1")
    [container] = pod["spec"]["containers"]
    told = {entry["name"]: entry.get("value", "") for entry in container["env"]}
    authority = team.send("GET", team.core("configmaps", "hatchery-progress-ca"))["data"]["ca.crt"]
    bound = ["--bound-object-kind=Pod", f"--bound-object-name={pod['metadata']['name']}"]
    create = ["create", "token", "default", f"--namespace={team.name}", *bound]
    token = control_plane.kubectl(*create, "--audience=hatchery.dev/progress").strip()
    team.wait_reason("CorpusBuild", "corpus", "Running")

    url = told["KUBEFLOW_TRAINER_SERVER_URL"]
    assert post(url, authority, token, 40) == 200
    team.wait(
        "progress", lambda: team.run("CorpusBuild", "corpus")["status"].get("progress", {}).get("percentage") == 40
    )
    assert post(url.replace("/corpus/", "/another/"), authority, token, 99) == 403
    assert post(url, authority, "forged", 99) == 401
    assert post(url, authority, control_plane.kubectl(*create).strip(), 99) == 401
    assert team.run("CorpusBuild", "corpus")["status"]["progress"]["metrics"] == [{"name": "loss", "value": "3.25"}]

    def is_renewed() -> bool:
        return bool(team.send("GET", team.core("configmaps", "hatchery-progress-ca"))["data"]["ca.crt"] != authority)

    operator.kill()
    operator.start()
    team.wait("a new certificate for the pods that run", is_renewed)
