"""Metrics, alerts and dashboards against the real Prometheus and the real exporters."""

import json
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ALERTS = ROOT / "charts/hatchery/alerts.yaml"
DASHBOARDS = {path.stem: json.loads(path.read_text()) for path in (ROOT / "charts/hatchery/dashboards").glob("*.json")}
