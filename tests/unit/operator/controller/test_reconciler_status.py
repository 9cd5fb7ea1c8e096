"""The status is written before anything else, once, and only to the version it was planned from."""

import asyncio
import copy
import itertools
from typing import Any

import pytest
from tests.support.operator.builders import NAMESPACE, NOW, later, manifest
from tests.support.operator.world import PIPELINE, World, apply_pipeline, undisturbed

from hatchery_operator.controller.handlers import on_run_event
from hatchery_operator.domain.objects import Key, Manifest, rfc3339
from hatchery_operator.errors import ConflictError, UnreachableError


def test_of_many_at_once_each_has_its_first_status_before_any_has_a_job() -> None:
    world = World()
    for number in range(5):
        world.cluster.add(manifest("CorpusBuild", f"c{number}"))
    world.settle()
    kinds = [write.split()[1] for write in world.cluster.writes]
    assert [kind for kind in kinds if kind != "NetworkPolicy"] == ["CorpusBuild"] * 5 + ["Job"] * 5


def test_a_job_is_created_without_a_question_when_nothing_has_changed_since_its_status() -> None:
    world = World()
    world.cluster.add(manifest("CorpusBuild", "corpus"))
    world.tell()
    key, asked = Key("CorpusBuild", NAMESPACE, "corpus"), list[str]()
    assert asyncio.run(world.reconcile(key)) == 0.0
    ask = world.cluster.get

    async def get(kind: str, namespace: str, name: str) -> Manifest | None:
        asked.append(name)
        return await ask(kind, namespace, name)

    world.cluster.get = get  # type: ignore[method-assign]
    asyncio.run(world.reconcile(key))
    assert (world.jobs_created(), asked) == (["corpus-build-a1"], [])


def test_a_job_is_not_created_when_its_run_is_suspended_after_its_status() -> None:
    world = World()
    world.cluster.add(manifest("CorpusBuild", "corpus"))
    world.tell()
    key = Key("CorpusBuild", NAMESPACE, "corpus")
    asyncio.run(world.reconcile(key))
    stored = world.cluster.objects[key]
    world.cluster.put({**stored, "spec": {**stored["spec"], "suspend": True}})
    world.settle()
    assert world.jobs_created() == []
    assert world.reason("CorpusBuild", "corpus", "Suspended")[0] == "True"


def test_a_plan_made_from_an_old_version_is_not_written() -> None:
    world = World()
    world.cluster.add(manifest("CorpusBuild", "corpus"))
    world.tell()
    key = Key("CorpusBuild", NAMESPACE, "corpus")
    stored = world.cluster.objects[key]
    world.cluster.put({**stored, "spec": {**stored["spec"], "suspend": True}})
    with pytest.raises(ConflictError):
        asyncio.run(world.reconcile(key))
    assert world.jobs_created() == []
    asyncio.run(world.reconcile(key))
    assert world.reason("CorpusBuild", "corpus") == ("Unknown", "Suspended")


def test_a_resource_deleted_meanwhile_is_forgotten() -> None:
    world = World()
    world.cluster.add(manifest("CorpusBuild", "corpus"))
    world.tell()
    key = Key("CorpusBuild", NAMESPACE, "corpus")
    del world.cluster.objects[key]
    assert asyncio.run(world.reconcile(key)) is None
    assert world.cache.get(key) is None
    assert world.cluster.of("Job") == {}


def test_a_resource_made_again_under_the_same_name_starts_from_nothing() -> None:
    world = undisturbed()
    key = Key("CorpusBuild", NAMESPACE, "corpus")
    del world.cluster.objects[key]
    for address in [a for a in world.cluster.objects if "corpus-build" in a[2]]:
        del world.cluster.objects[address]
    on_run_event(world.cache, {"type": "DELETED", "object": {**manifest(*PIPELINE[0], version=10_000)}})
    world.cluster.add(manifest("CorpusBuild", "corpus"))
    world.settle()
    assert world.status("CorpusBuild", "corpus")["attempts"] == 1
    assert world.jobs_created().count("corpus-build-a1") == 2


