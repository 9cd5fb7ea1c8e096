"""Writes checkpoints while training goes on.

Training waits only for a copy of the snapshot in memory, and where the previous checkpoint is still being written, for
that one too: at most one is in flight, so the wait is bounded by one write and the memory by one copy. The copy goes
into buffers that are kept from one checkpoint to the next, since touching fresh memory takes several times longer than
copying. A thread is enough: writing, hashing and syncing release the interpreter's lock.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import torch

from hatchery_jobs.pretrain.checkpoint.snapshot import Leaves, Snapshot, whole
from hatchery_jobs.pretrain.checkpoint.store import Checkpoints
from hatchery_jobs.pretrain.state import RunState
from hatchery_jobs.runtime import RetryableError

Saved = Callable[[RunState, Path], None]
"""Told the state and folder of a checkpoint that is durable, on the writing thread."""

Failed = Callable[[RunState, RetryableError], None]
"""Told why a checkpoint could not be written, on the writing thread."""


class Buffers:
    """Memory for a copy of a snapshot; pinned where the tensors are on a GPU, which then copies by itself."""

    def __init__(self) -> None:
        self._tensors: list[torch.Tensor] = []
        self._copied: torch.cuda.Event | None = None

    def reserve(self, leaves: Leaves) -> None:
        """Takes memory for tensors like these, unless it is there already."""
        tensors = list(leaves.tensors())
        if [(t.shape, t.dtype) for t in tensors] == [(t.shape, t.dtype) for t in self._tensors]:
            return
        self._tensors.clear()  # the old memory goes before the new one comes
        for tensor in tensors:
            self._tensors.append(torch.zeros(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda))

    def copy(self, snapshot: Snapshot) -> Snapshot:
        """A copy of a snapshot in this memory; on a GPU it is complete after `wait`.

        With FSDP the tensors are made whole one after another, so that a device never holds more than one of them.
        """
        leaves = Leaves.of(snapshot)
        self.reserve(leaves)
        tensors = list(leaves.tensors())
        plain = [(buffer, t) for buffer, t in zip(self._tensors, tensors, strict=True) if type(t) is torch.Tensor]
        with torch.no_grad():
            if plain:
                torch._foreach_copy_(*(list(side) for side in zip(*plain, strict=True)), non_blocking=True)
            for buffer, tensor in zip(self._tensors, tensors, strict=True):
                if type(tensor) is not torch.Tensor:
                    buffer.copy_(whole(tensor), non_blocking=True)
        if any(tensor.is_cuda for tensor in tensors):
            # The next update is queued behind the copies on the same stream, so only the writer has to wait for them.
            self._copied = torch.cuda.Event()
            self._copied.record()
        return leaves.with_tensors(self._tensors)

    def wait(self) -> None:
        """Waits for the copy."""
        if self._copied is not None:
            self._copied.synchronize()


class CheckpointWriter:
    """The lead worker's writer of checkpoints.

    A write that fails does not end training: `failed` is told, and the next checkpoint is the next try. `finish` is
    where a state that could not be saved becomes an error.
    """

    def __init__(self, checkpoints: Checkpoints, saved: Saved, failed: Failed, *, asynchronous: bool = True) -> None:
        self._checkpoints = checkpoints
        self._saved, self._failed = saved, failed
        self._asynchronous = asynchronous
        self._buffers = Buffers()
        self._thread = ThreadPoolExecutor(1, "checkpoint-writer")
        self._work: Future[None] | None = None
        self._unsaved: tuple[RunState, Snapshot, RetryableError] | None = None
        self.newest_durable_step: int | None = None
        """Step of the newest checkpoint this writer has made durable."""

    def reserve(self, snapshot: Snapshot) -> None:
        """Takes the memory in the background, so that the first checkpoint is as fast as the others.

        Call it once the optimizer has its state, after the first update.
        """
        self._wait()
        self._work = self._thread.submit(self._buffers.reserve, Leaves.of(snapshot))

    def save(self, state: RunState, snapshot: Snapshot) -> None:
        """Copies a snapshot and writes it in the background; waits first for the write in flight.

        With FSDP the other workers call `contribute` at the same time.

        Raises:
            Exception: whatever was not foreseen in the previous write; a store that fails is told to `failed` instead.
        """
        self._wait()
        self._unsaved = None
        self._work = self._thread.submit(self._write, state, self._buffers.copy(snapshot))
        if not self._asynchronous:
            self._wait()

    def finish(self) -> None:
        """Waits until the newest state is durable; what failed before is tried once more.

        Raises:
            RetryableError: the newest state cannot be saved.
        """
        self._wait()
        if self._unsaved is not None:
            state, snapshot, _ = self._unsaved
            self._unsaved = None
            self._write(state, snapshot)
        if self._unsaved is not None:
            raise self._unsaved[-1]

    def close(self) -> None:
        """Ends the thread, after the write in flight."""
        self._thread.shutdown()

    def _wait(self) -> None:
        work, self._work = self._work, None
        if work is not None:
            work.result()

    def _write(self, state: RunState, snapshot: Snapshot) -> None:
        self._buffers.wait()
        try:
            folder = self._checkpoints.save(state, snapshot)
        except RetryableError as error:
            self._unsaved = (state, snapshot, error)
            self._failed(state, error)
            return
        self.newest_durable_step = state.step
        self._saved(state, folder)
