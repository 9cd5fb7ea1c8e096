"""Deploys the product for the demo and the end-to-end tests."""

import subprocess
from pathlib import Path

from tests.cluster.cluster import Cluster
from tests.cluster.layout import REPOSITORY
from tests.cluster.tools import ensure_tools
from tests.support.kube.installation import HUB_NAMESPACE, HUB_URL, RESTRICTED, hub_objects
from tests.support.kube.kubectl import Kube, WaitedInVainError

CHART = REPOSITORY / "charts/hatchery"

OPERATOR_NAMESPACE = "hatchery-system"
"""Namespace of the chart's release."""


def start_hub(kube: Kube, jobs_image: str) -> None:
    """Starts the Hub-compatible server, unless one with the same sources is running."""
    kube.apply(*hub_objects(jobs_image))
    kube.kubectl("rollout", "status", "-n", HUB_NAMESPACE, "deployment/hub", "--timeout=300s")


def install_chart(cluster: Cluster, kube: Kube, images: dict[str, str], chart: Path = CHART) -> None:
    """Installs or upgrades the operator in a namespace that admits only restricted pods, and waits until it is ready."""
    metadata = {"name": OPERATOR_NAMESPACE, "labels": RESTRICTED}
    kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
    command = [
        *(str(ensure_tools(cluster.layout) / "helm"), "upgrade", "--install", "hatchery", str(chart)),
        *(f"--kubeconfig={kube.kubeconfig}", f"--namespace={OPERATOR_NAMESPACE}"),
        *(f"--set=image.operator={images['operator']}", f"--set=image.jobs={images['jobs']}"),
        *(f"--set=settings.hubEndpoint={HUB_URL}", "--wait", "--timeout=3m"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pods = kube.kubectl("get", "pods", "-n", OPERATOR_NAMESPACE, "-o", "wide", check=False)
        logs = operator_log(kube, lines=30, check=False)
        raise WaitedInVainError(f"the chart cannot be installed: {done.stderr.strip()}\n{pods}\n{logs}")


def operator_log(kube: Kube, lines: int = -1, *, check: bool = True) -> str:
    """The last lines of every replica, since any may be the leader; -1: all lines."""
    pods = ("-n", OPERATOR_NAMESPACE, "-l", "app.kubernetes.io/part-of=hatchery")
    return kube.kubectl("logs", *pods, f"--tail={lines}", check=check)


def uninstall_chart(cluster: Cluster, kube: Kube) -> None:
    """Uninstalls the chart and waits until its pods are gone."""
    command = [str(ensure_tools(cluster.layout) / "helm"), "uninstall", "hatchery", f"--namespace={OPERATOR_NAMESPACE}"]
    subprocess.run([*command, f"--kubeconfig={kube.kubeconfig}", "--wait", "--timeout=2m"], check=True)
