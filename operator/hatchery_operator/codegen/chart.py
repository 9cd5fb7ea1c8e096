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
from hatchery_operator.codegen.chart_monitoring import Dashboards, Monitor, PrometheusRule
from hatchery_operator.settings import Image, Port, PullPolicy, Tuning

_WRAP_COLUMNS: Final = 110
_TEMPLATES: Final = "charts/hatchery/templates"
_Annotations = Annotated[dict[str, str], Field(max_length=64)]
_SCHEMA_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"


class Images(Model):
    """Container images; a digest (`name@sha256:…`) works too."""

    operator: Image = f"hatchery/operator:{__version__}"
    """Image of the operator."""
    jobs: Image = f"hatchery/jobs:{__version__}"
    """Image of the pods that do the work, where a resource sets no `spec.image`."""
    pull_policy: PullPolicy = "IfNotPresent"
    """When nodes pull either image."""
    pull_secrets: Annotated[list[ResourceName], Field(max_length=16)] = []
    """Secrets to pull the operator's image with. For the jobs' image add them to the namespaces' ServiceAccounts."""


class Crds(Model):
    """The four custom resource definitions."""

    enabled: bool = True
    """Install and upgrade them with the chart; false where something else does."""
    keep: bool = True
    """Keep them, and with them every resource, when the chart is removed."""


class RbacValues(Model):
    """Permissions."""

    create: bool = True
    """Create the operator's roles and bindings."""
    user_roles: bool = True
    """Create ClusterRoles that let Kubernetes' own `view`, `edit` and `admin` roles see and change the four kinds;
    false for all but one operator of a cluster."""


class ServiceAccount(Model):
    """The operator's ServiceAccount."""

    annotations: _Annotations = {}
    """Annotations."""


class StorageValues(Model):
    """A PersistentVolumeClaim with the name in `settings.claimName`."""

    create: bool = False
    """Create it, in each of `watchNamespaces`, or else in the release's namespace."""
    size: Quantity = "20Gi"
    """Its size."""
    access_modes: Annotated[list[Literal["ReadWriteOnce", "ReadWriteMany"]], Field(min_length=1, max_length=2)] = [
        "ReadWriteMany"
    ]
    """How it is shared; training on several nodes needs ReadWriteMany."""
    storage_class_name: Annotated[str, Field(max_length=253)] | None = None
    """StorageClass; null for the cluster's default."""
    keep: bool = True
    """Keep it, and with it every artifact, when the chart is removed."""


class ProgressValues(Model):
    """Live progress, which pods post to the operator over TLS."""

    certificate_secret: ResourceName | None = None
    """Secret of type `kubernetes.io/tls` with `ca.crt`, from cert-manager for example, valid for the operator's
    Service; null for certificates that each replica makes in memory."""


class Switch(Model):
    """Something optional."""

    enabled: bool = False
    """Create it."""


class OperatorPolicy(Switch):
    """NetworkPolicy of the operator: progress from the pods of runs and metrics in, DNS and the API server out."""

    api_server_ports: Annotated[list[Port], Field(min_length=1, max_length=16)] = [443, 6443]
    """Ports of the API server; it has no pod that could be selected."""


class DisruptionBudget(Model):
    """PodDisruptionBudget that lets a drain move the operator, one pod at a time."""

    enabled: bool = True
    """Create it."""


class Values(Model):
    """All values of the chart; one that is not listed here is refused."""

    image: Images = Images()
    """Container images; a digest (`name@sha256:…`) works too."""
    replicas: Annotated[int, Field(ge=1, le=5)] = 2
    """Pods of the operator: one works, the others stand by and take progress reports."""
    watch_namespaces: Annotated[list[ResourceName], Field(max_length=256)] = []
    """Namespaces the operator serves, with a Role in each; empty for all, with a ClusterRole."""
    settings: Tuning = Tuning()
    """Settings of the operator, as in its settings file; a change restarts it. The others follow from these values."""
    resources: Resources = Resources(requests={"cpu": "50m", "memory": "128Mi"}, limits={"memory": "512Mi"})
    """Compute resources of the operator's pod."""
    node_selector: LabelMap = {}
    """Labels a node must have to run the operator."""
    tolerations: Annotated[list[Toleration], Field(max_length=16)] = []
    """Taints the operator's pod tolerates."""
    affinity: FreeObject = {}
    """Affinity of the operator's pods; empty, they are on different nodes if that is possible."""
    priority_class_name: Annotated[str, Field(max_length=253)] | None = None
    """PriorityClass of the operator's pod."""
    pod_annotations: _Annotations = {}
    """Further annotations of the operator's pod."""
    pod_labels: LabelMap = {}
    """Further labels of the operator's pod."""
    service_account: ServiceAccount = ServiceAccount()
    """The operator's ServiceAccount."""
    rbac: RbacValues = RbacValues()
    """Permissions."""
    crds: Crds = Crds()
    """The four custom resource definitions."""
    storage: StorageValues = StorageValues()
    """A PersistentVolumeClaim with the name in `settings.claimName`."""
    progress: ProgressValues = ProgressValues()
    """Live progress, which pods post to the operator over TLS."""
    pod_disruption_budget: DisruptionBudget = DisruptionBudget()
    """PodDisruptionBudget that lets a drain move the operator, one pod at a time."""
    network_policy: OperatorPolicy = OperatorPolicy()
    """NetworkPolicy of the operator: progress from the pods of runs and metrics in, DNS and the API server out. Those
    of the runs are in `settings.networkPolicies`."""
    service_monitor: Monitor = Monitor()
    """ServiceMonitor of the operator; plain Prometheus finds all pods by their `prometheus.io` annotations."""
    pod_monitor: Monitor = Monitor()
    """PodMonitor of the pods that do the work; of several pods of a run, the one with index 0 tells of all."""
    prometheus_rule: PrometheusRule = PrometheusRule()
    """PrometheusRule with the alerts, each with a runbook."""
    dashboards: Dashboards = Dashboards()
    """ConfigMaps with the Grafana dashboards Fleet, Run, Evaluation and Operator."""
    global_: Annotated[dict[str, Any], Field(alias="global")] = {}
    """Global values of a parent chart; not used."""


def chart_files() -> dict[str, str]:
    """Every generated file of the chart, by path from the repository's root, beside the CRDs."""
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
    """A model as YAML, each key below its description."""
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
    """A role and its binding to the operator's ServiceAccount, both placeholders still in."""
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
