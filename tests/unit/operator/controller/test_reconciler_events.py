"""Events for users and log lines for machines."""

import io
import json
import logging

from tests.support.operator.builders import NAMESPACE, manifest
from tests.support.operator.world import World

from hatchery_operator.domain.objects import Manifest
from hatchery_operator.errors import GoneError, RefusedError
from hatchery_operator.telemetry.logs import JsonFormatter


def test_a_lost_event_is_no_reason_to_fail() -> None:
    world = World()
    world.cluster.add(manifest("CorpusBuild", "corpus"))

    create = world.cluster.create

    async def lose_events(target: Manifest) -> Manifest:
        if target["kind"] == "Event":
            raise GoneError("POST", "namespace is being deleted", 404)
        return await create(target)

    world.cluster.create = lose_events  # type: ignore[method-assign]
    world.settle()
    assert world.jobs_created() == ["corpus-build-a1"]


def test_every_line_of_every_pass_names_resource_attempt_and_pass() -> None:
    """Log lines are read by machines: each must name its resource."""
    world, written = World(), io.StringIO()
    world.cluster.add(manifest("CorpusBuild", "corpus"))
    handler = logging.StreamHandler(written)
    handler.setFormatter(JsonFormatter())
    logger = logging.getLogger("hatchery_operator")
    logger.addHandler(handler)
    logger.setLevel("INFO")
    try:
        world.settle()
        world.cluster.refuse = lambda verb, _: RefusedError("create", "no", 403) if verb == "create" else None
        world.cluster.add(manifest("CorpusBuild", "refused"))
        world.settle()
    finally:
        logger.removeHandler(handler)
        logger.setLevel("NOTSET")
    lines = [json.loads(text) for text in written.getvalue().splitlines()]
    assert {line["message"] for line in lines} >= {"status written", "child created", "child rejected"}
    for line in lines:
        assert (line["kind"], line["namespace"]) == ("CorpusBuild", NAMESPACE)
        assert line["uid"] == world.cluster.objects["CorpusBuild", NAMESPACE, line["name"]]["metadata"]["uid"]
        assert len(line["reconcile"]) == 8
        assert isinstance(line["attempt"], int)
    [created] = [line for line in lines if line["message"] == "child created"]
    [counted, *_] = [line for line in lines if line["message"] == "status written" and line["name"] == created["name"]]
    assert (counted["attempt"], created["attempt"]) == (1, 1)
    assert counted["reconcile"] != created["reconcile"]
