"""Two candidates for one lease in virtual time, with clocks that disagree and an API server that fails."""

import asyncio
import copy
import itertools
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest
from tests.support.operator.virtual_time import pass_time, run_virtually

from hatchery_operator.errors import (
    AlreadyExistsError,
    ApiError,
    ConflictError,
    GoneError,
    NotLeaderError,
    UnreachableError,
)
from hatchery_operator.kube.client import REQUEST_SECONDS, Cluster
from hatchery_operator.kube.leader_election import Election, Elector
from hatchery_operator.settings import LeaderElection

TIMES = LeaderElection()
START = datetime(2026, 3, 1, tzinfo=UTC)


class LeaseServer:
    """One Lease under the rules of an API server; `fails` decides for each request whether and how it fails."""

    def __init__(self) -> None:
        self.lease: dict[str, Any] | None = None
        self.writes: list[tuple[float, str]] = []
        self.latency = 0.01
        self._versions = itertools.count(1)

    def store(self, lease: dict[str, Any] | None) -> dict[str, Any] | None:
        self.lease = copy.deepcopy(lease)
        if self.lease:
            self.lease["metadata"]["resourceVersion"] = str(next(self._versions))
            self.writes.append((asyncio.get_running_loop().time(), self.lease["spec"]["holderIdentity"]))
        return copy.deepcopy(self.lease)


class Connection:
    """One candidate's client."""

    def __init__(self, server: LeaseServer) -> None:
        self.server = server
        self.is_cut = False
        self.loses_answers = False
        self.error: ApiError | None = None

    async def _way(self) -> None:
        await pass_time(self.server.latency)
        if self.error:
            raise self.error
        if self.is_cut:
            await pass_time(REQUEST_SECONDS)
            raise UnreachableError("lease", "no answer")

    async def _answer(self, lease: Any) -> Any:
        if self.loses_answers:
            self.is_cut = True
        await self._way()
        return lease

    async def get(self, *_: object) -> Any:
        await self._way()
        return await self._answer(copy.deepcopy(self.server.lease))

    async def create(self, manifest: Any, *, fenced: bool) -> Any:
        assert not fenced
        await self._way()
        if self.server.lease:
            raise AlreadyExistsError("create", "exists", 409)
        return await self._answer(self.server.store(manifest))

    async def replace(self, manifest: Any, *, fenced: bool) -> Any:
        assert not fenced
        await self._way()
        if self.server.lease is None:
            raise GoneError("replace", "not found", 404)
        if manifest["metadata"]["resourceVersion"] != self.server.lease["metadata"]["resourceVersion"]:
            raise ConflictError("replace", "changed", 409)
        return await self._answer(self.server.store(manifest))


class Candidate:
    """A replica; its clocks are off by minutes, and its fast or slow oscillator by `rate`."""

    def __init__(self, name: str, server: LeaseServer, *, offset: float = 0.0, rate: float = 1.0, **times: int) -> None:
        self.api = Connection(server)
        self.begun: list[float] = []
        self.ended: list[float] = []
        self._offset, self._rate = offset, rate
        self.elector = Elector(
            cast("Cluster", self.api),
            LeaderElection(**times) if times else TIMES,
            identity=name,
            namespace="system",
            name="operator",
            clock=self.clock,
            now=lambda: START + timedelta(seconds=self.clock()),
        )
        self.task = asyncio.ensure_future(self.elector.run(self._term))

    def clock(self) -> float:
        return self._offset + self._rate * asyncio.get_running_loop().time()

    async def _term(self) -> None:
        self.begun.append(asyncio.get_running_loop().time())
        try:
            await asyncio.Event().wait()
        finally:
            self.ended.append(asyncio.get_running_loop().time())

    def may_write(self) -> bool:
        try:
            return self.elector.guard() > 0
        except NotLeaderError:
            return False

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


async def watch(seconds: float, *candidates: Candidate) -> None:
    """Advances time; two candidates may never write at the same moment."""
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while loop.time() < end:
        await pass_time(0.1)
        assert sum(c.may_write() for c in candidates) <= 1


def two(scenario: Callable[..., Any], **second: Any) -> None:
    """Runs a scenario with a leader `a` and a standby `b`."""

    async def play() -> None:
        server = LeaseServer()
        a = Candidate("a", server)
        await watch(1, a)
        b = Candidate("b", server, **second)
        await watch(30, a, b)
        assert (a.may_write(), b.may_write()) == (True, False)
        try:
            await scenario(server, a, b)
        finally:
            a.api.is_cut = b.api.is_cut = False
            await a.stop()
            await b.stop()

    run_virtually(play())


