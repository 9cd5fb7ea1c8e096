"""Runs that do not run, each for one reason, all applied at once: every one says why within 30 s of the symptom."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pytest
from tests.cluster.console import wait_for
from tests.support.jobs.corpora import Case, corpus, resource
from tests.support.kube.kubectl import Kube, condition

SECONDS = 30.0
"""Longest time from a symptom to its explanation."""

TOKENS = "example.com/tokens"
"""A resource only one case asks for, so that the quota on it concerns no other."""

POLICY = "explanations-forbidden-images"

LARGE_FILE = "/opt/hatchery/venv/lib/*/site-packages/torch/lib/libtorch_cpu.so"
"""400 MB that are read at once. A limit below what Python needs would not do: the node then rereads its files for
minutes before it gives up."""

FORBIDDEN = """
apiVersion: v1
kind: Pod
metadata: {name: forbidden, namespace: %s}
spec:
  securityContext: {runAsNonRoot: true, runAsUser: 1, seccompProfile: {type: RuntimeDefault}}
  containers:
    - name: main
      image: localhost:5000/forbidden:1
      resources: {requests: {memory: 64Mi}}
      securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
"""
"""A pod that only the policy refuses."""


def asks(requests: dict[str, str] | None = None, limits: dict[str, str] | None = None, **placement: Any) -> Case:
    """A CorpusBuild that asks for something."""
    requests = requests or {"cpu": "20m", "memory": "64Mi"}
    resources = {"requests": requests, **({"limits": limits} if limits else {})}
    return corpus(placement={"resources": resources, **placement})


@dataclass(frozen=True)
class Expected:
    """A run that is wrong in one way, and what must be said of it."""

    case: Case
    reason: str
    words: tuple[str, ...]
    ends: bool = False
    """Whether the run is over, rather than waiting for somebody to act."""


CASES = {
    "too-many-processors": Expected(
        asks({"cpu": "900", "memory": "64Mi"}),
        "Unschedulable",
        ("requests cpu 900, memory 64Mi", "even an empty node is too small", "`spec.placement.resources.requests.cpu`"),
    ),
    "over-quota": Expected(
        asks(limits={TOKENS: "2"}),
        "QuotaExceeded",
        ("ResourceQuota tokens", f"requests.{TOKENS}: requested 2, used 0 of 1"),
    ),
    "below-limit-range": Expected(
        asks({"cpu": "20m", "memory": "16Mi"}),
        "LimitRangeViolated",
        ("memory request 16Mi (`spec.placement.resources.requests.memory`)", "20Mi"),
    ),
    "forbidden-image": Expected(
        corpus(image="localhost:5000/forbidden:1"),
        "PodRefused",
        (f"ValidatingAdmissionPolicy {POLICY}", "images must come from the team's registry"),
    ),
    "missing-image": Expected(
        corpus(image="localhost:5000/no-such-image:1"),
        "ImagePullError",
        ("localhost:5000/no-such-image:1, named in `spec.image`", "not found"),
    ),
    "missing-secret": Expected(
        corpus(hub={"repo": "a/b", "tokenSecret": {"name": "no-such-secret"}}),
        "MissingReference",
        ("Secret no-such-secret, named in `spec.hub.tokenSecret.name`",),
    ),
    "missing-key": Expected(
        corpus(hub={"repo": "a/b", "tokenSecret": {"name": "hub-token", "key": "no-such-key"}}),
        "MissingReference",
        ("Secret hub-token, named in `spec.hub.tokenSecret.name`, has no key no-such-key",),
    ),
    "missing-claim": Expected(
        corpus(storage={"claimName": "no-such-claim"}),
        "MissingReference",
        ("PersistentVolumeClaim no-such-claim, named in `spec.storage.claimName`",),
    ),
    "unbound-claim": Expected(
        corpus(storage={"claimName": "unbound"}),
        "VolumeNotReady",
        ("PersistentVolumeClaim unbound, named in `spec.storage.claimName`, is not bound",),
    ),
    "missing-priority": Expected(
        asks(priorityClassName="no-such-priority"),
        "MissingReference",
        ("PriorityClass no-such-priority of `spec.placement.priorityClassName`",),
    ),
    "out-of-memory": Expected(
        corpus(
            LARGE_FILE,
            placement={"resources": {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "256Mi"}}},
        ),
        "OutOfMemory",
        ("raise `spec.placement.resources.limits.memory` (now 256Mi",),
        ends=True,
    ),
    "image-without-jobs": Expected(
        corpus(image="OPERATOR"), "AttemptFailed", ("exit code 1: ", "hatchery_jobs"), ends=True
    ),
}


def rules(namespace: str) -> list[dict[str, Any]]:
    """What the namespace allows: no cluster-wide object may concern another namespace."""
    expression = "!object.spec.containers.exists(c, c.image.contains('forbidden'))"
    pods = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
    admission = "admissionregistration.k8s.io/v1"
    where = {"matchLabels": {"kubernetes.io/metadata.name": namespace}}
    claim = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}}
    return [
        _object("v1", "ResourceQuota", "tokens", {"hard": {f"requests.{TOKENS}": "1"}}, namespace),
        _object("v1", "LimitRange", "least", {"limits": [{"type": "Container", "min": {"memory": "20Mi"}}]}, namespace),
        _object("v1", "PersistentVolumeClaim", "unbound", {**claim, "storageClassName": "no-such-class"}, namespace),
        _object(
            admission,
            "ValidatingAdmissionPolicy",
            POLICY,
            {
                "failurePolicy": "Fail",
                "matchConstraints": {"resourceRules": [pods]},
                "validations": [{"expression": expression, "message": "images must come from the team's registry"}],
            },
        ),
        _object(
            admission,
            "ValidatingAdmissionPolicyBinding",
            POLICY,
            {"policyName": POLICY, "validationActions": ["Deny"], "matchResources": {"namespaceSelector": where}},
        ),
    ]


def _object(version: str, kind: str, name: str, spec: Any, namespace: str | None = None) -> dict[str, Any]:
    metadata = {"name": name, **({"namespace": namespace} if namespace else {})}
    return {"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec}


@pytest.fixture(scope="module")
def applied(kube: Kube, namespace: str, images: dict[str, str]) -> Iterator[None]:
    """All cases at once, under the namespace's rules."""
    kube.apply(*rules(namespace))
    wait_for(
        "the admission policy",
        lambda: (
            POLICY in kube.kubectl("apply", "--dry-run=server", "-f", "-", stdin=FORBIDDEN % namespace, check=False)
        ),
        why="the API server takes a policy up some seconds after it has stored it",
        timeout_seconds=SECONDS,
    )
    cases = {name: expected.case for name, expected in CASES.items()}
    cases["image-without-jobs"] = corpus(image=images["operator"])
    kube.apply(*(resource(name, case) for name, case in cases.items()), namespace=namespace)
    yield
    for kind in ("validatingadmissionpolicybinding", "validatingadmissionpolicy"):
        kube.kubectl("delete", kind, POLICY, "--ignore-not-found")


