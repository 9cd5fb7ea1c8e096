"""An object is in a namespace before any pod that needs it, however many runs begin there at once."""

import asyncio
from typing import cast

import pytest
from tests.support.operator.builders import NAMESPACE

from hatchery_operator.domain.objects import Manifest
from hatchery_operator.errors import RefusedError
from hatchery_operator.kube.apply_once import ApplyOnce
from hatchery_operator.kube.client import Cluster


class SlowCluster:
    """Yields to other tasks during a write."""

    def __init__(self) -> None:
        self.begun, self.done = 0, 0
        self.refusal: RefusedError | None = None

    async def apply(self, manifest: Manifest) -> Manifest:
        self.begun += 1
        await asyncio.sleep(0)
        if self.refusal:
            raise self.refusal
        self.done += 1
        return manifest


def begin(cluster: SlowCluster, policies: ApplyOnce, runs: int = 8, namespace: str = NAMESPACE) -> list[object]:
    """Concurrent runs; returns the number of finished writes that each observed, or its error."""

    async def one() -> int:
        await policies.ensure({"kind": "NetworkPolicy", "metadata": {"name": "runs", "namespace": namespace}})
        return cluster.done

    async def all_at_once() -> list[object]:
        return list(await asyncio.gather(*(one() for _ in range(runs)), return_exceptions=True))

    return asyncio.run(all_at_once())


@pytest.fixture
def cluster() -> SlowCluster:
    return SlowCluster()


def policies_in(cluster: SlowCluster) -> ApplyOnce:
    return ApplyOnce(cast("Cluster", cluster))


def test_of_many_runs_at_once_one_writes_and_all_wait_for_it(cluster: SlowCluster) -> None:
    assert begin(cluster, policies_in(cluster)) == [1] * 8
    assert cluster.begun == 1


def test_each_namespace_gets_its_own(cluster: SlowCluster) -> None:
    policies = policies_in(cluster)
    for namespace in ("a", "b", "a"):
        begin(cluster, policies, namespace=namespace)
    assert cluster.done == 2


def test_a_refusal_stops_every_run_and_is_forgotten_when_the_server_takes_it(cluster: SlowCluster) -> None:
    policies = policies_in(cluster)
    cluster.refusal = RefusedError("apply", "exceeded quota", 403)
    assert begin(cluster, policies, runs=2) == [cluster.refusal] * 2
    cluster.refusal = None
    assert begin(cluster, policies, runs=1) == [1]
