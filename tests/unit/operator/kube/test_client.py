"""Requests, retries and errors of the API client against a scripted server."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web
from aiohttp.test_utils import TestServer

from hatchery_operator.errors import (
    AlreadyExistsError,
    ApiError,
    ConflictError,
    GoneError,
    NotLeaderError,
    RefusedError,
    UnreachableError,
    api_error,
)
from hatchery_operator.kube.client import TYPES, Cluster, kubeconfig_from_environment

Answer = tuple[int, dict[str, Any], dict[str, str]]
MANIFEST = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "j", "namespace": "n"}}


class Server:
    """Gives its responses in turn, the last one forever, and records the requests."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.seen: list[web.Request] = []
        self.bodies: list[str] = []
        self.hangs = False
        self.page = ""

    async def answer(self, request: web.Request) -> web.Response:
        self.seen.append(request)
        self.bodies.append(await request.text())
        if self.hangs:
            await asyncio.Event().wait()
        if self.page:
            return web.Response(text=self.page)
        status, body, headers = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return web.json_response(body, status=status, headers=headers)


class Case:
    """A client of the server, with a clock that sleeping advances."""

    def __init__(self, server: Server, folder: Path) -> None:
        self.server, self.folder = server, folder
        self.slept: list[float] = []
        self.counted: list[tuple[str, int]] = []

    async def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)

    def kubeconfig(self, url: str, token: str = "t1") -> Path:
        path = self.folder / "kubeconfig"
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "c",
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "clusters": [{"name": "c", "cluster": {"server": url}}],
            "users": [{"name": "u", "user": {"token": token}}],
        }
        path.write_text(yaml.safe_dump(config))
        return path

    def run(self, work: Callable[[Cluster], Awaitable[Any]]) -> Any:
        async def scenario() -> Any:
            app = web.Application()
            app.router.add_route("*", "/{path:.*}", self.server.answer)
            async with TestServer(app) as server:
                self.url = str(server.make_url("")).rstrip("/")
                path = self.kubeconfig(self.url)
                cluster = Cluster(path, lambda: 42.0, lambda verb, code: self.counted.append((verb, code)), self._sleep)
                try:
                    return await work(cluster)
                finally:
                    await cluster.close()

        return asyncio.run(scenario())


@pytest.fixture
def case(tmp_path: Path) -> Callable[..., Case]:
    return lambda *answers: Case(Server(*answers), tmp_path)


def ok(body: dict[str, Any] | None = None) -> Answer:
    return 200, body or {}, {}


def refusal(status: int, reason: str = "", message: str = "no", **headers: str) -> Answer:
    return status, {"kind": "Status", "reason": reason, "message": message}, headers


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("Job", "/apis/batch/v1/namespaces/n/jobs/x/status"),
        ("Pod", "/api/v1/namespaces/n/pods/x/status"),
        ("EvalRun", "/apis/hatchery.dev/v1alpha1/namespaces/n/evalruns/x/status"),
    ],
)
def test_paths(kind: str, expected: str) -> None:
    assert TYPES[kind].path("n", "x", "status") == expected
    assert TYPES[kind].path(None) == expected.replace("/namespaces/n", "").removesuffix("/x/status")


def test_an_object_is_read_with_the_token_and_the_answer_is_counted(case: Callable[..., Case]) -> None:
    one = case(ok({"metadata": {"name": "j"}}))
    assert one.run(lambda cluster: cluster.get("Job", "n", "j")) == {"metadata": {"name": "j"}}
    [request] = one.server.seen
    assert (request.method, request.path) == ("GET", "/apis/batch/v1/namespaces/n/jobs/j")
    assert request.headers["Authorization"] == "Bearer t1"
    assert one.counted == [("GET", 200)]


