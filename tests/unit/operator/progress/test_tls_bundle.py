"""Pods can verify every replica, and the published bundle stays small."""

import asyncio
from datetime import datetime, timedelta
from typing import cast

import pytest
from tests.support.operator.builders import NAMESPACE, NOW, manifest
from tests.support.operator.fake_cluster import FakeCluster
from tests.support.operator.virtual_time import pass_time, run_virtually

from hatchery_operator.controller.observe import referenced_keys
from hatchery_operator.errors import NotLeaderError, OperatorError, RefusedError, UnreachableError
from hatchery_operator.kube.cache import Cache
from hatchery_operator.kube.client import Cluster
from hatchery_operator.progress.tls import (
    MOST_CERTIFICATES,
    PUBLISH_SECONDS,
    REFRESH_SECONDS,
    CaBundle,
    ReplicaCertificates,
    make_certificate,
)

SHARED = ("ConfigMap", "system", "shared")


def authority(at: datetime = NOW) -> str:
    return make_certificate(["operator"], at).ca_pem


def replica(cluster: FakeCluster, name: str, pem: str) -> ReplicaCertificates:
    return ReplicaCertificates(cast("Cluster", cluster), "system", "shared", name, pem)


async def publish(cluster: FakeCluster, name: str, pem: str, seconds: float = 1) -> None:
    """A replica that publishes for a while and then disappears."""
    task = asyncio.ensure_future(replica(cluster, name, pem).keep_published())
    await pass_time(seconds)
    task.cancel()


class Applied(FakeCluster):
    """Server-side apply merges data keys of several managers."""

    def _apply(self, manifest):
        stored = self.objects.get((manifest["kind"], manifest["metadata"]["namespace"], manifest["metadata"]["name"]))
        if stored and manifest["kind"] == "ConfigMap":
            manifest["data"] = {**stored["data"], **manifest["data"]}
        return super()._apply(manifest)


def test_the_file_holds_the_certificates_of_all_replicas_and_the_leaders_even_before_it_is_published() -> None:
    async def scenario() -> None:
        cluster, first, second = Applied(), authority(), authority()
        leader = replica(cluster, "a", first)
        assert await leader.joined() == first
        await publish(cluster, "b", second)
        joined = await leader.joined()
        assert first.strip() in joined
        assert second.strip() in joined
        assert joined.count("BEGIN CERTIFICATE") == 2

    run_virtually(scenario())


def test_only_the_newest_certificates_are_kept_and_the_leaders_own() -> None:
    async def scenario() -> None:
        cluster, own = Applied(), authority(NOW - timedelta(days=400))
        pems = [authority(NOW + timedelta(minutes=number)) for number in range(2 * MOST_CERTIFICATES)]
        for number, pem in enumerate(pems):
            await publish(cluster, f"r{number}", pem)
        await publish(cluster, "broken", "no certificate")
        await publish(cluster, "leader", own)
        joined = await replica(cluster, "leader", own).joined()
        assert joined.count("BEGIN CERTIFICATE") == MOST_CERTIFICATES
        assert all(pem.strip() in joined for pem in [own, *pems[-MOST_CERTIFICATES + 1 :]])
        assert len(cluster.objects[SHARED]["data"]) == MOST_CERTIFICATES
        writes = len(cluster.writes)
        assert await replica(cluster, "leader", own).joined() == joined
        assert len(cluster.writes) == writes

    run_virtually(scenario())


def test_a_restarted_container_replaces_its_pods_certificate() -> None:
    async def scenario() -> None:
        cluster = Applied()
        for _ in range(20):
            await publish(cluster, "pod-a", authority())
        assert list(cluster.objects[SHARED]["data"]) == ["pod-a.crt"]

    run_virtually(scenario())


