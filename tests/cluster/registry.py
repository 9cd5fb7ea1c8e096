"""The image registry on loopback; containerd and buildah speak plain HTTP to `localhost` by their own rules."""

import json
import os
import urllib.request
from pathlib import Path
from typing import Any

from tests.cluster.console import wait_for
from tests.cluster.files import write_if_changed
from tests.cluster.layout import REGISTRY_PORT, Layout
from tests.cluster.processes import Processes

REGISTRY_VARIABLE = "HATCHERY_REGISTRY"
"""Names another registry (host and path prefix) to push to, for a cluster that is not on this machine."""

_MANIFEST_TYPES = "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json"


def registry_name() -> str:
    """Return the prefix of every image reference."""
    return os.environ.get(REGISTRY_VARIABLE) or f"localhost:{REGISTRY_PORT}"


def is_local() -> bool:
    """Tell whether images go to the registry that this package runs."""
    return not os.environ.get(REGISTRY_VARIABLE)


def data_folder(layout: Layout) -> Path:
    """Return where the local registry keeps its blobs."""
    return layout.images / "registry"


def ensure_registry(layout: Layout, binaries: Path) -> None:
    """Start the local registry; it is part of a cluster, and images can be pushed before one is up."""
    config = {
        "version": 0.1,
        "log": {"level": "warn"},
        "storage": {"filesystem": {"rootdirectory": str(data_folder(layout))}, "delete": {"enabled": True}},
        "http": {"addr": f"127.0.0.1:{REGISTRY_PORT}"},
    }
    path = layout.state / "registry.json"
    text = json.dumps(config, indent=1)
    write_if_changed(path, text)
    processes = Processes(layout.state)
    environment = {"OTEL_TRACES_EXPORTER": "none"}
    processes.ensure("registry", [binaries / "registry", "serve", path], configuration=text, environment=environment)
    wait_for(
        f"the registry at {registry_name()}",
        lambda: request("GET", "") is not None,
        why="images are pushed to it and pulled from it",
        timeout_seconds=20,
        still_possible=lambda: processes.died("registry"),
    )


def request(method: str, path: str) -> tuple[bytes, dict[str, str]] | None:
    """Send one request to the local registry's API; None for any answer but success."""
    address = f"http://127.0.0.1:{REGISTRY_PORT}/v2/{path}"
    call = urllib.request.Request(address, method=method, headers={"Accept": _MANIFEST_TYPES})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(call, timeout=10) as answer:
            return answer.read(), dict(answer.headers)
    except OSError:  # Not listening yet, or an HTTP error: both mean that it is not there.
        return None


def manifest(name: str, tag: str) -> dict[str, Any] | None:
    """Return the manifest of a pushed image, None if the registry does not have it."""
    answer = request("GET", f"{name}/manifests/{tag}")
    return None if answer is None else json.loads(answer[0])


def tags_newest_first(layout: Layout, name: str) -> list[str]:
    """Return the tags of one repository by the time they were pushed."""
    folder = data_folder(layout) / "docker/registry/v2/repositories" / name / "_manifests/tags"
    links = [link for link in folder.glob("*/current/link") if link.is_file()]
    links.sort(key=lambda link: link.stat().st_mtime_ns, reverse=True)
    return [link.parts[-3] for link in links]


def digest(name: str, tag: str) -> str | None:
    """Return the digest of the manifest that a tag names, None if there is none."""
    answer = request("HEAD", f"{name}/manifests/{tag}")
    return None if answer is None else answer[1]["Docker-Content-Digest"]


def remove_tag(name: str, tag: str) -> bool:
    """Delete the manifest that a tag names; its blobs go with the next garbage collection."""
    found = digest(name, tag)
    return found is not None and request("DELETE", f"{name}/manifests/{found}") is not None
