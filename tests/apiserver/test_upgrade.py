"""From release 0.1.0 to this one with runs in every state: no Job is touched, every run ends, and nothing is lost."""

import copy
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.apiserver.conftest import Api
from tests.cluster.control_plane import ControlPlane
from tests.cluster.layout import REPOSITORY, Layout
from tests.cluster.tools import ensure_tools
from tests.support.kube.releases import Release, unpack
from tests.support.operator.process import SYSTEM, OperatorProcess, Team

pytestmark = pytest.mark.apiserver

PREVIOUS = "0.1.0"


@pytest.fixture(scope="module")
def previous(tmp_path_factory: pytest.TempPathFactory) -> Release:
    return unpack(PREVIOUS, tmp_path_factory.mktemp("release"))


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[ControlPlane]:
    """An API server of its own, since it begins with the definitions of the past."""
    with ControlPlane(tmp_path / "plane") as plane:
        yield plane


def install(plane: ControlPlane, chart: Path) -> str:
    """What a Helm install or upgrade applies, but for the operator's pod, which is a process here; gives its account."""
    helm = ensure_tools(Layout.from_environment()) / "helm"
    command = [helm, "template", "hatchery", chart, f"--namespace={SYSTEM}", "--kube-version=1.36.0"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    applied = ("CustomResourceDefinition", "ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding")
    objects = [one for one in yaml.safe_load_all(text) if one and one["kind"] in applied]
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SYSTEM}}
    plane.apply([namespace, *objects])
    plane.kubectl("wait", "--for=condition=Established", "--timeout=60s", "crd", "--all")
    return next(str(one["metadata"]["name"]) for one in objects if one["kind"] == "ServiceAccount")


def operator(
    plane: ControlPlane, folder: Path, account: str, release: Release | None = None, **settings: Any
) -> OperatorProcess:
    folder.mkdir()
    return OperatorProcess(plane, folder, account, packages=release.packages if release else None, **settings)


def jobs(team: Team) -> dict[str, tuple[str, str]]:
    """UID and specification of all Jobs: a Job that is changed, or deleted and made again, differs."""
    return {name: (job["metadata"]["uid"], json.dumps(job["spec"])) for name, job in team.jobs().items()}


def versions(team: Team, *names: str) -> dict[str, str]:
    """Versions of resources: one that is written has another."""
    return {name: team.run("CorpusBuild", name)["metadata"]["resourceVersion"] for name in names}


def begin_everything(team: Team) -> None:
    """Runs in every state a run can be in while the operator is replaced."""
    for name in ("done", "working", "held", "between", "failed"):
        team.apply("CorpusBuild", name, **({"retry": {"maxAttempts": 2, "backoff": "5s"}} if name == "between" else {}))
    team.run_pods("done-build-a1")
    team.end_job("done-build-a1")
    team.wait_reason("CorpusBuild", "done", "Completed")
    team.run_pods("working-build-a1")
    team.wait_reason("CorpusBuild", "working", "Running")
    team.run_pods("between-build-a1")
    team.end_job("between-build-a1", code=75)
    team.wait_reason("CorpusBuild", "between", "Retrying")
    team.run_pods("failed-build-a1")
    team.end_job("failed-build-a1", code=65)
    team.wait("the failure", lambda: team.condition("CorpusBuild", "failed")[0] == "False")
    team.wait_job("held-build-a1")
    team.patch("CorpusBuild", "held", suspend=True)
    team.wait_reason("CorpusBuild", "held", "Suspended")
    team.apply("TokenizerBuild", "tokenizer", corpusRef={"name": "working"})
    team.wait_reason("TokenizerBuild", "tokenizer", "Waiting")


def test_an_upgrade_touches_no_job_and_every_run_goes_on(plane, tmp_path, previous) -> None:
    account = install(plane, previous.chart)
    api = Api(plane)
    team = Team(api.request, "team")
    old = operator(plane, tmp_path / "old", account, previous)
    old.start()
    begin_everything(team)
    assert old.stop() == 0
    before, ended = jobs(team), versions(team, "done", "failed")

    account = install(plane, REPOSITORY / "charts/hatchery")
    new = operator(plane, tmp_path / "new", account)
    new.start()
    try:
        team.run_pods("between-build-a2")
        assert {name: job for name, job in jobs(team).items() if name in before} == before
        assert versions(team, "done", "failed") == ended
        team.patch("CorpusBuild", "held", suspend=False)
        team.run_pods("held-build-a1")
        for name in ("working-build-a1", "between-build-a2", "held-build-a1"):
            team.end_job(name)
        for name in ("working", "between", "held"):
            team.wait_reason("CorpusBuild", name, "Completed")
        team.run_pods("tokenizer-vocabulary-a1")
        team.end_job("tokenizer-vocabulary-a1")
        team.wait_reason("TokenizerBuild", "tokenizer", "Completed")
        assert sorted(team.jobs()) == sorted([*before, "between-build-a2", "tokenizer-vocabulary-a1"])
        assert [line for line in new.log() if line["level"] == "error"] == []
    finally:
        new.stop()
        api.close()


def test_an_operator_newer_than_the_definitions_says_so_works_on_and_takes_it_back(plane, tmp_path) -> None:
    account = install(plane, REPOSITORY / "charts/hatchery")
    current = yaml.safe_load((REPOSITORY / "manifests/crds/pretrainruns.yaml").read_text())
    older = copy.deepcopy(current)
    del older["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"]["properties"]["perplexity"]
    plane.apply([older])
    api = Api(plane)
    team = Team(api.request, "team")
    new = operator(plane, tmp_path / "new", account, resyncSeconds=10)
    new.start()
    try:
        team.apply("PretrainRun", "model")
        team.wait_reason("PretrainRun", "model", "CRDOutdated", "Degraded")
        assert new.metric("hatchery_crd_outdated")['{kind="PretrainRun"}'] == 1
        team.apply("CorpusBuild", "corpus")
        team.run_pods("corpus-build-a1")
        team.end_job("corpus-build-a1")
        team.wait_reason("CorpusBuild", "corpus", "Completed")
        plane.apply([current])
        team.wait("the new definition is noticed", lambda: not any(new.metric("hatchery_crd_outdated").values()))
        team.wait("the complaint goes", lambda: team.condition("PretrainRun", "model", "Degraded")[1] != "CRDOutdated")
    finally:
        new.stop()
        api.close()
