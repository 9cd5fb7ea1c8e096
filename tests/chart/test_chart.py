"""The chart renders, refuses typos, and grants what rbac.py says; tests/apiserver asks a real API server about it."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.cluster.layout import Layout
from tests.cluster.tools import ensure_tools
from tests.support.kube.network_policies import Endpoint, allowed

from hatchery_api.kinds import KINDS
from hatchery_api.schema import custom_resource_definition
from hatchery_operator.codegen import rbac
from hatchery_operator.codegen.chart import Values
from hatchery_operator.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts/hatchery"
ALL_VALUES = Path(__file__).with_name("all-values.yaml")
NAME, NAMESPACE = "hatchery-operator", "hatchery-system"
KUBERNETES = "--kube-version=1.36.0"

MONITORING = {"PodMonitor", "ServiceMonitor", "PrometheusRule"}
"""Kinds of the Prometheus operator."""

Render = Callable[..., list[dict[str, Any]]]


@pytest.fixture(scope="session")
def helm() -> Callable[..., subprocess.CompletedProcess[str]]:
    binary = ensure_tools(Layout.from_environment()) / "helm"

    def helm(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([binary, *arguments], capture_output=True, text=True, check=False)

    return helm


@pytest.fixture(scope="session")
def render(helm) -> Render:
    def render(*arguments: str) -> list[dict[str, Any]]:
        done = helm("template", "hatchery", str(CHART), f"--namespace={NAMESPACE}", KUBERNETES, *arguments)
        assert done.returncode == 0, done.stderr
        return [document for document in yaml.safe_load_all(done.stdout) if document]

    return render


@pytest.fixture(scope="session")
def default(render) -> list[dict[str, Any]]:
    return render()


@pytest.fixture(scope="session")
def everything(render) -> list[dict[str, Any]]:
    return render(f"--values={ALL_VALUES}")


@pytest.fixture(params=["default", "everything"])
def rendered(request) -> list[dict[str, Any]]:
    return request.getfixturevalue(request.param)


def of_kind(documents: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [document for document in documents if document["kind"] == kind]


def bare(document: dict[str, Any]) -> dict[str, Any]:
    """A manifest without the chart's own labels."""
    labels = {k: v for k, v in document["metadata"]["labels"].items() if k.startswith(rbac.RBAC_API)}
    metadata = {k: v for k, v in document["metadata"].items() if k != "labels"} | ({"labels": labels} if labels else {})
    return {**document, "metadata": metadata}


def settings_of(documents: list[dict[str, Any]]) -> Settings:
    [config] = [config for config in of_kind(documents, "ConfigMap") if "settings.yaml" in config.get("data", {})]
    return Settings.model_validate(yaml.safe_load(config["data"]["settings.yaml"]))


def pod_of(documents: list[dict[str, Any]]) -> dict[str, Any]:
    [deployment] = of_kind(documents, "Deployment")
    return deployment["spec"]["template"]


@pytest.mark.parametrize("values", [[], [f"--values={ALL_VALUES}"]], ids=["default", "everything"])
def test_helm_lint_finds_nothing(helm, values) -> None:
    done = helm("lint", "--strict", str(CHART), KUBERNETES, *values)
    assert done.returncode == 0, done.stdout


def test_the_default_values_are_those_of_the_model() -> None:
    assert yaml.safe_load((CHART / "values.yaml").read_text()) == Values().model_dump(
        by_alias=True, exclude_none=False, mode="json"
    ) | {"settings": Values().settings.wire(), "resources": Values().resources.wire()}


def test_every_key_is_commented() -> None:
    lines = (CHART / "values.yaml").read_text().splitlines()
    top = [n for n, line in enumerate(lines) if line and line[0].isalpha()]
    assert len(top) == len(Values.model_fields)
    assert [lines[n] for n in top if not lines[n - 1].startswith("#")] == []


def test_everything_set_sets_everything_to_something_else() -> None:
    """A value that no test sets does not exist."""
    default, everything = yaml.safe_load((CHART / "values.yaml").read_text()), yaml.safe_load(ALL_VALUES.read_text())
    assert default.keys() == everything.keys()
    same = {
        f"{a}.{b}"
        for a in default
        if isinstance(default[a], dict)
        for b in default[a]
        if everything[a].get(b) == default[a][b]
    }
    same |= {key for key in default if default[key] == everything[key]}
    assert same == {"rbac.create", "crds.enabled"}, "what is left out when these are false has tests of its own"


