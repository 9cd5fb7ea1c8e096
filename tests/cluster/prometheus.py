"""A real Prometheus (Debian's) on loopback, with a configuration of the caller's or one that finds pods."""

import contextlib
import http.client
import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.cluster import packages
from tests.cluster.console import wait_for
from tests.cluster.control_plane import Ports
from tests.cluster.errors import ClusterError
from tests.cluster.files import write_if_changed
from tests.cluster.layout import PROMETHEUS_PORT, Layout
from tests.cluster.processes import Processes
from tests.cluster.tools import ensure_tools

SCRAPE_INTERVAL = "2s"
"""Short, so that a test sees a value soon after it exists."""

Config = dict[str, object]


def pod_scrape_config(targets: Path) -> Config:
    """Return a configuration that scrapes annotated pods, labelled by namespace, pod and run.

    `targets` is the file that `kube discover` keeps, with the labels of Prometheus's own kubernetes_sd: Debian's
    build has no kubernetes_sd, so everything but the discovery's source is as it would be in a cluster.
    """
    meta = "__meta_kubernetes_pod"
    relabel: list[Config] = [
        {"source_labels": [f"{meta}_annotation_prometheus_io_scrape"], "action": "keep", "regex": "true"},
        {"source_labels": [f"{meta}_phase"], "action": "drop", "regex": "Succeeded|Failed"},
        {
            "source_labels": [f"{meta}_ip", f"{meta}_annotation_prometheus_io_port"],
            "action": "replace",
            "regex": "(.+);([0-9]+)",
            "replacement": "$1:$2",
            "target_label": "__address__",
        },
        {
            "source_labels": [f"{meta}_annotation_prometheus_io_path"],
            "regex": "(.+)",
            "target_label": "__metrics_path__",
        },
        {"source_labels": ["__meta_kubernetes_namespace"], "target_label": "namespace"},
        {"source_labels": [f"{meta}_name"], "target_label": "pod"},
        {"source_labels": [f"{meta}_label_hatchery_dev_name"], "target_label": "run"},
    ]
    discovery = {"files": [str(targets)]}
    job = {"job_name": "pods", "file_sd_configs": [discovery], "relabel_configs": relabel}
    return {
        "global": {"scrape_interval": SCRAPE_INTERVAL, "scrape_timeout": SCRAPE_INTERVAL},
        "scrape_configs": [job],
    }


class Prometheus:
    """One server with its data in one state folder."""

    def __init__(self, state: Path, port: int) -> None:
        self.state = state
        self.address = f"http://127.0.0.1:{port}"
        self.processes = Processes(state)

    def start(self, config: Config) -> None:
        """Start it, or restart it when the configuration differs, and return when it answers."""
        packages.ensure_packages(packages.PROMETHEUS, "collecting metrics")
        path, text = self.state / "prometheus.json", json.dumps(config, indent=1)
        write_if_changed(path, text)
        command = [
            "prometheus",
            f"--config.file={path}",
            f"--storage.tsdb.path={self.state / 'prometheus'}",
            f"--web.listen-address={self.address.removeprefix('http://')}",
            "--log.level=warn",
        ]
        self.processes.ensure("prometheus", command, configuration=text)
        wait_for(
            f"Prometheus at {self.address}",
            self._is_ready,
            why="it opens its database",
            timeout_seconds=30,
            still_possible=lambda: self.processes.died("prometheus"),
        )

    def stop(self) -> None:
        """End it; its data stays in the state folder."""
        self.processes.stop("prometheus")

    def query(self, expression: str, at: float | None = None) -> list[dict[str, object]]:
        """Return the series that an instant query finds, now or at a Unix time: their labels and `[time, value]`."""
        parameters = {"query": expression} | ({} if at is None else {"time": str(at)})
        result: list[dict[str, object]] = self.api(f"query?{urllib.parse.urlencode(parameters)}")["result"]
        return result

    def api(self, path: str) -> Any:
        """Return the data of an answer of the HTTP API; a refusal is an error that says why."""
        try:
            with self._open(f"/api/v1/{path}") as answer:
                return json.loads(answer.read())["data"]
        except urllib.error.HTTPError as error:
            msg = f"Prometheus at {self.address} refused {urllib.parse.unquote_plus(path)!r}: {error.read().decode()}"
            raise ClusterError(msg) from error

    def _is_ready(self) -> bool:
        try:
            with self._open("/-/ready"):
                return True
        except OSError:
            return False

    def _open(self, path: str) -> http.client.HTTPResponse:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        answer: http.client.HTTPResponse = opener.open(self.address + path, timeout=5)
        return answer


@contextlib.contextmanager
def prometheus(state: Path, config: Config) -> Iterator[Prometheus]:
    """Run a server on a free port for the length of a test."""
    server = Prometheus(state, Ports.free().api)
    server.start(config)
    try:
        yield server
    finally:
        server.stop()


def ensure_prometheus(layout: Layout) -> Prometheus:
    """Run the cluster's server on its fixed port, scraping annotated pods."""
    targets = layout.state / "prometheus-targets.json"
    discovery = [ensure_tools(layout) / "kube", "discover", layout.kubeconfig, targets]
    server = Prometheus(layout.state, PROMETHEUS_PORT)
    server.processes.ensure("discovery", discovery)
    server.start(pod_scrape_config(targets))
    return server