def test_proxies_of_the_environment_are_not_asked_as_they_are_not_for_watches(
    case: Callable[..., Case], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    one = case(ok({"metadata": {"name": "j"}}))
    assert one.run(lambda cluster: cluster.get("Job", "n", "j")) == {"metadata": {"name": "j"}}


def test_an_object_that_does_not_exist_is_none(case: Callable[..., Case]) -> None:
    assert case(refusal(404, "NotFound")).run(lambda cluster: cluster.get("Job", "n", "j")) is None


def test_a_listing_goes_page_by_page_and_says_what_its_items_are(case: Callable[..., Case]) -> None:
    one = case(
        ok({"metadata": {"continue": "next"}, "items": [{"metadata": {"name": "a"}}]}),
        ok({"metadata": {}, "items": [{"metadata": {"name": "b"}}]}),
    )

    async def names(cluster: Cluster) -> list[tuple[str, str]]:
        return [(item["metadata"]["name"], item["kind"]) async for item in cluster.list("Job", None, "x=y", "f=g")]

    assert one.run(names) == [("a", "Job"), ("b", "Job")]
    first, second = one.server.seen
    assert first.path == "/apis/batch/v1/jobs"
    assert (first.query["labelSelector"], first.query["fieldSelector"], first.query["limit"]) == ("x=y", "f=g", "100")
    assert "continue" not in first.query
    assert second.query["continue"] == "next"


def test_an_apply_says_who_applies(case: Callable[..., Case]) -> None:
    one = case(ok())
    one.run(lambda cluster: cluster.apply(MANIFEST, "hatchery-status", "status"))
    [request] = one.server.seen
    assert (request.method, request.path) == ("PATCH", "/apis/batch/v1/namespaces/n/jobs/j/status")
    assert request.headers["Content-Type"] == "application/apply-patch+yaml"
    assert dict(request.query) == {"fieldManager": "hatchery-status", "force": "true"}
    assert json.loads(one.server.bodies[0]) == MANIFEST


def test_a_delete_takes_children_along_and_only_the_object_that_is_meant(case: Callable[..., Case]) -> None:
    one = case(ok())
    one.run(lambda cluster: cluster.delete("Job", "n", "j", "u1"))
    options = json.loads(one.server.bodies[0])
    assert (options["propagationPolicy"], options["preconditions"]) == ("Background", {"uid": "u1"})


@pytest.mark.parametrize("status", [404, 409])
def test_deleting_what_is_gone_or_another_by_now_is_no_error(case: Callable[..., Case], status: int) -> None:
    one = case(refusal(status, "Conflict"))
    one.run(lambda cluster: cluster.delete("Job", "n", "j", "u1"))
    assert one.counted == [("DELETE", status)]


@pytest.mark.parametrize(
    ("status", "reason", "error"),
    [
        (404, "NotFound", GoneError),
        (409, "Conflict", ConflictError),
        (409, "AlreadyExists", AlreadyExistsError),
        (400, "BadRequest", RefusedError),
        (403, "Forbidden", RefusedError),
        (422, "Invalid", RefusedError),
        (401, "Unauthorized", UnreachableError),
        (429, "TooManyRequests", UnreachableError),
        (500, "InternalError", UnreachableError),
        (503, "ServiceUnavailable", UnreachableError),
    ],
)
def test_the_class_of_an_error_says_what_to_do(status: int, reason: str, error: type[ApiError]) -> None:
    body = json.dumps({"reason": reason, "message": "because"}).encode()
    found = api_error("GET /x", status, {}, body)
    assert type(found) is error
    assert str(found) == "GET /x: because"
    assert found.status == status


def test_an_answer_that_is_no_json_is_still_an_error_with_its_text() -> None:
    assert "bad gateway" in str(api_error("GET /x", 502, {}, b"<html>bad gateway"))
    assert "busy" in str(api_error("GET /x", 502, {}, b'"busy"'))


def test_a_page_of_a_proxy_in_place_of_an_answer_does_not_end_the_operator(case: Callable[..., Case]) -> None:
    made = case(ok())
    made.server.page = "<html>sign in</html>"

    async def read(cluster: Cluster) -> None:
        await cluster.get("Job", "n", "j")

    with pytest.raises(UnreachableError, match=r"GET .*/jobs/j: the response is not JSON: b'<html>sign in"):
        made.run(read)


def test_a_busy_server_is_given_the_time_it_asks_for(case: Callable[..., Case]) -> None:
    one = case(refusal(429, **{"Retry-After": "7"}), refusal(503, **{"Retry-After": "3"}), ok({"metadata": {}}))
    assert one.run(lambda cluster: cluster.get("Job", "n", "j")) == {"metadata": {}}
    assert one.slept == [7, 3]


def test_a_server_that_asks_for_an_hour_is_left_to_the_queue(case: Callable[..., Case]) -> None:
    one = case(refusal(429, **{"Retry-After": "3600"}))
    with pytest.raises(UnreachableError) as refused:
        one.run(lambda cluster: cluster.get("Job", "n", "j"))
    assert (one.slept, refused.value.retry_after_seconds) == ([], 3600)


def test_an_error_of_the_server_is_left_to_the_queue(case: Callable[..., Case]) -> None:
    one = case(refusal(500))
    with pytest.raises(UnreachableError):
        one.run(lambda cluster: cluster.get("Job", "n", "j"))
    assert (one.slept, len(one.server.seen)) == ([], 1)


def test_credentials_that_are_refused_are_read_again(case: Callable[..., Case]) -> None:
    one = case(ok({}), refusal(401), ok({"metadata": {}}))

    async def rotate(cluster: Cluster) -> Any:
        await cluster.ping()
        one.kubeconfig(one.url, token="t2")
        return await cluster.get("Job", "n", "j")

    assert one.run(rotate) == {"metadata": {}}
    tokens = [request.headers["Authorization"] for request in one.server.seen]
    assert tokens == ["Bearer t1", "Bearer t1", "Bearer t2"]


def test_no_answer_is_an_error_of_its_own_and_counted(tmp_path: Path) -> None:
    one = Case(Server(ok()), tmp_path)
    path = one.kubeconfig("http://127.0.0.1:1")
    cluster = Cluster(path, lambda: 0.0, lambda verb, code: one.counted.append((verb, code)), one._sleep)

    async def scenario() -> None:
        try:
            await cluster.ping()
        finally:
            await cluster.close()

    with pytest.raises(UnreachableError, match="no answer"):
        asyncio.run(scenario())
    assert one.counted == [("GET", 0)]


def test_silence_is_measured_from_the_last_good_answer(case: Callable[..., Case]) -> None:
    async def scenario(cluster: Cluster) -> list[float]:
        cluster.last_success = 0.0
        with pytest.raises(RefusedError):
            await cluster.ping()
        before = cluster.last_success
        await cluster.ping()
        return [before, cluster.last_success]

    assert case(refusal(403), ok({})).run(scenario) == [0.0, 42.0]


def test_kopf_gets_the_same_credentials(case: Callable[..., Case]) -> None:
    one = case(ok())
    found = one.run(lambda cluster: cluster.credentials())
    assert (found.server, found.token, found.insecure) == (one.url, "t1", False)


def test_which_kubeconfig_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert kubeconfig_from_environment({"KUBECONFIG": "/a:/b"}) == Path("/a")
    assert kubeconfig_from_environment({}) is None
    default = tmp_path / ".kube" / "config"
    default.parent.mkdir()
    default.touch()
    assert kubeconfig_from_environment({}) == default
    assert kubeconfig_from_environment({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}) is None


WRITES = {
    "create": lambda cluster: cluster.create(MANIFEST),
    "replace": lambda cluster: cluster.replace(MANIFEST),
    "apply": lambda cluster: cluster.apply(MANIFEST),
    "merge": lambda cluster: cluster.merge(MANIFEST),
    "delete": lambda cluster: cluster.delete("Job", "n", "j"),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_a_replica_that_does_not_lead_writes_nothing(case: Callable[..., Case], write: Any) -> None:
    async def attempt(cluster: Cluster) -> None:
        def closed() -> float:
            raise NotLeaderError("no")

        cluster.guard = closed
        with pytest.raises(NotLeaderError):
            await write(cluster)
        await cluster.get("Job", "n", "j")

    one = case(ok())
    one.run(attempt)
    assert [request.method for request in one.server.seen] == ["GET"]


@pytest.mark.parametrize("write", ["create", "replace", "apply"])
def test_what_every_replica_may_write_is_not_fenced(case: Callable[..., Case], write: str) -> None:
    async def attempt(cluster: Cluster) -> None:
        cluster.guard = lambda: 0.0
        await getattr(cluster, write)(MANIFEST, fenced=False)

    one = case(ok())
    one.run(attempt)
    assert len(one.server.seen) == 1


def test_a_write_is_given_up_when_the_lease_ends(case: Callable[..., Case]) -> None:
    async def attempt(cluster: Cluster) -> None:
        cluster.guard = lambda: 0.2
        one.server.hangs = True
        with pytest.raises(UnreachableError, match="no answer"):
            await cluster.create(MANIFEST)

    one = case(ok())
    one.run(attempt)
    assert one.counted == [("POST", 0)]


def test_the_guard_is_asked_again_before_a_write_is_sent_again(case: Callable[..., Case]) -> None:
    async def attempt(cluster: Cluster) -> None:
        allowed = iter([5.0])

        def guard() -> float:
            for seconds in allowed:
                return seconds
            raise NotLeaderError("no")

        cluster.guard = guard
        with pytest.raises(NotLeaderError):
            await cluster.create(MANIFEST)

    one = case(refusal(429), ok())
    one.run(attempt)
    assert len(one.server.seen) == 1


def test_signing_keys_that_are_no_plain_json_are_not_refused(case) -> None:
    """The API server publishes them as application/jwk-set+json alone; asked for JSON only, it answers 406."""
    one = case((200, {"keys": []}, {}))
    assert one.run(lambda cluster: cluster.read("/openid/v1/jwks")) == {"keys": []}
    accepted = one.server.seen[-1].headers["Accept"]
    assert accepted.startswith("application/json")
    assert "*/*" in accepted