@pytest.mark.parametrize(
    ("argument", "where", "key"),
    [
        ("wacthNamespaces={a}", "", "wacthNamespaces"),
        ("settings.wrokers=4", "/settings", "wrokers"),
        ("settings.stageResources.train.requests.cpu=1", "/settings/stageResources", "train"),
        ("settings.namespaces={a}", "/settings", "namespaces"),
        ("image.tag=1", "/image", "tag"),
        ("image.pullPolicy=Sometimes", "/image/pullPolicy", "'IfNotPresent'"),
        ("settings.workers=0", "/settings/workers", "minimum"),
        ("storage.size=lots", "/storage/size", "pattern"),
        ("watchNamespaces={Team_A}", "/watchNamespaces/0", "pattern"),
    ],
)
def test_a_typo_in_the_values_is_refused_with_its_place(helm, argument, where, key) -> None:
    done = helm("template", "hatchery", str(CHART), KUBERNETES, f"--set={argument}")
    assert done.returncode != 0
    assert f"at '{where}'" in done.stderr
    assert key in done.stderr


def test_the_schema_is_strict_at_every_level() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    objects = [schema, *schema["$defs"].values()]
    assert [part["title"] for part in objects if part.get("additionalProperties") is not False] == []


@pytest.mark.parametrize("namespaces", [[], ["team-a", "team-b"]], ids=["cluster-wide", "namespaced"])
def test_the_roles_are_those_of_the_code(render, namespaces) -> None:
    documents = render(
        "--set=watchNamespaces={" + ",".join(namespaces) + "}" if namespaces else "--set=rbac.create=true"
    )
    found = [bare(d) for kind in ("ClusterRole", "Role") for d in of_kind(documents, kind)]
    expected = [*rbac.operator_roles(NAMESPACE, NAME, namespaces), *rbac.user_roles()]
    order = lambda role: (role["kind"], role["metadata"]["name"], role["metadata"].get("namespace", ""))  # noqa: E731
    assert sorted(found, key=order) == sorted(expected, key=order)
    bindings = [bare(d) for kind in ("ClusterRoleBinding", "RoleBinding") for d in of_kind(documents, kind)]
    bound = [rbac.binding(role, NAME, NAMESPACE) for role in expected[: -len(rbac.user_roles())]]
    assert sorted(bindings, key=order) == sorted(bound, key=order)


def test_no_role_is_rendered_when_somebody_else_makes_them(render) -> None:
    documents = render("--set=rbac.create=false,rbac.userRoles=false")
    assert [d["kind"] for d in documents if "Role" in d["kind"]] == []


def test_the_settings_file_follows_from_the_values(default, everything) -> None:
    assert settings_of(default) == Settings(
        progress={"serviceUrl": f"https://{NAME}.{NAMESPACE}.svc:8443"}  # type: ignore[arg-type]
    )
    settings, values = settings_of(everything), yaml.safe_load(ALL_VALUES.read_text())
    assert settings.namespaces == values["watchNamespaces"]
    assert (settings.jobs_image, settings.image_pull_policy) == (values["image"]["jobs"], values["image"]["pullPolicy"])
    assert values["settings"].items() <= settings.wire().items()


def test_the_ports_are_those_the_operator_listens_on(rendered) -> None:
    settings = settings_of(rendered)
    [container] = pod_of(rendered)["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {
        "metrics": settings.metrics_port,
        "health": settings.health_port,
        "progress": settings.progress.port,
    }
    [service] = of_kind(rendered, "Service")
    assert {port["name"]: port["port"] for port in service["spec"]["ports"]} == {
        k: ports[k] for k in ("metrics", "progress")
    }
    assert settings.progress.service_url == f"https://{service['metadata']['name']}.{NAMESPACE}.svc:{ports['progress']}"
    assert pod_of(rendered)["metadata"]["annotations"]["prometheus.io/port"] == str(ports["metrics"])


def test_a_change_of_the_settings_restarts_the_operator(render, default) -> None:
    def checksum(documents):
        return pod_of(documents)["metadata"]["annotations"]["checksum/config"]

    assert checksum(render("--set=settings.workers=9")) != checksum(default)
    assert checksum(render("--set=podMonitor.enabled=true")) == checksum(default)


def test_every_pod_keeps_to_restricted_pod_security(rendered) -> None:
    pods = [pod_of(rendered)["spec"], *(pod["spec"] for pod in of_kind(rendered, "Pod"))]
    assert len(pods) == 2
    for pod in pods:
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["containers"]:
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False
            assert context["readOnlyRootFilesystem"] is True
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert container["resources"]["limits"]["memory"]


