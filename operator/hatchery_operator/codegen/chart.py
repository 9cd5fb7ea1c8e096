"""The chart's values as a model: `values.yaml`, its schema and its reference page are generated from it."""

import json
import textwrap
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from hatchery_api import __version__
from hatchery_api.base import FreeObject, Model, Quantity, ResourceName
from hatchery_api.placement import LabelMap, Resources, Toleration
from hatchery_api.schema import BANNER, dump_yaml
from hatchery_operator.codegen import rbac
from hatchery_operator.settings import Image, Port, PullPolicy, Tuning

_WRAP_COLUMNS: Final = 110
_TEMPLATES: Final = "charts/hatchery/templates"
_Annotations = Annotated[dict[str, str], Field(max_length=64)]
_SCHEMA_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"

Interval = Annotated[str, Field(pattern="^[0-9]+(s|m)$")]
"""Scrape interval."""


class Images(Model):
    """Container images, by tag or digest (`name@sha256:…`)."""

    operator: Image = f"hatchery/operator:{__version__}"
    """Operator image."""
    jobs: Image = f"hatchery/jobs:{__version__}"
    """Image of the pods of runs, unless a resource sets `spec.image`."""
    pull_policy: PullPolicy = "IfNotPresent"
    """When nodes pull the images."""
    pull_secrets: Annotated[list[ResourceName], Field(max_length=16)] = []
    """Pull Secrets of the operator image. For the jobs image, add pull Secrets to the namespaces' ServiceAccounts."""


class Crds(Model):
    """The four custom resource definitions."""

    enabled: bool = True
    """Install and upgrade the CRDs with the chart; false if something else does."""
    keep: bool = True
    """Keep the CRDs, and with them every resource, when the chart is uninstalled."""


class RbacValues(Model):
    """RBAC of the operator and of users."""

    create: bool = True
    """Create the roles and bindings of the operator."""
    user_roles: bool = True
    """Create ClusterRoles that extend the `view`, `edit` and `admin` roles of Kubernetes to the four kinds. With
    several operators in a cluster, true for one of them."""


class ServiceAccount(Model):
    """The operator's ServiceAccount."""

    annotations: _Annotations = {}
    """Annotations, for workload identity for example."""


class StorageValues(Model):
    """A PersistentVolumeClaim with the name in `settings.claimName`."""

    create: bool = False
    """Create the claim in each of `watchNamespaces`, or in the release's namespace if that is empty."""
    size: Quantity = "20Gi"
    """Size of the claim."""
    access_modes: Annotated[list[Literal["ReadWriteOnce", "ReadWriteMany"]], Field(min_length=1, max_length=2)] = [
        "ReadWriteMany"
    ]
    """Access modes; training on several nodes needs ReadWriteMany."""
    storage_class_name: Annotated[str, Field(max_length=253)] | None = None
    """StorageClass; null for the cluster's default."""
    keep: bool = True
    """Keep the claim, and with it every artifact, when the chart is uninstalled."""


class ProgressValues(Model):
    """Live progress, which pods send to the operator over TLS."""

    certificate_secret: ResourceName | None = None
    """Secret of type `kubernetes.io/tls` with `ca.crt`, valid for the operator's Service, for example from
    cert-manager; null: each replica creates a certificate in memory."""


class Switch(Model):
    """An optional object."""

    enabled: bool = False
    """Create the object."""


class OperatorPolicy(Switch):
    """NetworkPolicy of the operator."""

    api_server_ports: Annotated[list[Port], Field(min_length=1, max_length=16)] = [443, 6443]
    """Ports of the API server, which has no pod to select."""


class DisruptionBudget(Model):
    """PodDisruptionBudget that lets a drain evict one replica at a time."""

    enabled: bool = True
    """Create the PodDisruptionBudget."""


# all of monitoring is off by default, since its CRDs may be missing
class Monitor(Model):
    """A PodMonitor or ServiceMonitor of the Prometheus operator."""

    enabled: bool = False
    """Create the object."""
    interval: Interval = "30s"
    """Scrape interval."""
    labels: LabelMap = {}
    """Labels that your Prometheus selects."""


