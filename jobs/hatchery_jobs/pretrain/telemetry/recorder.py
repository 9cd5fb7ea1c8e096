"""What a run tells the outside: the loss curve, its timeline, Prometheus, trackers, the run's status.

Only the lead tells anything; every worker keeps a log of its own.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Final

from hatchery_jobs.pretrain.launcher.protocol import WorkerSpec
from hatchery_jobs.pretrain.record import event_log as timeline
from hatchery_jobs.pretrain.record.curve import CURVE, Curve
from hatchery_jobs.pretrain.record.event_log import TIMELINE, Timeline
from hatchery_jobs.pretrain.record.sample_log import SAMPLES, Sample, store_samples
from hatchery_jobs.pretrain.state import RunState, Update, goodput
from hatchery_jobs.pretrain.telemetry.metrics import RunMetrics
from hatchery_jobs.pretrain.telemetry.run_info import RunInfo
from hatchery_jobs.pretrain.telemetry.trackers import measured_numbers, open_trackers, update_numbers
from hatchery_jobs.runtime import RECORD, ProgressReporter, debug, log, serve_metrics, to_file

DONE: Final = "done"
"""Cause of the end of workers that did all updates."""

ASKED: Final = "asked to end"
"""Cause of the end of workers whose pod was asked to."""


TRACK_SECONDS: Final = 0.5
"""Shortest time between two updates that trackers are told of, which takes them a millisecond; the curve has all."""


def keep_log(order: WorkerSpec, rank: int, *, leads: bool) -> None:
    """From here on this worker keeps a log of its own, and only the lead's is printed."""
    to_file(log_file(order.folder, rank), console=leads)


def log_file(folder: Path, rank: int) -> Path:
    """The log of a worker."""
    return folder / RECORD / "logs" / f"worker-{rank}.jsonl"


class NullRecorder(AbstractContextManager["NullRecorder"]):
    """What the other workers tell the outside: nothing."""

    def updated(self, state: RunState, update: Update) -> None:
        """One update is done."""
        debug("update", step=state.step, loss=update.loss, **asdict(update.times))

    def measured(self, state: RunState, bits_per_byte: float | None) -> None:
        """The validation split is measured."""

    def sampled(self, state: RunState, samples: Sequence[Sample]) -> None:
        """The model wrote texts."""

    def saved(self, state: RunState, seconds: float) -> None:
        """The checkpoint of a state is durable, so many seconds after it was begun."""

    def checkpoint_failed(self, state: RunState, error: Exception) -> None:
        """The checkpoint of a state could not be written; training goes on."""

    def pushed(self, step: int, error: Exception | None = None) -> None:
        """The checkpoint of a step is on the Hub, or an error kept it from there."""

    def not_finite(self) -> None:
        """The loss is no number."""

    def intervened(self, state: RunState, action: str, reason: str) -> None:
        """The guard skipped a batch or rolled back; `state` is where the run goes on."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends the record."""


