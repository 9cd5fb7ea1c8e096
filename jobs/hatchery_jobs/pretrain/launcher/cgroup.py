"""Memory limit and OOM kills of this pod's container, from cgroup v1 or v2."""

import re
from pathlib import Path
from typing import Final

ROOT: Final = Path("/sys/fs/cgroup")

LIMIT_FILES: Final = ("memory.max", "memory/memory.limit_in_bytes")
"""Files with the limit: v2, v1."""

OOM_FILES: Final = ("memory.events", "memory/memory.oom_control")
"""Files with the count of OOM kills: v2, v1."""

UNLIMITED_BYTES: Final = 1 << 62
"""cgroup v1 reports a number of this size when there is no limit."""


def memory_limit() -> int | None:
    """Memory limit of the container in bytes; None without a limit."""
    limit = _read(LIMIT_FILES).strip()
    return int(limit) if limit.isdigit() and int(limit) < UNLIMITED_BYTES else None


def oom_kills() -> int:
    """Processes of the container that the kernel has OOM-killed."""
    match = re.search(r"^oom_kill (\d+)$", _read(OOM_FILES), re.MULTILINE)
    return int(match[1]) if match else 0


def _read(names: tuple[str, ...]) -> str:
    path = next((ROOT / name for name in names if (ROOT / name).exists()), None)
    return path.read_text() if path else ""
