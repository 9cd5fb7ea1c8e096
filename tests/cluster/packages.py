"""Debian packages that the cluster and its images need, installed by apt-get when they are missing."""

import os
import shutil
import subprocess
from pathlib import Path

from tests.cluster.console import say
from tests.cluster.errors import ClusterError

BUILD = {"gcc": "gcc", "pkg-config": "pkg-config", "/usr/include/seccomp.h": "libseccomp-dev"}
"""To build runc (the one binary with C in it): what must exist, and the package that has it."""
NODE = {
    "iptables-save": "iptables",
    "conntrack": "conntrack",
    "ip": "iproute2",
    "openssl": "openssl",
    "mount": "mount",
}
"""To run a node."""
IMAGES = {"buildah": "buildah", "mmdebstrap": "mmdebstrap"}
"""To build images without a container engine."""
PROMETHEUS = {"prometheus": "prometheus"}


def missing(wanted: dict[str, str]) -> list[str]:
    """Return the packages whose program (or file, given as a path) is not there."""
    search = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    return [
        package
        for probe, package in wanted.items()
        if not (Path(probe).exists() if probe.startswith("/") else shutil.which(probe, path=search))
    ]


def ensure_packages(wanted: dict[str, str], reason: str) -> None:
    """Install what is missing; without root or apt-get, say which packages the user has to install."""
    packages = missing(wanted)
    if not packages:
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        msg = f"{reason} needs these Debian packages (or their like elsewhere): {' '.join(packages)}"
        raise ClusterError(msg)
    say(f"apt-get install {' '.join(packages)}: {reason} needs them")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    install = ["apt-get", "install", "-y", "-q", "--no-install-recommends", *packages]
    for command in (["apt-get", "update", "-q"], install):
        result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if result.returncode != 0:
            msg = f"{' '.join(command)} failed:\n{result.stdout[-2000:]}{result.stderr[-2000:]}"
            raise ClusterError(msg)
