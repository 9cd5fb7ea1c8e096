"""A real single-node Kubernetes from ordinary packages, for tests and for the demo."""

from tests.cluster.control_plane import ControlPlane, Ports
from tests.cluster.errors import ClusterError

__all__ = ["ClusterError", "ControlPlane", "Ports"]
