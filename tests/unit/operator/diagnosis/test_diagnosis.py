"""The diagnosis of what a real cluster said about pods (tests/data/pods), over all modules."""

from typing import Any

import pytest
from tests.support.operator.pod_situations import DATA, NAMES, situation

from hatchery_api.conditions import Reason
from hatchery_operator.diagnosis import needs_events, why_pending, why_rejected, why_replaced
from hatchery_operator.diagnosis.pod_exit import first_failure
from hatchery_operator.domain.objects import Diagnosis, event_time
from hatchery_operator.domain.spec_paths import SpecPaths

SITUATIONS: dict[str, tuple[Reason, str]] = {
    "cpu": (
        Reason.UNSCHEDULABLE,
        "requests cpu 900 and does not fit on the only node: insufficient cpu; even an empty node is too small. "
        "Request less in `spec.placement.resources.requests.cpu`, or add a larger node. The scheduler says: 0/1 nodes",
    ),
    "both": (
        Reason.UNSCHEDULABLE,
        "cpu 900, memory 900Gi and does not fit on the only node: insufficient cpu; insuffic",
    ),
    "gpu": (Reason.UNSCHEDULABLE, "`spec.placement.resources.limits.nvidia.com/gpu`, or add a larger node"),
    "busy": (
        Reason.UNSCHEDULABLE,
        "requests cpu 1600m, memory 32Mi and does not fit on the only node: insufficient cpu. Request less in "
        "`spec.placement.resources.requests.cpu`, or wait for free capacity. The scheduler says: 0/1 nodes",
    ),
    "gang": (Reason.UNSCHEDULABLE, "pod gang-train-a1-1-mcl9z requests cpu 400m, memory 32Mi and does not fit"),
    "preempted": (
        Reason.DISRUPTED,
        "pod filler-build-a1-0-j86r8 was lost and will be replaced: default-scheduler: preempting to accommodate a",
    ),
    "segfault": (Reason.ATTEMPT_FAILED, "failed with exit code 139 (SIGSEGV) and logged nothing"),
    "memory": (Reason.UNSCHEDULABLE, "memory 900Gi and does not fit on the only node: insufficient memory"),
    "selector": (Reason.UNSCHEDULABLE, "no label matches `spec.placement.nodeSelector`"),
    "affinity": (Reason.UNSCHEDULABLE, "node(s) didn't match pod affinity rules. The scheduler says: 0/1 nodes are"),
    "claim": (
        Reason.MISSING_REFERENCE,
        "PersistentVolumeClaim no-such-claim, named in `spec.storage.claimName`, does not exist in namespace team: "
        "create it",
    ),
    "claim-unbound": (Reason.VOLUME_NOT_READY, "PersistentVolumeClaim unbound is not bound: `kubectl -n team describe"),
    "image": (
        Reason.IMAGE_PULL_ERROR,
        "image localhost:5000/no-such-image:1, named in `spec.image`, cannot be pulled for pod "
        "image-build-a1-0-j9689: localhost:5000/no-such-image:1: not found",
    ),
    "image-host": (Reason.IMAGE_PULL_ERROR, "lookup no-such-registry.invalid on 10.255.255.53:53: no such host"),
    "image-name": (Reason.IMAGE_PULL_ERROR, "repository name (UPPER) must be lowercase"),
    "image-never": (Reason.IMAGE_PULL_ERROR, "is not present with pull policy of Never"),
    "secret": (
        Reason.MISSING_REFERENCE,
        "Secret no-such-secret, named in `spec.hub.tokenSecret.name`, does not exist in namespace team: create it",
    ),
    "secret-key": (Reason.MISSING_REFERENCE, "Secret hub-token has no key no-such-key: add it"),
    "config-map": (Reason.MISSING_REFERENCE, "ConfigMap config-map-build-a1 does not exist in namespace team"),
    "root": (Reason.CONTAINER_CANNOT_START, "container's runAsUser breaks non-root policy"),
    "account": (Reason.MISSING_REFERENCE, "ServiceAccount no-such-account does not exist"),
    "priority": (Reason.MISSING_REFERENCE, "PriorityClass no-such-priority of `spec.placement.priorityClassName`"),
    "runtime": (Reason.MISSING_REFERENCE, "RuntimeClass no-such-runtime of `spec.placement.runtimeClassName`"),
    "psa": (
        Reason.POD_SECURITY_VIOLATED,
        "Pod Security level restricted:latest of namespace team rejects the pods: ho",
    ),
    "psa-caps": (Reason.POD_SECURITY_VIOLATED, "unrestricted capabilities (container"),
    "policy": (
        Reason.POD_REFUSED,
        "ValidatingAdmissionPolicy why-images rejects the pods: images must come from the team's registry",
    ),
    "quota-cpu": (
        Reason.QUOTA_EXCEEDED,
        "ResourceQuota team-quota of namespace team rejects the pods: requests.cpu: requested 300m, used 0 of 250m; "
        "request less in `spec.placement.resources`",
    ),
    "quota-both": (
        Reason.QUOTA_EXCEEDED,
        "limits.memory: requested 2Gi, used 0 of 1Gi; requests.cpu: requested 300m, used 0 of 250m",
    ),
    "quota-unset": (
        Reason.POD_REFUSED,
        "rejects the pods without explicit amounts: set `spec.placement.resources.limits.memory`",
    ),
    "limit-max": (
        Reason.LIMIT_RANGE_VIOLATED,
        "rejects the pods: cpu limit 3 (`spec.placement.resources.limits.cpu`) is above the maximum of 2 per "
        "Container; memory limit 300Mi (`spec.placement.resources.limits.memory`) is above",
    ),
    "limit-min": (
        Reason.LIMIT_RANGE_VIOLATED,
        "cpu request 1m (`spec.placement.resources.requests.cpu`) is below the minimum of 10m per Container",
    ),
    "oom": (
        Reason.OUT_OF_MEMORY,
        "was OOM-killed; raise `spec.placement.resources.limits.memory` (now 48Mi; files in /dev/shm count)",
    ),
    "oom-child": (Reason.OUT_OF_MEMORY, "`spec.placement.resources.limits.memory` (now 48Mi;"),
    "shm": (Reason.OUT_OF_MEMORY, "`spec.placement.resources.limits.memory` (now 48Mi;"),
    "memory-error": (
        Reason.OUT_OF_MEMORY,
        "MemoryError; raise `spec.placement.resources.limits.memory` or process less",
    ),
    "cuda": (
        Reason.OUT_OF_MEMORY,
        "of which 1.20 GiB is free.; lower `spec.batch.perDevice` (now 12), the global batch stays the same",
    ),
    "ephemeral": (
        Reason.EVICTED,
        "was evicted by its node: Pod ephemeral local storage usage exceeds the total limit of containers 16Mi.",
    ),
    "traceback": (
        Reason.ATTEMPT_FAILED,
        "failed with exit code 1: ValueError: column rows is missing in /claims/x/part-0.parquet\n",
    ),
    "start": (Reason.CONTAINER_CANNOT_START, 'exec: "/no/such/binary": stat /no/such/binary: no such file'),
    "silent": (Reason.ATTEMPT_FAILED, "failed with exit code 3 and logged nothing"),
    "killed": (
        Reason.ATTEMPT_FAILED,
        "exit code 137 (SIGKILL, sent from outside the pod or by a node short of memory)",
    ),
}
"""What is said of each situation: the reason, and a part of the sentence."""


