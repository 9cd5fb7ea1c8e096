"""Tokens planted in Secrets are used by pods and are seen nowhere else: logs, events, statuses, ConfigMaps, artifacts."""

import json

import pytest
from tests.support.jobs.corpora import corpus, resource
from tests.support.kube.deploy import operator_log
from tests.support.kube.installation import HUB_TOKEN, TOKEN_SECRET
from tests.support.kube.kubectl import failed_because

REFUSED_TOKEN = "hf_CanaryTokenThatTheHubRefuses"
SEEN_BY_USERS = "corpusbuilds,tokenizerbuilds,pretrainruns,evalruns,jobs,pods,events,configmaps,services"


@pytest.fixture(scope="module")
def ended(kube, namespace, hub):
    """One push with a token that is taken, one with a token that is refused."""
    secret = {"name": "refused-token"}
    kube.apply(
        {"apiVersion": "v1", "kind": "Secret", "metadata": secret, "stringData": {"token": REFUSED_TOKEN}},
        resource("good", corpus(hub={"repo": "e2e/secrets", "tokenSecret": {"name": TOKEN_SECRET}})),
        resource("bad", corpus(hub={"repo": "e2e/secrets", "tokenSecret": secret})),
        namespace=namespace,
    )
    kube.wait("CorpusBuild", namespace, "bad", failed_because("HubUnauthorized"), 300)
    return kube.wait_succeeded("CorpusBuild", namespace, "good", 300)


def holders(texts: dict[str, str]) -> list[str]:
    return [where for where, text in texts.items() if HUB_TOKEN in text or REFUSED_TOKEN in text]


def test_no_object_a_user_can_read_holds_a_token(kube, namespace, ended):
    texts = {kind: kube.kubectl("get", kind, "-n", namespace, "-o", "json") for kind in SEEN_BY_USERS.split(",")}
    assert len(json.loads(texts["pods"])["items"]) >= 2
    assert holders(texts) == []


def test_no_log_holds_a_token(kube, namespace, ended):
    pods = kube.kubectl("get", "pods", "-n", namespace, "-o", "name").split()
    texts = {pod: kube.kubectl("logs", pod, "-n", namespace) for pod in pods}
    texts["operator"] = operator_log(kube)
    assert all(texts.values())
    assert holders(texts) == []


def test_no_file_of_an_artifact_holds_a_token(cluster, kube, namespace, ended):
    if cluster.context:
        pytest.skip("the volumes of somebody's own cluster are not on this machine")
    volume = kube.kubectl("get", "pvc", "hatchery", "-n", namespace, "-o", "jsonpath={.spec.volumeName}")
    root = cluster.layout.volumes / volume
    files = {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}
    assert any(name.endswith("report.json") for name in files)
    assert [name for name, data in files.items() if HUB_TOKEN.encode() in data or REFUSED_TOKEN.encode() in data] == []


def test_every_line_of_the_operator_about_a_run_names_it_and_the_pass(kube, namespace, ended):
    lines = [json.loads(line) for line in operator_log(kube).splitlines()]
    mine = [line for line in lines if line.get("namespace") == namespace]
    assert {line["name"] for line in mine} == {"good", "bad"}
    assert all({"kind", "uid", "attempt", "reconcile"} <= line.keys() for line in mine)


def test_every_line_of_a_pod_says_whose_it_is(kube, namespace, ended):
    for pod in kube.kubectl("get", "pods", "-n", namespace, "-o", "name").split():
        lines = [json.loads(line) for line in kube.kubectl("logs", pod, "-n", namespace).splitlines()]
        assert lines
        assert all({"kind", "namespace", "name", "uid", "attempt", "stage"} <= line.keys() for line in lines)
