"""Pushes checkpoints to the Hub while training goes on.

Each is one commit `step N` of a loadable model on `spec.hub.revision`, and one of what a run needs to go on, optimizer
and `RunState`, on a branch of its own, so that whoever downloads the model downloads only that. Both have tags.

Nothing here stops or slows training. While the Hub is away only the newest checkpoint waits; the ones it replaces are
logged. A Hub that refuses ends pushing, not training. What waits is hard links, so that checkpoints may be removed
meanwhile; the disk holds at most two checkpoints more than `checkpoint.keepLast`: the one on its way and the next.
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
from hatchery_jobs.pretrain.checkpoint.store import MANIFEST, OPTIMIZER, WEIGHTS
from hatchery_jobs.pretrain.state import RunState
from hatchery_jobs.runtime import JobError, RetryableError, link_file, log, redact, retry_delay

FIRST_WAIT_SECONDS: Final = 5.0
"""Before the second attempt; doubled for each further one."""

MAX_WAIT_SECONDS: Final = 600.0
"""Longest wait between attempts, unless the Hub asks for more."""

MODEL_FILES: Final = ("config.json", "generation_config.json", "tokenizer*", "special_tokens_map.json", "README.md")
"""Patterns of the files that make a model of the weights."""

LONGEST_PROBLEM: Final = 2000
"""Characters of an error that are kept."""

Told = Callable[[int, Exception | None], None]
"""Told the step of a checkpoint, and why it is not on the Hub."""

Push = Callable[..., HubRevision]
"""`push_once`."""


def is_wanted(spec: PretrainRunSpec) -> bool:
    """Whether checkpoints are pushed at all."""
    return spec.hub is not None and spec.checkpoint.push_every


def state_branch(branch: str) -> str:
    """The branch of optimizer and `RunState` beside a branch of weights."""
    return f"{branch}-state"


def tag_of(branch: str, step: int) -> str:
    """The tag of a checkpoint's weights: `step-N` on main; tags belong to a repository, so others have a prefix."""
    return f"step-{step}" if branch == "main" else f"{branch}-step-{step}"


def state_tag(tag: str) -> str:
    """The tag of optimizer and `RunState` beside a tag of weights."""
    return f"{tag}-state"


def wait_seconds(failures: int, asked: float, chance: float) -> float:
    """Time before the next attempt.

    Args:
        failures: Attempts that failed, from 1.
        asked: Seconds the Hub asks for.
        chance: From 0 to 1, so that many runs do not come back at once.
    """
    return retry_delay(failures, FIRST_WAIT_SECONDS, MAX_WAIT_SECONDS, retry_after=asked, jitter=chance)


@dataclass(frozen=True)
class Staged:
    """A checkpoint that waits to be pushed, apart from its own folder."""

    step: int
    """Its step."""
    folder: Path
    """Holds the folders `model` and `state`."""


@dataclass(frozen=True)
class Published:
    """How far pushing is."""

    step: int | None = None
    """Newest step on the Hub."""
    revision: HubRevision | None = None
    """Its commit of weights."""
    problem: str | None = None
    """Why the newest attempt failed; None after one that succeeded."""
    ended: bool = False
    """True after an error that no further attempt can heal."""


