"""The loss curve: one line of JSON per update and per measurement, with nothing in it that depends on time or place."""

import json
import os
from pathlib import Path
from typing import Final

CURVE: Final = "metrics.jsonl"
"""Name of the curve's file in the model's folder."""


class Curve:
    """Appends to the curve; a resumed run first cuts off what came after its checkpoint."""

    def __init__(self, path: Path, keep_bytes: int) -> None:
        """Opens the curve and keeps its first bytes."""
        path.touch()
        os.truncate(path, keep_bytes)
        self._stream = path.open("a")

    def add(self, step: int, **numbers: float) -> None:
        """Appends one line."""
        self._stream.write(json.dumps({"step": step, **numbers}) + "\n")
        self._stream.flush()

    def cut(self, keep_bytes: int) -> None:
        """Forgets what came after its first bytes: the run went back to a checkpoint."""
        self._stream.truncate(keep_bytes)
        self._stream.seek(keep_bytes)

    def sync(self) -> int:
        """Makes the curve durable; returns its length in bytes."""
        os.fsync(self._stream.fileno())
        return self._stream.tell()

    def close(self) -> None:
        """Closes the file."""
        self._stream.close()


def read_curve(path: Path) -> list[dict[str, float]]:
    """All lines of a curve."""
    with path.open() as lines:
        return [json.loads(line) for line in lines]
