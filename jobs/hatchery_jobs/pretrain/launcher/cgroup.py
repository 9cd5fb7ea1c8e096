"""What the kernel says of the memory of this pod's container, in either version of its control groups."""

import re
from pathlib import Path
from typing import Final

ROOT: Final = Path("/sys/fs/cgroup")

LIMITS: Final = ("memory.max", "memory/memory.limit_in_bytes")
"""Files of the limit, of the second version and of the first."""

EVENTS: Final = ("memory.events", "memory/memory.oom_control")
"""Files that count the killed, likewise."""

UNLIMITED_BYTES: Final = 1 << 62
"""The first version has a number of this size where there is no limit."""


def memory_limit() -> int | None:
    """Bytes the container may take; None: as many as its node has."""
    said = _read(LIMITS).strip()
    return int(said) if said.isdigit() and int(said) < UNLIMITED_BYTES else None


def memory_kills() -> int:
    """Processes of the container that were killed for memory so far."""
    found = re.search(r"^oom_kill (\d+)$", _read(EVENTS), re.MULTILINE)
    return int(found[1]) if found else 0


def _read(names: tuple[str, ...]) -> str:
    path = next((ROOT / name for name in names if (ROOT / name).exists()), None)
    return path.read_text() if path else ""
