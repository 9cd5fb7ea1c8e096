"""Background processes that are known by a record on disk: process id, start time and boot.

Only a process that matches its record in all three is ever signalled, so a recycled id is safe.
"""

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.cluster.console import say, wait_for

STOP_SECONDS = 5.0
"""Grace between SIGTERM and SIGKILL: an API server with open watches would take its whole minute."""

_START_TIME_FIELD = 19
"""Index of `starttime` in /proc/PID/stat, counted after the command's closing parenthesis."""


@dataclass(frozen=True, slots=True)
class Record:
    """One started process; `digest` covers its arguments and configuration."""

    pid: int
    start_ticks: int
    boot: str
    digest: str


def boot_id() -> str:
    """Identify this boot: process ids and start times mean nothing in another one."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def start_ticks(pid: int) -> int | None:
    """Return the start time of a process in clock ticks since boot, None if it is gone or a zombie."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)  # A child of ours that has ended stays a zombie until it is waited for.
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[_START_TIME_FIELD])


class Processes:
    """The processes recorded in one state folder."""

    def __init__(self, state: Path) -> None:
        self._records = state / "processes"
        self._logs = state / "logs"

    def log(self, name: str) -> Path:
        """Return where a process writes its output."""
        return self._logs / f"{name}.log"

    def names(self) -> list[str]:
        """Return the recorded processes in the order of their start."""
        if not self._records.is_dir():
            return []
        files = sorted(self._records.glob("*.json"), key=lambda file: file.stat().st_mtime_ns)
        return [file.stem for file in files]

    def record(self, name: str) -> Record | None:
        """Return the record of a process that is running, None for any other."""
        try:
            record = Record(**json.loads((self._records / f"{name}.json").read_text(encoding="utf-8")))
        except (FileNotFoundError, ValueError, TypeError):
            return None
        alive = record.boot == boot_id() and start_ticks(record.pid) == record.start_ticks
        return record if alive else None

    def alive(self, name: str) -> bool:
        """Tell whether the recorded process is running."""
        return self.record(name) is not None

    def ensure(
        self,
        name: str,
        arguments: Sequence[object],
        *,
        configuration: str = "",
        environment: Mapping[str, str] | None = None,
    ) -> bool:
        """Run a process unless it runs with the same arguments and configuration; tell whether it was started."""
        command = [str(argument) for argument in arguments]
        digest = hashlib.sha256("\0".join([*command, configuration]).encode()).hexdigest()
        running = self.record(name)
        if running is not None and running.digest == digest:
            return False
        if running is not None:
            say(f"restarting {name}: its arguments or configuration changed")
            self.stop(name)
        self._start(name, command, digest, environment or {})
        return True

    def _start(self, name: str, command: list[str], digest: str, environment: Mapping[str, str]) -> None:
        self._records.mkdir(parents=True, exist_ok=True)
        self._logs.mkdir(parents=True, exist_ok=True)
        with self.log(name).open("ab") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, **environment},
            )
        record = Record(process.pid, start_ticks(process.pid) or -1, boot_id(), digest)
        (self._records / f"{name}.json").write_text(json.dumps(asdict(record)), encoding="utf-8")
        process.returncode = 0  # The record owns it from here; Popen must not warn that it is still running.

    def died(self, name: str) -> str | None:
        """Return the last lines of the log of a process that is not running, None while it runs."""
        if self.alive(name):
            return None
        lines = self.log(name).read_text(encoding="utf-8", errors="replace").splitlines()[-8:]
        return f"{name} has ended; {self.log(name)} closes with:\n  " + "\n  ".join(lines)

    def stop(self, name: str) -> bool:
        """End a recorded process and forget it; tell whether it was running."""
        record = self.record(name)
        if record is not None:
            terminate(record.pid, record.start_ticks)
        (self._records / f"{name}.json").unlink(missing_ok=True)
        return record is not None


def terminate(pid: int, ticks: int) -> None:
    """Send SIGTERM, then SIGKILL after the grace, to the process that has this id and start time."""

    def gone() -> bool:
        return start_ticks(pid) != ticks

    for number, seconds in ((signal.SIGTERM, STOP_SECONDS), (signal.SIGKILL, STOP_SECONDS)):
        if gone():
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        deadline = time.monotonic() + seconds
        while not gone() and time.monotonic() < deadline:
            time.sleep(0.02)
    wait_for(f"the end of process {pid}", gone, why="it was killed", timeout_seconds=1)
