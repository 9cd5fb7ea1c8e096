"""Children and pods that the API server rejects: the conditions name the reason, and creating them backs off."""

import pytest
from tests.support.operator.builders import NAMESPACE, later, manifest
from tests.support.operator.world import World

from hatchery_operator.domain.objects import Manifest
from hatchery_operator.errors import ApiError, RefusedError


@pytest.mark.parametrize(("status", "reason"), [(403, "PodRefused"), (422, "InvalidSpec")])
def test_a_job_the_api_server_refuses_is_said_with_its_words(status: int, reason: str) -> None:
    world = World()
    world.cluster.add(manifest("CorpusBuild", "corpus"))

    def refuse(verb: str, target: Manifest) -> ApiError | None:
        return RefusedError("POST", "exceeded quota: jobs", status) if target["kind"] == "Job" else None

    world.cluster.refuse = refuse
    world.settle()
    assert world.reason("CorpusBuild", "corpus") == ("Unknown", reason)
    assert world.reason("CorpusBuild", "corpus", "Degraded") == ("True", reason)
    assert "exceeded quota" in world.message("CorpusBuild", "corpus")
    world.cluster.refuse = lambda _verb, _target: None
    world.now = later(60)
    world.settle()
    assert world.reason("CorpusBuild", "corpus", "Degraded") == ("False", "UpToDate")
    assert world.jobs_created() == ["corpus-build-a1"]


def test_events_and_changing_reasons_do_not_make_a_refused_job_be_tried_without_pause() -> None:
    world, tries = World(), 0
    world.cluster.add(manifest("CorpusBuild", "corpus"))

    def refuse(_: str, target: Manifest) -> ApiError | None:
        nonlocal tries
        tries += target["kind"] == "Job"
        return RefusedError("POST", "no", (403, 422)[tries % 2]) if target["kind"] == "Job" else None

    world.cluster.refuse = refuse
    for tenth in range(600):
        world.now = later(tenth / 10)
        world.settle()
    assert 6 <= tries <= 9
    assert world.status("CorpusBuild", "corpus")["attempts"] == 1


def test_pods_that_are_refused_are_found_in_the_events_of_the_job() -> None:
    world = World()
    world.cluster.add(manifest("CorpusBuild", "corpus"))
    world.settle()
    uid = world.cluster.of("Job")["corpus-build-a1"]["metadata"]["uid"]
    event = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": "e", "namespace": NAMESPACE},
        "involvedObject": {"uid": uid},
        "reason": "FailedCreate",
        "message": "violates PodSecurity",
    }
    world.cluster.put(event)
    world.now = later(6)
    world.settle()
    assert world.reason("CorpusBuild", "corpus") == ("Unknown", "PodRefused")
    assert "violates PodSecurity" in world.message("CorpusBuild", "corpus")
