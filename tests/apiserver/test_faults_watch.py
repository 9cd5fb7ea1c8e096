"""Watches that break: silently, with 410, with an error, or with a busy server; what happens meanwhile is not lost."""

import itertools
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.support.kube.fault_proxy import FaultProxy
from tests.support.kube.faults import Fault, is_any, is_watch, refuse, stream_error
from tests.support.operator.process import OperatorProcess, Team, install

pytestmark = pytest.mark.apiserver

NUMBERS = itertools.count()
BLACK_HOLE_BAR_SECONDS = 75.0
"""The API server sends a bookmark every minute; a watch without any news for longer is dead."""


@pytest.fixture
def proxy(control_plane) -> Iterator[FaultProxy]:
    with FaultProxy(control_plane.server, control_plane.authority.certificate) as proxy:
        yield proxy


@pytest.fixture
def operator(control_plane, proxy: FaultProxy, tmp_path: Path) -> Iterator[OperatorProcess]:
    install(control_plane)
    process = OperatorProcess(control_plane, tmp_path, server=proxy.url)
    process.start()
    yield process
    process.kill()


def prove_watched(team: Team, name: str) -> None:
    """The operator sees resources and Jobs at once: so all its watches are open."""
    team.apply("CorpusBuild", name)
    team.run_pods(f"{name}-build-a1")
    team.wait_reason("CorpusBuild", name, "Running")


@pytest.mark.long
def test_a_watch_that_went_silent_is_noticed_without_a_restart(
    api, operator: OperatorProcess, proxy: FaultProxy, figures: Callable[..., None]
) -> None:
    team = Team(api.request, "silent")
    prove_watched(team, "before")
    assert proxy.freeze_watches() >= 5
    begun = time.monotonic()
    team.patch("CorpusBuild", "before", suspend=True)
    team.apply("CorpusBuild", "meanwhile")
    team.wait(
        "both changes are acted on",
        lambda: "meanwhile-build-a1" in team.jobs() and team.jobs()["before-build-a1"]["spec"].get("suspend"),
        timeout_seconds=2 * BLACK_HOLE_BAR_SECONDS,
    )
    seconds = time.monotonic() - begun
    figures(acted_on_after_seconds=round(seconds, 1), bar=BLACK_HOLE_BAR_SECONDS)
    assert seconds <= BLACK_HOLE_BAR_SECONDS
    assert operator.exit_code() is None
    assert operator.get(operator.health, "/healthz") == (200, "ok")


def test_a_version_that_is_gone_makes_the_operator_list_again(
    api, operator: OperatorProcess, proxy: FaultProxy, figures: Callable[..., None]
) -> None:
    team, begun = Team(api.request, "expired"), time.monotonic()
    prove_watched(team, "before")
    with proxy.fault(stream_error(410), is_watch, times=12) as rule:
        assert proxy.end_watches(410) >= 5
        team.apply("CorpusBuild", "meanwhile")
        team.wait("watches fail again and again", lambda: rule.hits == 12)
    team.wait_job("meanwhile-build-a1")
    team.patch("CorpusBuild", "before", suspend=True)
    team.wait("the watches work", lambda: team.jobs()["before-build-a1"]["spec"].get("suspend"))
    watches = [call.at for call in proxy.since(begun, is_watch) if "/corpusbuilds" in call.path]
    pause = min(later - earlier for earlier, later in itertools.pairwise(watches))
    figures(errors=rule.hits, watches_of_one_kind=len(watches), shortest_pause_seconds=round(pause, 2))
    assert len(watches) >= 3
    assert pause >= 1.0
    assert operator.exit_code() is None


def test_a_server_that_says_when_to_watch_again_is_not_asked_before(
    api, operator: OperatorProcess, proxy: FaultProxy, figures: Callable[..., None]
) -> None:
    team, asked_seconds = Team(api.request, "busy"), 3
    prove_watched(team, "before")
    begun = time.monotonic()
    with proxy.fault(refuse(429, "TooManyRequests", asked_seconds), is_watch, times=12) as rule:
        proxy.end_watches(410)
        team.apply("CorpusBuild", "meanwhile")
        team.wait("watches are refused again and again", lambda: rule.hits == 12)
    team.wait_job("meanwhile-build-a1")
    calls = sorted(proxy.since(begun, is_watch), key=lambda call: (call.path, call.at))
    pauses = [b.at - a.at for a, b in itertools.pairwise(calls) if a.path == b.path and a.status == 429]
    figures(asked_seconds=asked_seconds, shortest_pause_seconds=round(min(pauses), 2), refused=rule.hits)
    assert min(pauses) >= asked_seconds
    assert operator.exit_code() is None


@pytest.mark.parametrize(
    ("fault", "when"),
    [(stream_error(500), is_watch), (refuse(410, "Expired"), is_watch), (refuse(401, "Unauthorized"), is_any)],
    ids=["error-event", "refused-watch", "credentials"],
)
def test_a_watch_that_cannot_go_on_ends_the_operator_and_a_new_one_goes_on(
    api, operator: OperatorProcess, proxy: FaultProxy, figures: Callable[..., None], fault: Fault, when
) -> None:
    team, begun = Team(api.request, f"broken-{next(NUMBERS)}"), time.monotonic()
    prove_watched(team, "before")
    with proxy.fault(fault, when):
        proxy.end_watches(410)
        team.wait("the operator gives up", lambda: operator.exit_code() is not None)
        assert operator.exit_code() == 1
        seconds = time.monotonic() - begun
    team.apply("CorpusBuild", "meanwhile")
    team.end_job("before-build-a1")
    operator.start()
    team.wait_reason("CorpusBuild", "before", "Completed")
    team.wait_job("meanwhile-build-a1")
    assert sorted(team.jobs()) == ["before-build-a1", "meanwhile-build-a1"]
    figures(gave_up_after_seconds=round(seconds, 1))
