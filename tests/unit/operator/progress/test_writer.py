"""Which reports reach the status, and how rarely: replicas in virtual time over one in-memory cluster."""

import asyncio
import itertools
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from typing import Any, cast

import pytest
from tests.support.operator.builders import NAMESPACE, NOW, manifest
from tests.support.operator.fake_cluster import FakeCluster
from tests.support.operator.virtual_time import pass_time, run_virtually

from hatchery_api.contract import TrainerStatus
from hatchery_operator.controller.observe import referenced_keys
from hatchery_operator.domain.objects import Key, Manifest, key_of
from hatchery_operator.errors import UnreachableError
from hatchery_operator.kube.cache import Cache
from hatchery_operator.kube.client import Cluster
from hatchery_operator.progress.receiver import Received
from hatchery_operator.progress.writer import WRITE_SECONDS, ProgressWriter


class Watched(FakeCluster):
    """Delivers every write to every replica a moment later, and records when progress was written."""

    def __init__(self) -> None:
        super().__init__()
        self.replicas: list[Replica] = []
        self.times: list[tuple[str, float]] = []
        self.requests = 0

    async def apply(self, manifest: Manifest, manager: str = "", subresource: str | None = None, **fence: bool) -> Any:
        assert (manager, subresource, fence) == ("hatchery-progress", "status", {"fenced": False})
        assert manifest["status"].keys() == {"progress"}
        self.requests += 1
        await pass_time(0.005)
        written = await super().apply(manifest, manager, subresource)
        name = written["metadata"]["name"]
        self.times.append((name, asyncio.get_running_loop().time()))
        self.tell(written)
        return written

    def _apply(self, manifest: Manifest) -> Manifest:
        # another manager's fields of the status stay
        stored = self.objects[manifest["kind"], NAMESPACE, manifest["metadata"]["name"]]
        return super()._apply({**manifest, "status": {**stored["status"], **manifest["status"]}})

    def tell(self, written: Manifest) -> None:
        for replica in self.replicas:
            asyncio.get_running_loop().call_later(0.05, replica.hear, written)


class Replica:
    """A replica whose wall clock may be off; its monotonic clock is its own."""

    def __init__(self, cluster: Watched, skew: float = 0.0) -> None:
        self.cluster, self.skew = cluster, skew
        self.cache = Cache(referenced_keys)
        loop = asyncio.get_running_loop()
        self.writer = ProgressWriter(
            cast("Cluster", cluster),
            self.cache,
            clock=lambda: loop.time() + 7 * skew,
            now=lambda: NOW + timedelta(seconds=loop.time() + skew),
        )
        cluster.replicas.append(self)
        self.task = asyncio.ensure_future(self.writer.run())

    def hear(self, found: Manifest) -> None:
        self.cache.put(found)
        self.writer.notice(key_of(found))

    def report(self, name: str, percentage: int, *, uid: str = "", pod: str = "") -> None:
        run = self.cache.get(Key("CorpusBuild", NAMESPACE, name))
        received = Received(
            "CorpusBuild",
            NAMESPACE,
            name,
            uid or (run.uid if run else "?"),
            pod or f"{name}-build-a1-0-x",
            TrainerStatus(progress_percentage=percentage),
        )
        self.writer.take(received)


def running(cluster: Watched, name: str, state: str = "Running", **status: Any) -> None:
    cluster.add(manifest("CorpusBuild", name))
    found = cluster.objects["CorpusBuild", NAMESPACE, name]
    stage = {"name": "build", "state": state, "attempt": 1, "job": f"{name}-build-a1"}
    found["status"] = {"stages": [stage], **status}
    for replica in cluster.replicas:
        replica.hear(found)


def play(scenario: Callable[..., Any], *skews: float) -> None:
    async def all_of_it() -> None:
        cluster = Watched()
        for skew in skews or (0.0,):
            Replica(cluster, skew)
        await scenario(cluster, *cluster.replicas)
        for replica in cluster.replicas:
            replica.task.cancel()

    run_virtually(all_of_it())


def percentage(cluster: Watched, name: str = "corpus") -> int | None:
    found = cluster.objects["CorpusBuild", NAMESPACE, name]["status"].get("progress", {})
    return found.get("percentage")


def test_the_first_report_is_shown_at_once_and_the_newest_ten_seconds_later() -> None:
    async def scenario(cluster: Watched, one: Replica) -> None:
        running(cluster, "corpus")
        await pass_time(20)
        one.report("corpus", 1)
        await pass_time(0.1)
        assert percentage(cluster) == 1
        for value in (2, 3, 4):
            await pass_time(2)
            one.report("corpus", value)
        assert percentage(cluster) == 1
        await pass_time(5)
        assert percentage(cluster) == 4
        assert len(cluster.times) == 2

    play(scenario)


