"""Pushes checkpoints to the Hub in the background.

Each checkpoint is two tagged commits `step N`: a loadable model on `spec.hub.revision`, and what resuming needs beside
it, optimizer and `RunState`, on a separate branch, so that a download of the model stays small.

Publishing never stops or slows training. While the Hub is unavailable only the newest checkpoint stays queued; those it
replaces are logged. If the Hub rejects a push, publishing ends and training continues. The queue holds hard links, so
that the store may remove checkpoints. The disk needs room for `checkpoint.keepLast` plus two checkpoints: the one in
flight and the next.
"""

import random
import shutil
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from hatchery_api.contract import JobInput
from hatchery_api.resources.pretrain import PretrainRunSpec
from hatchery_api.status import HubRevision
from hatchery_jobs.hub import push_once
from hatchery_jobs.pretrain.checkpoint.store import CHECKPOINT_MANIFEST, OPTIMIZER, WEIGHTS
from hatchery_jobs.pretrain.state import RunState
from hatchery_jobs.runtime import JobError, RetryableError, link_file, log, redact, retry_delay

FIRST_WAIT_SECONDS: Final = 5.0
"""Wait before the second attempt; doubled for each further one."""

MAX_WAIT_SECONDS: Final = 600.0
"""Longest wait between attempts, unless `Retry-After` is longer."""

MODEL_FILES: Final = ("config.json", "generation_config.json", "tokenizer*", "special_tokens_map.json", "README.md")
"""Patterns of the files that the model repository gets beside the weights."""

MAX_PROBLEM_CHARACTERS: Final = 2000
"""Length to which an error is cut."""

OnPush = Callable[[int, Exception | None], None]
"""Called with the step of a checkpoint, and the error if its push failed."""

Push = Callable[..., HubRevision]
"""`push_once`."""


def pushes_checkpoints(spec: PretrainRunSpec) -> bool:
    """Whether the run pushes its checkpoints."""
    return spec.hub is not None and spec.checkpoint.push_every


def state_branch(branch: str) -> str:
    """The branch with optimizer and `RunState` for a branch of weights."""
    return f"{branch}-state"


def tag_of(branch: str, step: int) -> str:
    """The tag of a checkpoint's weights: `step-N` on main, prefixed on other branches, which share the tags."""
    return f"step-{step}" if branch == "main" else f"{branch}-step-{step}"


def state_tag(tag: str) -> str:
    """The tag of optimizer and `RunState` for a tag of weights."""
    return f"{tag}-state"


def backoff_seconds(failures: int, retry_after: float, jitter: float) -> float:
    """Wait before the next attempt: exponential backoff with jitter.

    Args:
        failures: Failed attempts so far, from 1.
        retry_after: Seconds that the Hub asks for; the wait is at least this long.
        jitter: From 0 to 1: the wait is between half of the backoff and all of it.
    """
    return retry_delay(failures, FIRST_WAIT_SECONDS, MAX_WAIT_SECONDS, retry_after=retry_after, jitter=jitter)


@dataclass(frozen=True)
class Staged:
    """A queued checkpoint."""

    step: int
    """Its step."""
    folder: Path
    """Contains the folders `model` and `state`."""


@dataclass(frozen=True)
class Published:
    """State of publishing."""

    step: int | None = None
    """Newest step on the Hub."""
    revision: HubRevision | None = None
    """Its commit of weights."""
    problem: str | None = None
    """Error of the latest attempt; None if it succeeded."""
    ended: bool = False
    """True after an error that retries cannot heal."""