class PrometheusRule(Model):
    """A PrometheusRule of the Prometheus operator."""

    enabled: bool = False
    """Create the object."""
    labels: LabelMap = {}
    """Labels that your Prometheus selects."""
    runbooks: Annotated[str, Field(min_length=1, max_length=512)] = "docs/runbooks"
    """URL of the folder docs/runbooks of this version, for links in notifications."""


class Dashboards(Model):
    """ConfigMaps with dashboards for the sidecar of Grafana's chart."""

    enabled: bool = False
    """Create the ConfigMaps."""
    labels: LabelMap = {"grafana_dashboard": "1"}
    """Labels that the sidecar selects."""
    annotations: Annotated[dict[str, str], Field(max_length=64)] = {"grafana_folder": "Hatchery"}
    """Annotations; they name the Grafana folder of the dashboards."""


class Values(Model):
    """All values of the chart. The schema rejects any other."""

    image: Images = Images()
    """Container images, by tag or digest (`name@sha256:…`)."""
    replicas: Annotated[int, Field(ge=1, le=5)] = 2
    """Replicas of the operator. One leads; the others stand by and accept progress reports."""
    watch_namespaces: Annotated[list[ResourceName], Field(max_length=256)] = []
    """Namespaces to watch, with a Role in each; empty: all namespaces, with a ClusterRole."""
    settings: Tuning = Tuning()
    """Settings file of the operator. The chart derives the settings that are missing here. A change restarts the
    operator."""
    resources: Resources = Resources(requests={"cpu": "50m", "memory": "128Mi"}, limits={"memory": "512Mi"})
    """Compute resources of the operator's pods."""
    node_selector: LabelMap = {}
    """Node selector of the operator's pods."""
    tolerations: Annotated[list[Toleration], Field(max_length=16)] = []
    """Tolerations of the operator's pods."""
    affinity: FreeObject = {}
    """Affinity of the operator's pods; empty: different nodes preferred."""
    priority_class_name: Annotated[str, Field(max_length=253)] | None = None
    """PriorityClass of the operator's pods."""
    pod_annotations: _Annotations = {}
    """Additional annotations of the operator's pods."""
    pod_labels: LabelMap = {}
    """Additional labels of the operator's pods."""
    service_account: ServiceAccount = ServiceAccount()
    """The operator's ServiceAccount."""
    rbac: RbacValues = RbacValues()
    """RBAC of the operator and of users."""
    crds: Crds = Crds()
    """The four custom resource definitions."""
    storage: StorageValues = StorageValues()
    """A PersistentVolumeClaim with the name in `settings.claimName`."""
    progress: ProgressValues = ProgressValues()
    """Live progress, which pods send to the operator over TLS."""
    pod_disruption_budget: DisruptionBudget = DisruptionBudget()
    """PodDisruptionBudget that lets a drain evict one replica at a time."""
    network_policy: OperatorPolicy = OperatorPolicy()
    """NetworkPolicy of the operator. Ingress: metrics, and progress from pods of runs. Egress: DNS and the API server.
    `settings.networkPolicies` configures the policies of runs."""
    service_monitor: Monitor = Monitor()
    """ServiceMonitor of the operator. Without the Prometheus operator, use the pods' `prometheus.io` annotations."""
    pod_monitor: Monitor = Monitor()
    """PodMonitor of the pods of runs. The pod with index 0 serves the metrics of all pods of a run."""
    prometheus_rule: PrometheusRule = PrometheusRule()
    """PrometheusRule with the alerts, each with a runbook."""
    dashboards: Dashboards = Dashboards()
    """ConfigMaps with the Grafana dashboards Fleet, Run, Evaluation and Operator."""
    global_: Annotated[dict[str, Any], Field(alias="global")] = {}
    """Global values of a parent chart; unused."""