@pytest.mark.parametrize("skews", [(0.0, 0.0), (0.0, 3600.0), (-3600.0, 0.0, 45.0)])
def test_200_runs_that_report_every_5_s_cost_one_write_each_in_10_s_over_all_replicas(skews) -> None:
    async def scenario(cluster: Watched, *replicas: Replica) -> None:
        names = [f"c{number}" for number in range(200)]
        for name in names:
            running(cluster, name)
        for turn in range(24):
            for number, name in enumerate(names):
                # a new connection for each report: the Service sends it to any replica
                replicas[(turn * 7 + number) % len(replicas)].report(name, turn)
            await pass_time(5)
        times: dict[str, list[float]] = {name: [] for name in names}
        for name, at in cluster.times:
            times[name].append(at)
        gaps = [after - before for each in times.values() for before, after in itertools.pairwise(each)]
        assert min(gaps) >= WRITE_SECONDS - 0.1
        assert min(len(each) for each in times.values()) >= 11
        assert cluster.requests <= 2 * len(cluster.times)

    play(scenario, *skews)


def test_a_report_that_lost_against_another_write_is_dropped_and_the_next_one_counts() -> None:
    async def scenario(cluster: Watched, one: Replica) -> None:
        running(cluster, "corpus")
        await pass_time(20)
        stored = cluster.objects["CorpusBuild", NAMESPACE, "corpus"]
        newer = cluster.put({**stored, "metadata": {**stored["metadata"]}})
        one.report("corpus", 1)
        await pass_time(1)
        assert percentage(cluster) is None
        one.hear(newer)
        one.report("corpus", 2)
        await pass_time(1)
        assert percentage(cluster) == 2

    play(scenario)


@pytest.mark.parametrize(
    ("state", "status", "report"),
    [
        ("Running", {}, {"pod": "corpus-build-a0-0-x"}),
        ("Running", {}, {"pod": "corpus-build-a10-0-x"}),
        ("Running", {}, {"uid": "of a deleted run"}),
        ("Retrying", {}, {}),
        ("Suspended", {}, {}),
        ("Succeeded", {"completionTime": "2026-03-01T12:00:00Z"}, {}),
    ],
)
def test_only_pods_of_the_job_in_flight_are_heard(state: str, status: dict[str, Any], report: dict[str, Any]) -> None:
    async def scenario(cluster: Watched, one: Replica) -> None:
        running(cluster, "corpus", state, **status)
        one.report("corpus", 50, **report)
        await pass_time(60)
        assert cluster.requests == 0

    play(scenario)


def test_a_report_that_waits_while_its_attempt_ends_is_dropped() -> None:
    async def scenario(cluster: Watched, one: Replica) -> None:
        running(cluster, "corpus")
        await pass_time(20)
        one.report("corpus", 1)
        await pass_time(1)
        one.report("corpus", 2)
        stored = cluster.objects["CorpusBuild", NAMESPACE, "corpus"]
        stage = {"name": "build", "state": "Pending", "attempt": 2, "job": "corpus-build-a2"}
        one.hear(cluster.put({**stored, "metadata": {**stored["metadata"]}, "status": {"stages": [stage]}}))
        await pass_time(60)
        assert percentage(cluster) is None

    play(scenario)


def test_a_failed_write_costs_one_report_and_nothing_is_kept_of_runs_that_are_gone() -> None:
    async def scenario(cluster: Watched, one: Replica) -> None:
        running(cluster, "corpus")
        await pass_time(20)
        cluster.refuse = lambda *_: UnreachableError("patch", "away")
        one.report("corpus", 1)
        await pass_time(1)
        cluster.refuse = lambda *_: None
        for value in range(2, 20):
            one.report("corpus", value)
            await pass_time(5)
        assert percentage(cluster) is not None
        key = Key("CorpusBuild", NAMESPACE, "corpus")
        one.report("corpus", 99)
        one.cache.remove(key)
        one.writer.notice(key)
        await pass_time(60)
        assert (one.writer._pending, one.writer._last_writes) == ({}, {})

    play(scenario)


def test_each_object_is_counted_for_itself() -> None:
    async def scenario(cluster: Watched, one: Replica) -> None:
        for name in ("a", "b"):
            running(cluster, name)
        await pass_time(20)
        for name in ("a", "b"):
            one.report(name, 5)
        await pass_time(1)
        assert Counter(name for name, _ in cluster.times) == {"a": 1, "b": 1}

    play(scenario)
