"""What a user is told about pods, from what a real cluster said of them (tests/data/pods)."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.support.operator.builders import ended, pod, report, run

from hatchery_api.conditions import Reason
from hatchery_operator.diagnosis.admission import event_time, explain
from hatchery_operator.diagnosis.ends import error_line
from hatchery_operator.diagnosis.pods import failure, setback
from hatchery_operator.diagnosis.waiting import blocked, needs_events, pulling
from hatchery_operator.domain.diagnosis import Diagnosis
from hatchery_operator.domain.objects import Manifest
from hatchery_operator.domain.spec_paths import SpecPaths
from hatchery_operator.settings import Settings

DATA = Path(__file__).parents[3] / "data/pods"
NAMES = SpecPaths(
    "team",
    {
        "image": "localhost:5000/no-such-image:1",
        "hub": {"tokenSecret": {"name": "no-such-secret", "key": "token"}},
        "storage": {"claimName": "no-such-claim"},
        "placement": {"resources": {"requests": {"cpu": "900"}, "limits": {"nvidia.com/gpu": "8"}}},
        "batch": {"perDevice": 12},
    },
    "hatchery",
)

SITUATIONS: dict[str, tuple[Reason, str]] = {
    "cpu": (
        Reason.UNSCHEDULABLE,
        "asks for cpu 900 and does not fit on the only node: too little cpu; even an empty node is too small. "
        "Ask for less in `spec.placement.resources.requests.cpu`, or add a larger node. The scheduler says: 0/1 nodes",
    ),
    "both": (Reason.UNSCHEDULABLE, "cpu 900, memory 900Gi and does not fit on the only node: too little cpu; too lit"),
    "gpu": (Reason.UNSCHEDULABLE, "`spec.placement.resources.limits.nvidia.com/gpu`, or add a larger node"),
    "busy": (
        Reason.UNSCHEDULABLE,
        "asks for cpu 1600m, memory 32Mi and does not fit on the only node: too little cpu. Ask for less in "
        "`spec.placement.resources.requests.cpu`, or wait until enough is free. The scheduler says: 0/1 nodes",
    ),
    "gang": (Reason.UNSCHEDULABLE, "pod gang-train-a1-1-mcl9z asks for cpu 400m, memory 32Mi and does not fit"),
    "preempted": (
        Reason.DISRUPTED,
        "pod filler-build-a1-0-j86r8 is lost and will be replaced: default-scheduler: preempting to accommodate a",
    ),
    "segfault": (Reason.ATTEMPT_FAILED, "ended with exit code 139 (SIGSEGV) and left no last lines"),
    "memory": (Reason.UNSCHEDULABLE, "memory 900Gi and does not fit on the only node: too little memory"),
    "selector": (Reason.UNSCHEDULABLE, "no label as `spec.placement.nodeSelector`"),
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
        "Pod Security level restricted:latest of namespace team refuses the pods: ho",
    ),
    "psa-caps": (Reason.POD_SECURITY_VIOLATED, "unrestricted capabilities (container"),
    "policy": (
        Reason.POD_REFUSED,
        "ValidatingAdmissionPolicy why-images refuses the pods: images must come from the team's registry",
    ),
    "quota-cpu": (
        Reason.QUOTA_EXCEEDED,
        "ResourceQuota team-quota of namespace team refuses the pods: requests.cpu: asked 300m, used 0 of 250m; "
        "ask for less in `spec.placement.resources`",
    ),
    "quota-both": (
        Reason.QUOTA_EXCEEDED,
        "limits.memory: asked 2Gi, used 0 of 1Gi; requests.cpu: asked 300m, used 0 of 250m",
    ),
    "quota-unset": (Reason.POD_REFUSED, "must say their amounts: set `spec.placement.resources.limits.memory`"),
    "limit-max": (
        Reason.LIMIT_RANGE_VIOLATED,
        "refuses the pods: cpu limit 3 (`spec.placement.resources.limits.cpu`) is above the most allowed, 2 per "
        "Container; memory limit 300Mi (`spec.placement.resources.limits.memory`) is above",
    ),
    "limit-min": (
        Reason.LIMIT_RANGE_VIOLATED,
        "cpu request 1m (`spec.placement.resources.requests.cpu`) is below the least allowed, 10m per Container",
    ),
    "oom": (
        Reason.OUT_OF_MEMORY,
        "was killed for memory; raise `spec.placement.resources.limits.memory` (now 48Mi; files in /dev/shm count)",
    ),
    "oom-child": (Reason.OUT_OF_MEMORY, "`spec.placement.resources.limits.memory` (now 48Mi;"),
    "shm": (Reason.OUT_OF_MEMORY, "`spec.placement.resources.limits.memory` (now 48Mi;"),
    "memory-error": (Reason.OUT_OF_MEMORY, "MemoryError; raise `spec.placement.resources.limits.memory` or do less"),
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
        "ended with exit code 1: ValueError: column rows is missing in /claims/x/part-0.parquet\n",
    ),
    "start": (Reason.CONTAINER_CANNOT_START, 'exec: "/no/such/binary": stat /no/such/binary: no such file'),
    "silent": (Reason.ATTEMPT_FAILED, "ended with exit code 3 and left no last lines"),
    "killed": (Reason.ATTEMPT_FAILED, "exit code 137 (SIGKILL, from outside or by a node that is short of memory)"),
}
"""What is said of each situation: the reason, and a part of the sentence."""


def situation(name: str) -> tuple[list[Manifest], list[Manifest]]:
    """Pods and events."""
    data = yaml.safe_load((DATA / f"{name}.yaml").read_text())
    return data["pods"], data["events"]


def told(name: str, names: SpecPaths = NAMES) -> Diagnosis | None:
    """What a user is told."""
    pods, events = situation(name)
    if not pods:
        return explain(max(events, key=event_time)["message"], names)
    return blocked(pods, events, names) or failure(pods, names) or setback(pods, names)


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


def test_each_refused_try_reads_the_same_so_that_nothing_is_written_again() -> None:
    for name in ("quota-cpu", "quota-both", "policy", "psa", "limit-max", "limit-min"):
        _, events = situation(name)
        texts = {event["message"] for event in events}
        assert len(texts) == len(events) > 1
        assert len({explain(text, NAMES) for text in texts}) == 1
    first = 'pods "x-1" is forbidden: [minimum cpu usage per Pod is 2, but request is 1, maximum memory usage per Pod is 3, but limit is 4]'
    other = 'pods "x-2" is forbidden: [maximum memory usage per Pod is 3, but limit is 4, minimum cpu usage per Pod is 2, but request is 1]'
    assert explain(first, NAMES) == explain(other, NAMES)


@pytest.mark.parametrize("name", SITUATIONS)
def test_a_text_that_is_not_known_is_passed_on_as_it_is(name: str) -> None:
    """Another wording of the same: nothing is guessed."""
    pods, events = situation(name)
    unknown = "the moon is in the wrong place"
    _overwrite([*pods, *events], unknown)
    if not pods:
        said: Diagnosis | None = explain(events[-1]["message"], NAMES)
        assert said == Diagnosis(Reason.POD_REFUSED, f"the API server refuses a child: {unknown}")
        return
    said = blocked(pods, events, NAMES) or failure(pods, NAMES) or setback(pods, NAMES)
    assert said
    by_code = ("OOMKilled", "no last lines", "exit code 3", "killed for memory", "(SIGKILL")
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


def test_a_name_is_traced_to_the_field_that_holds_it_or_to_the_settings() -> None:
    subject = run(
        sources=[{"name": "s", "files": {"urls": ["claim://texts/a/*.txt"]}}],
        hub={"repo": "a/b", "tokenSecret": {"name": "t"}},
    )
    names = SpecPaths.of(subject, Settings(claim_name="shared"))
    assert names.origin("texts") == ", named in `spec.sources[0].files.urls[0]`,"
    assert names.origin("t") == ", named in `spec.hub.tokenSecret.name`,"
    assert names.origin("shared") == ", the operator's default where `spec.storage` is silent,"
    assert names.origin("another") == ""


def test_what_only_a_person_can_heal_is_said_before_what_time_may() -> None:
    (full,), _ = situation("cpu")
    (broken,), events = situation("image")
    found = blocked([full, broken], events, NAMES)
    assert found
    assert found.reason == Reason.IMAGE_PULL_ERROR


def test_a_scheduler_of_many_nodes_is_read_cause_by_cause() -> None:
    message = (
        "0/9 nodes are available: 2 Insufficient memory, 3 node(s) had untolerated taint {nvidia.com/gpu: present}, "
        "4 node(s) were unschedulable. preemption: 0/9 nodes are available: 7 Preemption is not helpful for scheduling, "
        "2 No preemption victims found for incoming pod."
    )
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
    found = blocked([pod(phase="Pending", conditions=[condition])], [], NAMES)
    assert found
    assert (
        "any of 9 nodes: too little memory on 2; taint {nvidia.com/gpu: present} is not in "
        "`spec.placement.tolerations` on 3; cordoned on 4. Ask for less in `spec.placement.resources.requests.memory`, "
        "or wait until enough is free. The scheduler says: 0/9" in found.message
    )
    assert "empty node" not in found.message


def test_only_pods_that_say_nothing_themselves_are_asked_by_their_events() -> None:
    silent = [name for name in SITUATIONS if any(needs_events(one) for one in situation(name)[0])]
    assert silent == ["config-map"]


def test_an_image_on_its_way_is_no_problem() -> None:
    (waits,), events = situation("config-map")
    later = {**events[-1], "reason": "Pulling", "lastTimestamp": "2026-11-22T11:55:51Z", "message": "Pulling image"}
    assert blocked([waits], [*events, later], NAMES) is None
    assert pulling([waits], [*events, later]) == "localhost:5000/hatchery-jobs:1"
    assert pulling([waits], events) is None


def test_a_pod_that_was_preempted_is_not_the_reason_of_a_failure() -> None:
    target = {"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler", "message": "preempted"}
    lost = ended(137, at="2026-03-01T11:00:00Z", name="lost")
    lost["status"]["conditions"] = [target]
    crashed = ended(1, "ValueError: bad", name="crashed")
    found = failure([lost, crashed], NAMES)
    assert found
    assert "pod crashed ended with exit code 1: ValueError: bad" in found.message
    assert setback([lost, pod(phase="Pending")], NAMES) == Diagnosis(
        Reason.DISRUPTED, "pod lost is lost and will be replaced: preempted"
    )
    replaced = setback([crashed, pod(phase="Pending")], NAMES)
    assert replaced
    assert replaced.reason == Reason.POD_FAILED


def test_a_pod_evicted_for_memory_points_at_its_request_even_when_it_saved_its_state() -> None:
    evicted = ended(143, report(reason=Reason.INTERRUPTED, message="was asked to end", artifact=None))
    evicted["status"] |= {
        "reason": "Evicted",
        "message": "The node was low on resource: memory. Threshold quantity: 100Mi, available: 50Mi. ",
    }
    found = failure([evicted], NAMES)
    assert found
    assert found.reason == Reason.OUT_OF_MEMORY
    assert "`spec.placement.resources.requests.memory`" in found.message


def test_the_jobs_own_report_is_said_as_it_is_and_a_traceback_in_it_is_read() -> None:
    own = failure([ended(75, report(reason=Reason.STORAGE_ERROR, message="disk is full", artifact=None))], NAMES)
    assert own == failure([ended(75, report(reason=Reason.STORAGE_ERROR, message="disk is full", artifact=None))])
    assert own
    assert (own.reason, own.message) == (Reason.STORAGE_ERROR, "disk is full")
    text = "Traceback (most recent call last):\n  File x\nOSError: [Errno 5] Input/output error: '/claims/c/a.bin'\n"
    crashed = failure([ended(75, report(reason=Reason.ATTEMPT_FAILED, message=text, artifact=None))], NAMES)
    assert crashed
    assert crashed.message.splitlines()[0].endswith(
        "with exit code 75: OSError: [Errno 5] Input/output error: '/claims/c/a.bin'"
    )


def test_a_report_of_too_little_memory_is_completed_by_the_pods_limit_but_not_for_a_device() -> None:
    end = ended(75, report(reason=Reason.OUT_OF_MEMORY, message="out of memory; do less", artifact=None))
    end["spec"] = {"containers": [{"name": "main", "resources": {"limits": {"memory": "2Gi"}}}]}
    host = failure([end], NAMES)
    assert host
    assert host.message == "out of memory; do less (`spec.placement.resources.limits.memory` is 2Gi)"
    text = "CUDA out of memory; lower spec.batch.perDevice"
    end = {**ended(75, report(reason=Reason.OUT_OF_MEMORY, message=text, artifact=None)), "spec": end["spec"]}
    device = failure([end], NAMES)
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


@pytest.mark.parametrize(
    ("answer", "reason", "words"),
    [
        (
            'jobs.batch "count-build-a1" is forbidden: exceeded quota: objects, requested: count/jobs.batch=1, '
            "used: count/jobs.batch=0, limited: count/jobs.batch=0",
            Reason.QUOTA_EXCEEDED,
            "refuses the Job: count/jobs.batch: asked 1, used 0 of 0; wait until others end, or have the quota raised",
        ),
        (
            'configmaps "x" is forbidden: unable to create new content in namespace why-a because it is being terminated',
            Reason.NAMESPACE_TERMINATING,
            "namespace team is being deleted and takes configmaps no more",
        ),
        (
            'jobs.batch is forbidden: User "system:serviceaccount:s:o" cannot create resource "jobs" in API group '
            '"batch" in the namespace "team"',
            Reason.POD_REFUSED,
            "system:serviceaccount:s:o may not create jobs in namespace team",
        ),
        (
            'admission webhook "validate.kyverno.svc" denied the request: no label team',
            Reason.POD_REFUSED,
            "webhook validate.kyverno.svc refuses a child: no label team",
        ),
    ],
)
def test_what_the_operator_itself_is_refused_reads_like_what_pods_are(answer: str, reason: Reason, words: str) -> None:
    said = explain(answer, NAMES)
    assert (said.reason, words in said.message) == (reason, True), said.message