class Publisher:
    """The lead's publisher, with a thread of its own."""

    def __init__(
        self,
        job: JobInput[PretrainRunSpec],
        model_files: Path,
        queue: Path,
        push: Push = push_once,
        on_push: OnPush = lambda _step, _error: None,
    ) -> None:
        """Starts the thread and empties the queue that an earlier pod may have left.

        Args:
            job: Its `spec.hub` names the repository; the token is in the environment.
            model_files: Folder with config.json, the tokenizer's files and, optionally, the card README.md.
            queue: Folder on the volume of the checkpoints, for this publisher alone.
            push: Makes one attempt.
            on_push: Called on the publisher's thread after each attempt.
        """
        if job.spec.hub is None:
            raise ValueError("spec.hub is missing")
        self._hub = job.spec.hub
        self._endpoint = job.hub.endpoint
        self._model_files, self._queue, self._push, self._on_push = model_files, queue, push, on_push
        self._wake = threading.Condition()
        self._waiting: Staged | None = None
        self._in_flight: Staged | None = None
        self._closing = False
        self.published = Published()
        """State of publishing."""
        shutil.rmtree(queue, ignore_errors=True)
        self._thread = threading.Thread(target=self._work, name="publisher", daemon=True)
        self._thread.start()

    def offer(self, state: RunState, checkpoint: Path) -> None:
        """Queues a durable checkpoint in place of the one queued before.

        After a restart the newest checkpoint is offered again; what the Hub already has is not pushed twice.
        """
        if self.published.ended:
            return
        try:
            staged = self._stage(state.step, checkpoint)
        except OSError as error:
            log("push-dropped", step=state.step, why=f"not queued: {error}")
            return
        with self._wake:
            dropped, self._waiting = self._waiting, staged
            self._wake.notify_all()
        if dropped is not None:
            _drop(dropped, f"step {state.step} is newer")

    def finish(self, timeout_seconds: float) -> bool:
        """Waits for publishing to catch up, then ends it; returns whether the newest checkpoint is on the Hub."""
        with self._wake:
            self._closing = True
            self._wake.notify_all()
            self._wake.wait_for(lambda: self.published.ended or not self._is_behind, timeout_seconds)
            behind = self._is_behind
            if behind:
                self._set(ended=True)
        if behind:
            log("push-given-up", published=self.published.step, timeoutSeconds=timeout_seconds)
        return not behind and not self.published.ended

    @property
    def _is_behind(self) -> bool:
        return self._waiting is not None or self._in_flight is not None

    def _stage(self, step: int, checkpoint: Path) -> Staged:
        folder = self._queue / f"step-{step}-{time.monotonic_ns()}"
        (folder / "model").mkdir(parents=True)
        (folder / "state").mkdir()
        link_file(checkpoint / WEIGHTS, folder / "model" / WEIGHTS)
        link_file(checkpoint / OPTIMIZER, folder / "state" / OPTIMIZER)
        link_file(checkpoint / CHECKPOINT_MANIFEST, folder / "state" / CHECKPOINT_MANIFEST)
        for path in {path for pattern in MODEL_FILES for path in self._model_files.glob(pattern)}:
            shutil.copyfile(path, folder / "model" / path.name)  # copies, because a card may be rewritten
        return Staged(step, folder)

    def _work(self) -> None:
        failures = 0
        while (staged := self._take()) is not None:
            try:
                revision = self._push_both(staged)
            except RetryableError as error:
                failures += 1
                self._on_push(staged.step, error)
                self._postpone(staged, error, failures)
                continue
            except Exception as error:  # noqa: BLE001 - publishing must not stop training
                text = error.message if isinstance(error, JobError) else "".join(traceback.format_exception(error))
                log("push-ended", step=staged.step, message=text)
                self._on_push(staged.step, error)
                self._set(ended=True, problem=redact(text)[-MAX_PROBLEM_CHARACTERS:])
            else:
                failures = 0
                self._set(step=staged.step, revision=revision, problem=None)
                log("pushed", step=staged.step, revision=revision.revision)
                self._on_push(staged.step, None)
            shutil.rmtree(staged.folder, ignore_errors=True)

    def _take(self) -> Staged | None:
        """Waits for the next checkpoint to push; None at the end."""
        with self._wake:
            self._in_flight = None
            self._wake.notify_all()
            self._wake.wait_for(lambda: self._waiting or self._closing or self.published.ended)
            if not self.published.ended:
                self._in_flight, self._waiting = self._waiting, None
            return self._in_flight

    def _postpone(self, staged: Staged, error: RetryableError, failures: int) -> None:
        """Requeues a checkpoint, unless a newer one is queued, and backs off."""
        seconds = backoff_seconds(failures, error.wait_seconds, random.random())  # noqa: S311 - not a secret
        log("push-delayed", step=staged.step, failures=failures, seconds=seconds, message=error.message)
        self._set(problem=redact(error.message)[-MAX_PROBLEM_CHARACTERS:])
        with self._wake:
            newer = self._waiting
            self._waiting, self._in_flight = newer or staged, None
        if newer is not None:
            _drop(staged, f"step {newer.step} is newer")
        with self._wake:
            if self._closing:  # `finish` waits only briefly and interrupts this wait
                seconds = min(seconds, FIRST_WAIT_SECONDS)
            was_closing = self._closing
            self._wake.wait_for(lambda: self.published.ended or self._closing != was_closing, seconds)

    def _push_both(self, staged: Staged) -> HubRevision:
        """Pushes the state first, so that a run can resume from any tagged weights."""
        message, tag = f"step {staged.step}", tag_of(self._hub.revision, staged.step)
        state_hub = self._hub.model_copy(update={"revision": state_branch(self._hub.revision)})
        options = {"endpoint": self._endpoint}
        self._push(staged.folder / "state", state_hub, "model", message, tag=state_tag(tag), **options)
        return self._push(staged.folder / "model", self._hub, "model", message, tag=tag, **options)

    def _set(self, **changes: Any) -> None:
        with self._wake:
            self.published = replace(self.published, **changes)
            self._wake.notify_all()


def _drop(staged: Staged, why: str) -> None:
    log("push-dropped", step=staged.step, why=why)
    shutil.rmtree(staged.folder, ignore_errors=True)
