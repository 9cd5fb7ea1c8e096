"""Records a run: loss curve, timeline, samples, Prometheus, trackers and the run's progress.

Only the lead records; every worker keeps a log of its own.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Final, Protocol

from hatchery_jobs.pretrain.launcher import WorkerSpec
from hatchery_jobs.pretrain.record import CURVE, SAMPLES, TIMELINE, Curve, Event, Sample, Timeline, store_samples
from hatchery_jobs.pretrain.state import RunState, Update, goodput
from hatchery_jobs.pretrain.telemetry.hardware import RunInfo
from hatchery_jobs.pretrain.telemetry.metrics import RunMetrics
from hatchery_jobs.pretrain.telemetry.trackers import open_trackers, update_values, validation_values
from hatchery_jobs.runtime import RECORD, ProgressReporter, debug, log, serve_metrics, to_file

DONE: Final = "done"
"""Cause of exit of workers that did all updates."""

INTERRUPTED: Final = "interrupted"
"""Cause of exit of workers whose pod received SIGTERM."""

TRACK_SECONDS: Final = 0.5
"""Shortest interval between two updates that trackers log, which takes a millisecond; the curve holds every update."""


def open_log(worker: WorkerSpec, rank: int, *, is_lead: bool) -> None:
    """Sends this worker's log to a file of its own; only the lead's is printed as well."""
    to_file(log_file(worker.folder, rank), console=is_lead)


def log_file(folder: Path, rank: int) -> Path:
    """The log of a worker."""
    return folder / RECORD / "logs" / f"worker-{rank}.jsonl"


class Recorder(Protocol):
    """What every worker reports of the run."""

    def updated(self, state: RunState, update: Update) -> None:
        """An update was done."""

    def validated(self, state: RunState, bits_per_byte: float | None) -> None:
        """`state.eval_loss` was computed."""

    def sampled(self, state: RunState, samples: Sequence[Sample]) -> None:
        """The model generated samples."""

    def nonfinite_loss(self) -> None:
        """The loss became NaN or infinite."""

    def intervened(self, state: RunState, action: str, reason: str) -> None:
        """The guard skipped a batch or rolled back; the run continues from `state`."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """The run ended."""


class NullRecorder:
    """No-op recorder for non-lead ranks, which only log their updates."""

    def updated(self, state: RunState, update: Update) -> None:
        """Logs the update."""
        _log_update(state, update)

    def validated(self, state: RunState, bits_per_byte: float | None) -> None:
        """Does nothing."""

    def sampled(self, state: RunState, samples: Sequence[Sample]) -> None:
        """Does nothing."""

    def nonfinite_loss(self) -> None:
        """Does nothing."""

    def intervened(self, state: RunState, action: str, reason: str) -> None:
        """Does nothing."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Does nothing."""