def test_everything_set_reaches_the_pod(everything) -> None:
    values, pod = yaml.safe_load(ALL_VALUES.read_text()), pod_of(everything)
    [container] = pod["spec"]["containers"]
    assert container["image"] == values["image"]["operator"]
    assert container["imagePullPolicy"] == values["image"]["pullPolicy"]
    assert container["resources"] == values["resources"]
    assert pod["spec"]["imagePullSecrets"] == [{"name": "registry"}]
    for key in ("nodeSelector", "tolerations", "affinity", "priorityClassName"):
        assert pod["spec"][key] == values[key]
    assert values["podAnnotations"].items() <= pod["metadata"]["annotations"].items()
    assert values["podLabels"].items() <= pod["metadata"]["labels"].items()
    [account] = of_kind(everything, "ServiceAccount")
    assert account["metadata"]["annotations"] == values["serviceAccount"]["annotations"]


def test_selectors_find_the_operators_pod(everything, default) -> None:
    labels = pod_of(everything)["metadata"]["labels"].items()
    [service], [policy] = of_kind(everything, "Service"), of_kind(everything, "NetworkPolicy")
    [budget], [deployment] = of_kind(default, "PodDisruptionBudget"), of_kind(everything, "Deployment")
    [monitor] = of_kind(everything, "ServiceMonitor")
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    for selector in (
        service["spec"]["selector"],
        policy["spec"]["podSelector"]["matchLabels"],
        *(d["spec"]["selector"]["matchLabels"] for d in (budget, deployment, monitor)),
    ):
        assert selector.items() <= labels


def test_the_operators_policy_lets_in_metrics_and_progress_and_out_what_it_needs(everything) -> None:
    [policy] = of_kind(everything, "NetworkPolicy")
    ports = {port["name"]: port["containerPort"] for port in pod_of(everything)["spec"]["containers"][0]["ports"]}
    operator = Endpoint("10.1.0.1", NAMESPACE, pod_of(everything)["metadata"]["labels"], ports)
    run_pod, other = Endpoint("10.1.0.2", "team-a", {"hatchery.dev/uid": "u"}), Endpoint("10.1.0.3", "team-a")
    api_server, dns = Endpoint("192.0.2.1"), Endpoint("10.1.0.4", "kube-system")
    assert [name for name, port in ports.items() if allowed([policy], run_pod, operator, port)] == [
        "metrics",
        "progress",
    ]
    assert [name for name, port in ports.items() if allowed([policy], other, operator, port)] == ["metrics"]
    assert allowed([policy], operator, dns, 53, "UDP")
    assert allowed([policy], operator, api_server, 16443)
    assert not allowed([policy], operator, api_server, 80)


def test_optional_parts_are_absent_by_default(default) -> None:
    optional = {"PersistentVolumeClaim", "NetworkPolicy"}
    assert not {d["kind"] for d in default} & (optional | MONITORING)
    assert len(of_kind(default, "ConfigMap")) == 2


