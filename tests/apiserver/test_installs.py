"""Chart and plain manifests on a real API server: every object is accepted, and the permissions are what they say."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.cluster.errors import ClusterError
from tests.cluster.layout import Layout
from tests.cluster.tools import ensure_tools
from tests.support.kube.prometheus_operator import definitions

ROOT = Path(__file__).resolve().parents[2]
NAMESPACE = "hatchery-system"
ACCOUNT = f"system:serviceaccount:{NAMESPACE}:hatchery-operator"

pytestmark = pytest.mark.apiserver


def chart(*arguments: str) -> list[dict[str, Any]]:
    command = [ensure_tools(Layout.from_environment()) / "helm", "template", "hatchery", ROOT / "charts/hatchery"]
    command += [f"--namespace={NAMESPACE}", "--kube-version=1.36.0", *arguments]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [document for document in yaml.safe_load_all(text) if document]


@pytest.fixture(scope="module")
def namespaces(control_plane) -> None:
    """The namespaces of the renderings, with what controllers would have put into them."""
    objects: list[dict[str, Any]] = [yaml.safe_load((ROOT / "manifests/operator/namespace.yaml").read_text())]
    objects += [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}} for name in ("team-a", "team-b")]
    control_plane.apply(objects)
    control_plane.apply(
        [{"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": NAMESPACE}}]
    )


@pytest.fixture(scope="module")
def prometheus_operator(control_plane, tmp_path_factory) -> None:
    """The definitions of PodMonitor, ServiceMonitor and PrometheusRule."""
    control_plane.apply(definitions(tmp_path_factory.mktemp("go")))
    control_plane.kubectl("wait", "--for=condition=Established", "--timeout=60s", "crd", "--all")


def dry_run(control_plane, manifests: str) -> list[str]:
    """What the API server would have stored, one line an object; a refusal is a ClusterError."""
    command = ["apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", "-"]
    return control_plane.kubectl(*command, stdin=manifests).splitlines()


@pytest.mark.parametrize(
    "arguments", [[], [f"--values={ROOT / 'tests/chart/all-values.yaml'}"]], ids=["default", "everything"]
)
def test_every_object_of_the_chart_is_accepted(control_plane, namespaces, prometheus_operator, arguments) -> None:
    objects = chart(*arguments)
    accepted = dry_run(control_plane, json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))
    assert len(accepted) == len(objects) > 10


def test_a_misspelt_field_of_a_monitor_would_be_refused(control_plane, namespaces, prometheus_operator) -> None:
    [monitor] = [d for d in chart("--set=podMonitor.enabled=true") if d["kind"] == "PodMonitor"]
    monitor["spec"]["podMetricsEndpoints"][0]["intervall"] = "30s"
    with pytest.raises(ClusterError, match="intervall"):
        dry_run(control_plane, json.dumps(monitor))


def test_every_object_of_the_plain_manifests_is_accepted(control_plane, namespaces) -> None:
    manifests = control_plane.kubectl("kustomize", str(ROOT / "manifests"))
    assert len(dry_run(control_plane, manifests)) == manifests.count("\n---\n") + 1


def test_the_plain_monitors_are_those_of_the_chart(control_plane, namespaces, prometheus_operator) -> None:
    plain = control_plane.kubectl("kustomize", str(ROOT / "manifests/monitoring"))
    found = {manifest["kind"]: manifest["spec"] for manifest in yaml.safe_load_all(plain)}
    kinds = {"PodMonitor": "podMonitor", "ServiceMonitor": "serviceMonitor", "PrometheusRule": "prometheusRule"}
    rendered = chart(*(f"--set={value}.enabled=true" for value in kinds.values()))
    expected = {manifest["kind"]: manifest["spec"] for manifest in rendered if manifest["kind"] in kinds}
    del expected["ServiceMonitor"]["selector"]["matchLabels"]["app.kubernetes.io/instance"]
    assert found == expected
    assert len(dry_run(control_plane, plain)) == len(kinds)


def operator_pod(documents: list[dict[str, Any]]) -> dict[str, Any]:
    [deployment] = [d for d in documents if d["kind"] == "Deployment"]
    spec = deployment["spec"]["template"]["spec"] | {"serviceAccountName": "default"}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "operator", "namespace": NAMESPACE}, "spec": spec}


def test_the_operators_pod_is_admitted_where_pod_security_is_restricted(control_plane, namespaces) -> None:
    plain = list(yaml.safe_load_all(control_plane.kubectl("kustomize", str(ROOT / "manifests"))))
    for documents in (chart(), plain):
        pod = operator_pod(documents)
        dry_run(control_plane, json.dumps(pod))
        assert all(one["securityContext"]["readOnlyRootFilesystem"] for one in pod["spec"]["containers"])
        pod["spec"]["securityContext"]["runAsNonRoot"] = False
        with pytest.raises(ClusterError, match="violates PodSecurity"):
            dry_run(control_plane, json.dumps(pod))


def allowed(control_plane, verb: str, resource: str, namespace: str) -> bool:
    resource, _, part = resource.partition("/")
    question = [verb, resource, f"--subresource={part}", f"--as={ACCOUNT}", f"--namespace={namespace}"]
    try:
        return control_plane.kubectl("auth", "can-i", *question).strip() == "yes"
    except ClusterError:  # kubectl ends with 1 when the answer is no
        return False


@pytest.fixture(params=["cluster-wide", "namespaced"])
def granted(request, control_plane, namespaces):
    """The chart's roles of one kind of installation, applied."""
    arguments = ["--set=watchNamespaces={team-a}"] if request.param == "namespaced" else []
    roles = [document for document in chart(*arguments) if "Role" in document["kind"]]
    control_plane.apply(roles)
    yield request.param
    for role in roles:
        where = [f"--namespace={role['metadata']['namespace']}"] if "namespace" in role["metadata"] else []
        control_plane.kubectl("delete", role["kind"], role["metadata"]["name"], *where)


def test_the_operator_may_do_its_work_where_it_serves_and_nothing_elsewhere(control_plane, granted) -> None:
    work = [("list", "pretrainruns"), ("patch", "evalruns/status"), ("create", "jobs.batch"), ("create", "configmaps")]
    for verb, resource in work:
        assert allowed(control_plane, verb, resource, "team-a"), resource
        assert allowed(control_plane, verb, resource, "team-b") == (granted == "cluster-wide"), resource
    assert allowed(control_plane, "update", "leases.coordination.k8s.io", NAMESPACE)
    assert not allowed(control_plane, "update", "leases.coordination.k8s.io", "team-a")


@pytest.mark.parametrize(
    ("verb", "resource"),
    [("get", "secrets"), ("list", "secrets"), ("create", "pods/exec"), ("create", "pods"), ("delete", "pretrainruns")],
)
def test_the_operator_may_not_do_more(control_plane, granted, verb, resource) -> None:
    assert not allowed(control_plane, verb, resource, "team-a")
