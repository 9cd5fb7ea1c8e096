"""The pool of PersistentVolumes: made at `up`, wiped and offered again once their claims are gone."""

import json
import shutil
from pathlib import Path

from tests.cluster.console import say
from tests.cluster.control_plane import ControlPlane
from tests.cluster.layout import Layout
from tests.cluster.manifests import VOLUME_COUNT, persistent_volume, storage_class, volume_name

OPEN_MODE = 0o777
"""Pods of any user can write, with or without fsGroup."""


def wipe(folder: Path) -> None:
    """Make a volume's folder new: empty and open to every user."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    folder.chmod(OPEN_MODE)  # mkdir's own mode would be cut by the umask.


def recycle(layout: Layout, plane: ControlPlane) -> int:
    """Wipe every volume whose claim is gone and offer it again; return how many there were.

    Volumes that do not exist yet are made, so this is also how the pool comes to be.
    """
    listing = json.loads(plane.kubectl("get", "persistentvolumes", "--output=json"))
    phases = {item["metadata"]["name"]: item["status"].get("phase") for item in listing["items"]}
    wanted = [volume_name(number) for number in range(VOLUME_COUNT)]
    released = [name for name in wanted if phases.get(name) in ("Released", "Failed")]
    if released:
        plane.kubectl("delete", "persistentvolumes", *released)
    fresh = [name for name in wanted if name not in phases or name in released]
    for name in fresh:
        wipe(layout.volumes / name)
    if fresh:
        plane.apply([storage_class(), *(persistent_volume(layout, name) for name in fresh)])
    if released:
        say(f"recycled {len(released)} volumes whose claims are gone")
    return len(released)