class Recorder(NullRecorder):
    """The lead's record of a run."""

    def __init__(self, order: WorkerSpec, state: RunState, setup: RunInfo) -> None:
        """Begins at a state of the run."""
        job, record = order.job, order.folder / RECORD
        self._steps, self._samples_per_step = job.spec.schedule.steps, job.spec.batch.sequences
        self._setup, self._state = setup, state
        self._folder = order.folder
        self._progress = ProgressReporter(job.stage)
        self._metrics = RunMetrics(job, state, setup)
        self._curve = Curve(order.folder / CURVE, state.curve_bytes)
        self._timeline = Timeline(record / TIMELINE)
        self._timeline.add(timeline.BEGAN, state.step, workers=setup.workers, device=setup.device.name)
        self._trackers = open_trackers(job, setup, state, record, order.signs / "trackers")
        self._tracked = -math.inf
        self._numbers: dict[str, float] = {}
        self._stop_serving = _serve(order.metrics_port)
        self._tell(state, {}, now=True)

    def updated(self, state: RunState, update: Update) -> None:
        """Adds an update to the curve."""
        super().updated(state, update)
        self._curve.add(state.step, loss=update.loss, learning_rate=update.rate, gradient_norm=update.norm)
        self._timeline.updated(state.step, self._setup.tokens_per_step, update.times)
        self._metrics.updated(state, update)
        moment = time.monotonic()
        if moment - self._tracked >= TRACK_SECONDS or state.step == self._steps:
            self._tracked = moment
            self._trackers.log(state.step, update_numbers(state, update, self._setup, self._samples_per_step))
        numbers = {
            "tokens_per_second": self._setup.tokens_per_second(state.step, state.train_seconds),
            "mfu": self._setup.mfu(state.step, state.train_seconds),
            "goodput": goodput(state),
        }
        known = {name: number for name, number in numbers.items() if number is not None}
        self._tell(state, {"loss": update.loss, "learning_rate": update.rate, **known})

    def measured(self, state: RunState, bits_per_byte: float | None) -> None:
        """Adds a measurement to the curve."""
        loss = state.eval_loss or 0.0
        known = {} if bits_per_byte is None else {"bits_per_byte": bits_per_byte}
        self._curve.add(state.step, eval_loss=loss, **known)
        self._metrics.measured(loss, bits_per_byte)
        self._trackers.log(state.step, measured_numbers(loss, bits_per_byte))
        self._tell(state, {"eval_loss": loss, **known}, now=True)
        log("measured", step=state.step, evalLoss=loss, bitsPerByte=bits_per_byte)

    def sampled(self, state: RunState, samples: Sequence[Sample]) -> None:
        """Keeps texts; those of later steps are of a run that went back since."""
        store_samples(self._folder / SAMPLES, samples, state.step)
        self._trackers.write(samples)

    def curve_bytes(self) -> int:
        """Length of the curve, which is durable from then on."""
        return self._curve.sync()

    def saved(self, state: RunState, seconds: float) -> None:
        """Says where the run could go on."""
        self._metrics.saved(state.step, seconds)
        self._timeline.add(timeline.CHECKPOINT, state.step, seconds=round(seconds, 3))
        self._tell(self._state, {"checkpoint_step": state.step})
        log("checkpoint", step=state.step, seconds=round(seconds, 3))

    def checkpoint_failed(self, state: RunState, error: Exception) -> None:
        """Says that the newest checkpoint stays the earlier one."""
        self._metrics.checkpoint_failed()
        self._timeline.add(timeline.CHECKPOINT_FAILED, state.step, error=str(error))
        log("checkpoint-failed", step=state.step, error=str(error), level="error")

    def pushed(self, step: int, error: Exception | None = None) -> None:
        """Counts pushes to the Hub, which the publisher logs."""
        if error is None:
            self._metrics.pushed(step)
        else:
            self._metrics.push_failed()

    def not_finite(self) -> None:
        """Counts a loss that is no number."""
        self._metrics.not_finite()

    def intervened(self, state: RunState, action: str, reason: str) -> None:
        """Says what the guard did; after a roll-back the curve forgets what was undone."""
        at, self._state = self._state.step, state
        if action == "rollback":
            self._curve.cut(state.curve_bytes)
            self._trackers.rewind(state.step)
        self._metrics.intervened(state.step, action)
        self._timeline.add(timeline.INTERVENED, at, action=action, reason=reason, to=state.step)
        log("intervened", step=at, action=action, reason=reason, to=state.step)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes all files and frees the port."""
        cause = DONE if self._state.step >= self._steps else ASKED
        self._timeline.add(timeline.ENDED, self._state.step, cause=cause if kind is None else _cause(kind, error))
        self._timeline.close()
        self._curve.close()
        self._trackers.close()
        self._stop_serving()

    def _tell(self, state: RunState, numbers: Mapping[str, float], *, now: bool = False) -> None:
        self._state = state
        self._numbers = {**self._numbers, **numbers}  # replaced at once: a thread that saves may tell too
        self._progress.update(state.step, self._steps, "steps", self._numbers, now=now)


def _cause(kind: type[BaseException], error: BaseException | None) -> str:
    """Why workers ended, in few words: an error's reason where it has one."""
    return str(getattr(error, "reason", kind.__name__))


def _serve(port: int) -> Callable[[], None]:
    try:
        return serve_metrics(port)
    except OSError as error:  # no reason to stop a run that may cost days
        log("metrics-not-served", port=port, error=str(error))
        return lambda: None
