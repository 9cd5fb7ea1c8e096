"""The two operators of the bench: how each is installed, run, given objects, and told that what it made is running."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import yaml
from tests.bench.operator_load import MERGE_PATCH, Request
from tests.cluster.control_plane import ControlPlane, Ports
from tests.cluster.layout import REPOSITORY
from tests.support.operator.builders import SPECS
from tests.support.operator.process import ACCOUNT, SYSTEM, OperatorProcess, install

from hatchery_api.base import API_VERSION
from hatchery_api.kinds import BY_KIND
from hatchery_operator.domain.objects import rfc3339

NAMESPACE = "bench"
"""Where all objects are."""

RESYNC_SECONDS = 300
"""As shipped; tests set a longer one."""


class Contestant(Protocol):
    """An operator, and its process while there is one."""

    name: str
    user: str
    """The account it acts as."""
    resource: str
    """Plural of its objects."""
    children: Mapping[str, str]
    """Resources of which each object must get one, with their collections' paths."""

    def start(self) -> None:
        """Starts it and waits until it says that it is ready."""

    def stop(self) -> None:
        """Ends it as the kubelet does."""

    @property
    def pid(self) -> int:
        """Its process."""

    def collection(self) -> str:
        """Path of its objects."""

    def manifest(self, name: str) -> dict[str, Any]:
        """An object with one pod's worth of work."""

    def runs(self, children: Mapping[str, Sequence[str]]) -> list[Request]:
        """What Kubernetes would report once the children with these names run."""


def now() -> str:
    """The time as Kubernetes writes it."""
    return rfc3339(datetime.now(UTC))


class Hatchery:
    """Ours: a CorpusBuild becomes one Job."""

    name = "hatchery"
    user = f"system:serviceaccount:{SYSTEM}:{ACCOUNT}"
    resource = BY_KIND["CorpusBuild"].plural
    children = {"jobs": f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs"}

    def __init__(self, plane: ControlPlane, folder: Path) -> None:
        crds = sorted((REPOSITORY / "manifests/crds").glob("*.yaml"))
        plane.apply([yaml.safe_load(path.read_text(encoding="utf-8")) for path in crds])
        install(plane)
        url = f"https://{ACCOUNT}.{SYSTEM}.svc:8443"
        progress = {"port": Ports.free().api, "serviceUrl": url}
        self._process = OperatorProcess(
            plane, folder, resyncSeconds=RESYNC_SECONDS, progress=progress, leaderElection={"enabled": True}
        )

    def start(self) -> None:
        self._process.start()

    def stop(self) -> None:
        self._process.stop()

    @property
    def pid(self) -> int:
        return self._process.pid

    def collection(self) -> str:
        return f"/apis/{API_VERSION}/namespaces/{NAMESPACE}/{self.resource}"

    def manifest(self, name: str) -> dict[str, Any]:
        return {
            "apiVersion": API_VERSION,
            "kind": "CorpusBuild",
            "metadata": {"name": name, "namespace": NAMESPACE},
            "spec": SPECS["CorpusBuild"],
        }

    def runs(self, children: Mapping[str, Sequence[str]]) -> list[Request]:
        status = {"status": {"active": 1, "ready": 1, "startTime": now()}}
        path = self.children["jobs"]
        return [Request("PATCH", f"{path}/{name}/status", status, MERGE_PATCH) for name in children["jobs"]]
