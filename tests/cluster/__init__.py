"""A real single-node Kubernetes from ordinary packages, for tests and for the demo."""

from tests.cluster.cluster import Cluster
from tests.cluster.control_plane import ControlPlane, Ports
from tests.cluster.errors import ClusterError
from tests.cluster.images import ensure_images
from tests.cluster.prometheus import Prometheus, pod_scrape_config, prometheus

__all__ = [
    "Cluster",
    "ClusterError",
    "ControlPlane",
    "Ports",
    "Prometheus",
    "ensure_images",
    "pod_scrape_config",
    "prometheus",
]
