"""Live progress with two replicas and real tokens: taken by each of them, shown in the status, refused to all others."""

import json
import socket
import ssl
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.cluster.control_plane import ControlPlane
from tests.support.kube.permissions import account_user
from tests.support.operator.process import ACCOUNT, SYSTEM, OperatorProcess, Team, install

from hatchery_operator.domain.progress_route import AUDIENCE

pytestmark = pytest.mark.apiserver

HOST = "localhost"
"""The name in the certificates of both replicas, which listen on ports of their own."""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


@dataclass
class Replicas:
    """A leader, and a replica that stands by."""

    plane: ControlPlane
    team: Team
    operators: list[OperatorProcess]
    ports: list[int]

    def token(self, pod: str, *extra: str) -> str:
        bound = ["--bound-object-kind=Pod", f"--bound-object-name={pod}"] if pod else []
        create = ["create", "token", "default", f"--namespace={self.team.name}"]
        return self.plane.kubectl(*create, *bound, *(extra or (f"--audience={AUDIENCE}",))).strip()

    def authority(self) -> str:
        return str(self.team.send("GET", self.team.core("configmaps", "hatchery-progress-ca"))["data"]["ca.crt"])

    def url(self, port: int, name: str, kind: str = "CorpusBuild") -> str:
        return f"https://{HOST}:{port}{self.team.path(kind, name)}/status"

    def post(
        self, port: int, name: str, token: str, percentage: int = 50, *, body: bytes = b"", authority: str = ""
    ) -> int:
        text = {"trainerStatus": {"progressPercentage": percentage, "metrics": []}}
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        request = urllib.request.Request(self.url(port, name), body or json.dumps(text).encode(), headers)
        tls = ssl.create_default_context(cadata=authority or self.authority())
        try:
            with urllib.request.urlopen(request, context=tls, timeout=20) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code

    def shown(self, name: str, kind: str = "CorpusBuild") -> int | None:
        return self.team.run(kind, name)["status"].get("progress", {}).get("percentage")

    def start_run(self, name: str) -> str:
        """A run that works; returns its pod."""
        self.team.apply("CorpusBuild", name)
        pod = self.team.run_pods(f"{name}-build-a1")
        self.team.wait_reason("CorpusBuild", name, "Running")
        return str(pod["metadata"]["name"])


@pytest.fixture(scope="module")
def replicas(control_plane: ControlPlane, api, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replicas]:
    install(control_plane)
    operators, ports = [], [free_port(), free_port()]
    for port in ports:
        progress = {"port": port, "serviceUrl": f"https://{HOST}:{ports[0]}"}
        folder = tmp_path_factory.mktemp("operator")
        operators.append(
            OperatorProcess(
                control_plane, folder, progress=progress, operatorName="pair", leaderElection={"enabled": True}
            )
        )
        operators[-1].start()
    team = Team(api.request, "reports")
    both = Replicas(control_plane, team, operators, ports)
    both.start_run("first")
    team.wait("the certificates of both", lambda: both.authority().count("BEGIN CERTIFICATE") == 2)
    yield both
    for operator in operators:
        operator.kill()


def test_pods_can_verify_every_replica_and_each_writes_what_it_is_told(replicas: Replicas) -> None:
    for number, port in enumerate(replicas.ports):
        pod = replicas.start_run(f"each{number}")
        assert replicas.post(port, f"each{number}", replicas.token(pod), 40 + number) == 200
        replicas.team.wait("progress", lambda n=number: replicas.shown(f"each{n}") == 40 + n)
    managers = {m["manager"] for m in replicas.team.run("CorpusBuild", "each1")["metadata"]["managedFields"]}
    assert "hatchery-progress" in managers
    leading = [operator.metric("hatchery_leader")[""] for operator in replicas.operators]
    assert sorted(leading) == [0.0, 1.0]


