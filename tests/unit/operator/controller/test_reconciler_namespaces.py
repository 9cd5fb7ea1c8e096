"""A namespace has the CA bundle and the NetworkPolicy before its first pods."""

import asyncio

from tests.support.operator.builders import NAMESPACE, later, manifest
from tests.support.operator.world import World

from hatchery_operator.domain.objects import Key, Manifest
from hatchery_operator.errors import ApiError, RefusedError
from hatchery_operator.settings import NetworkPolicySettings, Settings


def test_the_certificates_are_in_a_namespace_before_its_first_pods_and_written_once() -> None:
    world = World(authorities="PEM")
    world.cluster.add(manifest("CorpusBuild", "corpus"))
    world.settle()
    kinds = [write for write in world.cluster.writes if "hatchery-progress-ca" in write or "Job" in write]
    assert kinds == ["apply ConfigMap hatchery-progress-ca", "create Job corpus-build-a1"]
    assert world.cluster.of("ConfigMap")["hatchery-progress-ca"]["data"] == {"ca.crt": "PEM"}


def run_in_a_namespace_made_twice(world: World) -> None:
    """A run in a namespace, which is deleted, and a run in a new namespace of that name."""
    world.cluster.add(manifest("CorpusBuild", "corpus"))
    world.settle()
    key = Key("CorpusBuild", NAMESPACE, "corpus")
    world.cluster.objects.clear()
    world.cache.remove(key)
    asyncio.run(world.reconcile(key))
    world.cluster.add(manifest("CorpusBuild", "corpus"))
    world.settle()


def test_a_namespace_that_was_deleted_and_made_again_gets_the_certificates_again() -> None:
    world = World(authorities="PEM")
    run_in_a_namespace_made_twice(world)
    assert "hatchery-progress-ca" in world.cluster.of("ConfigMap")


def policies_and_jobs(world: World) -> list[str]:
    return [write for write in world.cluster.writes if "NetworkPolicy" in write or "Job" in write]


def test_a_namespace_is_closed_before_its_first_pods_and_once() -> None:
    world = World()
    for name in ("corpus", "other"):
        world.cluster.add(manifest("CorpusBuild", name))
    world.settle()
    assert policies_and_jobs(world) == [
        "apply NetworkPolicy hatchery-runs",
        "create Job corpus-build-a1",
        "create Job other-build-a1",
    ]


def test_a_namespace_that_was_deleted_and_made_again_is_closed_again() -> None:
    world = World()
    run_in_a_namespace_made_twice(world)
    assert "hatchery-runs" in world.cluster.of("NetworkPolicy")


def test_no_pod_starts_in_a_namespace_that_cannot_be_closed() -> None:
    world = World()

    def no_policies(_: str, written: Manifest) -> ApiError | None:
        return RefusedError("apply", "exceeded quota", 403) if written["kind"] == "NetworkPolicy" else None

    world.cluster.refuse = no_policies
    world.cluster.add(manifest("CorpusBuild", "corpus"))
    world.settle()
    assert world.cluster.of("Job") == {}
    assert "exceeded quota" in world.message("CorpusBuild", "corpus")
    world.cluster.refuse = lambda *_: None
    world.now = later(600)
    world.settle()
    assert policies_and_jobs(world) == ["apply NetworkPolicy hatchery-runs", "create Job corpus-build-a1"]


def test_turned_off_no_policy_is_written() -> None:
    world = World(settings=Settings(network_policies=NetworkPolicySettings(enabled=False)))
    world.cluster.add(manifest("CorpusBuild", "corpus"))
    world.settle()
    assert policies_and_jobs(world) == ["create Job corpus-build-a1"]
