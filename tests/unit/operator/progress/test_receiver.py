import asyncio
import json
import ssl
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import SimpleNamespace

import aiohttp
import pytest

from hatchery_api.contract import TrainerStatus
from hatchery_api.status import ProgressMetric
from hatchery_operator.domain.progress_route import status_path
from hatchery_operator.progress import receiver as progress
from hatchery_operator.progress.receiver import Identity, ProgressReceiver, Received
from hatchery_operator.progress.tls import make_certificate

PATH = status_path("team", "pretrainruns", "tiny")
BODY = {"trainerStatus": {"progressPercentage": 45, "metrics": [{"name": "loss", "value": "3.25"}]}}
STATUS = TrainerStatus(progress_percentage=45, metrics=[ProgressMetric(name="loss", value="3.25")])
LABELS = {"hatchery.dev/kind": "PretrainRun", "hatchery.dev/name": "tiny", "hatchery.dev/uid": "u1"}
RECEIVED = Received("PretrainRun", "team", "tiny", "u1", "pod-a", STATUS)


@dataclass
class Cluster:
    """The responses of an API server, counted."""

    tokens: dict[str, Identity] = field(default_factory=lambda: {"good": Identity("pod-a", "p1", "team")})
    labels: dict[tuple[str, str], Mapping[str, str]] = field(default_factory=lambda: {("team", "pod-a"): LABELS})
    label_reads: int = 0
    broken: bool = False

    async def identify(self, token: str) -> Identity | None:
        if self.broken:
            raise ConnectionError("the API server is away")
        return self.tokens.get(token)

    async def pod_labels(self, identity: Identity) -> Mapping[str, str] | None:
        self.label_reads += 1
        return self.labels.get((identity.namespace, identity.pod_name))


class Endpoint:
    """A running receiver, its own event loop in a thread, and a real client over TLS."""

    def __init__(self) -> None:
        self.cluster = Cluster()
        self.received: list[Received] = []
        self.now = 1000.0
        self.deliver = self.received.append
        self.certificate = make_certificate(["127.0.0.1"], datetime.now(UTC))
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.receiver = ProgressReceiver(
            self.cluster.identify, self.cluster.pod_labels, self._hand_over, lambda: self.now
        )
        self.port = self.run(self.receiver.start(0, self.certificate.server_context(), "127.0.0.1"))

    def _hand_over(self, received: Received) -> None:
        self.deliver(received)  # looked up late, so that a test can replace it

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    def run(self, work):
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(30)

    def close(self) -> None:
        self.run(self.receiver.stop())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()

    def post(self, body=BODY, *, token: str | None = "good", path: str = PATH, method: str = "POST"):
        async def send():
            headers = {} if token is None else {"Authorization": f"Bearer {token}"}
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            tls = ssl.create_default_context(cadata=self.certificate.ca_pem)
            async with (
                aiohttp.ClientSession(headers=headers) as session,
                session.request(method, self.url + path, data=data, ssl=tls) as answer,
            ):
                return answer.status, (await answer.json()).get("message", "")

        return asyncio.run(send())


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    running = Endpoint()
    yield running
    running.close()


def test_progress_of_a_pod_is_handed_over(endpoint):
    assert endpoint.post() == (200, "")
    assert endpoint.received == [RECEIVED]


@pytest.mark.parametrize("plural", ["corpusbuilds", "tokenizerbuilds", "pretrainruns", "evalruns"])
def test_all_four_kinds_report(endpoint, plural):
    kind = {k.plural: k.kind for k in progress.KINDS}[plural]
    endpoint.cluster.labels["team", "pod-a"] = LABELS | {"hatchery.dev/kind": kind}
    assert endpoint.post(path=status_path("team", plural, "tiny"))[0] == 200
    assert endpoint.received[0].kind == kind


def test_the_labels_of_a_pod_are_kept_for_five_minutes(endpoint):
    for _ in range(3):
        endpoint.post()
    endpoint.now += 299
    endpoint.post()
    assert endpoint.cluster.label_reads == 1
    endpoint.now += 2
    endpoint.post()
    assert endpoint.cluster.label_reads == 2


def test_a_pod_that_is_not_visible_yet_is_asked_for_again_after_ten_seconds(endpoint):
    endpoint.cluster.labels.clear()
    assert [endpoint.post()[0] for _ in range(3)] == [403] * 3
    endpoint.cluster.labels["team", "pod-a"] = LABELS
    endpoint.now += 11
    assert endpoint.post()[0] == 200
    assert endpoint.cluster.label_reads == 2


@pytest.mark.parametrize("token", [None, "", "stolen"])
def test_without_a_pods_token_nothing_is_taken(endpoint, token):
    status, message = endpoint.post(token=token)
    assert status == 401
    assert "token" in message
    assert endpoint.received == []


@pytest.mark.parametrize(
    "path",
    [
        status_path("other", "pretrainruns", "tiny"),
        status_path("team", "evalruns", "tiny"),
        status_path("team", "pretrainruns", "other"),
    ],
    ids=["namespace", "kind", "name"],
)
def test_a_pod_reports_only_on_its_own_resource(endpoint, path):
    status, message = endpoint.post(path=path)
    assert (status, "pod-a does not belong" in message) == (403, True)
    assert endpoint.received == []


@pytest.mark.parametrize("missing", LABELS)
def test_a_pod_without_our_labels_belongs_to_nothing(endpoint, missing):
    endpoint.cluster.labels["team", "pod-a"] = {k: v for k, v in LABELS.items() if k != missing}
    assert endpoint.post()[0] == 403


