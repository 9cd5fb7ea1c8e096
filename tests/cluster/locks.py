"""One `up`, `down` or image build at a time: the node's addresses and the image store exist once per machine."""

import contextlib
import fcntl
import time
from collections.abc import Iterator
from pathlib import Path

from tests.cluster.console import say

RETRY_SECONDS = 0.2


@contextlib.contextmanager
def locked(path: Path, purpose: str) -> Iterator[None]:
    """Hold an advisory lock on a file; it goes with the process, so it is never stale."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        told = False
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not told:
                    say(f"waiting for another process that holds {path.name}, before {purpose}")
                    told = True
                time.sleep(RETRY_SECONDS)
        yield
