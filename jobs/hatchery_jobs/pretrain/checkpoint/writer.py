"""Writes checkpoints in the background.

Training blocks only while the snapshot is copied in memory, and while the previous checkpoint is still being written:
one write at most is in flight, which bounds the wait by one write and the memory by one copy. The copy's buffers are
reused, because touching fresh memory takes several times longer than copying. One thread is enough: writing, hashing
and syncing release the GIL.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import torch

from hatchery_jobs.pretrain.checkpoint.snapshot import Leaves, TrainingSnapshot
from hatchery_jobs.pretrain.checkpoint.store import Checkpoints
from hatchery_jobs.pretrain.distributed import full_tensor
from hatchery_jobs.pretrain.state import RunState
from hatchery_jobs.runtime import RetryableError

OnSaved = Callable[[RunState, Path], None]
"""Called on the writer's thread with the state and folder of a durable checkpoint."""

OnFailed = Callable[[RunState, RetryableError], None]
"""Called on the writer's thread with the reason why a checkpoint could not be written."""


class Buffers:
    """Host memory for a copy of a snapshot; pinned for tensors on a GPU, which makes the copy asynchronous."""

    def __init__(self) -> None:
        self._tensors: list[torch.Tensor] = []
        self._copied: torch.cuda.Event | None = None

    def reserve(self, leaves: Leaves) -> None:
        """Allocates memory for tensors of these shapes, unless it is allocated already."""
        tensors = list(leaves.tensors())
        if [(t.shape, t.dtype) for t in tensors] == [(t.shape, t.dtype) for t in self._tensors]:
            return
        self._tensors.clear()  # frees the old memory first
        for tensor in tensors:
            self._tensors.append(torch.zeros(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda))

    def copy(self, snapshot: TrainingSnapshot) -> TrainingSnapshot:
        """Copies a snapshot into this memory; from a GPU the copy is complete after `wait`.

        With FSDP full tensors are gathered one after another, so that a device never holds more than one of them.
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
                    buffer.copy_(full_tensor(tensor), non_blocking=True)
        if any(tensor.is_cuda for tensor in tensors):
            # the next update is queued behind the copies on the same stream, so only the writer has to wait for them
            self._copied = torch.cuda.Event()
            self._copied.record()
        return leaves.with_tensors(self._tensors)

    def wait(self) -> None:
        """Waits for the copy."""
        if self._copied is not None:
            self._copied.synchronize()


class CheckpointWriter:
    """The lead's writer of checkpoints.

    A failed write does not stop training: it is reported to `on_failed`, and the next checkpoint is the next attempt.
    Only `finish` raises for a state that could not be saved.
    """

    def __init__(
        self, checkpoints: Checkpoints, on_saved: OnSaved, on_failed: OnFailed, *, asynchronous: bool = True
    ) -> None:
        self._checkpoints = checkpoints
        self._on_saved, self._on_failed = on_saved, on_failed
        self._asynchronous = asynchronous
        self._buffers = Buffers()
        self._thread = ThreadPoolExecutor(1, "checkpoint-writer")
        self._in_flight: Future[None] | None = None
        self._unsaved: tuple[RunState, TrainingSnapshot, RetryableError] | None = None
        self.newest_durable_step: int | None = None
        """Step of the newest checkpoint this writer has made durable."""

    def reserve(self, snapshot: TrainingSnapshot) -> None:
        """Allocates the buffers in the background, so that the first checkpoint is as fast as the others.

        Call it after the first update, when the optimizer has its state.
        """
        self._wait()
        self._in_flight = self._thread.submit(self._buffers.reserve, Leaves.of(snapshot))

    def save(self, state: RunState, snapshot: TrainingSnapshot) -> None:
        """Waits for the write in flight, copies a snapshot and writes it in the background.

        With FSDP the other workers call `contribute_shards` at the same time.

        Raises:
            Exception: an unexpected error of the previous write; `on_failed` receives those of the store.
        """
        self._wait()
        self._unsaved = None
        self._in_flight = self._thread.submit(self._write, state, self._buffers.copy(snapshot))
        if not self._asynchronous:
            self._wait()

    def finish(self) -> None:
        """Waits until the newest state is durable; a failed write is retried once.

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
        """Waits for the write in flight and ends the thread."""
        self._thread.shutdown()

    def _wait(self) -> None:
        write, self._in_flight = self._in_flight, None
        if write is not None:
            write.result()

    def _write(self, state: RunState, snapshot: TrainingSnapshot) -> None:
        self._buffers.wait()
        try:
            folder = self._checkpoints.save(state, snapshot)
        except RetryableError as error:
            self._unsaved = (state, snapshot, error)
            self._on_failed(state, error)
            return
        self.newest_durable_step = state.step
        self._on_saved(state, folder)
