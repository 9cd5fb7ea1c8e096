"""Pods that do not start."""

from tests.support.operator.builders import pod
from tests.support.operator.pod_situations import NAMES, situation

from hatchery_api.conditions import Reason
from hatchery_operator.diagnosis import why_pending
from hatchery_operator.diagnosis.pod_startup import pulled_image


def test_what_only_a_person_can_heal_is_said_before_what_time_may() -> None:
    (full,), _ = situation("cpu")
    (broken,), events = situation("image")
    found = why_pending([full, broken], events, NAMES)
    assert found
    assert found.reason == Reason.IMAGE_PULL_ERROR


def test_a_scheduler_of_many_nodes_is_read_cause_by_cause() -> None:
    message = (
        "0/9 nodes are available: 2 Insufficient memory, 3 node(s) had untolerated taint {nvidia.com/gpu: present}, "
        "4 node(s) were unschedulable. preemption: 0/9 nodes are available: 7 Preemption is not helpful for scheduling, "
        "2 No preemption victims found for incoming pod."
    )
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
    found = why_pending([pod(phase="Pending", conditions=[condition])], [], NAMES)
    assert found
    assert (
        "any of 9 nodes: insufficient memory on 2; taint {nvidia.com/gpu: present} is not in "
        "`spec.placement.tolerations` on 3; cordoned on 4. Request less in `spec.placement.resources.requests.memory`, "
        "or wait for free capacity. The scheduler says: 0/9" in found.message
    )
    assert "empty node" not in found.message


def test_an_image_on_its_way_is_no_problem() -> None:
    (waits,), events = situation("config-map")
    later = {**events[-1], "reason": "Pulling", "lastTimestamp": "2026-11-22T11:55:51Z", "message": "Pulling image"}
    assert why_pending([waits], [*events, later], NAMES) is None
    assert pulled_image([waits], [*events, later]) == "localhost:5000/hatchery-jobs:1"
    assert pulled_image([waits], events) is None
