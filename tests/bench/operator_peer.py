"""Kubeflow's training-operator v1, as its manifests ship it: all its job kinds, one thread a kind, its own rate limits.

Its admission webhook is not registered, since no Service leads from a bare API server to a process; that spares it work.
"""

import base64
import json
import os
import shutil
import signal
import subprocess
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from tests.bench.operator_contestants import NAMESPACE, now
from tests.bench.operator_load import MERGE_PATCH, Request
from tests.cluster.console import wait_for
from tests.cluster.control_plane import LOOPBACK, ControlPlane, Ports
from tests.cluster.layout import Layout
from tests.cluster.tools import TRAINING_OPERATOR, ensure_peer

SYSTEM = "kubeflow"
"""Its namespace; the program's own default."""

ACCOUNT = "training-operator"
CERTIFICATES = "training-operator-webhook-cert"
"""The Secret it writes its webhook's certificates to."""

MOUNT = Path("/tmp/k8s-webhook-server/serving-certs")
"""Where it expects that Secret to be mounted; a constant of the program."""

WAIT_SECONDS = 90.0
"""Longest start; it looks for its certificates after 1, 2, 4, … seconds."""

STOP_SECONDS = 30.0


def _documents(path: Path) -> list[dict[str, Any]]:
    return [document for document in yaml.safe_load_all(path.read_text(encoding="utf-8")) if document]


class TrainingOperator:
    """The peer: a PyTorchJob with one master becomes a pod and a Service."""

    name = "training-operator"
    user = f"system:serviceaccount:{SYSTEM}:{ACCOUNT}"
    resource = "pytorchjobs"
    children = {resource: f"/api/v1/namespaces/{NAMESPACE}/{resource}" for resource in ("pods", "services")}

    def __init__(self, plane: ControlPlane, folder: Path, layout: Layout) -> None:
        self._plane, self._folder = plane, folder
        built = ensure_peer(layout, TRAINING_OPERATOR)
        base = built / "manifests" / "base"
        self._program = built / "bin" / "training-operator.v1"
        crds = sorted((base / "crds").glob("kubeflow.org_*.yaml"))
        plane.apply([document for path in crds for document in _documents(path)])
        plane.apply([{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SYSTEM}}])
        plane.apply([*self._account(base / "rbac"), self._empty_secret()])
        ports = Ports.free()
        self._health = ports.api
        self._arguments = [
            f"--health-probe-bind-address={LOOPBACK}:{ports.api}",
            f"--metrics-bind-address={LOOPBACK}:{ports.etcd}",
            f"--webhook-server-port={ports.controllers}",
        ]
        kubeconfig = plane.service_account_kubeconfig(SYSTEM, ACCOUNT, folder / "kubeconfig")
        self._environment = {**os.environ, "KUBECONFIG": str(kubeconfig)}
        self._process: subprocess.Popen[bytes] | None = None

    @staticmethod
    def _account(folder: Path) -> list[dict[str, Any]]:
        """Its account and role, put into its namespace as its kustomization does."""
        objects = [document for path in sorted(folder.glob("*.yaml")) for document in _documents(path)]
        for item in objects:
            if item["kind"] == "ServiceAccount":
                item["metadata"]["namespace"] = SYSTEM
            for subject in item.get("subjects", []):
                subject["namespace"] = SYSTEM
        return objects

    @staticmethod
    def _empty_secret() -> dict[str, Any]:
        return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": CERTIFICATES, "namespace": SYSTEM}}

    def start(self) -> None:
        with (self._folder / "log").open("ab") as log:
            command = [str(self._program), *self._arguments]
            self._process = subprocess.Popen(command, env=self._environment, stdout=log, stderr=log)
        self._mount_certificates()
        wait_for(
            self.name,
            self._ready,
            why="it fills its caches",
            timeout_seconds=WAIT_SECONDS,
            still_possible=self._died,
        )

    def _mount_certificates(self) -> None:
        """What the kubelet would do with its Secret."""
        data: dict[str, str] = {}

        def written() -> bool:
            secret = self._plane.kubectl("get", "secret", CERTIFICATES, f"--namespace={SYSTEM}", "-o", "json")
            data.update(json.loads(secret).get("data", {}))
            return "tls.crt" in data

        wait_for("its certificates", written, why="it makes them", timeout_seconds=WAIT_SECONDS)
        MOUNT.mkdir(parents=True, exist_ok=True)
        for name, value in data.items():
            (MOUNT / name).write_bytes(base64.b64decode(value))

    def _ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://{LOOPBACK}:{self._health}/readyz", timeout=5) as answer:
                return answer.status == 200
        except (urllib.error.URLError, OSError):
            return False

    def _died(self) -> str | None:
        if self._process is None or self._process.poll() is None:
            return None
        return f"it ended: {(self._folder / 'peer.log').read_text(encoding='utf-8')[-3000:]}"

    def stop(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(timeout=STOP_SECONDS)
            self._process = None
        shutil.rmtree(MOUNT.parent, ignore_errors=True)

    @property
    def pid(self) -> int:
        assert self._process is not None, "it is not running"
        return self._process.pid

    def collection(self) -> str:
        return f"/apis/kubeflow.org/v1/namespaces/{NAMESPACE}/{self.resource}"

    def manifest(self, name: str) -> dict[str, Any]:
        container = {
            "name": "pytorch",
            "image": "example.com/train:1",
            "command": ["python", "-m", "train", f"--run={name}"],
            "resources": {"requests": {"cpu": "500m", "memory": "2Gi"}},
        }
        master = {"replicas": 1, "restartPolicy": "Never", "template": {"spec": {"containers": [container]}}}
        return {
            "apiVersion": "kubeflow.org/v1",
            "kind": "PyTorchJob",
            "metadata": {"name": name, "namespace": NAMESPACE},
            "spec": {"pytorchReplicaSpecs": {"Master": master}},
        }

    def runs(self, children: Mapping[str, Sequence[str]]) -> list[Request]:
        container = {
            "name": "pytorch",
            "image": "example.com/train:1",
            "imageID": "",
            "ready": True,
            "restartCount": 0,
            "state": {"running": {"startedAt": now()}},
        }
        conditions = [{"type": "Ready", "status": "True"}, {"type": "Initialized", "status": "True"}]
        pod = {"phase": "Running", "startTime": now(), "containerStatuses": [container], "conditions": conditions}
        path = self.children["pods"]
        return [Request("PATCH", f"{path}/{name}/status", {"status": pod}, MERGE_PATCH) for name in children["pods"]]
