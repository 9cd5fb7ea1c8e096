"""The chart's values about monitoring; all of it is off by default, since its definitions may be absent."""

from typing import Annotated

from pydantic import Field

from hatchery_api.base import Model
from hatchery_api.placement import LabelMap

Interval = Annotated[str, Field(pattern="^[0-9]+(s|m)$")]
"""Time between two scrapes."""


class Monitor(Model):
    """A PodMonitor or ServiceMonitor of the Prometheus operator."""

    enabled: bool = False
    """Create it."""
    interval: Interval = "30s"
    """Time between two scrapes."""
    labels: LabelMap = {}
    """Labels your Prometheus selects it by."""


class PrometheusRule(Model):
    """A PrometheusRule of the Prometheus operator."""

    enabled: bool = False
    """Create it."""
    labels: LabelMap = {}
    """Labels your Prometheus selects it by."""
    runbooks: Annotated[str, Field(min_length=1, max_length=512)] = "docs/runbooks"
    """Where people find the folder docs/runbooks of this version, for the links of notifications: a URL."""


class Dashboards(Model):
    """ConfigMaps with dashboards, for the sidecar of Grafana's chart."""

    enabled: bool = False
    """Create them."""
    labels: LabelMap = {"grafana_dashboard": "1"}
    """Labels the sidecar selects ConfigMaps by."""
    annotations: Annotated[dict[str, str], Field(max_length=64)] = {"grafana_folder": "Hatchery"}
    """Annotations; the sidecar puts the dashboards into this folder."""
