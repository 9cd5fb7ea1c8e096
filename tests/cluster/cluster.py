"""Start the cluster, repair it, tell its state. Stopping is in `teardown`."""

import json
import os
import shutil
import subprocess
import urllib.request
from pathlib import Path

from tests.cluster import firewall, host, node, packages, prometheus, teardown
from tests.cluster.console import say, wait_for
from tests.cluster.control_plane import LOOPBACK, ControlPlane, Ports, run_kubectl
from tests.cluster.errors import ClusterError
from tests.cluster.files import write_if_changed
from tests.cluster.layout import API_PORT, CONTEXT_VARIABLE, NODE_ADDRESS, NODE_NAME, Layout
from tests.cluster.locks import locked
from tests.cluster.manifests import dns_objects
from tests.cluster.pause_image import write_pause_archive
from tests.cluster.registry import ensure_registry
from tests.cluster.storage import recycle
from tests.cluster.tools import ensure_tools

COMPONENTS = (
    "registry",
    "containerd",
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "api-forward",
    "kubelet",
    "kube-proxy",
    "coredns",
)
"""Processes of a whole cluster."""

NODE_READY_SECONDS = 90.0


class Cluster:
    """The one cluster of this machine, or the one that HATCHERY_KUBECONTEXT names."""

    def __init__(self, layout: Layout | None = None) -> None:
        self.layout = layout or Layout.from_environment()
        self.context = os.environ.get(CONTEXT_VARIABLE) or None

    @property
    def plane(self) -> ControlPlane:
        """The control plane on its fixed ports."""
        return ControlPlane(
            self.layout.state,
            Ports(api=API_PORT),
            controllers=True,
            scheduler=True,
            node_address=NODE_ADDRESS,
            layout=self.layout,
        )

    def up(self, *, with_prometheus: bool = False) -> Path:
        """Return the kubeconfig of a healthy cluster, starting or repairing whatever is not running."""
        if self.context:
            return self._use_context(self.context)
        if os.geteuid() != 0:
            msg = f"a node needs root; to use a cluster of yours instead, set {CONTEXT_VARIABLE} to its context"
            raise ClusterError(msg)
        packages.ensure_packages(packages.NODE, "running a node")
        with locked(self.layout.cache / "lock", "starting the cluster"):
            binaries = ensure_tools(self.layout)
            before = self._pids()
            host.remember(self.layout)
            host.prepare()
            self._start(binaries)
            if before != self._pids():
                self._finish(binaries)
            recycle(self.layout, self.plane)
            if with_prometheus:
                prometheus.ensure_prometheus(self.layout)
        say(f"the cluster is up: export KUBECONFIG={self.layout.kubeconfig}")
        return self.layout.kubeconfig

    def _use_context(self, context: str) -> Path:
        """Write a kubeconfig for the user's own context and make sure that it answers."""
        kubectl = shutil.which("kubectl")
        command = [kubectl] if kubectl else [str(ensure_tools(self.layout) / "kube"), "kubectl"]
        view = [*command, "config", "view", "--minify", "--flatten", f"--context={context}"]
        path = self.layout.cache / "context-kubeconfig"
        for arguments, target in ((view, path), ([*command, f"--kubeconfig={path}", "get", "--raw=/readyz"], None)):
            result = subprocess.run(arguments, capture_output=True, text=True, check=False)
            if result.returncode != 0:
                msg = f"{CONTEXT_VARIABLE}={context} does not answer: {result.stderr.strip()}"
                raise ClusterError(msg)
            if target is not None:
                write_if_changed(target, result.stdout, mode=0o600)
        say(f"using the context {context}: it answers")
        return path

    def _pids(self) -> dict[str, int | None]:
        processes = self.plane.processes
        records = {name: processes.record(name) for name in COMPONENTS}
        return {name: record.pid if record else None for name, record in records.items()}

    def _start(self, binaries: Path) -> None:
        """Start every process that is missing or configured differently."""
        plane, kube = self.plane, binaries / "kube"
        plane.authority.ensure(node.NODE_IDENTITIES)
        for identity in node.NODE_IDENTITIES:
            plane.write_component_kubeconfig(identity)
        texts = node.write_configs(self.layout, binaries, plane.authority)
        search = {"PATH": f"{binaries}:{os.environ.get('PATH', '')}:/usr/sbin:/sbin"}
        ensure = plane.processes.ensure
        containerd = [binaries / "containerd", f"--config={self.layout.state / 'containerd.toml'}"]
        ensure("containerd", containerd, configuration=texts["containerd"] + texts["cni"], environment=search)
        ensure_registry(self.layout, binaries)
        plane.start()
        target = [f"{NODE_ADDRESS}:{API_PORT}", f"{LOOPBACK}:{API_PORT}"]
        ensure("api-forward", [kube, "forward", *target])
        kubelet = [kube, *node.kubelet_arguments(self.layout)]
        ensure("kubelet", kubelet, configuration=texts["kubelet"], environment=search)
        proxy = [kube, "kube-proxy", f"--config={self.layout.state / 'kube-proxy.json'}"]
        ensure("kube-proxy", proxy, configuration=texts["kube-proxy"], environment=search)
        dns = [kube, "coredns", "-conf", self.layout.state / "Corefile"]
        ensure("coredns", dns, configuration=texts["coredns"])

    def _finish(self, binaries: Path) -> None:
        """Bring a cluster whose processes were just started to the point where pods run."""
        plane = self.plane
        plane.apply(dns_objects())
        self._import_pause(binaries)
        wait_for(
            f"the node {NODE_NAME}",
            self.node_ready,
            why="the kubelet registers it and checks runtime and network",
            timeout_seconds=NODE_READY_SECONDS,
            still_possible=lambda: plane.processes.died("kubelet") or plane.processes.died("containerd"),
        )
        wait_for(
            "the cluster's DNS",
            lambda: _answers("http://127.0.0.1:8181/ready"),
            why="CoreDNS lists the Services first",
            timeout_seconds=NODE_READY_SECONDS,
            still_possible=lambda: plane.processes.died("coredns"),
        )

    def _import_pause(self, binaries: Path) -> None:
        wait_for(
            "containerd",
            self.layout.containerd_socket.exists,
            why="the sandbox image is imported into it",
            timeout_seconds=30,
            still_possible=lambda: self.plane.processes.died("containerd"),
        )
        archive = write_pause_archive(binaries, self.layout.state / "pause.tar")
        self.ctr("images", "import", str(archive))

    def ctr(self, *arguments: str) -> str:
        """Run containerd's own client in the namespace of the kubelet's containers."""
        address = ["--address", str(self.layout.containerd_socket), "--namespace", "k8s.io"]
        command = [str(ensure_tools(self.layout) / "ctr"), *address, *arguments]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode != 0:
            msg = f"ctr {' '.join(arguments)}: {result.stderr.strip()}"
            raise ClusterError(msg)
        return result.stdout

    def node_ready(self) -> bool:
        """Tell whether the kubelet is healthy and has reported the node Ready."""
        if not _answers("http://127.0.0.1:10248/healthz"):
            return False
        path = '--output=jsonpath={.status.conditions[?(@.type=="Ready")].status}'
        try:
            return self.kubectl("get", "node", NODE_NAME, path) == "True"
        except ClusterError:
            return False

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """Run kubectl against this cluster as its administrator."""
        kubeconfig = self._use_context(self.context) if self.context else self.layout.kubeconfig
        return run_kubectl(ensure_tools(self.layout) / "kube", kubeconfig, arguments, stdin)

    def recycle(self) -> int:
        """Free the volumes of deleted claims (see `storage.recycle`)."""
        return 0 if self.context else recycle(self.layout, self.plane)

    def status(self) -> dict[str, object]:
        """Describe the cluster: whether it is healthy, and each process."""
        if self.context:
            return {"healthy": True, "context": self.context, "kubeconfig": str(self._use_context(self.context))}
        pids = self._pids()
        collector = self.plane.processes.record("prometheus")
        api = pids["kube-apiserver"] is not None and self.plane.ready()
        ready = api and self.node_ready()
        return {
            "healthy": ready and all(pids.values()),
            "kubeconfig": str(self.layout.kubeconfig),
            "state": str(self.layout.state),
            "api_server": {"address": self.plane.server, "ready": api},
            "node": {"name": NODE_NAME, "address": NODE_ADDRESS, "ready": ready},
            "processes": {**pids, **({"prometheus": collector.pid} if collector else {})},
            "packet_filter_chains": len(firewall.chains(firewall.save("iptables-save"))),
        }

    def down(self, *, purge: bool = False) -> list[str]:
        """Stop everything and return what it left behind: nothing, unless something is wrong."""
        if self.context:
            say(f"{CONTEXT_VARIABLE} is set: that cluster is not ours to stop")
            return []
        with locked(self.layout.cache / "lock", "stopping the cluster"):
            return teardown.tear_down(self.layout, purge=purge)


def _answers(address: str) -> bool:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(address, timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def status_text(status: dict[str, object]) -> str:
    """Return a status as one JSON document."""
    return json.dumps(status, indent=2)
