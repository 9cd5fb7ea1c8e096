"""What a run tells the outside: the loss curve, Prometheus, the run's status. Only the lead tells anything."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import TracebackType

from hatchery_jobs.logs import log
from hatchery_jobs.pretrain.curve import CURVE, Curve
from hatchery_jobs.pretrain.metrics import RunMetrics
from hatchery_jobs.pretrain.orders import WorkOrder
from hatchery_jobs.pretrain.state import RunState, Update
from hatchery_jobs.progress import Progress, serve_metrics


class Silence(AbstractContextManager["Silence"]):
    """What the other workers tell: nothing."""

    def updated(self, state: RunState, update: Update) -> None:
        """One update is done."""

    def measured(self, state: RunState, bits_per_byte: float) -> None:
        """The validation split is measured."""

    def saved(self, state: RunState, began: float) -> None:
        """A checkpoint is complete; `began` is the monotonic time at which it was begun."""

    def not_finite(self) -> None:
        """The loss is no number."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends the record."""


class Recorder(Silence):
    """The lead's record of a run."""

    def __init__(self, order: WorkOrder, state: RunState, tokens_per_step: int) -> None:
        """Begins at a state of the run."""
        job = order.job
        self._steps, self._tokens_per_step = job.spec.schedule.steps, tokens_per_step
        self._progress = Progress(job.stage)
        self._metrics = RunMetrics(job, state)
        self._curve = Curve(order.folder / CURVE, state.curve_bytes)
        self._numbers: dict[str, float] = {}
        self._stop_serving = _serve(order.metrics_port)
        self._tell(state, now=True)

    def updated(self, state: RunState, update: Update) -> None:
        """Adds an update to the curve."""
        self._curve.add(state.step, loss=update.loss, learning_rate=update.rate, gradient_norm=update.norm)
        self._metrics.updated(state.step, update)
        speed = state.step * self._tokens_per_step / state.train_seconds
        self._tell(state, loss=update.loss, learning_rate=update.rate, tokens_per_second=speed)

    def measured(self, state: RunState, bits_per_byte: float) -> None:
        """Adds a measurement to the curve."""
        loss = state.eval_loss or 0.0
        self._curve.add(state.step, eval_loss=loss, bits_per_byte=bits_per_byte)
        self._metrics.measured(loss)
        self._tell(state, now=True, eval_loss=loss, bits_per_byte=bits_per_byte)
        log("measured", step=state.step, evalLoss=loss, bitsPerByte=bits_per_byte)

    def curve_bytes(self) -> int:
        """Length of the curve, which is durable from then on."""
        return self._curve.sync()

    def saved(self, state: RunState, began: float) -> None:
        """Says where the run could go on."""
        seconds = time.monotonic() - began
        self._metrics.saved(state.step, seconds)
        self._tell(state, checkpoint_step=state.step)
        log("checkpoint", step=state.step, seconds=round(seconds, 3))

    def not_finite(self) -> None:
        """Counts a loss that is no number."""
        self._metrics.not_finite()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes the curve and frees the port."""
        self._curve.close()
        self._stop_serving()

    def _tell(self, state: RunState, *, now: bool = False, **numbers: float) -> None:
        self._numbers |= numbers
        self._progress.update(state.step, self._steps, "steps", self._numbers, now=now)


def _serve(port: int) -> Callable[[], None]:
    try:
        return serve_metrics(port)
    except OSError as error:  # no reason to stop a run that may cost days
        log("metrics-not-served", port=port, error=str(error))
        return lambda: None