def symptom_at(kube: Kube, namespace: str, job: str) -> datetime:
    """When Kubernetes knew: the start of the Job, or the end of its pod."""
    made = kube.batch.read_namespaced_job(job, namespace).metadata.creation_timestamp
    ends = [
        status.state.terminated.finished_at
        for pod in kube.core.list_namespaced_pod(namespace, label_selector=f"job-name={job}").items
        for status in pod.status.container_statuses or []
        if status.state.terminated
    ]
    return max([made, *ends])


@pytest.mark.parametrize("name", CASES)
def test_a_run_that_does_not_run_says_why_in_time(kube: Kube, namespace: str, applied: None, name: str) -> None:
    expected = CASES[name]
    verdict = "False" if expected.ends else "Unknown"

    def _is_explained(found: dict[str, Any]) -> bool:
        said = condition(found, "Succeeded")
        return (said.get("status"), said.get("reason")) == (verdict, expected.reason)

    found = kube.wait(expected.case[0], namespace, name, _is_explained, 2 * SECONDS)
    degraded = condition(found, "Degraded")
    assert (degraded["status"], degraded["reason"]) == ("True", expected.reason)
    for words in expected.words:
        assert words in condition(found, "Succeeded")["message"]
        assert words in degraded["message"]
    at = datetime.fromisoformat(degraded["lastTransitionTime"])
    took = (at - symptom_at(kube, namespace, f"{name}-build-a1")).total_seconds()
    assert took <= SECONDS, f"explained after {took} s"
    assert expected.reason in kube.kubectl("get", "corpusbuild", name, "-n", namespace, "--no-headers")


def test_what_is_explained_is_not_written_again(kube: Kube, namespace: str, applied: None) -> None:
    """Pulls back off and pods are refused anew all the time; only what is said anew may cost a write."""
    names = [name for name, expected in CASES.items() if not expected.ends]
    said = {name: _said(kube.get("CorpusBuild", namespace, name)) for name in names}
    kube.wait_pod(
        namespace,
        "hatchery.dev/name=missing-image",
        lambda pod: pod.status.container_statuses[0].state.waiting.reason == "ImagePullBackOff",
    )
    assert {name: _said(kube.get("CorpusBuild", namespace, name)) for name in names} == said


def _said(found: dict[str, Any]) -> tuple[Any, str]:
    """All that is said, and the version, which changes with any write."""
    return found["status"], found["metadata"]["resourceVersion"]
