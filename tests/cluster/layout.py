"""Where everything lies, and the fixed addresses of the cluster.

Two folders: the cache (binaries, image layers; survives `down`) and the state (one running cluster; `down`
removes it whole). Both can be moved by environment variables, so nothing depends on a machine's paths.
"""

import os
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
"""Root of the checkout: images are built from it."""

NODE_NAME = "hatchery-node"
NODE_LINK = "hatchery0"
"""A bridge without ports that carries the node's address: fixed, and not reachable from another machine."""
NODE_ADDRESS = "10.245.0.1"
POD_BRIDGE = "cni0"
POD_CIDR = "10.244.0.0/16"
NODE_POD_CIDR = "10.244.0.0/24"
SERVICE_CIDR = "10.96.0.0/16"
KUBERNETES_SERVICE = "10.96.0.1"
DNS_SERVICE = "10.96.0.10"
CLUSTER_DOMAIN = "cluster.local"

API_PORT = 6443
REGISTRY_PORT = 5000
PROMETHEUS_PORT = 9090
DNS_PORT = 1053
"""CoreDNS listens here on the node's address; the Service kube-dns maps port 53 to it."""

CONTEXT_VARIABLE = "HATCHERY_KUBECONTEXT"
"""Names a context of the user's own kubeconfig; then no cluster is started and that one is used."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The two folders and the paths below them that more than one module needs."""

    cache: Path
    state: Path

    @classmethod
    def from_environment(cls) -> "Layout":
        """Take HATCHERY_CACHE and HATCHERY_STATE, or folders under ~/.cache/hatchery."""
        cache = Path(os.environ.get("HATCHERY_CACHE") or Path.home() / ".cache" / "hatchery")
        state = Path(os.environ.get("HATCHERY_STATE") or cache / "state")
        return cls(cache=cache.absolute(), state=state.absolute())

    @property
    def binaries(self) -> Path:
        """One folder per hash of the Go modules and tool versions."""
        return self.cache / "cluster"

    @property
    def peers(self) -> Path:
        """Programs that ours is measured against, one folder per version."""
        return self.cache / "peers"

    @property
    def images(self) -> Path:
        """Everything about images: buildah's storage, the registry's blobs, containerd's snapshots."""
        return self.cache / "images"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig; it works from any folder."""
        return self.state / "kubeconfig"

    @property
    def containerd_socket(self) -> Path:
        """containerd's gRPC socket, for the kubelet and `ctr`."""
        return self.state / "containerd" / "containerd.sock"

    @property
    def volumes(self) -> Path:
        """Folders behind the PersistentVolumes."""
        return self.state / "volumes"

    @property
    def before(self) -> Path:
        """What the machine looked like before `up`, so that `down` can put it back."""
        return self.state / "before.json"
