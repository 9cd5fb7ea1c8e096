"""etcd and kube-apiserver, with the controllers and the scheduler where they are wanted.

As a context manager on free ports this is a real API server for tests in a few seconds, without a node:
the test plays the kubelet by patching status.
"""

import json
import socket
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.cluster import packages
from tests.cluster.audit import audit_arguments, audit_log
from tests.cluster.console import say, wait_for
from tests.cluster.errors import ClusterError
from tests.cluster.layout import CLUSTER_DOMAIN, KUBERNETES_SERVICE, POD_CIDR, SERVICE_CIDR, Layout
from tests.cluster.pki import Authority, Identity
from tests.cluster.processes import Processes
from tests.cluster.tools import ensure_tools

LOOPBACK = "127.0.0.1"
READY_SECONDS = 60.0
"""Longest start of an API server; 4 s is usual on two free cores."""

ADMIN = Identity("admin", "hatchery-admin", ("system:masters",))
KUBELET_CLIENT = Identity("apiserver-kubelet-client", "kube-apiserver-kubelet-client", ("system:masters",))
CONTROLLERS = Identity("controller-manager", "system:kube-controller-manager")
SCHEDULER = Identity("scheduler", "system:kube-scheduler")


@dataclass(frozen=True, slots=True)
class Ports:
    """Ports on loopback."""

    api: int
    etcd: int = 2379
    etcd_peer: int = 2380
    controllers: int = 10257
    scheduler: int = 10259

    @classmethod
    def free(cls) -> "Ports":
        """Pick five free ports; another process could take one before it is used, as with any such choice."""
        sockets = [socket.create_server((LOOPBACK, 0)) for _ in range(5)]
        numbers = [listening.getsockname()[1] for listening in sockets]
        for listening in sockets:
            listening.close()
        return cls(*numbers)


def etcd_arguments(ports: Ports, data: Path) -> list[str]:
    """Return etcd's command line: durable across restarts of the process, not across a crash of the machine."""
    client, peer = f"http://{LOOPBACK}:{ports.etcd}", f"http://{LOOPBACK}:{ports.etcd_peer}"
    return [
        "etcd",
        f"--data-dir={data}",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=default={peer}",
        "--unsafe-no-fsync",  # A test cluster may lose its data with the machine; fsync would halve its speed.
        "--log-level=warn",
    ]


