"""The loss curve: one line of JSON per update and per validation, free of times and host names, so reproducible."""

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Final

CURVE: Final = "metrics.jsonl"
"""Name of the curve's file in the model's folder."""


class Curve:
    """Appends to the curve; a resumed run first truncates it to its checkpoint."""

    def __init__(self, path: Path, keep_bytes: int) -> None:
        """Opens the file and truncates it to `keep_bytes`."""
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        self._unwritten = b""
        self.cut(keep_bytes)

    def add(self, step: int, **numbers: float) -> None:
        """Appends one line; on a full disk it stays in memory until there is room, and training continues."""
        self._unwritten += json.dumps({"step": step, **numbers}).encode() + b"\n"
        with suppress(OSError):
            self._write()

    def cut(self, keep_bytes: int) -> None:
        """Truncates the file to `keep_bytes`, after a rollback."""
        os.ftruncate(self._file, keep_bytes)
        self._end, self._unwritten = keep_bytes, b""

    def sync(self) -> int:
        """Makes the curve durable and returns its length in bytes.

        Raises:
            OSError: the disk is full or broken.
        """
        self._write()
        os.fsync(self._file)
        return self._end

    def close(self) -> None:
        """Closes the file."""
        os.close(self._file)

    def _write(self) -> None:
        while self._unwritten:
            written = os.pwrite(self._file, self._unwritten, self._end)
            self._end, self._unwritten = self._end + written, self._unwritten[written:]


def read_curve(path: Path) -> list[dict[str, float]]:
    """All lines of a curve."""
    with path.open() as lines:
        return [json.loads(line) for line in lines]
