"""Which requests are made about pods that do not run, and which are not."""

import asyncio
from typing import Any, cast

from tests.support.operator.builders import NAMESPACE, NOW, job, later, run
from tests.support.operator.fake_cluster import FakeCluster

from hatchery_api.conditions import Reason
from hatchery_api.status import StageStatus
from hatchery_operator.controller.observe import observe, referenced_keys
from hatchery_operator.domain.objects import Manifest, Observed, Run, rfc3339
from hatchery_operator.kube.cache import Cache
from hatchery_operator.kube.client import Cluster
from hatchery_operator.kube.events import Events

QUOTA = 'Error creating: pods "x" is forbidden: exceeded quota: q, requested: pods=1, used: pods=2, limited: pods=2'


class Counted(FakeCluster):
    """Records the listings."""

    def __init__(self) -> None:
        super().__init__()
        self.listings: list[str] = []

    def list(self, kind: str, namespace: str | None, labels: str = "", fields: str = "") -> Any:
        self.listings.append(kind)
        return super().list(kind, namespace, labels, fields)


class StageContext:
    """Runs with a Job each, observed some seconds after the Jobs were created."""

    def __init__(self, *names: str, **changes: Any) -> None:
        self.cluster, self.cache = Counted(), Cache(referenced_keys)
        self.events = Events(cast("Cluster", self.cluster))
        self.runs = [self._run(name, changes) for name in names]

    def _run(self, name: str, changes: dict[str, Any]) -> Run:
        subject = run(name=name)
        stage = StageStatus(name="build", state="Pending", attempt=1, job=f"{name}-build-a1")
        subject.status.stages.append(stage)
        self.cache.put_job(job(subject, f"{name}-build-a1", **changes))
        return subject

    def put(self, kind: str, name: str, **values: Any) -> None:
        manifest: Manifest = {"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "namespace": NAMESPACE}}
        manifest["metadata"] |= values.pop("metadata", {})
        self.cluster.put({**manifest, **values})

    def refuse(self, name: str, seconds: float, message: str = QUOTA) -> None:
        """A FailedCreate event of a Job."""
        self.put(
            "Event",
            f"{name}-{seconds}",
            reason="FailedCreate",
            involvedObject={"uid": f"uid-{name}-build-a1"},
            message=message,
            lastTimestamp=rfc3339(later(seconds)),
        )

    def pod(self, name: str, seconds: float, **status: Any) -> None:
        labels = {"hatchery.dev/uid": f"uid-CorpusBuild-{name}", "batch.kubernetes.io/job-name": f"{name}-build-a1"}
        metadata = {"uid": f"uid-pod-{name}", "labels": labels, "creationTimestamp": rfc3339(later(seconds))}
        self.put("Pod", f"{name}-build-a1-0-x", metadata=metadata, status={"phase": "Pending", **status})

    def see(self, seconds: float, index: int = 0) -> Observed:
        return asyncio.run(self._see(self.runs[index], seconds))

    async def _see(self, subject: Run, seconds: float) -> Observed:
        self.events._listing = asyncio.Lock()  # each call here has an event loop of its own
        return await observe(subject, self.cache, cast("Cluster", self.cluster), self.events, later(seconds))


def test_a_job_is_given_a_moment_before_anything_is_asked() -> None:
    case = StageContext("a", active=1)
    assert case.see(4).pods == ()
    assert case.cluster.listings == []


def test_a_thousand_jobs_over_a_quota_share_a_listing_of_their_events() -> None:
    names = [f"r{number}" for number in range(20)]
    case = StageContext(*names)
    for name in names:
        case.refuse(name, 6)
    seen = [case.see(8, index) for index in range(20)]
    assert {one.refusal.reason for one in seen if one.refusal} == {Reason.QUOTA_EXCEEDED}
    assert all(one.refusal for one in seen)
    assert case.cluster.listings == ["Event"]
    case.see(14)
    assert case.cluster.listings == ["Event", "Event"]


def test_the_newest_refusal_counts() -> None:
    case = StageContext("a")
    case.refuse("a", 7, "Error creating: newest")
    case.refuse("a", 6, "Error creating: older")
    refusal = case.see(8).refusal
    assert refusal
    assert "newest" in refusal.message


def test_a_refusal_from_before_the_last_pod_was_made_is_history() -> None:
    case = StageContext("a", active=1, pods=2)
    case.refuse("a", 6)
    case.pod("a", 6)
    assert case.see(20).refusal
    case.pod("a", 30)
    assert case.see(40).refusal is None


def test_events_of_a_pod_are_read_only_when_it_says_nothing_itself() -> None:
    case = StageContext("a", active=1)
    mount = {"reason": "FailedMount", "involvedObject": {"uid": "uid-pod-a"}, "message": 'configmap "c" not found'}
    case.put("Event", "mount", **mount)
    unscheduled = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "m"}
    case.pod("a", 0, conditions=[unscheduled])
    assert case.see(8).events == ()
    assert case.cluster.listings == ["Pod"]
    creating = {"name": "main", "state": {"waiting": {"reason": "ContainerCreating"}}}
    case.pod("a", 0, containerStatuses=[creating])
    assert [event["reason"] for event in case.see(8).events] == ["FailedMount"]


def test_a_job_whose_pods_all_run_costs_no_request() -> None:
    case = StageContext("a", active=1, ready=1, since=rfc3339(NOW))
    case.see(3600)
    assert case.cluster.listings == []
