"""Children are created in order, suspended and deleted; nobody else's object is touched."""

import asyncio

import pytest
from tests.support.operator.builders import NAMESPACE, later, manifest
from tests.support.operator.world import PIPELINE, World, apply_pipeline, run_pipeline

from hatchery_operator.domain.objects import Manifest


def foreign_job(owner_uid: str | None) -> Manifest:
    owners = [{"uid": owner_uid, "controller": True}] if owner_uid else []
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "corpus-build-a1", "namespace": NAMESPACE, "uid": "theirs", "ownerReferences": owners},
        "spec": {"mine": True},
    }


@pytest.mark.parametrize("owner_uid", [None, "a deleted run"])
def test_a_job_of_somebody_else_is_neither_adopted_nor_changed(owner_uid: str | None) -> None:
    world = World()
    world.cluster.put(foreign_job(owner_uid))
    before = dict(world.cluster.objects["Job", NAMESPACE, "corpus-build-a1"])
    world.cluster.add(manifest("CorpusBuild", "corpus"))
    world.settle()
    assert world.reason("CorpusBuild", "corpus") == ("Unknown", "NameConflict")
    assert "Job corpus-build-a1 exists" in world.message("CorpusBuild", "corpus")
    assert world.cluster.objects["Job", NAMESPACE, "corpus-build-a1"] == before

    del world.cluster.objects["Job", NAMESPACE, "corpus-build-a1"]
    world.now = later(60)
    world.settle()
    assert world.reason("CorpusBuild", "corpus") == ("Unknown", "Pending")
    assert world.status("CorpusBuild", "corpus")["attempts"] == 1


def test_suspending_holds_the_job_by_a_field_manager_of_its_own() -> None:
    world = World()
    world.cluster.add(manifest("CorpusBuild", "corpus"))
    world.settle()
    stored = world.cluster.objects["CorpusBuild", NAMESPACE, "corpus"]
    world.cluster.put({**stored, "spec": {**stored["spec"], "suspend": True}})
    world.settle()
    job = world.cluster.of("Job")["corpus-build-a1"]
    assert job["spec"]["suspend"] is True
    assert job["spec"]["template"]
    assert world.reason("CorpusBuild", "corpus", "Suspended")[0] == "True"
    stored = world.cluster.objects["CorpusBuild", NAMESPACE, "corpus"]
    world.cluster.put({**stored, "spec": {**stored["spec"], "suspend": False}})
    world.settle()
    assert world.cluster.of("Job")["corpus-build-a1"]["spec"]["suspend"] is False
    assert world.jobs_created() == ["corpus-build-a1"]


def test_children_go_after_their_time_and_the_resource_stays() -> None:
    world = World()
    world.cluster.add(manifest("CorpusBuild", "corpus", ttlSecondsAfterFinished=60))
    world.settle()
    world.cluster.end_job("corpus-build-a1")
    world.settle()
    assert "corpus-build-a1" in world.cluster.of("Job")
    world.now = later(61)
    world.settle()
    assert world.cluster.of("Job") == {}
    assert world.reason("CorpusBuild", "corpus") == ("True", "Completed")


def test_what_only_has_the_name_of_a_child_is_spared_when_children_go() -> None:
    world = World()
    world.cluster.add(manifest("CorpusBuild", "corpus", ttlSecondsAfterFinished=0))
    theirs = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "corpus-build-a1", "namespace": NAMESPACE}}
    asyncio.run(world.cluster.create(theirs))
    world.settle()
    world.cluster.end_job("corpus-build-a1")
    world.settle()
    assert world.cluster.of("Job") == {}
    assert list(world.cluster.of("Service")) == ["corpus-build-a1"]


def test_a_gang_is_open_to_itself_before_its_pods_start() -> None:
    world = World()
    apply_pipeline(world, PIPELINE[:2])
    world.cluster.add(manifest("PretrainRun", "model", parallelism={"nodes": 2}))
    run_pipeline(world)
    kinds = [write.split()[1] for write in world.cluster.writes if write.endswith(" model-train-a1")]
    assert kinds == ["Service", "NetworkPolicy", "Job"]
