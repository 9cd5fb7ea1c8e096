"""Deletion beside the real controllers of Kubernetes: nothing waits for the operator, and a name can be used again at once."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.apiserver.conftest import ROOT, Api
from tests.cluster.control_plane import ControlPlane
from tests.support.kube.kubelet import JobRecord
from tests.support.operator.builders import artifact
from tests.support.operator.pipelines import PIPELINE
from tests.support.operator.process import OperatorProcess, Team, install

from hatchery_api.conditions import Reason
from hatchery_api.contract import Report
from hatchery_operator.domain.labels import UID_LABEL

pytestmark = pytest.mark.apiserver

GONE_BAR_SECONDS = 60.0
"""Longest deletion of a namespace: the namespace controller looks again some 15 s after it has seen pods."""
KINDS = ("corpusbuilds", "tokenizerbuilds", "pretrainruns", "evalruns")
REPORT = Report(reason=Reason.COMPLETED, artifact=artifact("digest"))


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """An API server with all controllers: namespaces, garbage, Jobs."""
    with ControlPlane(tmp_path_factory.mktemp("with-controllers"), controllers=True) as plane:
        plane.apply([yaml.safe_load(path.read_text()) for path in sorted((ROOT / "manifests/crds").glob("*.yaml"))])
        plane.kubectl("wait", "--for=condition=Established", "--timeout=60s", "crd", "--all")
        install(plane)
        yield plane


@pytest.fixture(scope="module")
def admin(plane: ControlPlane) -> Iterator[Api]:
    client = Api(plane)
    yield client
    client.close()


@pytest.fixture
def operator(plane: ControlPlane, tmp_path: Path) -> Iterator[OperatorProcess]:
    process = OperatorProcess(plane, tmp_path)
    process.start()
    yield process
    process.kill()


def pods_of(team: Team, job: str) -> list[dict[str, Any]]:
    """Pods that the Job controller has made for a Job as it is now."""
    uid = team.wait_job(job)["metadata"]["uid"]
    found = team.send("GET", team.core("pods"), labelSelector=f"batch.kubernetes.io/controller-uid={uid}")
    return list(found["items"])


def wait_pod(team: Team, job: str) -> dict[str, Any]:
    team.wait(f"the pod of Job {job}", lambda: pods_of(team, job))
    return pods_of(team, job)[0]


def end_pod(team: Team, job: str) -> None:
    """Ends a Job's pod well, as a kubelet does."""
    now = "2026-01-01T00:00:00Z"
    state = {"exitCode": 0, "reason": "Completed", "message": REPORT.termination_message(), "finishedAt": now}
    container = {"name": "main", "state": {"terminated": state}, "image": "x", "imageID": "", "ready": False}
    container["restartCount"] = 0
    name = wait_pod(team, job)["metadata"]["name"]
    team.pod_status(name, {"phase": "Succeeded", "containerStatuses": [container]})


def exists(team: Team, path: str) -> bool:
    return team._request("GET", path)[0] != 404


def finalizers(team: Team) -> dict[str, list[str]]:
    """Finalizers of all that the operator has to do with, by kind and name."""
    paths = [f"/apis/hatchery.dev/v1alpha1/namespaces/{team.name}/{plural}" for plural in KINDS]
    paths += [team.batch(), team.core("configmaps"), team.core("services")]
    found = [(path, item["metadata"]) for path in paths for item in team.send("GET", path)["items"]]
    return {f"{path}/{m['name']}": m["finalizers"] for path, m in found if m.get("finalizers")}


def test_a_namespace_with_runs_is_gone_soon_while_no_operator_runs(
    admin: Api, operator: OperatorProcess, figures: Callable[..., None]
) -> None:
    team = Team(admin.request, "removed")
    for kind, name in PIPELINE:
        team.apply(kind, name)
    team.apply("CorpusBuild", "other")
    end_pod(team, "corpus-build-a1")
    team.wait_reason("CorpusBuild", "corpus", "Completed")
    wait_pod(team, "tokenizer-vocabulary-a1")
    operator.kill()
    assert finalizers(team) == {}
    begun = time.monotonic()
    team.send("DELETE", f"/api/v1/namespaces/{team.name}")
    team.wait("the namespace is gone", lambda: not exists(team, f"/api/v1/namespaces/{team.name}"))
    seconds = time.monotonic() - begun
    figures(seconds=round(seconds, 1), bar=GONE_BAR_SECONDS, finalizers=0)
    assert seconds <= GONE_BAR_SECONDS


def test_a_run_is_gone_at_once_and_its_children_soon_while_no_operator_runs(
    admin: Api, operator: OperatorProcess, figures: Callable[..., None]
) -> None:
    team = Team(admin.request, "gone")
    team.apply("CorpusBuild", "corpus")
    wait_pod(team, "corpus-build-a1")
    operator.kill()
    begun = time.monotonic()
    team.send("DELETE", team.path("CorpusBuild", "corpus"), {"propagationPolicy": "Background"})
    assert not exists(team, team.path("CorpusBuild", "corpus"))
    run_seconds = time.monotonic() - begun
    team.wait("its Job is gone", lambda: not team.jobs())
    team.wait("its pod is gone", lambda: not team.send("GET", team.core("pods"))["items"])
    figures(run_seconds=round(run_seconds, 2), children_seconds=round(time.monotonic() - begun, 1))
    assert run_seconds <= 1.0


def test_a_run_deleted_and_applied_again_at_once_works_the_first_time_beside_its_dying_children(
    plane: ControlPlane, admin: Api, operator: OperatorProcess, figures: Callable[..., None]
) -> None:
    """A finalizer keeps the old Job, as a slow kubelet would, until the new run has met it."""
    team, job = Team(admin.request, "again"), "corpus-build-a1"
    with JobRecord(plane) as record:
        team.apply("CorpusBuild", "corpus")
        old = wait_pod(team, job)
        team.send("PATCH", team.batch(job), {"metadata": {"finalizers": ["example.com/slow"]}})
        team.send("DELETE", team.path("CorpusBuild", "corpus"), {"propagationPolicy": "Background"})
        team.apply("CorpusBuild", "corpus")
        team.wait_reason("CorpusBuild", "corpus", "NameConflict")
        team.wait("the old Job is dying", lambda: "deletionTimestamp" in team.jobs()[job]["metadata"])
        owner = team.run("CorpusBuild", "corpus")["metadata"]["uid"]
        assert team.jobs()[job]["metadata"]["labels"][UID_LABEL] == old["metadata"]["labels"][UID_LABEL] != owner
        begun = time.monotonic()
        team.send("PATCH", team.batch(job), {"metadata": {"finalizers": None}})
        team.wait("the new Job", lambda: team.jobs().get(job, old)["metadata"]["labels"][UID_LABEL] == owner)
        seconds = time.monotonic() - begun
        end_pod(team, job)
        team.wait_reason("CorpusBuild", "corpus", "Completed")
        created = record.created(team.name)
    status = team.run("CorpusBuild", "corpus")["status"]
    figures(seconds_after_the_old_job=round(seconds, 1), attempts=status["attempts"], jobs=sum(created.values()))
    assert (status["attempts"], status["failures"]) == (1, 0)
    assert created == {job: 2}
