"""Contestants that take turns, a few steps each, so that other work on the machine meets all alike.

Each is a process of its own, in the environment its users give it: what memory costs depends on both.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

Step = Callable[[], None]
"""Called by a loop before every step."""


class Contestant:
    """A training loop that runs only in its turns; a context manager that ends it."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        """Starts a process that calls `take_turns`, and waits for its first step."""
        self._process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._hear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def play(self, steps: int) -> float:
        """CPU seconds of the process for so many steps.

        Raises:
            RuntimeError: the loop failed or ended.
        """
        assert self._process.stdin is not None
        self._process.stdin.write(f"{steps}\n")
        self._process.stdin.flush()
        return float(self._hear())

    def end(self) -> Any:
        """Ends the loop; gives what it reports."""
        said, _ = self._process.communicate()
        return json.loads(said)

    def _hear(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.communicate()
            code = self._process.returncode
            raise RuntimeError(f"a contestant ended before its time, with exit code {code}: {self._process.args}")
        return json.loads(line)


class _Enough(BaseException):
    """Ends a loop: no `except Exception` of a library may hold it up."""


def take_turns(train: Callable[[Step], object], report: Callable[[], object] = lambda: None) -> None:
    """The part of a contestant: trains in turns until there are no more, then reports."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a loop prints is no answer

    def answer(value: object) -> None:
        answers.write(json.dumps(value) + "\n")
        answers.flush()

    left, began = 0, 0.0

    def step() -> None:
        nonlocal left, began
        if left == 0:
            answer(time.process_time() - began)
            asked = sys.stdin.readline()
            if not asked:
                raise _Enough
            left, began = int(asked), time.process_time()
        left -= 1

    try:
        train(step)
    except _Enough:
        answer(report())
    else:
        raise EOFError("the loop has no more steps")