def chart_files() -> dict[str, str]:
    """Every generated file of the chart except the CRDs, by path from the repository root."""
    return {
        "charts/hatchery/values.yaml": BANNER + _commented(Values(), 0),
        "charts/hatchery/values.schema.json": json.dumps(values_schema(), indent=2) + "\n",
        f"{_TEMPLATES}/rbac/replicas.yaml": _replicas_template(),
        f"{_TEMPLATES}/rbac/cluster.yaml": _cluster_template(),
        f"{_TEMPLATES}/rbac/namespaced.yaml": _namespaced_template(),
        f"{_TEMPLATES}/rbac/users.yaml": _users_template(),
    }


def values_schema() -> dict[str, Any]:
    """The JSON schema of the values."""
    return {"$schema": _SCHEMA_DIALECT, **Values.model_json_schema(by_alias=True)}


def _commented(model: Any, depth: int) -> str:
    """A model as YAML, each key below a comment with its description."""
    indent, blocks = "  " * depth, []
    for name, field in type(model).model_fields.items():
        value, key = getattr(model, name), field.alias or name
        text = " ".join((field.description or "").split())
        comment = textwrap.fill(
            text, _WRAP_COLUMNS, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# ", break_on_hyphens=False
        )
        if isinstance(value, Model) and not isinstance(value, Resources):
            blocks.append(f"{comment}\n{indent}{key}:\n{_commented(value, depth + 1)}")
        else:
            plain = value.wire() if isinstance(value, Model) else value
            blocks.append(f"{comment}\n{textwrap.indent(dump_yaml({key: plain}), indent)}")
    return ("\n" if depth == 0 else "").join(blocks)


_NAME: Final = '{{ include "hatchery.fullname" . }}'
_NAMESPACE: Final = "{{ .Release.Namespace }}"
_LABELS: Final = '{{- include "hatchery.labels" . | nindent 4 }}'


def _templated(manifest: dict[str, Any], replacements: dict[str, str]) -> str:
    """A manifest as template text: labels added, placeholders replaced by template actions."""
    text = dump_yaml(manifest)
    marker = "  labels:\n"
    if marker not in text:
        text = text.replace("metadata:\n", f"metadata:\n{marker}", 1)
    text = text.replace(marker, f"{marker}    {_LABELS}\n", 1)
    for placeholder, action in replacements.items():
        text = text.replace(placeholder, action)
    return text


def _document(condition: str, *parts: str) -> str:
    return BANNER + f"{{{{- if {condition} }}}}\n" + "---\n".join(parts) + "{{- end }}\n"


def _pair(role: dict[str, Any], replacements: dict[str, str]) -> str:
    """A role and its binding to the operator's ServiceAccount, as template text."""
    bound = rbac.binding(role, "ACCOUNT", "ACCOUNTS-NAMESPACE")
    replacements = {**replacements, "ACCOUNTS-NAMESPACE": _NAMESPACE, "ACCOUNT": _NAME}
    return _templated(role, replacements) + "---\n" + _templated(bound, replacements)


def _replicas_template() -> str:
    own, _ = rbac.operator_roles("HOME", "ROLE")
    return _document(".Values.rbac.create", _pair(own, {"ROLE": _NAME, "HOME": _NAMESPACE}))


def _cluster_template() -> str:
    _, served = rbac.operator_roles("HOME", "ROLE")
    return _document("and .Values.rbac.create (not .Values.watchNamespaces)", _pair(served, {"ROLE": _NAME}))


def _namespaced_template() -> str:
    _, served = rbac.operator_roles("HOME", "ROLE", ["WATCHED"])
    replacements = {"ROLE": _NAME, "WATCHED": "{{ $namespace }}"}
    loop = "{{- range $namespace := .Values.watchNamespaces }}\n{{- with $ }}\n---\n"
    return _document(
        "and .Values.rbac.create .Values.watchNamespaces",
        loop + _pair(served, replacements) + "{{- end }}\n{{- end }}\n",
    )


def _users_template() -> str:
    return _document(".Values.rbac.userRoles", *(_templated(role, {}) for role in rbac.user_roles()))