def test_an_error_of_the_api_server_is_raised_for_the_queue_to_back_off() -> None:
    world = World()
    world.cluster.add(manifest("CorpusBuild", "corpus"))
    world.tell()
    world.cluster.refuse = lambda _verb, _target: UnreachableError("PATCH", "no answer")
    with pytest.raises(UnreachableError):
        asyncio.run(world.reconcile(Key("CorpusBuild", NAMESPACE, "corpus")))
    text = world.metrics.text().decode()
    assert 'hatchery_reconcile_total{kind="CorpusBuild",result="error"} 1.0' in text


def test_finishing_wakes_those_who_wait() -> None:
    world = World()
    apply_pipeline(world)
    world.settle()
    world.cluster.end_job("corpus-build-a1")
    world.tell()
    world.woken.clear()
    asyncio.run(world.reconcile(Key("CorpusBuild", NAMESPACE, "corpus")))
    assert {key.name for key in world.woken} == {"tokenizer", "model", "eval"}


def test_an_outdated_definition_is_said_by_the_resources_and_taken_back_when_it_is_replaced() -> None:
    world = World()
    kind = world.cluster.schemas["dev.hatchery.v1alpha1.CorpusBuild"]
    newest, older = kind["properties"]["status"], copy.deepcopy(kind["properties"]["status"])
    del older["properties"]["splits"]
    kind["properties"]["status"] = older
    asyncio.run(world.crd_check.check())
    apply_pipeline(world)
    world.settle()
    assert world.reason("CorpusBuild", "corpus", "Degraded") == ("True", "CRDOutdated")
    assert world.reason("TokenizerBuild", "tokenizer", "Degraded") == ("False", "UpToDate")
    assert b'hatchery_crd_outdated{kind="CorpusBuild"} 1.0' in world.metrics.text()
    kind["properties"]["status"] = newest
    asyncio.run(world.crd_check.check())
    world.settle()
    assert world.reason("CorpusBuild", "corpus", "Degraded") == ("False", "UpToDate")
    assert b'hatchery_crd_outdated{kind="CorpusBuild"} 0.0' in world.metrics.text()


def image_states() -> Any:
    """The kubelet's alternating states for an image that does not exist."""
    answer = 'failed to resolve reference "r/i:1": r/i:1: not found'
    return itertools.cycle(
        [
            {"reason": "ErrImagePull", "message": f"rpc error: code = NotFound desc = {answer}"},
            {"reason": "ImagePullBackOff", "message": f'Back-off pulling image "r/i:1": ErrImagePull: {answer}'},
        ]
    )


def test_a_job_that_waits_for_a_day_is_explained_by_one_write() -> None:
    world, key = World(), Key("CorpusBuild", NAMESPACE, "corpus")
    world.cluster.add(manifest(*PIPELINE[0]))
    world.settle()
    job = world.cluster.of("Job")["corpus-build-a1"]
    world.cluster.put({**job, "status": {"active": 1, "ready": 0}})
    labels = {**job["spec"]["template"]["metadata"]["labels"], "batch.kubernetes.io/job-name": "corpus-build-a1"}
    metadata = {"name": "corpus-build-a1-0-x", "namespace": NAMESPACE, "labels": labels, "uid": "p"}
    metadata["creationTimestamp"] = rfc3339(NOW)
    before, looks, seconds, states = len(world.cluster.writes), 0, 0.0, image_states()
    while seconds < 86_400:
        status = {"phase": "Pending", "containerStatuses": [{"name": "main", "state": {"waiting": next(states)}}]}
        world.cluster.put({"apiVersion": "v1", "kind": "Pod", "metadata": {**metadata}, "status": status})
        world.now = later(seconds)
        world.tell()
        seconds += asyncio.run(world.reconcile(key)) or 3600
        looks += 1
    assert world.reason("CorpusBuild", "corpus") == ("Unknown", "ImagePullError")
    assert world.cluster.writes[before:] == ["status CorpusBuild corpus"]
    assert 280 < looks < 310