def test_one_of_two_leads_and_renews_and_the_other_waits() -> None:
    async def scenario(server: LeaseServer, a: Candidate, b: Candidate) -> None:
        await watch(3600, a, b)
        assert (len(a.begun), a.ended, b.begun) == (1, [], [])
        assert server.lease["spec"]["leaseTransitions"] == 0
        gaps = [y - x for (x, _), (y, _) in itertools.pairwise(server.writes)]
        assert max(gaps) < 2.2

    two(scenario)


@pytest.mark.parametrize(("offset", "rate"), [(0, 1.0), (86_400, 1.0), (-86_400, 1.0), (500, 1.02), (500, 0.98)])
def test_after_a_crash_the_other_leads_within_20_seconds_whatever_the_clocks_say(offset: float, rate: float) -> None:
    async def scenario(server: LeaseServer, a: Candidate, b: Candidate) -> None:
        crashed = asyncio.get_running_loop().time()
        a.api.is_cut = True
        await watch(20, a, b)
        assert b.may_write()
        assert b.begun[0] - crashed > TIMES.renew_deadline_seconds
        assert server.lease["spec"]["leaseTransitions"] == 1

    two(scenario, offset=offset, rate=rate)


def test_a_leader_that_cannot_renew_stops_working_before_the_other_begins_and_competes_again() -> None:
    async def scenario(server: LeaseServer, a: Candidate, b: Candidate) -> None:
        a.api.is_cut = True
        await watch(60, a, b)
        assert len(a.ended) == 1
        assert b.begun[0] - a.ended[0] > 1
        a.api.is_cut, b.api.is_cut = False, True
        await watch(60, a, b)
        assert (len(a.begun), len(b.ended)) == (2, 1)

    two(scenario)


def test_a_short_outage_costs_no_lease() -> None:
    async def scenario(server: LeaseServer, a: Candidate, b: Candidate) -> None:
        for error in (UnreachableError("x", "busy", 503), ApiError("x", "what", 500), ConflictError("x", "no", 409)):
            a.api.error = b.api.error = error
            await watch(4, a, b)
            a.api.error = b.api.error = None
            await watch(30, a, b)
        a.api.is_cut = True
        await watch(1, a, b)
        a.api.is_cut = False
        await watch(30, a, b)
        assert (a.ended, b.begun) == ([], [])

    two(scenario)


def test_a_renewal_whose_answer_was_lost_is_read_and_not_mistaken_for_another_holder() -> None:
    async def scenario(server: LeaseServer, a: Candidate, b: Candidate) -> None:
        a.api.loses_answers = True
        await watch(2.5, a, b)
        a.api.loses_answers = a.api.is_cut = False
        await watch(30, a, b)
        assert (a.ended, b.begun) == ([], [])

    two(scenario)


def test_when_nobody_reaches_the_api_server_nobody_works_and_afterwards_one_does() -> None:
    async def scenario(server: LeaseServer, a: Candidate, b: Candidate) -> None:
        a.api.error = b.api.error = UnreachableError("x", "away")
        await watch(60, a, b)
        assert (len(a.ended), b.begun) == (1, [])
        a.api.error = b.api.error = None
        await watch(5, a, b)
        assert a.may_write() != b.may_write()

    two(scenario)


def test_a_graceful_stop_hands_over_at_once() -> None:
    async def scenario(server: LeaseServer, a: Candidate, b: Candidate) -> None:
        stopped = asyncio.get_running_loop().time()
        await a.stop()
        assert a.ended
        await watch(3, a, b)
        assert b.begun[0] - stopped < 2.5

    two(scenario)


def test_a_graceful_stop_in_the_middle_of_a_renewal_hands_over_as_soon() -> None:
    async def scenario(server: LeaseServer, a: Candidate, b: Candidate) -> None:
        await watch(10, a, b)
        server.latency = 0.5
        renewals = len(server.writes)
        while len(server.writes) == renewals:
            await pass_time(0.01)
        # the server has the renewal, and its answer is on the way
        stopped_at = asyncio.get_running_loop().time()
        await a.stop()
        await watch(6, b)
        assert b.begun
        assert b.begun[0] - stopped_at < 5

    two(scenario)


def test_a_lease_somebody_deletes_is_made_again_by_its_holder() -> None:
    async def scenario(server: LeaseServer, a: Candidate, b: Candidate) -> None:
        server.store(None)
        await watch(30, a, b)
        assert (a.ended, b.begun) == ([], [])
        assert server.lease["spec"]["holderIdentity"] == "a"

    two(scenario)