class ControlPlane:
    """One API server with its etcd, in one state folder."""

    def __init__(
        self,
        state: Path,
        ports: Ports | None = None,
        *,
        controllers: bool = False,
        scheduler: bool = False,
        node_address: str | None = None,
        layout: Layout | None = None,
    ) -> None:
        """Prepare, start nothing; `node_address` makes it part of a cluster whose pods reach it there."""
        self.state = state
        self.ports = ports or Ports.free()
        self.authority = Authority(state / "pki")
        self.processes = Processes(state)
        self.kubeconfig = state / "kubeconfig"
        self._controllers, self._scheduler = controllers, scheduler
        self._node_address = node_address
        self._layout = layout or Layout.from_environment()

    @property
    def server(self) -> str:
        """The API server's address for processes on this machine."""
        return f"https://{LOOPBACK}:{self.ports.api}"

    @property
    def audit_log(self) -> Path:
        """Where the API server writes down what ServiceAccounts asked of it."""
        return audit_log(self.state)

    @property
    def binary(self) -> Path:
        """The all-in-one binary, built when it is missing."""
        return ensure_tools(self._layout) / "kube"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start what is not running and return when the API server is ready."""
        packages.ensure_packages({"openssl": "openssl"}, "making certificates")
        self._prepare()
        kube = self.binary
        self.processes.ensure("etcd", [kube, *etcd_arguments(self.ports, self.state / "etcd")])
        self.processes.ensure("kube-apiserver", [kube, *self.apiserver_arguments()])
        wait_for(
            f"the API server at {self.server}",
            self.ready,
            why="it opens etcd and writes its default roles and namespaces",
            timeout_seconds=READY_SECONDS,
            still_possible=lambda: self.processes.died("kube-apiserver") or self.processes.died("etcd"),
        )
        if self._controllers:
            self.processes.ensure("kube-controller-manager", [kube, *self.controllers_arguments()])
        if self._scheduler:
            self.processes.ensure("kube-scheduler", [kube, *self.scheduler_arguments()])

    def stop(self) -> None:
        """End every process that was started in this state folder."""
        for name in reversed(self.processes.names()):
            self.processes.stop(name)

    def _prepare(self) -> None:
        names = ["kubernetes", "kubernetes.default", "kubernetes.default.svc"]
        names += [f"kubernetes.default.svc.{CLUSTER_DOMAIN}", "localhost"]
        addresses = [LOOPBACK, KUBERNETES_SERVICE, *([self._node_address] if self._node_address else [])]
        serves = (*(f"DNS:{name}" for name in names), *(f"IP:{address}" for address in addresses))
        users = [ADMIN, KUBELET_CLIENT, CONTROLLERS, SCHEDULER]
        self.authority.ensure([*users, Identity("apiserver", "kube-apiserver", serves=serves)])
        self.authority.write_kubeconfig(self.kubeconfig, self.server, self.authority.user(ADMIN))
        for identity in (CONTROLLERS, SCHEDULER):
            self.write_component_kubeconfig(identity)

    def write_component_kubeconfig(self, identity: Identity) -> Path:
        """Write the kubeconfig of a component with its issued certificate."""
        path = self.state / "kubeconfigs" / identity.name
        return self.authority.write_kubeconfig(path, self.server, self.authority.user(identity))

    def apiserver_arguments(self) -> list[str]:
        """Return kube-apiserver's command line."""
        pki = self.authority.folder
        reachable = (
            [f"--advertise-address={self._node_address}"]
            if self._node_address
            else ["--endpoint-reconciler-type=none"]  # Without a node no pod looks for the API server.
        )
        return [
            "kube-apiserver",
            f"--bind-address={LOOPBACK}",
            f"--secure-port={self.ports.api}",
            *reachable,
            f"--etcd-servers=http://{LOOPBACK}:{self.ports.etcd}",
            f"--tls-cert-file={pki / 'apiserver.crt'}",
            f"--tls-private-key-file={pki / 'apiserver.key'}",
            f"--client-ca-file={self.authority.certificate}",
            f"--kubelet-certificate-authority={self.authority.certificate}",
            f"--kubelet-client-certificate={self.authority.certificate_of(KUBELET_CLIENT)}",
            f"--kubelet-client-key={self.authority.key_of(KUBELET_CLIENT)}",
            "--kubelet-preferred-address-types=InternalIP",
            f"--service-account-key-file={self.authority.token_public_key}",
            f"--service-account-signing-key-file={self.authority.token_key}",
            f"--service-account-issuer=https://kubernetes.default.svc.{CLUSTER_DOMAIN}",
            f"--service-cluster-ip-range={SERVICE_CIDR}",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            *audit_arguments(self.state),
            "--allow-privileged",  # As installers set it: refusing is left to Pod Security admission, which we test.
        ]

    def controllers_arguments(self) -> list[str]:
        """Return kube-controller-manager's command line."""
        return [
            "kube-controller-manager",
            f"--bind-address={LOOPBACK}",
            f"--secure-port={self.ports.controllers}",
            f"--kubeconfig={self.state / 'kubeconfigs' / CONTROLLERS.name}",
            f"--service-account-private-key-file={self.authority.token_key}",
            f"--root-ca-file={self.authority.certificate}",
            "--use-service-account-credentials",
            f"--cluster-cidr={POD_CIDR}",
            "--allocate-node-cidrs",
            f"--flex-volume-plugin-dir={self.state / 'volumeplugins'}",
            "--leader-elect=false",
        ]

    def scheduler_arguments(self) -> list[str]:
        """Return kube-scheduler's command line."""
        return [
            "kube-scheduler",
            f"--bind-address={LOOPBACK}",
            f"--secure-port={self.ports.scheduler}",
            f"--kubeconfig={self.state / 'kubeconfigs' / SCHEDULER.name}",
            "--leader-elect=false",
        ]

    def ready(self) -> bool:
        """Ask the API server whether it is ready to serve."""
        try:
            with socket.create_connection((LOOPBACK, self.ports.api), timeout=1):
                pass
            return self.kubectl("get", "--raw=/readyz", "--request-timeout=5s").strip() == "ok"
        except (OSError, ClusterError):
            return False

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """Run kubectl as administrator and return its output; a failure becomes a ClusterError."""
        return run_kubectl(self.binary, self.kubeconfig, arguments, stdin)

    def apply(self, objects: Sequence[dict[str, object]]) -> None:
        """Server-side-apply objects in one call."""
        listing = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        self.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=json.dumps(listing))

    def service_account_kubeconfig(
        self, namespace: str, name: str, path: Path, *, duration: str = "2h", server: str = ""
    ) -> Path:
        """Write a kubeconfig that acts as a ServiceAccount (which has to exist), for tests of its permissions."""
        token = self.kubectl("create", "token", name, f"--namespace={namespace}", f"--duration={duration}").strip()
        say(f"kubeconfig for {namespace}/{name}, valid for {duration}")
        return self.authority.write_kubeconfig(path, server or self.server, {"token": token}, namespace)


def run_kubectl(binary: Path, kubeconfig: Path, arguments: Sequence[str], stdin: str | None = None) -> str:
    """Run the kubectl inside the all-in-one binary."""
    command = [str(binary), "kubectl", f"--kubeconfig={kubeconfig}", *arguments]
    result = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        msg = f"kubectl {' '.join(arguments)}: {result.stderr.strip()}"
        raise ClusterError(msg)
    return result.stdout
