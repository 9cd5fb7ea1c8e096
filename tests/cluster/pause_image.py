"""The sandbox image: one static binary, written as an image archive without any image tool."""

import hashlib
import io
import json
import tarfile
from pathlib import Path

from tests.cluster.node import PAUSE_IMAGE


def _tar(members: dict[str, tuple[bytes, int]]) -> bytes:
    """Return a tar of name → (content, mode), the same bytes for the same members."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, (content, mode) in members.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), mode
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def pause_archive(binary: bytes) -> bytes:
    """Return the image archive, in the format that `docker save` writes and `ctr images import` reads."""
    layer = _tar({"pause": (binary, 0o755)})
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Entrypoint": ["/pause"], "User": "65535:65535"},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
    }
    manifest = [{"Config": "config.json", "RepoTags": [PAUSE_IMAGE], "Layers": ["layer.tar"]}]
    return _tar(
        {
            "config.json": (json.dumps(config).encode(), 0o644),
            "layer.tar": (layer, 0o644),
            "manifest.json": (json.dumps(manifest).encode(), 0o644),
        }
    )


def write_pause_archive(binaries: Path, target: Path) -> Path:
    """Write the archive beside the other state and return its path."""
    target.write_bytes(pause_archive((binaries / "pause").read_bytes()))
    return target
