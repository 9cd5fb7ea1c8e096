"""What only the lead does: it records the run, writes checkpoints, pushes them and exports the model."""

import time
from pathlib import Path
from typing import Any, Final

from hatchery_jobs.pretrain.checkpoint import (
    Checkpoints,
    CheckpointWriter,
    Publisher,
    TrainingSnapshot,
    pushes_checkpoints,
)
from hatchery_jobs.pretrain.data import copy_tokenizer
from hatchery_jobs.pretrain.launcher import WorkerSpec
from hatchery_jobs.pretrain.record import CURVE
from hatchery_jobs.pretrain.state import RunState
from hatchery_jobs.pretrain.telemetry import LeadRecorder
from hatchery_jobs.runtime import RetryableError, storage_errors

PUBLISH_TIMEOUT_SECONDS: Final = 120.0
"""Wait at the end for checkpoints that are not on the Hub yet; the finished model is pushed afterwards anyway."""


class LeadServices:
    """The lead's recorder, checkpoint writer and publisher; every other worker has none of them."""

    def __init__(
        self,
        worker: WorkerSpec,
        model: Any,
        checkpoints: Checkpoints,
        state: RunState,
        recorder: LeadRecorder,
    ) -> None:
        """Starts the services.

        Args:
            worker: The lead's own spec.
            model: Unwrapped transformers model.
            checkpoints: The run's.
            state: The state that the run starts or resumes from. Its checkpoint is offered to the Hub again, in case
                an earlier pod did not get to push it.
            recorder: Informed of checkpoints and pushes.
        """
        self._worker, self._model = worker, model
        self._checkpoints, self._recorder = checkpoints, recorder
        self._save_started = 0.0
        self._curve_error: RetryableError | None = None
        self._writer = CheckpointWriter(
            checkpoints,
            self._saved,
            recorder.checkpoint_failed,
            asynchronous=worker.job.spec.checkpoint.asynchronous,
        )
        self._publisher = self._open_publisher() if pushes_checkpoints(worker.job.spec) else None
        if self._publisher is not None and state.checkpoint_step is not None:
            self._publisher.offer(state, checkpoints.path(state.checkpoint_step))

    def reserve(self, snapshot: TrainingSnapshot) -> None:
        """Allocates the checkpoint writer's buffers; call it after the first update."""
        self._writer.reserve(snapshot)

    def save(self, state: RunState, snapshot: TrainingSnapshot) -> bool:
        """Makes the curve durable and writes a checkpoint in the background.

        Returns:
            False if the curve could not be written; then there is no checkpoint, and its snapshot was not gathered.
        """
        try:
            with storage_errors(str(self._worker.folder / CURVE)):
                curve_bytes = self._recorder.curve_bytes()
        except RetryableError as error:
            self._curve_error = error
            self._recorder.checkpoint_failed(state, error)
            return False
        self._curve_error = None
        self._save_started = time.monotonic()
        self._writer.save(state.model_copy(update={"curve_bytes": curve_bytes}), snapshot)
        return True

    def wait_durable(self) -> None:
        """Waits until the newest state is durable.

        Raises:
            RetryableError: it cannot be saved.
        """
        if self._curve_error is not None:
            raise self._curve_error
        self._writer.finish()

    def settle(self, state: RunState) -> None:
        """Waits for the write in flight; a failure is recorded, not raised."""
        try:
            self._writer.finish()
        except RetryableError as error:
            self._recorder.checkpoint_failed(state, error)

    def finish(self, step: int) -> None:
        """Exports the model of the last checkpoint, and gives the publisher time to catch up."""
        self._model.config.save_pretrained(self._worker.folder)
        # the checkpoint has full tensors, also where workers hold shards
        self._checkpoints.export_weights(step, self._worker.folder)
        if self._publisher is not None:
            self._publisher.finish(PUBLISH_TIMEOUT_SECONDS)

    def close(self) -> None:
        """Ends the writer, after the write in flight."""
        self._writer.close()

    def _saved(self, state: RunState, folder: Path) -> None:
        self._recorder.saved(state, time.monotonic() - self._save_started)
        if self._publisher is not None:
            self._publisher.offer(state, folder)

    def _open_publisher(self) -> Publisher:
        """The publisher; the files that make a loadable model of the weights are written first."""
        worker, model_files = self._worker, self._worker.local_folder / "model"
        self._model.config.save_pretrained(model_files)
        copy_tokenizer(worker.tokenizer, model_files)
        return Publisher(worker.job, model_files, worker.outbox, on_push=self._recorder.pushed)