def test_a_pod_that_is_gone_belongs_to_nothing(endpoint):
    endpoint.cluster.labels.clear()
    assert endpoint.post()[0] == 403


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"{", "body: Invalid JSON"),
        (b"\xff\xfe", "body: Invalid JSON"),
        (b"[]", "body: "),
        ({}, "trainerStatus: Field required"),
        ({"trainerStatus": {"progressPercentage": 101}}, "trainerStatus.progressPercentage: "),
        ({"trainerStatus": {"metrics": [{"name": "x" * 65, "value": "1"}]}}, "trainerStatus.metrics.0.name: "),
        ({"trainerStatus": {"metrics": [{"name": "x", "value": "1"}] * 257}}, "trainerStatus.metrics: "),
    ],
)
def test_a_wrong_body_is_refused_with_its_field(endpoint, body, message):
    status, answer = endpoint.post(body)
    assert status == 400
    assert answer.startswith(message)
    assert endpoint.received == []


@pytest.mark.parametrize(("size", "expected"), [(64 * 1024, 200), (64 * 1024 + 1, 413)])
def test_the_body_may_have_64_kib(endpoint, size, expected):
    assert endpoint.post(json.dumps(BODY).encode().ljust(size))[0] == expected


def test_a_pod_that_reports_too_often_is_held_back_and_others_are_not(endpoint):
    endpoint.cluster.tokens["other"] = Identity("pod-b", "p2", "team")
    endpoint.cluster.labels["team", "pod-b"] = LABELS
    codes = [endpoint.post()[0] for _ in range(progress.POD_BURST + 2)]
    assert codes == [200] * progress.POD_BURST + [429] * 2
    assert endpoint.post(token="other")[0] == 200
    endpoint.now += 1
    assert [endpoint.post()[0] for _ in range(2)] == [200, 429]


def test_an_api_server_that_is_away_costs_one_report_and_is_not_remembered(endpoint):
    endpoint.cluster.broken = True
    assert endpoint.post()[0] == 503
    endpoint.cluster.broken = False
    assert endpoint.post()[0] == 200


def test_a_callback_that_fails_costs_one_report(endpoint, caplog):
    def fail(_: Received) -> None:
        raise LookupError("no such resource")

    endpoint.deliver = fail
    assert endpoint.post()[0] == 503
    assert "LookupError" in caplog.text
    endpoint.deliver = endpoint.received.append
    assert endpoint.post()[0] == 200


def test_a_body_that_never_ends_is_given_up(endpoint, monkeypatch):
    monkeypatch.setattr(progress, "BODY_SECONDS", 0.2)

    async def talk() -> bytes:
        tls = ssl.create_default_context(cadata=endpoint.certificate.ca_pem)
        reader, writer = await asyncio.open_connection("127.0.0.1", endpoint.port, ssl=tls)
        head = f"POST {PATH} HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer good\r\nContent-Length: 99\r\n\r\n{{"
        writer.write(head.encode())
        answer = await reader.readline()
        writer.close()
        await writer.wait_closed()
        return answer

    assert b" 408 " in asyncio.run(talk())
    assert endpoint.post()[0] == 200


@pytest.mark.parametrize(
    ("path", "method", "expected"),
    [("/", "POST", 404), (PATH, "GET", 405), (status_path("team", "secrets", "x"), "POST", 404)],
)
def test_there_is_nothing_else_to_ask_for(endpoint, path, method, expected):
    assert endpoint.post(path=path, method=method)[0] == expected


def test_what_is_remembered_stays_bounded(monkeypatch):
    monkeypatch.setattr(progress, "CACHE_ENTRIES", 3)
    remembered = progress._ExpiringCache(lambda: 0.0)
    for n in range(10):
        remembered.put(f"k{n}", n)
    assert [n for n in range(10) if remembered.knows(f"k{n}")] == [7, 8, 9]


def test_stopping_frees_the_port_and_stopping_twice_is_no_error():
    first = Endpoint()
    first.run(first.receiver.stop())
    with pytest.raises(aiohttp.ClientConnectorError):
        first.post()
    first.close()


@pytest.fixture
def pod_environment(endpoint, tmp_path, monkeypatch):
    (tmp_path / "ca.crt").write_text(endpoint.certificate.ca_pem)
    (tmp_path / "token").write_text("good\n")
    monkeypatch.setenv("KUBEFLOW_TRAINER_SERVER_URL", endpoint.url + PATH)
    monkeypatch.setenv("KUBEFLOW_TRAINER_SERVER_CA_CERT", str(tmp_path / "ca.crt"))
    monkeypatch.setenv("KUBEFLOW_TRAINER_SERVER_TOKEN", str(tmp_path / "token"))
    return endpoint


def test_the_callback_of_transformers_works_unchanged(pod_environment):
    from transformers.integrations.integration_utils import KubeflowCallback

    callback = KubeflowCallback()
    state = SimpleNamespace(is_world_process_zero=True, max_steps=200, global_step=0, epoch=0.5)
    callback.on_train_begin(None, state, None)
    callback.on_log(None, state, None, logs={"loss": 3.25, "learning_rate": 5e-4})
    state.global_step = 90
    callback._last_update_time = 0.0  # its throttle of five seconds
    callback.on_step_end(None, state, None)
    callback.on_train_end(None, state, None)
    shares = [r.status.progress_percentage for r in pod_environment.received]
    assert shares == [0, 45, 100]
    numbers = {m.name: m.value for m in pod_environment.received[1].status.metrics}
    assert numbers == {
        "loss": "3.25",
        "learning_rate": "0.0005",
        "current_step": "90",
        "total_steps": "200",
        "current_epoch": "0.5",
    }


def test_our_own_client_works(pod_environment):
    from hatchery_jobs.runtime.progress import ProgressClient

    client = ProgressClient.from_environment()
    client.post(STATUS)
    assert client.busy.acquire(timeout=30)  # the thread gives it back when the request is over
    assert pod_environment.received == [RECEIVED]
