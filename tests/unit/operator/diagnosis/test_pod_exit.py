"""Pods that have ended."""

import pytest
from tests.support.operator.builders import ended, pod, report
from tests.support.operator.pod_situations import NAMES

from hatchery_api.conditions import Reason
from hatchery_operator.diagnosis import why_replaced
from hatchery_operator.diagnosis.pod_exit import error_line, first_failure
from hatchery_operator.domain.objects import Diagnosis
from hatchery_operator.domain.spec_paths import SpecPaths


def test_a_pod_that_was_preempted_is_not_the_reason_of_a_failure() -> None:
    target = {"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler", "message": "preempted"}
    lost = ended(137, at="2026-03-01T11:00:00Z", name="lost")
    lost["status"]["conditions"] = [target]
    crashed = ended(1, "ValueError: bad", name="crashed")
    found = first_failure([lost, crashed], NAMES)
    assert found
    assert "pod crashed failed with exit code 1: ValueError: bad" in found.message
    assert why_replaced([lost, pod(phase="Pending")], NAMES) == Diagnosis(
        Reason.DISRUPTED, "pod lost was lost and will be replaced: preempted"
    )
    replaced = why_replaced([crashed, pod(phase="Pending")], NAMES)
    assert replaced
    assert replaced.reason == Reason.POD_FAILED


def test_a_pod_evicted_for_memory_points_at_its_request_even_when_it_saved_its_state() -> None:
    evicted = ended(143, report(reason=Reason.INTERRUPTED, message="was asked to end", artifact=None))
    evicted["status"] |= {
        "reason": "Evicted",
        "message": "The node was low on resource: memory. Threshold quantity: 100Mi, available: 50Mi. ",
    }
    found = first_failure([evicted], NAMES)
    assert found
    assert found.reason == Reason.OUT_OF_MEMORY
    assert "`spec.placement.resources.requests.memory`" in found.message


def test_the_jobs_own_report_is_said_as_it_is_and_a_traceback_in_it_is_read() -> None:
    own = first_failure([ended(75, report(reason=Reason.STORAGE_ERROR, message="disk is full", artifact=None))], NAMES)
    assert own == first_failure(
        [ended(75, report(reason=Reason.STORAGE_ERROR, message="disk is full", artifact=None))], SpecPaths()
    )
    assert own
    assert (own.reason, own.message) == (Reason.STORAGE_ERROR, "disk is full")
    text = "Traceback (most recent call last):\n  File x\nOSError: [Errno 5] Input/output error: '/claims/c/a.bin'\n"
    crashed = first_failure([ended(75, report(reason=Reason.ATTEMPT_FAILED, message=text, artifact=None))], NAMES)
    assert crashed
    assert crashed.message.splitlines()[0].endswith(
        "with exit code 75: OSError: [Errno 5] Input/output error: '/claims/c/a.bin'"
    )


def test_a_report_of_too_little_memory_is_completed_by_the_pods_limit_but_not_for_a_device() -> None:
    end = ended(75, report(reason=Reason.OUT_OF_MEMORY, message="out of memory; do less", artifact=None))
    end["spec"] = {"containers": [{"name": "main", "resources": {"limits": {"memory": "2Gi"}}}]}
    host = first_failure([end], NAMES)
    assert host
    assert host.message == "out of memory; do less (`spec.placement.resources.limits.memory` is 2Gi)"
    text = "CUDA out of memory; lower spec.batch.perDevice"
    end = {**ended(75, report(reason=Reason.OUT_OF_MEMORY, message=text, artifact=None)), "spec": end["spec"]}
    device = first_failure([end], NAMES)
    assert device
    assert device.message == text


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("Traceback (most recent call last):\n  File a\nKeyError: 'x'\nnoise: 3 leaked objects\n", "KeyError: 'x'"),
        (
            "tail of frames\n    raise X\nmy.pkg.BadThingError: no\n[W] ProcessGroup destroyed\n",
            "my.pkg.BadThingError: no",
        ),
        ("Fatal Python error: Segmentation fault\n\nCurrent thread\n", "Fatal Python error: Segmentation fault"),
        ("panic: no memory\ngoroutine 1\n", "panic: no memory"),
        ("all is well\n", None),
        ("", None),
    ],
)
def test_the_line_that_names_the_error_is_found_among_noise(text: str, line: str | None) -> None:
    assert error_line(text) == line
