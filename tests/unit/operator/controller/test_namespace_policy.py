"""The policy is in a namespace before any pod, however many runs begin there at once."""

import asyncio
from typing import cast

import pytest
from tests.support.operator.builders import NAMESPACE

from hatchery_operator.controller.namespace_policy import NamespacePolicy
from hatchery_operator.domain import Manifest
from hatchery_operator.errors import RefusedError
from hatchery_operator.kube.client import Cluster
from hatchery_operator.settings import NetworkPolicySettings, Settings


class SlowCluster:
    """Takes its time to write."""

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


def begin(cluster: SlowCluster, policy: NamespacePolicy, runs: int = 8, namespace: str = NAMESPACE) -> list[object]:
    """Runs that begin at once; gives how many writes each of them saw done, or why it may not begin."""

    async def one() -> int:
        await policy.ensure(namespace)
        return cluster.done

    async def all_at_once() -> list[object]:
        return list(await asyncio.gather(*(one() for _ in range(runs)), return_exceptions=True))

    return asyncio.run(all_at_once())


@pytest.fixture
def cluster() -> SlowCluster:
    return SlowCluster()


def policy_for(cluster: SlowCluster, settings: Settings | None = None) -> NamespacePolicy:
    return NamespacePolicy(cast("Cluster", cluster), settings or Settings())


def test_of_many_runs_at_once_one_writes_and_all_wait_for_it(cluster: SlowCluster) -> None:
    assert begin(cluster, policy_for(cluster)) == [1] * 8
    assert cluster.begun == 1


def test_each_namespace_gets_its_own(cluster: SlowCluster) -> None:
    policy = policy_for(cluster)
    for namespace in ("a", "b", "a"):
        begin(cluster, policy, namespace=namespace)
    assert cluster.done == 2


def test_a_refusal_stops_every_run_and_is_forgotten_when_the_server_takes_it(cluster: SlowCluster) -> None:
    policy = policy_for(cluster)
    cluster.refusal = RefusedError("apply", "exceeded quota", 403)
    assert begin(cluster, policy, runs=2) == [cluster.refusal] * 2
    cluster.refusal = None
    assert begin(cluster, policy, runs=1) == [1]


def test_turned_off_nothing_is_written(cluster: SlowCluster) -> None:
    begin(cluster, policy_for(cluster, Settings(network_policies=NetworkPolicySettings(enabled=False))))
    assert cluster.begun == 0