def test_a_lease_somebody_takes_by_hand_ends_the_term_at_the_next_renewal() -> None:
    async def scenario(server: LeaseServer, a: Candidate, b: Candidate) -> None:
        stolen = copy.deepcopy(server.lease)
        stolen["spec"] |= {"holderIdentity": "kubectl", "renewTime": "2026-03-01T00:00:00.000000Z"}
        server.store(stolen)
        await watch(4, a, b)
        assert a.ended
        assert not b.may_write()
        await watch(16, a, b)
        assert a.may_write() or b.may_write()

    two(scenario)


def test_a_restarted_process_is_another_candidate_and_waits_for_its_own_old_lease() -> None:
    async def play() -> None:
        server = LeaseServer()
        first = Candidate("pod_1", server)
        await watch(5, first)
        first.api.is_cut = True
        second = Candidate("pod_2", server)
        await watch(11, first, second)
        assert second.begun == []
        await watch(5, first, second)
        assert second.begun
        await first.stop()
        await second.stop()

    run_virtually(play())


def test_a_frozen_leader_writes_nothing_when_it_wakes_up() -> None:
    """Stops a candidate like SIGSTOP: its clock continues, and none of its code runs."""
    election = Election("a", TIMES)
    election.won(election.claim("n", "l", START), sent=100.0)
    assert election.write_seconds(100.0) == TIMES.lease_seconds - 1
    assert election.write_seconds(107.9) == pytest.approx(3.1)
    for now in (108.0, 130.0):
        with pytest.raises(NotLeaderError, match="may have lost the lease"):
            election.write_seconds(now)


def test_a_write_that_is_begun_at_the_last_moment_ends_before_another_may_lead() -> None:
    begun = 100.0 + TIMES.renew_deadline_seconds - 0.001
    election = Election("a", TIMES)
    election.won(election.claim("n", "l", START), sent=100.0)
    assert begun + election.write_seconds(begun) < 100.0 + TIMES.lease_seconds


def test_the_holders_term_counts_and_not_the_candidates() -> None:
    election = Election("b", TIMES)
    election.observe({"metadata": {}, "spec": {"holderIdentity": "a", "leaseDurationSeconds": 60}}, 0.0)
    assert election.wait(30.0) == 30.0


def test_the_first_candidate_ever_does_not_wait_and_a_deleted_lease_is_waited_for() -> None:
    fresh, other = Election("b", TIMES), Election("c", TIMES)
    fresh.observe(None, 0.0)
    assert fresh.wait(0.0) == 0.0
    other.observe({"metadata": {}, "spec": {"holderIdentity": "a", "leaseDurationSeconds": 12}}, 0.0)
    other.observe(None, 5.0)
    other.observe(None, 6.0)
    assert other.wait(6.0) == 11.0


def test_a_lease_that_was_made_empty_is_taken_at_once_and_keeps_its_labels() -> None:
    election = Election("b", TIMES)
    election.observe({"metadata": {"name": "l", "resourceVersion": "7", "labels": {"a": "b"}}}, 0.0)
    assert election.wait(0.0) == 0.0
    assert election.claim("n", "l", START)["metadata"] == {"name": "l", "resourceVersion": "7", "labels": {"a": "b"}}


def test_a_lease_without_a_readable_spec_is_waited_for_and_then_taken() -> None:
    election = Election("b", TIMES)
    election.observe({"metadata": {}, "spec": {"holderIdentity": "a"}}, 0.0)
    assert election.wait(1.0) == TIMES.lease_seconds - 1


def test_a_term_that_fails_ends_the_operator_and_gives_the_lease_back() -> None:
    async def play() -> None:
        server = LeaseServer()
        one = Candidate("a", server)

        async def term() -> None:
            raise LookupError("broken")

        await one.stop()
        with pytest.raises(LookupError):
            await one.elector.run(term)
        assert server.lease["spec"]["holderIdentity"] == ""

    run_virtually(play())


def test_without_election_the_term_runs_and_every_write_is_allowed() -> None:
    async def play() -> None:
        one = Candidate("a", LeaseServer(), enabled=False)
        await pass_time(1)
        assert (len(one.begun), one.elector.is_leading, one.elector.guard()) == (1, True, REQUEST_SECONDS)
        await one.stop()
        assert one.api.server.writes == []

    run_virtually(play())
