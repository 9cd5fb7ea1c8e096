"""Answers that are no success, injected between the operator and the API server: it converges and never runs hot."""

import itertools
import time
from collections.abc import Callable, Iterator, Sequence

import pytest
from tests.support.kube.fault_proxy import FaultProxy
from tests.support.kube.faults import Call, Fault, lose_answer, lose_request, refuse
from tests.support.operator.process import OperatorProcess, Team, install

pytestmark = pytest.mark.apiserver

WINDOW_SECONDS = 10.0
MOST_CALLS = 10
"""Most calls about one resource within any `WINDOW_SECONDS`: one a second."""
FIRST_TRIES_SECONDS = 5.0
"""Time after the first call that does not count: back-off begins with a second and has to grow first."""


@pytest.fixture(scope="module")
def proxy(control_plane) -> Iterator[FaultProxy]:
    with FaultProxy(control_plane.server, control_plane.authority.certificate) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def operator(control_plane, proxy: FaultProxy, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OperatorProcess]:
    install(control_plane)
    process = OperatorProcess(control_plane, tmp_path_factory.mktemp("operator"), server=proxy.url)
    process.start()
    yield process
    assert process.stop() == 0


def about(namespace: str) -> Callable[[Call], bool]:
    """Calls about one namespace, in which a test has one resource."""
    return lambda call: call.namespace == namespace


def writes_to(*namespaces: str) -> Callable[[Call], bool]:
    """Calls that change something in some namespaces."""
    return lambda call: call.is_write and call.namespace in namespaces


def most_calls(calls: Sequence[Call]) -> int:
    """Most calls within any `WINDOW_SECONDS` after the first tries."""
    times = [call.at for call in calls if call.at > calls[0].at + FIRST_TRIES_SECONDS]
    return max((sum(start <= at < start + WINDOW_SECONDS for at in times) for start in times), default=0)


def in_turn(*faults: Fault) -> Fault:
    """One fault after the other."""
    following = itertools.cycle(faults)

    async def _next(exchange):
        return await next(following)(exchange)

    return _next


def finish(team: Team) -> None:
    """Plays the only Job of a corpus to its end."""
    team.run_pods("corpus-build-a1")
    team.end_job("corpus-build-a1")
    team.wait_reason("CorpusBuild", "corpus", "Completed")
    assert list(team.jobs()) == ["corpus-build-a1"]
    assert team.run("CorpusBuild", "corpus")["status"]["attempts"] == 1


REFUSALS: dict[str, Fault] = {
    "conflict": refuse(409, "Conflict"),
    "exists": refuse(409, "AlreadyExists"),
    "gone": refuse(404, "NotFound"),
    "invalid": refuse(422, "Invalid"),
    "forbidden": refuse(403, "Forbidden"),
    "broken": refuse(500, "InternalError"),
    "invalid-forbidden": in_turn(refuse(422, "Invalid"), refuse(403, "Forbidden")),
    "all": in_turn(*(refuse(code) for code in (409, 404, 422, 403, 500))),
    "request-lost": lose_request(),
    "answer-lost": lose_answer(),
}
"""What happens to every write of one resource for a while, by the name of its namespace."""

CHILDREN = {f"children-{name}": fault for name, fault in REFUSALS.items() if name != "all"}
"""The same, to the writes of its children only."""


def test_writes_that_fail_for_a_while_are_tried_again_without_haste(
    api, operator: OperatorProcess, proxy: FaultProxy, figures: Callable[..., None]
) -> None:
    """One resource for each fault, all at once; each writes nothing that arrives for a quarter of a minute."""
    begun, lasts_seconds = time.monotonic(), 15.0
    teams = {name: Team(api.request, name) for name in (*REFUSALS, *CHILDREN)}

    def fails(call: Call) -> bool:
        if time.monotonic() - begun > lasts_seconds or not call.is_write:
            return False
        return call.namespace in REFUSALS or (call.namespace in CHILDREN and "hatchery.dev" not in call.path)

    async def fail(exchange):
        return await {**REFUSALS, **CHILDREN}[exchange.call.namespace](exchange)

    with proxy.fault(fail, fails):
        for team in teams.values():
            team.apply("CorpusBuild", "corpus")
        next(iter(teams.values())).wait("the faults are over", lambda: time.monotonic() - begun > lasts_seconds)
        ended = time.monotonic()
        for team in teams.values():
            finish(team)
    seconds = time.monotonic() - ended
    calls = {name: [c for c in proxy.since(begun, about(name)) if c.at < begun + lasts_seconds] for name in teams}
    most = {name: most_calls(of_one) for name, of_one in calls.items()}
    figures(most_calls_in_ten_seconds=max(most.values()), seconds_until_all_ended=round(seconds))
    assert {name: number for name, number in most.items() if number > MOST_CALLS} == {}
    assert operator.exit_code() is None


def test_a_server_that_says_when_to_come_back_is_not_asked_before(
    api, operator: OperatorProcess, proxy: FaultProxy, figures: Callable[..., None]
) -> None:
    team, begun, asked_seconds = Team(api.request, "too-many"), time.monotonic(), 2
    with proxy.fault(refuse(429, "TooManyRequests", asked_seconds), writes_to("too-many"), times=7) as rule:
        team.apply("CorpusBuild", "corpus")
        finish(team)
    assert rule.hits == 7
    calls = proxy.since(begun, writes_to("too-many"))
    pauses = [
        later.at - call.at
        for call, later in itertools.pairwise(calls)
        if call.status == 429 and (call.verb, call.path) == (later.verb, later.path)
    ]
    figures(asked_seconds=asked_seconds, shortest_pause_seconds=round(min(pauses), 2), refused=rule.hits)
    assert len(pauses) >= 6
    assert min(pauses) >= asked_seconds
    assert operator.exit_code() is None