class LeadRecorder(AbstractContextManager["LeadRecorder"]):
    """The lead's recorder, which writes and publishes the record of the run."""

    def __init__(self, worker: WorkerSpec, state: RunState, info: RunInfo) -> None:
        """Opens the record at the state that the run starts or resumes from."""
        job, record = worker.job, worker.folder / RECORD
        self._steps, self._samples_per_step = job.spec.schedule.steps, job.spec.batch.sequences
        self._info, self._state = info, state
        self._folder = worker.folder
        self._progress = ProgressReporter(job.stage)
        self._metrics = RunMetrics(job, state, info)
        self._curve = Curve(worker.folder / CURVE, state.curve_bytes)
        self._timeline = Timeline(record / TIMELINE)
        self._timeline.add(Event.BEGAN, state.step, workers=info.workers, device=info.device.name)
        self._trackers = open_trackers(job, info, state, record, worker.local_folder / "trackers")
        self._tracked = -math.inf
        self._values: dict[str, float] = {}
        self._stop_serving = _serve(worker.metrics_port)
        self._report_progress(state, {}, now=True)

    def updated(self, state: RunState, update: Update) -> None:
        """Records an update everywhere; trackers get one every `TRACK_SECONDS`, and the last one."""
        _log_update(state, update)
        self._curve.add(state.step, loss=update.loss, learning_rate=update.rate, gradient_norm=update.norm)
        self._timeline.updated(state.step, self._info.tokens_per_step, update.times)
        self._metrics.updated(state, update)
        now = time.monotonic()
        if now - self._tracked >= TRACK_SECONDS or state.step == self._steps:
            self._tracked = now
            self._trackers.log(state.step, update_values(state, update, self._info, self._samples_per_step))
        values = {
            "tokens_per_second": self._info.tokens_per_second(state.step, state.train_seconds),
            "mfu": self._info.mfu(state.step, state.train_seconds),
            "goodput": goodput(state),
        }
        known = {name: value for name, value in values.items() if value is not None}
        self._report_progress(state, {"loss": update.loss, "learning_rate": update.rate, **known})

    def validated(self, state: RunState, bits_per_byte: float | None) -> None:
        """Records the validation loss everywhere."""
        loss = state.eval_loss or 0.0
        known = {} if bits_per_byte is None else {"bits_per_byte": bits_per_byte}
        self._curve.add(state.step, eval_loss=loss, **known)
        self._metrics.validated(loss, bits_per_byte)
        self._trackers.log(state.step, validation_values(loss, bits_per_byte))
        self._report_progress(state, {"eval_loss": loss, **known}, now=True)
        log("measured", step=state.step, evalLoss=loss, bitsPerByte=bits_per_byte)

    def sampled(self, state: RunState, samples: Sequence[Sample]) -> None:
        """Stores samples, and drops those of later steps, which the run rolled back."""
        store_samples(self._folder / SAMPLES, samples, state.step)
        self._trackers.log_samples(samples)

    def curve_bytes(self) -> int:
        """Makes the curve durable and returns its length in bytes.

        Raises:
            OSError: the disk is full or broken.
        """
        return self._curve.sync()

    def saved(self, state: RunState, seconds: float) -> None:
        """Records a durable checkpoint and the seconds it took."""
        self._metrics.saved(state.step, seconds)
        self._timeline.add(Event.CHECKPOINT, state.step, seconds=round(seconds, 3))
        self._report_progress(self._state, {"checkpoint_step": state.step})
        log("checkpoint", step=state.step, seconds=round(seconds, 3))

    def checkpoint_failed(self, state: RunState, error: Exception) -> None:
        """Records a checkpoint that could not be written; training continues."""
        self._metrics.checkpoint_failed()
        self._timeline.add(Event.CHECKPOINT_FAILED, state.step, error=str(error))
        log("checkpoint-failed", step=state.step, error=str(error), level="error")

    def pushed(self, step: int, error: Exception | None = None) -> None:
        """Counts a push to the Hub, or its failure; the publisher logs it."""
        if error is None:
            self._metrics.pushed(step)
        else:
            self._metrics.push_failed()

    def nonfinite_loss(self) -> None:
        """Counts a loss that became NaN or infinite."""
        self._metrics.nonfinite_loss()

    def intervened(self, state: RunState, action: str, reason: str) -> None:
        """Records what the guard did; a rollback also truncates the curve."""
        step, self._state = self._state.step, state
        if action == "rollback":
            self._curve.cut(state.curve_bytes)
            self._trackers.rewind(state.step)
        self._metrics.intervened(state.step, action)
        self._timeline.add(Event.INTERVENED, step, action=action, reason=reason, to=state.step)
        log("intervened", step=step, action=action, reason=reason, to=state.step)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Records why the workers exit, closes all files and frees the port."""
        if kind is not None:
            cause = str(getattr(error, "reason", kind.__name__))
        else:
            cause = DONE if self._state.step >= self._steps else INTERRUPTED
        self._timeline.add(Event.ENDED, self._state.step, cause=cause)
        self._timeline.close()
        self._curve.close()
        self._trackers.close()
        self._stop_serving()

    def _report_progress(self, state: RunState, values: Mapping[str, float], *, now: bool = False) -> None:
        self._state = state
        self._values = {**self._values, **values}  # a new dict, because the checkpoint writer's thread reports as well
        self._progress.update(state.step, self._steps, "steps", self._values, now=now)


def _log_update(state: RunState, update: Update) -> None:
    debug("update", step=state.step, loss=update.loss, **asdict(update.times))


def _serve(port: int) -> Callable[[], None]:
    try:
        return serve_metrics(port)
    except OSError as error:  # not worth stopping a run that may cost days
        log("metrics-not-served", port=port, error=str(error))
        return lambda: None