def test_tokens_of_others_are_refused_by_both(replicas: Replicas) -> None:
    pod, other = replicas.start_run("mine"), replicas.start_run("theirs")
    good = replicas.token(pod)
    header, claims, signature = good.split(".")
    wrong = {
        replicas.token(other): 403,
        replicas.token(""): 401,
        replicas.token(pod, "--audience=https://kubernetes.default.svc"): 401,
        f"{header}.{claims}.{signature[::-1]}": 401,
        "forged": 401,
    }
    for port in replicas.ports:
        for token, code in wrong.items():
            assert replicas.post(port, "mine", token, 99) == code
        assert replicas.post(port, "mine", good, body=b"x" * (64 * 1024 + 1)) == 413
    assert replicas.shown("mine") is None


def test_a_flood_is_refused_and_costs_the_api_server_nothing(replicas: Replicas) -> None:
    pod = replicas.start_run("flooded")
    good, port = replicas.token(pod), replicas.ports[0]
    user = account_user(SYSTEM, ACCOUNT)
    begun = replicas.plane.audit_log.stat().st_size
    header, claims, _ = good.split(".")
    authority = replicas.authority()

    def post(token: str) -> int:
        return replicas.post(port, "flooded", token, authority=authority)

    with ThreadPoolExecutor(8) as pool:
        forged = Counter(pool.map(post, (f"{header}.{claims}.AAAA{n}" for n in range(200))))
        known = Counter(pool.map(post, [good] * 60))
    assert forged == {401: 200}
    assert known[429] > known[200] > 0
    with replicas.plane.audit_log.open("rb") as log:
        log.seek(begun)
        events = [json.loads(line) for line in log.read().splitlines() if line.endswith(b"}")]
    asked = [e["requestURI"] for e in events if e["user"]["username"] == user and "flooded" in e["requestURI"]]
    assert len(asked) <= 10


def test_the_callback_of_transformers_reports_into_a_run_unchanged(
    replicas: Replicas, tmp_path: Path, monkeypatch
) -> None:
    """What `Trainer` adds by itself when it finds the variables that our pods have; only its throttle is skipped."""
    from transformers.integrations.integration_utils import KubeflowCallback

    team, jobs = replicas.team, ("corpus-build-a1", "tokenizer-vocabulary-a1", "model-encode-a1")
    for kind, name in (("CorpusBuild", "corpus"), ("TokenizerBuild", "tokenizer"), ("PretrainRun", "model")):
        team.apply(kind, name)
    for job in jobs:
        team.run_pods(job)
        team.end_job(job)
    pod = team.run_pods("model-train-a1")["metadata"]["name"]
    team.wait_reason("PretrainRun", "model", "Running")
    (tmp_path / "ca.crt").write_text(replicas.authority())
    (tmp_path / "token").write_text(replicas.token(pod))
    monkeypatch.setenv("KUBEFLOW_TRAINER_SERVER_URL", replicas.url(replicas.ports[1], "model", "PretrainRun"))
    monkeypatch.setenv("KUBEFLOW_TRAINER_SERVER_CA_CERT", str(tmp_path / "ca.crt"))
    monkeypatch.setenv("KUBEFLOW_TRAINER_SERVER_TOKEN", str(tmp_path / "token"))
    callback = KubeflowCallback()
    state = SimpleNamespace(is_world_process_zero=True, max_steps=200, global_step=0, epoch=0.5)
    callback.on_train_begin(None, state, None)
    callback.on_log(None, state, None, logs={"loss": 3.25, "learning_rate": 5e-4})
    state.global_step = 90
    callback._last_update_time = 0.0
    callback.on_step_end(None, state, None)
    team.wait("progress", lambda: replicas.shown("model", "PretrainRun") == 45)
    progress: dict[str, Any] = team.run("PretrainRun", "model")["status"]["progress"]
    assert progress["text"] == "90/200 (45%)"
    assert {"name": "loss", "value": "3.25"} in progress["metrics"]
