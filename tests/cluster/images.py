"""Build the two images when their content changes, and put them where the cluster's nodes pull from.

The tag is a hash of everything that goes in, so an unchanged image costs one question to the registry, and a
changed line of our code costs one small layer.
"""

import hashlib
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cluster import packages, registry
from tests.cluster.base_image import ensure_base
from tests.cluster.buildah import Buildah
from tests.cluster.console import say
from tests.cluster.errors import ClusterError
from tests.cluster.layout import REPOSITORY, Layout
from tests.cluster.locks import locked
from tests.cluster.processes import Processes
from tests.cluster.tools import ensure_tools

BUILD_CACHE = "/opt/build-cache"
"""Where the machine's own package cache is mounted in a build: downloads happen once per machine."""

KEPT_TAGS = 8
"""Older versions per image that stay in the registry; they share all layers but the smallest."""


@dataclass(frozen=True, slots=True)
class Source:
    """One image: its Dockerfile and what it copies, all relative to the repository."""

    name: str
    dockerfile: str
    inputs: tuple[str, ...]

    @property
    def repository(self) -> str:
        """The image's name in the registry."""
        return f"hatchery-{self.name}"


IMAGES = (
    Source(
        "operator",
        "images/operator/Dockerfile",
        (
            "requirements/bootstrap.txt",
            "requirements/operator.txt",
            "operator/hatchery_api",
            "operator/hatchery_operator",
        ),
    ),
    Source(
        "jobs",
        "images/jobs/Dockerfile",
        (
            "requirements/bootstrap.txt",
            "requirements/jobs.txt",
            "operator/hatchery_api",
            "jobs/hatchery_jobs",
        ),
    ),
)


def content_hash(source: Source, root: Path = REPOSITORY) -> str:
    """Return the tag of an image: a hash of the names and bytes of everything that goes into it."""
    digest = hashlib.sha256()
    ignore = f"{source.dockerfile}.dockerignore"
    for entry in (source.dockerfile, ignore, *source.inputs):
        path = root / entry
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        for file in files:
            if file.is_file() and "__pycache__" not in file.parts and file.suffix != ".pyc":
                digest.update(f"\0{file.relative_to(root)}\0".encode())
                digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


def references(root: Path = REPOSITORY) -> dict[str, str]:
    """Return where each image is, or will be once it is built."""
    prefix = registry.registry_name()
    return {image.name: f"{prefix}/{image.repository}:{content_hash(image, root)}" for image in IMAGES}


def ensure_images(layout: Layout | None = None) -> dict[str, str]:
    """Return {"operator": reference, "jobs": reference} of images that can be pulled, building what changed."""
    layout = layout or Layout.from_environment()
    with locked(layout.cache / "images-lock", "building images"):
        wanted = references()
        _ensure_local_registry(layout)
        built = [image for image in IMAGES if not _pushed(image, wanted[image.name])]
        if built:
            packages.ensure_packages(packages.IMAGES, "building images")
            buildah = Buildah(layout.images / "buildah")
            base = ensure_base(buildah)
            for image in built:
                _build(buildah, image, base, wanted[image.name])
            prune(layout, buildah)
        if registry.is_local():
            for reference in wanted.values():
                _pull_into_node(layout, reference)
    return wanted


def sizes_bytes() -> dict[str, int]:
    """Return the compressed size of each current image with all its layers, 0 for one that is not built."""
    return {image.name: _manifest_bytes(image.repository, content_hash(image)) for image in IMAGES}


def load(layout: Layout, name: str) -> str:
    """Push an image of buildah's storage, built by hand, and return the reference that pods can use."""
    with locked(layout.cache / "images-lock", f"pushing {name}"):
        _ensure_local_registry(layout)
        reference = f"{registry.registry_name()}/{name.removeprefix('localhost/')}"
        Buildah(layout.images / "buildah").push(name, reference)
    return reference


