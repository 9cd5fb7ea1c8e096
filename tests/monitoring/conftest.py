"""A real Prometheus that scrapes the two real pages of metrics as the chart's monitors do."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from tests.cluster import packages
from tests.cluster.console import wait_for
from tests.cluster.prometheus import Prometheus, prometheus
from tests.monitoring import ALERTS
from tests.support.operator.exporters import NAME, NAMESPACE, OperatorExporter, PodExporter

SCRAPES = 6
"""Scrapes of each page before anything is asked: a rate needs several samples."""


@pytest.fixture(scope="session")
def promtool() -> str:
    packages.ensure_packages(packages.PROMETHEUS, "checking metrics and alerts")
    return "promtool"


def scrape_config(operator_port: int, pod_port: int) -> dict[str, Any]:
    """What the chart's ServiceMonitor and PodMonitor make of the two pages, scraped every second."""

    def target(port: int, **labels: str) -> list[dict[str, Any]]:
        return [{"targets": [f"127.0.0.1:{port}"], "labels": labels}]

    return {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s", "scrape_timeout": "1s"},
        "rule_files": [str(ALERTS)],
        "scrape_configs": [
            {
                "job_name": "hatchery-operator",
                "honor_labels": True,
                "static_configs": target(operator_port, namespace="hatchery-system"),
            },
            {
                "job_name": "hatchery-runs",
                "static_configs": target(pod_port, namespace=NAMESPACE, name=NAME, kind="PretrainRun"),
                "metric_relabel_configs": [{"regex": "exported_(namespace|kind|name)", "action": "labeldrop"}],
            },
        ],
    }


@dataclass(frozen=True)
class Scraped:
    """A Prometheus, asked as of the moment at which its targets stopped changing: later their rates are 0."""

    server: Prometheus
    at: float

    def query(self, expression: str) -> list[dict[str, object]]:
        return self.server.query(expression, self.at)

    def api(self, path: str) -> Any:
        return self.server.api(path)


@pytest.fixture(scope="package")
def scraped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scraped]:
    """A Prometheus that has scraped both pages several times while their numbers changed."""
    folder = tmp_path_factory.mktemp("monitoring")
    pod = PodExporter(folder)
    with OperatorExporter() as operator, pod.recorder:
        config = scrape_config(operator.port, pod.port)
        with prometheus(folder, config) as server:

            def both_are_scraped() -> bool:
                operator.step()
                pod.step()
                counts = server.query("count_over_time(up[10m]) and up == 1")
                return len(counts) == 2 and all(float(one["value"][1]) >= SCRAPES for one in counts)  # type: ignore[index]

            wait_for(f"{SCRAPES} scrapes", both_are_scraped, why="a rate needs several samples", timeout_seconds=90)
            yield Scraped(server, time.time())