def test_a_claim_is_made_in_every_watched_namespace(everything, render) -> None:
    claims = of_kind(everything, "PersistentVolumeClaim")
    assert [(c["metadata"]["namespace"], c["metadata"]["name"]) for c in claims] == [
        ("team-a", "artifacts"),
        ("team-b", "artifacts"),
    ]
    assert claims[0]["spec"] == {
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": "fast",
        "resources": {"requests": {"storage": "2Ti"}},
    }
    [claim] = of_kind(render("--set=storage.create=true"), "PersistentVolumeClaim")
    assert claim["metadata"]["namespace"] == NAMESPACE
    assert claim["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}


def test_the_definitions_are_those_of_the_models_and_survive_an_uninstall(default, render) -> None:
    found = {crd["metadata"]["name"]: crd for crd in of_kind(default, "CustomResourceDefinition")}
    for kind in KINDS:
        crd = custom_resource_definition(kind)
        assert found[crd["metadata"]["name"]]["spec"] == crd["spec"]
        assert found[crd["metadata"]["name"]]["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    assert of_kind(render("--set=crds.enabled=false"), "CustomResourceDefinition") == []


def test_the_definitions_go_with_the_chart_where_that_is_asked_for(everything) -> None:
    for crd in of_kind(everything, "CustomResourceDefinition"):
        assert not crd["metadata"].get("annotations")


def test_an_operator_of_some_namespaces_has_nothing_cluster_wide_of_its_own(render) -> None:
    documents = render("--set=watchNamespaces={team-a,hatchery-system},crds.enabled=false,rbac.userRoles=false")
    assert [(d["kind"], d["metadata"]["name"]) for d in documents if "namespace" not in d["metadata"]] == []
    names = [(d["metadata"]["namespace"], d["metadata"]["name"]) for d in of_kind(documents, "Role")]
    assert len(set(names)) == len(names) == 3


def test_two_replicas_on_two_nodes_take_turns_without_a_gap(default, everything) -> None:
    [deployment] = of_kind(default, "Deployment")
    assert deployment["spec"]["replicas"] == 2
    assert deployment["spec"]["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
    [term] = pod_of(default)["spec"]["affinity"]["podAntiAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    assert term["podAffinityTerm"]["topologyKey"] == "kubernetes.io/hostname"
    selector = term["podAffinityTerm"]["labelSelector"]["matchLabels"]
    assert selector.items() <= pod_of(default)["metadata"]["labels"].items()
    [budget] = of_kind(default, "PodDisruptionBudget")
    assert budget["spec"]["maxUnavailable"] == 1
    assert of_kind(everything, "PodDisruptionBudget") == []
    assert of_kind(everything, "Deployment")[0]["spec"]["replicas"] == 3


def test_what_the_replicas_share_goes_with_the_chart(rendered) -> None:
    name = settings_of(rendered).operator_name
    [lease] = of_kind(rendered, "Lease")
    assert lease["metadata"]["name"] == name
    assert f"{name}-progress" in {config["metadata"]["name"] for config in of_kind(rendered, "ConfigMap")}
    assert "spec" not in lease, "an upgrade leaves the holder as it is"


def test_replicas_of_a_release_compete_for_a_lease_of_its_own(render, helm) -> None:
    assert settings_of(render()).operator_name == NAME
    done = helm("template", "second", str(CHART), f"--namespace={NAMESPACE}", KUBERNETES)
    assert settings_of([d for d in yaml.safe_load_all(done.stdout) if d]).operator_name == "second-operator"


def test_without_election_no_two_operators_ever_work_at_once(render, helm) -> None:
    [deployment] = of_kind(render("--set=settings.leaderElection.enabled=false,replicas=1"), "Deployment")
    assert deployment["spec"]["strategy"] == {"type": "Recreate"}
    done = helm("template", "hatchery", str(CHART), KUBERNETES, "--set=settings.leaderElection.enabled=false")
    assert done.returncode != 0
    assert "set replicas to 1" in done.stderr


def test_a_certificate_of_somebody_else_is_mounted_where_the_settings_say(everything, default) -> None:
    [container] = pod_of(everything)["spec"]["containers"]
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod_of(everything)["spec"]["volumes"]}
    assert settings_of(everything).progress.certificate == mounts["certificate"]
    assert volumes["certificate"]["secret"] == {"secretName": "operator-tls"}
    assert settings_of(default).progress.certificate is None


def test_no_secret_and_no_claim_of_the_host_is_in_any_object(rendered) -> None:
    text = json.dumps(rendered)
    assert of_kind(rendered, "Secret") == []
    for forbidden in ("hostPath", "hostNetwork", "privileged", "hostPID"):
        assert f'"{forbidden}"' not in text


def test_monitoring_is_what_the_repository_holds(everything) -> None:
    values = yaml.safe_load(ALL_VALUES.read_text())
    [rule] = of_kind(everything, "PrometheusRule")
    text = (CHART / "alerts.yaml").read_text().replace("docs/runbooks/", values["prometheusRule"]["runbooks"] + "/")
    assert rule["spec"] == yaml.safe_load(text)
    found = {
        key: json.loads(text)
        for config in of_kind(everything, "ConfigMap")
        if "dashboards" in config["metadata"]["labels"]
        for key, text in config["data"].items()
    }
    assert found == {f"hatchery-{p.name}": json.loads(p.read_text()) for p in (CHART / "dashboards").glob("*.json")}
    for kind in MONITORING:
        [document] = of_kind(everything, kind)
        assert document["metadata"]["labels"]["release"] == "prometheus"


def test_the_monitors_scrape_the_ports_that_serve_metrics(everything, render) -> None:
    [pods], [service] = of_kind(everything, "PodMonitor"), of_kind(everything, "ServiceMonitor")
    assert pods["spec"]["namespaceSelector"] == {"matchNames": ["team-a", "team-b"]}
    [all_pods] = of_kind(render("--set=podMonitor.enabled=true"), "PodMonitor")
    assert all_pods["spec"]["namespaceSelector"] == {"any": True}
    [endpoint], [pod_endpoint] = service["spec"]["endpoints"], pods["spec"]["podMetricsEndpoints"]
    assert (endpoint["port"], pod_endpoint["port"]) == ("metrics", "metrics")
    assert (endpoint["interval"], pod_endpoint["interval"]) == ("10s", "10s")


def test_a_pod_cannot_speak_for_another_run(everything) -> None:
    """Labels come from the pod's own labels, which the operator sets; what the pod writes on its page is dropped."""
    [monitor] = of_kind(everything, "PodMonitor")
    [endpoint] = monitor["spec"]["podMetricsEndpoints"]
    assert "honorLabels" not in endpoint
    assert {r["targetLabel"] for r in endpoint["relabelings"] if "targetLabel" in r} == {"kind", "name"}
    [drop] = endpoint["metricRelabelings"]
    assert (drop["action"], drop["regex"]) == ("labeldrop", "exported_(namespace|kind|name)")
