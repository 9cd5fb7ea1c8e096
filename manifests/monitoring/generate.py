"""Writes or checks dashboards and PrometheusRule: `python -m manifests.monitoring.generate [--check]`."""

import json
import sys
from pathlib import Path
from typing import Final

import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from manifests.monitoring.control import control
from manifests.monitoring.evaluation import evaluation
from manifests.monitoring.fleet import fleet
from manifests.monitoring.run import run

from hatchery_api.schema import BANNER, dump_yaml, run_generator

ALERTS: Final = Path(__file__).resolve().parents[2] / "charts/hatchery/alerts.yaml"
"""Alerting rules in the format of Prometheus."""

DASHBOARDS: Final = {"fleet": fleet, "run": run, "evaluation": evaluation, "operator": control}
"""Dashboards by file name."""


def generated_files() -> dict[str, str]:
    """Content of every generated file, by path from the repository root."""
    rule = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "hatchery-operator", "namespace": "hatchery-system"},
        "spec": yaml.safe_load(ALERTS.read_text(encoding="utf-8")),
    }
    dashboards = {
        f"charts/hatchery/dashboards/{name}.json": json.dumps(make(), cls=JSONEncoder, indent=2, sort_keys=True) + "\n"
        for name, make in DASHBOARDS.items()
    }
    return {**dashboards, "manifests/monitoring/prometheusrule.yaml": BANNER + dump_yaml(rule)}


if __name__ == "__main__":
    sys.exit(run_generator(generated_files()))