def told(name: str, names: SpecPaths = NAMES) -> Diagnosis | None:
    """What a user is told."""
    pods, events = situation(name)
    if not pods:
        return why_rejected(max(events, key=event_time)["message"], names)
    return why_pending(pods, events, names) or first_failure(pods, names) or why_replaced(pods, names)


@pytest.mark.parametrize("name", SITUATIONS)
def test_what_a_cluster_says_becomes_a_reason_and_a_sentence(name: str) -> None:
    reason, words = SITUATIONS[name]
    said = told(name)
    assert said
    assert (said.reason, words in said.message) == (reason, True), said.message


def test_every_situation_that_was_seen_has_an_expectation() -> None:
    assert {path.stem for path in DATA.glob("*.yaml")} == {*SITUATIONS, "image-backoff", "no-report"}


def test_a_pull_that_fails_and_one_that_backs_off_read_the_same_so_that_nothing_is_written_again() -> None:
    assert told("image") == told("image-backoff")


@pytest.mark.parametrize("name", SITUATIONS)
def test_a_text_that_is_not_known_is_passed_on_as_it_is(name: str) -> None:
    """Another wording of the same: nothing is guessed."""
    pods, events = situation(name)
    unknown = "the moon is in the wrong place"
    _overwrite([*pods, *events], unknown)
    if not pods:
        said: Diagnosis | None = why_rejected(events[-1]["message"], NAMES)
        assert said == Diagnosis(Reason.POD_REFUSED, f"the API server rejects a child: {unknown}")
        return
    said = why_pending(pods, events, NAMES) or first_failure(pods, NAMES) or why_replaced(pods, NAMES)
    assert said
    by_code = ("OOM-killed", "logged nothing", "exit code 3", "(SIGKILL")
    assert unknown in said.message or any(words in said.message for words in by_code), said


def _overwrite(value: Any, text: str) -> None:
    if isinstance(value, list):
        for inner in value:
            _overwrite(inner, text)
    elif isinstance(value, dict):
        for key, inner in value.items():
            if key == "message":
                value[key] = text
            else:
                _overwrite(inner, text)


def test_only_pods_that_say_nothing_themselves_are_asked_by_their_events() -> None:
    silent = [name for name in SITUATIONS if any(needs_events(one) for one in situation(name)[0])]
    assert silent == ["config-map"]