def prune(layout: Layout, buildah: Buildah) -> None:
    """Remove what the current images made superfluous: old tags with their blobs, and unnamed layers."""
    buildah.prune()
    if not registry.is_local():
        return
    binaries = ensure_tools(layout)
    removed = [
        f"{registry.registry_name()}/{image.repository}:{tag}"
        for image in IMAGES
        for tag in _superfluous(image, layout)
        if registry.remove_tag(image.repository, tag)
    ]
    if not removed:
        return
    say(f"pruning {len(removed)} older images from the registry")
    command = [str(binaries / "registry"), "garbage-collect", "--delete-untagged", str(layout.state / "registry.json")]
    subprocess.run(command, capture_output=True, check=False)
    # The registry remembers blobs in memory; a push after this would skip one that is gone.
    Processes(layout.state).stop("registry")
    registry.ensure_registry(layout, binaries)
    for reference in removed:
        _runtime(layout, "remove-image", reference)


def _superfluous(image: Source, layout: Layout) -> list[str]:
    """Return the tags to remove: beyond the newest few, and any with dependencies other than the current ones."""
    current = registry.manifest(image.repository, content_hash(image))
    tags = registry.tags_newest_first(layout, image.repository)
    if current is None:
        return []
    shared = _largest_layer(current)
    kept = [
        tag
        for tag in tags
        if (other := registry.manifest(image.repository, tag)) is not None and _largest_layer(other) == shared
    ][:KEPT_TAGS]
    # Two tags may name one manifest (a changed comment changes the tag only), and it is the manifest that is deleted.
    needed = {registry.digest(image.repository, tag) for tag in kept}
    return [tag for tag in tags if registry.digest(image.repository, tag) not in needed]


def _largest_layer(manifest: dict[str, Any]) -> str:
    return str(max(manifest["layers"], key=lambda layer: layer["size"])["digest"])


def _manifest_bytes(repository: str, tag: str) -> int:
    manifest = registry.manifest(repository, tag)
    return 0 if manifest is None else sum(layer["size"] for layer in manifest["layers"])


def _ensure_local_registry(layout: Layout) -> None:
    if registry.is_local():
        registry.ensure_registry(layout, ensure_tools(layout))


def _pushed(image: Source, reference: str) -> bool:
    """Tell whether the image is there; another registry is asked by pushing, which skips what it has."""
    return registry.is_local() and registry.manifest(image.repository, reference.rpartition(":")[2]) is not None


def _build(buildah: Buildah, image: Source, base: str, reference: str) -> None:
    local = f"localhost/{image.repository}:current"
    cache = Path(_output(["uv", "cache", "dir"]) or Path.home() / ".cache" / "hatchery" / "packages")
    cache.mkdir(parents=True, exist_ok=True)
    say(f"building {image.repository}: seconds for code; minutes when the dependencies changed or are new")
    arguments = {"BASE": base, "UV_CACHE_DIR": BUILD_CACHE}
    buildah.build(REPOSITORY / image.dockerfile, REPOSITORY, local, arguments, {cache: BUILD_CACHE})
    say(f"pushing {reference}: layers that the registry has are skipped")
    buildah.push(local, reference)
    say(f"  {reference}: {_manifest_bytes(image.repository, reference.rpartition(':')[2]) / 1e6:.0f} MB")


def _output(command: list[str]) -> str:
    """Return a program's output, nothing where it is not installed or fails."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def _runtime(layout: Layout, command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    socket = f"unix://{layout.containerd_socket}"
    call = [str(ensure_tools(layout) / "kube"), command, socket, *arguments]
    return subprocess.run(call, capture_output=True, text=True, check=False)


def _pull_into_node(layout: Layout, reference: str) -> None:
    """Have a running node pull an image now: a pod's start should not take the minutes of a first pull."""
    if not Processes(layout.state).alive("containerd"):
        return
    if reference in _runtime(layout, "list-images").stdout.split():
        return
    say(f"pulling {reference} into the node, so that the first pod need not wait for it")
    result = _runtime(layout, "pull-image", reference)
    if result.returncode != 0:
        msg = f"the node cannot pull {reference}: {result.stderr.strip()}"
        raise ClusterError(msg)