def test_a_certificate_that_somebody_removes_is_published_again_and_an_outage_is_outlasted() -> None:
    async def scenario() -> None:
        cluster = Applied()
        cluster.refuse = lambda *_: UnreachableError("apply", "away")
        task = asyncio.ensure_future(replica(cluster, "a", authority()).keep_published())
        await pass_time(1)
        assert SHARED not in cluster.objects
        cluster.refuse = lambda *_: None
        await pass_time(PUBLISH_SECONDS)
        del cluster.objects[SHARED]
        await pass_time(PUBLISH_SECONDS)
        assert SHARED in cluster.objects
        writes = len(cluster.writes)
        await pass_time(10 * PUBLISH_SECONDS)
        task.cancel()
        assert len(cluster.writes) == writes

    run_virtually(scenario())


def in_use(cluster: FakeCluster, *namespaces: str) -> Cache:
    """The leader's cache, with a run in flight in each namespace."""
    cache = Cache(referenced_keys)
    for version, namespace in enumerate(namespaces, 1):
        found = manifest("CorpusBuild", "corpus", version=version)
        found["metadata"]["namespace"] = namespace
        found["status"] = {"stages": [{"name": "build", "state": "Running", "attempt": 1, "job": "corpus-build-a1"}]}
        cache.put(found)
    return cache


def test_a_changed_file_is_written_to_each_namespace_in_use_and_an_unchanged_one_to_none() -> None:
    async def scenario() -> None:
        cluster, text = FakeCluster(), "one"

        async def read() -> str:
            return text

        task = asyncio.ensure_future(CaBundle(cast("Cluster", cluster), in_use(cluster, "team", "other"), read).run())
        await pass_time(5 * REFRESH_SECONDS)
        assert cluster.writes == ["apply ConfigMap hatchery-progress-ca"] * 2
        text = "two"
        await pass_time(5 * REFRESH_SECONDS)
        task.cancel()
        assert len(cluster.writes) == 4
        found = {where: one["data"] for (_, where, _), one in cluster.objects.items()}
        assert found == {"team": {"ca.crt": "two"}, "other": {"ca.crt": "two"}}

    run_virtually(scenario())


def test_a_namespace_that_refuses_the_file_costs_only_its_live_progress(caplog) -> None:
    async def scenario() -> None:
        cluster = FakeCluster()
        cluster.refuse = lambda *_: RefusedError("apply", "quota", 403)

        async def read() -> str:
            return "pem"

        await CaBundle(cast("Cluster", cluster), Cache(referenced_keys), read).ensure(NAMESPACE)

    run_virtually(scenario())
    assert "no live progress in namespace team" in caplog.text


class Slow(FakeCluster):
    """Takes a second per write."""

    async def apply(self, *args, **kwargs):
        await pass_time(1)
        return await super().apply(*args, **kwargs)


def test_runs_that_begin_at_once_write_the_file_once_and_all_wait_for_it() -> None:
    async def scenario() -> None:
        cluster, reads = Slow(), 0

        async def read() -> str:
            nonlocal reads
            reads += 1
            await pass_time(1)
            return "pem"

        bundle = CaBundle(cast("Cluster", cluster), Cache(referenced_keys), read)

        async def one() -> int:
            await bundle.ensure(NAMESPACE)
            return len(cluster.objects)

        assert await asyncio.gather(*(one() for _ in range(16))) == [1] * 16
        assert (reads, len(cluster.writes)) == (1, 1)

    run_virtually(scenario())


@pytest.mark.parametrize(
    "error", [UnreachableError("apply", "failed calling webhook", 500), NotLeaderError("no lease")]
)
def test_a_namespace_that_fails_keeps_the_new_file_from_no_other(error: OperatorError) -> None:
    async def scenario() -> None:
        cluster = FakeCluster()
        cluster.refuse = lambda _, found: error if found["metadata"]["namespace"] == "a-broken-one" else None

        async def read() -> str:
            return "pem"

        cache = in_use(cluster, "a-broken-one", "team")
        task = asyncio.ensure_future(CaBundle(cast("Cluster", cluster), cache, read).run())
        await pass_time(3 * REFRESH_SECONDS)
        assert not task.done()
        task.cancel()
        assert [namespace for _, namespace, _ in cluster.objects] == ["team"]

    run_virtually(scenario())
