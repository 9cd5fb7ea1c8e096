"""The Python base image, made from Debian packages where the public one cannot be pulled."""

import re
import subprocess
from pathlib import Path

from tests.cluster.buildah import Buildah
from tests.cluster.console import say
from tests.cluster.errors import ClusterError

PUBLIC_BASE = "docker.io/library/python:3.13-slim"
"""The Dockerfiles' own default."""

LOCAL_BASE = "localhost/python-base:trixie"
SUITE = "trixie"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"

PACKAGES = ("ca-certificates", "git", "libpython3.13-testsuite", "python3", "python3-venv")
"""git for libraries that ask for revisions; the test suite is most of the standard library's source files."""


def mirror(sources: Path = Path("/etc/apt")) -> str:
    """Return the Debian mirror that this machine's apt uses, so that a proxy or a local mirror is kept to."""
    files = [*sorted(sources.glob("sources.list.d/*.sources")), *sorted(sources.glob("sources.list.d/*.list"))]
    for file in [*files, sources / "sources.list"]:
        if not file.is_file():
            continue
        text = file.read_text(encoding="utf-8", errors="replace")
        for address in re.findall(r"^(?:URIs:|deb(?:\s+\[[^]]*])?)\s+(\S+)", text, flags=re.MULTILINE):
            if address.rstrip("/").endswith("/debian"):
                return str(address).rstrip("/")
    msg = f"no Debian mirror found in {sources}: on another system, build the images with its own base and tools"
    raise ClusterError(msg)


def ensure_base(buildah: Buildah) -> str:
    """Return the base to build on: the public one if it is there or can be pulled, else one made here."""
    for name in (LOCAL_BASE, PUBLIC_BASE):
        if buildah.has(name):
            return name
    if buildah.pull(PUBLIC_BASE):
        return PUBLIC_BASE
    say(f"{PUBLIC_BASE} cannot be pulled: making {LOCAL_BASE} from Debian {SUITE} packages (about 2 minutes, once)")
    archive = buildah.folder / "base.tar"
    archive.parent.mkdir(parents=True, exist_ok=True)
    line = f"deb [signed-by={KEYRING}] {mirror()} {SUITE} main"
    command = ["mmdebstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", *_SLIM, SUITE, str(archive), line]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        msg = f"mmdebstrap failed:\n{result.stderr[-3000:]}"
        raise ClusterError(msg)
    try:
        buildah.import_rootfs(archive, LOCAL_BASE)
    finally:
        archive.unlink()
    return LOCAL_BASE


_SLIM = (
    *(f"--dpkgopt=path-exclude=/usr/share/{folder}/*" for folder in ("doc", "man", "info", "locale")),
    "--aptopt=APT::Install-Recommends false",
)
"""What no program in a container reads."""
