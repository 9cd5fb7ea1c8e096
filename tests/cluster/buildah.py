"""Calls of Debian's buildah on a storage folder of our own, so that `--purge` can remove it whole."""

import json
import os
import subprocess
import tempfile
from pathlib import Path

from tests.cluster.console import say
from tests.cluster.errors import ClusterError

CERTIFICATES = Path("/etc/ssl/certs")
"""Mounted read-only for the length of a build: HTTPS in it goes by the machine's own authorities. Never copied."""

PULL_SECONDS = 20
"""A registry that cannot be reached should not hold up the first build."""


class Buildah:
    """Image storage in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def _command(self, *arguments: object) -> list[str]:
        storage = ["--root", self.folder / "storage", "--runroot", self.folder / "run", "--storage-driver", "overlay"]
        return ["buildah", *map(str, storage), *map(str, arguments)]

    def run(self, *arguments: object, timeout_seconds: float | None = None) -> str:
        """Run one command and return its output; a failure becomes a ClusterError with the end of its log."""
        command = self._command(*arguments)
        try:
            result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=timeout_seconds)
        except subprocess.TimeoutExpired as error:
            msg = f"buildah {arguments[0]}: no answer in {timeout_seconds} s"
            raise ClusterError(msg) from error
        if result.returncode != 0:
            msg = f"buildah {arguments[0]} failed:\n{(result.stdout + result.stderr)[-4000:]}"
            raise ClusterError(msg)
        return result.stdout.strip()

    def has(self, name: str) -> bool:
        """Tell whether an image is in the storage."""
        command = self._command("inspect", "--type=image", "--format={{.FromImageID}}", name)
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    def pull(self, name: str) -> bool:
        """Pull an image; False if its registry is out of reach or refuses."""
        say(f"pulling {name}")
        try:
            self.run("pull", "--quiet", name, timeout_seconds=PULL_SECONDS)
        except ClusterError as error:
            say(f"  not to be had: {str(error).splitlines()[-1][:200]}")
            return False
        return True

    def import_rootfs(self, archive: Path, name: str) -> None:
        """Make an image of one layer from the tar of a root file system."""
        container = self.run("from", "scratch")
        try:
            self.run("add", "--quiet", container, archive, "/")
            self.run("config", "--env=PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", container)
            self.run("commit", "--quiet", "--rm", container, name)
        except ClusterError:
            self.run("rm", container)
            raise

    def build(
        self, dockerfile: Path, context: Path, name: str, arguments: dict[str, str], mounts: dict[Path, str]
    ) -> None:
        """Build a Dockerfile with its layers kept, so that only what changed is built again."""
        options = [f"--build-arg={key}={value}" for key, value in arguments.items()]
        options += [f"--volume={source}:{target}" for source, target in mounts.items()]
        if CERTIFICATES.is_dir():
            options.append(f"--volume={CERTIFICATES}:{CERTIFICATES}:ro")
        ignore = dockerfile.with_name("Dockerfile.dockerignore")  # BuildKit finds it by this name.
        options += [f"--ignorefile={ignore}"] if ignore.exists() else []
        place = ["--isolation=chroot", "--network=host", "--layers", "--format=oci"]
        self.run("bud", "--quiet", *place, *options, f"--file={dockerfile}", f"--tag={name}", context)

    def push(self, name: str, reference: str) -> str:
        """Push an image and return its digest.

        zstd at its lowest level: buildah compresses whatever goes to a registry, and gzip takes four times as long.
        """
        with tempfile.NamedTemporaryFile("r", encoding="ascii") as digest:
            target = f"docker://{reference}"
            plain = ["--tls-verify=false"] if reference.startswith("localhost") else []
            fast = ["--compression-format=zstd", "--compression-level=1"]
            self.run("push", "--quiet", *fast, *plain, f"--digestfile={digest.name}", name, target)
            return digest.read().strip()

    def size_bytes(self, name: str) -> int:
        """Return the size of an image with all its layers."""
        listing = json.loads(self.run("images", "--json", name))
        sizes = [image.get("sizebytes") or image.get("size") for image in listing]
        return next((size for size in sizes if isinstance(size, int)), 0)

    def prune(self) -> None:
        """Remove layers that no named image uses; the storage keeps one name per image that is current."""
        subprocess.run(self._command("rmi", "--prune"), capture_output=True, check=False, env=dict(os.environ))