class Publisher:
    """The lead worker's way to the Hub, on a thread of its own."""

    def __init__(
        self,
        job: JobInput[PretrainRunSpec],
        model_files: Path,
        queue: Path,
        push: Push = push_once,
        told: Told = lambda _step, _error: None,
    ) -> None:
        """Starts the thread; what an earlier pod left in the queue is dropped.

        Args:
            job: Its `spec.hub` says where to; the token is in the environment.
            model_files: Folder with config.json, the tokenizer's files and, if there is one, the card README.md.
            queue: Folder on the volume of the checkpoints, for this publisher alone.
            push: Makes one attempt.
            told: Told how each attempt ended, on the publisher's thread.
        """
        if job.spec.hub is None:
            raise ValueError("there is no spec.hub")
        self._hub = job.spec.hub
        self._endpoint = job.hub.endpoint
        self._model_files, self._queue, self._push, self._told = model_files, queue, push, told
        self._wake = threading.Condition()
        self._waiting: Staged | None = None
        self._on_way: Staged | None = None
        self._closing = False
        self.published = Published()
        """How far pushing is."""
        shutil.rmtree(queue, ignore_errors=True)
        self._thread = threading.Thread(target=self._work, name="publisher", daemon=True)
        self._thread.start()

    def offer(self, state: RunState, checkpoint: Path) -> None:
        """Takes a durable checkpoint to be pushed; the one that waits is dropped for it. A `Saved` of the writer.

        After a restart it is offered again: what the Hub has already is not pushed twice.
        """
        if self.published.ended:
            return
        try:
            staged = self._stage(state.step, checkpoint)
        except OSError as error:
            log("push-dropped", step=state.step, why=f"cannot be put into the queue: {error}")
            return
        with self._wake:
            dropped, self._waiting = self._waiting, staged
            self._wake.notify_all()
        if dropped is not None:
            _drop(dropped, f"step {state.step} is newer")

    def finish(self, patience_seconds: float) -> bool:
        """Gives pushing some time to catch up, then ends it; whether the newest checkpoint is on the Hub."""
        with self._wake:
            self._closing = True
            self._wake.notify_all()
            self._wake.wait_for(lambda: self.published.ended or not self._is_behind, patience_seconds)
            behind = self._is_behind
            if behind:
                self._set(ended=True)
        if behind:
            log("push-given-up", published=self.published.step, patienceSeconds=patience_seconds)
        return not behind and not self.published.ended

    @property
    def _is_behind(self) -> bool:
        return self._waiting is not None or self._on_way is not None

    def _stage(self, step: int, checkpoint: Path) -> Staged:
        folder = self._queue / f"step-{step}-{time.monotonic_ns()}"
        (folder / "model").mkdir(parents=True)
        (folder / "state").mkdir()
        link_file(checkpoint / WEIGHTS, folder / "model" / WEIGHTS)
        link_file(checkpoint / OPTIMIZER, folder / "state" / OPTIMIZER)
        link_file(checkpoint / MANIFEST, folder / "state" / MANIFEST)
        for path in {path for pattern in MODEL_FILES for path in self._model_files.glob(pattern)}:
            shutil.copyfile(path, folder / "model" / path.name)  # copies: a card may be written anew
        return Staged(step, folder)

    def _work(self) -> None:
        failures = 0
        while (staged := self._take()) is not None:
            try:
                revision = self._push_both(staged)
            except RetryableError as error:
                failures += 1
                self._told(staged.step, error)
                self._postpone(staged, error, failures)
                continue
            except Exception as error:  # noqa: BLE001 - whatever happens here, training goes on
                text = error.message if isinstance(error, JobError) else "".join(traceback.format_exception(error))
                log("push-ended", step=staged.step, message=text)
                self._told(staged.step, error)
                self._set(ended=True, problem=redact(text)[-LONGEST_PROBLEM:])
            else:
                failures = 0
                self._set(step=staged.step, revision=revision, problem=None)
                log("pushed", step=staged.step, revision=revision.revision)
                self._told(staged.step, None)
            shutil.rmtree(staged.folder, ignore_errors=True)

    def _take(self) -> Staged | None:
        """The next checkpoint to push; None when none will come."""
        with self._wake:
            self._on_way = None
            self._wake.notify_all()
            self._wake.wait_for(lambda: self._waiting or self._closing or self.published.ended)
            if not self.published.ended:
                self._on_way, self._waiting = self._waiting, None
            return self._on_way

    def _postpone(self, staged: Staged, error: RetryableError, failures: int) -> None:
        """Puts a checkpoint back, unless a newer one came meanwhile, and waits."""
        seconds = wait_seconds(failures, error.wait_seconds, random.random())  # noqa: S311 - no secret
        log("push-delayed", step=staged.step, failures=failures, seconds=seconds, message=error.message)
        self._set(problem=redact(error.message)[-LONGEST_PROBLEM:])
        with self._wake:
            newer = self._waiting
            self._waiting, self._on_way = newer or staged, None
        if newer is not None:
            _drop(staged, f"step {newer.step} is newer")
        with self._wake:
            if self._closing:  # the patience of `finish` is short, and it ends the wait
                seconds = min(seconds, FIRST_WAIT_SECONDS)
            was_closing = self._closing
            self._wake.wait_for(lambda: self.published.ended or self._closing != was_closing, seconds)

    def _push_both(self, staged: Staged) -> HubRevision:
        """The state goes first: where weights have their tag, a run can go on from them."""
        message, tag = f"step {staged.step}", tag_of(self._hub.revision, staged.step)
        beside = self._hub.model_copy(update={"revision": state_branch(self._hub.revision)})
        where = {"endpoint": self._endpoint}
        self._push(staged.folder / "state", beside, "model", message, tag=state_tag(tag), **where)
        return self._push(staged.folder / "model", self._hub, "model", message, tag=tag, **where)

    def _set(self, **changes: Any) -> None:
        with self._wake:
            self.published = replace(self.published, **changes)
            self._wake.notify_all()


def _drop(staged: Staged, why: str) -> None:
    log("push-dropped", step=staged.step, why=why)
    shutil.rmtree(staged.folder, ignore_errors=True)
