"""Monitoring values of the chart. All are off by default, since the CRDs of monitoring may be missing."""

from typing import Annotated

from pydantic import Field

from hatchery_api.base import Model
from hatchery_api.placement import LabelMap

Interval = Annotated[str, Field(pattern="^[0-9]+(s|m)$")]
"""Scrape interval."""


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
