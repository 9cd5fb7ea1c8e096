"""`python -m tests.cluster.selfcheck [--down]`: prove that pods work here, and that `down` leaves nothing.

Without `--down` the cluster is left as it was found. With it the machine is described before, and every
difference after `down` is a failure: processes, mounts, links, network namespaces, packet filter, settings.
"""

import json
import sys
from pathlib import Path

from tests.cluster import host
from tests.cluster.cluster import Cluster
from tests.cluster.console import say, wait_for
from tests.cluster.errors import ClusterError
from tests.cluster.images import ensure_images
from tests.cluster.manifests import Object

NAMESPACE = "hatchery-selfcheck"
POD = "selfcheck"
POD_SECONDS = 120

PROGRAM = """
import os, pathlib, socket
address = socket.gethostbyname("kubernetes.default.svc")
with socket.create_connection((address, 443), timeout=5):
    pass
shared = pathlib.Path("/data/written")
shared.write_text(str(os.getuid()))
assert os.stat("/data").st_gid == 20002, os.stat("/data")
try:
    pathlib.Path("/written").write_text("no")
    raise SystemExit("the root file system can be written")
except OSError:
    pass
print("uid", os.getuid(), "resolved", address)
"""


def objects(image: str) -> list[Object]:
    """Return a namespace that enforces the restricted profile, a claim, and a pod that obeys and uses it."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    claim = {
        "accessModes": ["ReadWriteMany"],
        "resources": {"requests": {"storage": "1Gi"}},
    }
    container = {
        "name": "check",
        "image": image,
        "command": ["python", "-c", PROGRAM],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
    }
    pod = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 10001,
            "fsGroup": 20002,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": POD}}],
    }
    place = {"name": POD, "namespace": NAMESPACE}
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": labels}},
        {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": place, "spec": claim},
        {"apiVersion": "v1", "kind": "Pod", "metadata": place, "spec": pod},
    ]


def check_pod(cluster: Cluster, image: str) -> str:
    """Run the restricted pod to its end and return what it printed; its volume is free again afterwards."""

    def phase() -> str:
        return cluster.kubectl("get", "pod", POD, f"--namespace={NAMESPACE}", "--output=jsonpath={.status.phase}")

    listing = {"apiVersion": "v1", "kind": "List", "items": objects(image)}
    cluster.kubectl("apply", "-f", "-", stdin=json.dumps(listing))
    try:
        wait_for(
            "the restricted pod",
            lambda: phase() in ("Succeeded", "Failed"),
            why="it pulls its image, mounts a volume, resolves a name and writes",
            timeout_seconds=POD_SECONDS,
        )
        output = cluster.kubectl("logs", POD, f"--namespace={NAMESPACE}")
        if phase() != "Succeeded":
            msg = f"the restricted pod failed: {output}"
            raise ClusterError(msg)
        _check_refusal(cluster, image)
    finally:
        cluster.kubectl("delete", "namespace", NAMESPACE, "--wait=true", "--timeout=90s")
    cluster.recycle()
    claims = "--output=jsonpath={.items[*].spec.claimRef.namespace}"
    if NAMESPACE in cluster.kubectl("get", "persistentvolumes", claims).split():
        msg = "the volume of the deleted claim was not recycled"
        raise ClusterError(msg)
    return output.strip()


def _check_refusal(cluster: Cluster, image: str) -> None:
    """Make sure that Pod Security admission refuses what the restricted profile forbids."""
    command = ["run", "forbidden", f"--namespace={NAMESPACE}", f"--image={image}", "--privileged"]
    try:
        cluster.kubectl(*command)
    except ClusterError as error:
        if "violates PodSecurity" in str(error):
            return
        raise
    msg = "a privileged pod was admitted into a restricted namespace"
    raise ClusterError(msg)


def _machine(cluster: Cluster) -> dict[str, list[str]]:
    """Describe the machine: the snapshot that `down` itself uses, and what only this check looks at."""
    layout = cluster.layout
    executables = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            executables.append(f"{entry.name} {(entry / 'exe').readlink()}")
        except OSError:
            continue
    ours = [line for line in executables if f" {layout.binaries}/" in line]
    return {**host.snapshot(), "mounts": host.mounts_below(Path("/")), "processes": sorted(ours)}


def main() -> int:
    """Run the checks and return the exit code."""
    cluster = Cluster()
    with_down = "--down" in sys.argv[1:]
    if with_down:
        cluster.down()
        before = _machine(cluster)
    cluster.up()
    image = ensure_images(cluster.layout)["operator"]
    say(f"the pod printed: {check_pod(cluster, image)}")
    if not with_down:
        return 0
    leftovers = cluster.down()
    leftovers += host.difference(before, _machine(cluster))
    for line in leftovers:
        say(f"NOT CLEAN: {line}")
    return 1 if leftovers else 0


if __name__ == "__main__":
    sys.exit(main())
