"""One cluster, one operator, one Hub for all end-to-end tests; a namespace for each module."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from tests.cluster.cluster import Cluster
from tests.cluster.images import ensure_images
from tests.cluster.prometheus import ensure_prometheus
from tests.cluster.tools import ensure_tools
from tests.support.kube.deploy import OPERATOR_NAMESPACE, install_chart, start_hub
from tests.support.kube.installation import HUB_NAMESPACE, HUB_PORT, HUB_TOKEN, HUB_URL, namespace_objects
from tests.support.kube.kubectl import Kube


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here needs the cluster, and the first run builds it."""
    for item in items:
        if "tests/e2e" in str(item.path):
            item.add_marker(pytest.mark.e2e)
            item.add_marker(pytest.mark.timeout(3600))
    # permissions are judged by all that was done before, and the upgrade replaces the operator that did it
    last = {"test_permissions": 1, "test_upgrade": 2}
    items.sort(key=lambda item: last.get(item.path.stem, 0))


@dataclass(frozen=True)
class Hub:
    """The Hub-compatible server."""

    url: str
    """As this machine reaches it."""
    endpoint: str
    """As pods reach it."""
    token: str
    """May read and write."""


@pytest.fixture(scope="session")
def cluster() -> Cluster:
    """The machine's cluster, or the one of HATCHERY_KUBECONTEXT."""
    return Cluster()


@pytest.fixture(scope="session")
def kube(cluster: Cluster) -> Kube:
    """Access to the cluster, started if need be."""
    return Kube(cluster.up(), [str(ensure_tools(cluster.layout) / "kube"), "kubectl"])


@pytest.fixture(scope="session")
def prometheus(cluster: Cluster, kube: Kube) -> str | None:
    """Address of a Prometheus that scrapes the pods of the local cluster; none for somebody's own cluster."""
    return None if cluster.context else ensure_prometheus(cluster.layout).address


@pytest.fixture(scope="session")
def images(cluster: Cluster, kube: Kube) -> dict[str, str]:
    """References of the real images, built and pushed if anything changed."""
    return ensure_images(cluster.layout)


@pytest.fixture(scope="session")
def hub(kube: Kube, images: dict[str, str]) -> Iterator[Hub]:
    """A fresh Hub in the cluster."""
    kube.kubectl("delete", "namespace", HUB_NAMESPACE, "--ignore-not-found", "--wait")
    start_hub(kube, images["jobs"])
    with kube.forward(HUB_NAMESPACE, "service/hub", HUB_PORT) as address:
        yield Hub(url=f"http://{address}", endpoint=HUB_URL, token=HUB_TOKEN)


@pytest.fixture(scope="session")
def operator(cluster: Cluster, kube: Kube, images: dict[str, str]) -> str:
    """The chart, installed; gives the operator's namespace."""
    install_chart(cluster, kube, images)
    return OPERATOR_NAMESPACE


@pytest.fixture(scope="module")
def namespace(request: pytest.FixtureRequest, kube: Kube, operator: str, hub: Hub) -> Iterator[str]:
    """A fresh restricted namespace with a volume and the Hub's token; its pods must not crowd out the next module's."""
    name = "e2e-" + request.module.__name__.rsplit(".", 1)[-1].removeprefix("test_").replace("_", "-")
    kube.kubectl("delete", "namespace", name, "--ignore-not-found", "--wait")
    kube.apply(*namespace_objects(name))
    yield name
    kube.kubectl("delete", "namespace", name, "--wait=false")
    kube.kubectl("wait", "-n", name, "--for=delete", "pods", "--all", "--timeout=180s")
