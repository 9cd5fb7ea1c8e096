"""Build the cluster's programs from Go modules, once per set of versions.

What is cached: `<cache>/cluster/<hash>/bin`, where the hash covers the Go module here (go.mod, go.sum, sources)
and the table below. A call that finds the folder does nothing.
"""

import hashlib
import json
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.cluster import packages
from tests.cluster.console import say
from tests.cluster.errors import ClusterError
from tests.cluster.layout import Layout

MODULE = Path(__file__).resolve().parent / "go"
"""The Go module with our own mains: `kube` and `pause`."""

KUBERNETES = "1.36.3"
"""Version that the `kube` binary reports; go.mod pins the code."""

KEPT_BUILDS = 2
"""Older folders of binaries are removed beyond this many (about 0.4 GB each)."""

_MAJOR, _MINOR = KUBERNETES.split(".")[:2]
_CNI = "github.com/containernetworking/plugins/plugins"
_CONTAINERD = "github.com/containerd/containerd/v2/cmd"
_VERSION_PACKAGE = "k8s.io/component-base/version"


@dataclass(frozen=True, slots=True)
class Tool:
    """One `go build` or `go install`: `version` is empty for a package of our own module."""

    packages: tuple[str, ...]
    version: str = ""
    tags: str = ""
    cgo: bool = False
    linker_flags: str = ""


TOOLS = (
    Tool(
        packages=("./cmd/kube", "./cmd/pause"),
        linker_flags=" ".join(
            f"-X {_VERSION_PACKAGE}.{name}={value}"
            for name, value in (
                ("gitVersion", f"v{KUBERNETES}"),
                ("gitMajor", _MAJOR),
                ("gitMinor", _MINOR),
            )
        ),
    ),
    Tool(
        packages=(f"{_CONTAINERD}/containerd", f"{_CONTAINERD}/containerd-shim-runc-v2", f"{_CONTAINERD}/ctr"),
        version="v2.2.5",
    ),
    Tool(packages=("github.com/opencontainers/runc",), version="v1.5.2", tags="seccomp", cgo=True),
    Tool(
        packages=(
            f"{_CNI}/main/bridge",
            f"{_CNI}/main/loopback",
            f"{_CNI}/ipam/host-local",
            f"{_CNI}/meta/portmap",
        ),
        version="v1.9.1",
    ),
    Tool(packages=("github.com/distribution/distribution/v3/cmd/registry",), version="v3.1.2"),
    Tool(packages=("helm.sh/helm/v3/cmd/helm",), version="v3.22.0"),
    Tool(packages=("github.com/yannh/kubeconform/cmd/kubeconform",), version="v0.8.0"),
)
"""Everything that runs on the node or tests the chart; go.sum or the module proxy's checksums pin the content."""


@dataclass(frozen=True, slots=True)
class Peer:
    """A program that ours is measured against; built only when a measurement asks for it."""

    name: str
    module: str
    tool: Tool
    manifests: str
    """Folder of the module that says how the program is installed."""


TRAINING_OPERATOR = Peer(
    name="training-operator",
    module="github.com/kubeflow/training-operator",
    tool=Tool(packages=("github.com/kubeflow/training-operator/cmd/training-operator.v1",), version="v1.8.1"),
    manifests="manifests",
)
"""Kubeflow's operator for PyTorchJobs."""


def fingerprint(module: Path = MODULE, tools: tuple[Tool, ...] = TOOLS) -> str:
    """Return the name of the build: a hash of the module's files, the tool versions and the machine's kind."""
    digest = hashlib.sha256(f"{platform.machine()} {tools!r}".encode())
    for file in sorted([module / "go.mod", module / "go.sum", *module.rglob("*.go")]):
        digest.update(f"\0{file.relative_to(module)}\0".encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def ensure_tools(layout: Layout) -> Path:
    """Return the folder of binaries, building it first if it is not there."""
    folder = layout.binaries / fingerprint()
    binaries = folder / "bin"
    if binaries.is_dir():
        return binaries
    _need_go()
    packages.ensure_packages(packages.BUILD, "building runc")
    with _new_folder(folder) as unfinished:
        (unfinished / "bin").mkdir()
        for tool in TOOLS:
            _build(tool, unfinished / "bin")
    _prune(layout, keep=folder)
    return binaries


def ensure_peer(layout: Layout, peer: Peer) -> Path:
    """Return the folder of a peer with its `bin` and `manifests`, building it first if it is not there."""
    digest = hashlib.sha256(f"{platform.machine()} {peer!r}".encode()).hexdigest()[:16]
    folder = layout.peers / f"{peer.name}-{digest}"
    if folder.is_dir():
        return folder
    _need_go()
    with _new_folder(folder) as unfinished:
        (unfinished / "bin").mkdir()
        _build(peer.tool, unfinished / "bin")
        source = _module_folder(f"{peer.module}@{peer.tool.version}")
        shutil.copytree(source / peer.manifests, unfinished / "manifests", copy_function=shutil.copyfile)
    return folder


@contextmanager
def _new_folder(folder: Path) -> Iterator[Path]:
    """Give a folder to fill, which gets its name only when that has succeeded."""
    unfinished = folder.with_suffix(f".{os.getpid()}")
    unfinished.mkdir(parents=True)
    try:
        yield unfinished
        unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _need_go() -> None:
    if shutil.which("go") is None:
        msg = "the cluster is built from Go modules: install Go (the version that tests/cluster/go/go.mod names)"
        raise ClusterError(msg)


def _module_folder(module: str) -> Path:
    """Find a module's sources in Go's cache, downloading them first if they are not there."""
    command = ["go", "mod", "download", "-json", module]
    result = subprocess.run(command, cwd=MODULE, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        msg = f"downloading {module} failed:\n{result.stdout[-3000:]}{result.stderr[-3000:]}"
        raise ClusterError(msg)
    return Path(json.loads(result.stdout)["Dir"])


def _build(tool: Tool, target: Path) -> None:
    names = " ".join(package.rsplit("/", 1)[-1] for package in tool.packages)
    version = tool.version or f"v{KUBERNETES}"
    say(f"building {names} {version}: minutes when Go's cache is cold, seconds when it is warm")
    started = time.monotonic()
    flags = ["-trimpath", "-buildvcs=false", "-ldflags", f"-s -w {tool.linker_flags}".strip()]
    if tool.tags:
        flags += ["-tags", tool.tags]
    if tool.version:
        command = ["go", "install", *flags, *(f"{package}@{tool.version}" for package in tool.packages)]
    else:
        command = ["go", "build", *flags, "-o", f"{target}/", *tool.packages]
    environment = {**os.environ, "GOBIN": str(target), "CGO_ENABLED": "1" if tool.cgo else "0"}
    result = subprocess.run(command, cwd=MODULE, env=environment, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        msg = f"building {names} failed:\n{result.stderr[-3000:]}"
        raise ClusterError(msg)
    say(f"  {names} after {time.monotonic() - started:.1f} s")


def _prune(layout: Layout, keep: Path) -> None:
    """Remove older builds; the one before `keep` stays, since a running cluster may still use it."""
    older = [folder for folder in layout.binaries.iterdir() if folder.is_dir() and folder != keep]
    older.sort(key=lambda folder: folder.stat().st_mtime, reverse=True)
    for folder in older[KEPT_BUILDS - 1 :]:
        say(f"removing the binaries of an older version: {folder.name}")
        shutil.rmtree(folder, ignore_errors=True)
