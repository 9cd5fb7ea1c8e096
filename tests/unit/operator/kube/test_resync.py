"""A resync keeps the cache consistent with the cluster whatever watches miss."""

import asyncio
from collections.abc import Callable

import pytest
from tests.support.operator.builders import NAMESPACE, manifest
from tests.support.operator.fake_cluster import FakeCluster
from tests.support.operator.world import FIRST_JOBS, World, undisturbed

from hatchery_operator.controller.handlers import on_job_event, on_run_event
from hatchery_operator.domain.objects import Key
from hatchery_operator.errors import RefusedError


def test_a_resync_finds_what_watches_have_missed() -> None:
    world = undisturbed()
    fresh = World(world.cluster)
    asyncio.run(fresh.resync.load())
    assert {key.name for key in fresh.cache.all_keys()} == {"corpus", "tokenizer", "model", "eval"}
    assert {job.name for job in fresh.cache.jobs()} == set(FIRST_JOBS)

    del world.cluster.objects["EvalRun", NAMESPACE, "eval"]
    del world.cluster.objects["Job", NAMESPACE, "eval-evaluate-a1"]
    corpus = world.cluster.objects["CorpusBuild", NAMESPACE, "corpus"]
    world.cluster.put({**corpus, "metadata": {**corpus["metadata"], "generation": 7}})
    rounds = 0

    async def sleep(_: float) -> None:
        nonlocal rounds
        rounds += 1
        if rounds == 3:
            raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(fresh.resync.run(300, sleep))
    key = Key("CorpusBuild", NAMESPACE, "corpus")
    run = fresh.cache.get(key)
    assert run
    assert run.generation == 7
    assert fresh.cache.get(Key("EvalRun", NAMESPACE, "eval")) is None
    assert "eval-evaluate-a1" not in {job.name for job in fresh.cache.jobs()}
    assert {key, Key("EvalRun", NAMESPACE, "eval"), Key("PretrainRun", NAMESPACE, "model")} <= fresh.woken
    text = fresh.metrics.text().decode()
    assert "hatchery_watch_missed_total 3.0" in text, "a changed run, a deleted run, a deleted Job"


def resync_once(world: World, meanwhile: Callable[[], None] = lambda: None) -> None:
    """Lists and merges once; `meanwhile` runs in between."""
    rounds = 0

    async def sleep(_: float) -> None:
        nonlocal rounds
        rounds += 1
        if rounds == 2:
            meanwhile()
        if rounds == 3:
            raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(world.resync.run(300, sleep))


def test_what_is_deleted_while_a_listing_is_merged_does_not_come_back() -> None:
    world = undisturbed()
    asyncio.run(world.resync.load())
    gone = [("EvalRun", NAMESPACE, "eval"), ("Job", NAMESPACE, "eval-evaluate-a1")]
    for address in gone:
        # the listing is ahead of the watch
        world.cluster.put(world.cluster.objects[address])

    def delete() -> None:
        run, job = (world.cluster.objects.pop(address) for address in gone)
        on_run_event(world.cache, {"type": "DELETED", "object": run})
        on_job_event(world.cache, {"type": "DELETED", "object": job})

    resync_once(world, delete)
    assert world.cache.get(Key(*gone[0])) is None
    assert gone[1][2] not in {job.name for job in world.cache.jobs()}
    assert world.pulse.misses == 0, "the watches have told all"


def test_a_resource_that_cannot_be_read_does_not_get_the_operator_restarted() -> None:
    world = World()
    broken = manifest("CorpusBuild", "corpus")
    world.cluster.add(broken)
    broken["status"] = {"attempts": "many"}
    world.cluster.put(broken)
    for _ in range(3):
        resync_once(world)
    assert world.cache.all_keys() == []
    assert world.pulse.misses == 0


class Forbidding(FakeCluster):
    """Some namespaces were deleted, and the operator's Roles with them."""

    def __init__(self) -> None:
        super().__init__()
        self.forbidden: set[str] = set()

    async def list(self, kind, namespace, labels="", fields=""):
        if namespace in self.forbidden:
            raise RefusedError(f"GET {kind}", f"cannot list in namespace {namespace}", 403)
        async for found in super().list(kind, namespace, labels, fields):
            yield found


def namespaced(*namespaces: str) -> tuple[World, Forbidding]:
    """An operator for some namespaces; the last one has a run."""
    cluster = Forbidding()
    cluster.add(manifest("CorpusBuild", "corpus"))
    return World(cluster, namespaces=namespaces), cluster


def test_a_namespace_that_was_deleted_does_not_stop_the_others(caplog) -> None:
    world, cluster = namespaced("deleted", NAMESPACE)
    cluster.forbidden = {"deleted"}
    asyncio.run(world.resync.load())
    assert [key.name for key in world.cache.all_keys()] == ["corpus"]
    assert world.resync.forbidden == {"deleted"}
    resync_once(world)
    assert caplog.text.count("not serving namespace deleted") == 2


def test_resources_of_a_namespace_that_refuses_for_a_while_are_not_taken_for_deleted() -> None:
    world, cluster = namespaced("other", NAMESPACE)
    asyncio.run(world.resync.load())
    cluster.forbidden = {NAMESPACE}

    async def sleep(_: float) -> None:
        """The watches still cover the namespaces of the start, so `run` returns and the operator restarts."""

    asyncio.run(asyncio.wait_for(world.resync.run(300, sleep), 5))
    assert [key.name for key in world.cache.all_keys()] == ["corpus"]


def test_an_operator_that_may_list_nothing_at_all_waits_for_its_roles() -> None:
    world, cluster = namespaced(NAMESPACE)
    cluster.forbidden = {NAMESPACE}
    with pytest.raises(RefusedError):
        asyncio.run(world.resync.load())
