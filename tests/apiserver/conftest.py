"""A real API server with the CRDs, and a client that shows its answers as they are."""

import http.client
import json
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import yaml
from tests.cluster.control_plane import ADMIN, LOOPBACK, ControlPlane
from tests.support.operator.process import OperatorProcess, install

ROOT = Path(__file__).resolve().parents[2]


class Api:
    """One connection to the API server as administrator."""

    def __init__(self, control_plane: ControlPlane) -> None:
        authority = control_plane.authority
        context = ssl.create_default_context(cafile=str(authority.certificate))
        context.load_cert_chain(authority.certificate_of(ADMIN), authority.key_of(ADMIN))
        self._connection = http.client.HTTPSConnection(LOOPBACK, control_plane.ports.api, context=context, timeout=30)

    def request(
        self, method: str, path: str, body: Any = None, *, content_type: str = "application/json", **query: str
    ) -> tuple[int, dict[str, Any]]:
        """Status code and body of an answer; `Accept` goes with the query as `accept`."""
        headers = {"Content-Type": content_type, "Accept": query.pop("accept", "application/json")}
        data = None if body is None else json.dumps(body)
        try:
            return self._send(method, f"{path}?{urlencode(query)}", data, headers)
        except (ConnectionError, ssl.SSLError):  # an idle connection to a server that was restarted since
            return self._send(method, f"{path}?{urlencode(query)}", data, headers)

    def _send(self, method: str, path: str, data: str | None, headers: dict[str, str]) -> tuple[int, dict[str, Any]]:
        try:
            self._connection.request(method, path, data, headers)
            answer = self._connection.getresponse()
            return answer.status, json.loads(answer.read())
        except (OSError, http.client.HTTPException):
            self._connection.close()  # or it would refuse the next request too
            raise

    def close(self) -> None:
        self._connection.close()


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """etcd and kube-apiserver with the CRDs established."""
    with ControlPlane(tmp_path_factory.mktemp("control-plane")) as plane:
        crds = sorted((ROOT / "manifests/crds").glob("*.yaml"))
        plane.apply([yaml.safe_load(path.read_text()) for path in crds])
        plane.kubectl("wait", "--for=condition=Established", "--timeout=60s", "crd", "--all")
        yield plane


@pytest.fixture(scope="session")
def api(control_plane: ControlPlane) -> Iterator[Api]:
    """An administrator's connection."""
    client = Api(control_plane)
    yield client
    client.close()


@pytest.fixture
def figures(record_property: Callable[[str, object], None]) -> Callable[..., None]:
    """Records measured figures, which are printed at the end whatever comes of the test."""

    def record(**values: object) -> None:
        for name, value in values.items():
            record_property(name, value)

    return record


def pytest_terminal_summary(terminalreporter: Any) -> None:
    reports = [
        r for outcome in ("passed", "failed") for r in terminalreporter.stats.get(outcome, ()) if r.when == "call"
    ]
    measured = [report for report in reports if report.user_properties]
    if measured:
        terminalreporter.section("figures")
    for report in measured:
        values = ", ".join(f"{name}={value}" for name, value in report.user_properties)
        terminalreporter.write_line(f"{report.nodeid.rpartition('::')[2]}: {values}")


@pytest.fixture(scope="module")
def operator(control_plane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OperatorProcess]:
    """An operator for all tests of a module; one that kills it starts it again."""
    install(control_plane)
    process = OperatorProcess(control_plane, tmp_path_factory.mktemp("operator"))
    process.start()
    yield process
    assert process.stop() == 0
