"""Prometheus metrics of a training run: a table of them, bound to one run.

Counters start at 0 in every process, so that `rate` is right across restarts; `hatchery_train_step` covers the whole
run.
"""

from typing import Any, Final, Generic, TypeVar

from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.metrics import MetricWrapperBase

from hatchery_api import __version__
from hatchery_api.contract import JobInput
from hatchery_api.resources.pretrain import PretrainRunSpec
from hatchery_jobs.pretrain.state import RunState, Update, goodput
from hatchery_jobs.pretrain.telemetry.hardware import RunInfo, device_memory
from hatchery_jobs.runtime import REGISTRY

RUN_LABELS: Final = ("namespace", "name")
STEP_BUCKETS_SECONDS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
CHECKPOINT_BUCKETS_SECONDS: Final = (0.1, 0.5, 1, 5, 10, 30, 60, 120, 300, 600)

M = TypeVar("M", bound=MetricWrapperBase)


class Metric(Generic[M]):
    """A row of the table: an attribute whose value is the run's own series, bound on first access.

    The series exists from the start of the run, so that a rate over the first minutes is not missing, unless the row
    is `optional`.
    """

    def __init__(self, metric: M, *, optional: bool = False) -> None:
        self.metric: Final = metric
        self.optional: Final = optional

    def __set_name__(self, owner: type, name: str) -> None:
        self._attribute = name

    def __get__(self, run: "RunMetrics", owner: type) -> M:
        # the instance's own attribute takes precedence over this descriptor from now on
        series: M = run.__dict__.setdefault(self._attribute, self.metric.labels(*run.labels))
        return series


class LabelledMetric(Generic[M]):
    """A row with further labels: an attribute that maps their values to the run's series.

    The series of the listed values exist from the start of the run.
    """

    def __init__(self, metric: M, *values: str) -> None:
        self.metric: Final = metric
        self.values: Final = values

    def __set_name__(self, owner: type, name: str) -> None:
        self._attribute = name

    def __get__(self, run: "RunMetrics", owner: type) -> "_Series[M]":
        series: _Series[M] = run.__dict__.setdefault(self._attribute, _Series(self.metric, run.labels))
        return series


class _Series(dict[Any, M]):
    """The series of one metric and one run by the values of the further labels."""

    def __init__(self, metric: M, run_labels: tuple[str, str]) -> None:
        super().__init__()
        self._metric, self._run_labels = metric, run_labels

    def __missing__(self, key: str | tuple[str, ...]) -> M:
        values = (key,) if isinstance(key, str) else key
        series: M = self._metric.labels(*self._run_labels, *values)
        self[key] = series
        return series


def _gauge(name: str, text: str, *, optional: bool = False) -> Metric[Gauge]:
    return Metric(Gauge(name, text, RUN_LABELS, registry=REGISTRY), optional=optional)


def _counter(name: str, text: str) -> Metric[Counter]:
    return Metric(Counter(name, text, RUN_LABELS, registry=REGISTRY))


def _histogram(name: str, text: str, buckets: tuple[float, ...]) -> Metric[Histogram]:
    return Metric(Histogram(name, text, RUN_LABELS, registry=REGISTRY, buckets=buckets))


def _gauges(name: str, text: str, *labels: str) -> LabelledMetric[Gauge]:
    return LabelledMetric(Gauge(name, text, (*RUN_LABELS, *labels), registry=REGISTRY))


def _counters(name: str, text: str, label: str, *values: str) -> LabelledMetric[Counter]:
    return LabelledMetric(Counter(name, text, (*RUN_LABELS, label), registry=REGISTRY), *values)


class RunMetrics:
    """The metrics of one run.

    To add one, add a row to the table and set it in a method below; docs/monitoring.md lists it for users.
    """

    run_info = _gauges(
        "hatchery_train_run_info", "1; what is trained, and by which version.", "model", "precision", "version"
    )
    workers = _gauge("hatchery_train_workers", "Processes that train together.")
    target_steps = _gauge("hatchery_train_target_steps", "Optimizer steps of the whole run.")
    step = _gauge("hatchery_train_step", "Optimizer steps done in the whole run.")
    last_step_time = _gauge("hatchery_train_last_step_timestamp_seconds", "When the last update was done.")
    steps = _counter("hatchery_train_steps", "Optimizer steps since the process began.")
    tokens = _counter("hatchery_train_tokens", "Tokens trained on since the process began.")
    samples = _counter("hatchery_train_samples", "Sequences trained on since the process began.")
    targets = _counter("hatchery_train_targets", "Labels learnt from.")

    loss = _gauges("hatchery_train_loss", "Cross-entropy in nats per token.", "split")
    bits_per_byte = _gauge("hatchery_train_bpb", "Last validation loss in bits per byte of text.", optional=True)
    learning_rate = _gauge("hatchery_train_learning_rate", "Learning rate of the last update.")
    gradient_norm = _gauge("hatchery_train_gradient_norm", "Gradient norm of the last update before clipping.")
    nonfinite_losses = _counter("hatchery_train_nonfinite_loss", "Losses that were NaN or infinite.")
    interventions = _counters(
        "hatchery_train_interventions", "Skipped batches and rollbacks.", "action", "skip", "rollback"
    )

    step_seconds = _histogram("hatchery_train_step_duration_seconds", "Time of one update.", STEP_BUCKETS_SECONDS)
    data_seconds = _counter("hatchery_train_data_wait_seconds", "Time spent waiting for data.")
    phase_seconds = _counters(
        "hatchery_train_phase_seconds", "Time of updates by phase.", "phase", "data", "compute", "optimizer", "other"
    )
    model_flops = _counter(
        "hatchery_train_model_flops", "Floating-point operations of the model's own forward and backward passes."
    )
    peak_flops = _gauge(
        "hatchery_train_peak_flops", "Peak FLOP/s of all devices together; absent for unknown devices.", optional=True
    )
    mfu = _gauge(
        "hatchery_train_mfu_ratio",
        "Share of the devices' peak that the last update used; absent for unknown devices.",
        optional=True,
    )
    goodput = _gauge(
        "hatchery_train_goodput_ratio", "Share of the workers' time spent on updates that were kept.", optional=True
    )
    device_memory = _gauges(
        "hatchery_train_device_memory_peak_bytes",
        "Peak memory of the lead's device, allocated or reserved; 0 without a GPU.",
        "state",
    )

    checkpoint_step = _gauge("hatchery_train_checkpoint_step", "Step of the newest checkpoint, 0 for none.")
    checkpoint_time = _gauge(
        "hatchery_train_checkpoint_last_success_timestamp_seconds",
        "When the newest checkpoint was complete.",
        optional=True,
    )
    checkpoint_interval = _gauge("hatchery_train_checkpoint_interval_steps", "Steps between two checkpoints.")
    checkpoint_seconds = _histogram(
        "hatchery_train_checkpoint_duration_seconds", "Time to write a checkpoint.", CHECKPOINT_BUCKETS_SECONDS
    )
    checkpoint_failures = _counter("hatchery_train_checkpoint_failures", "Checkpoints that could not be written.")
    hub_pushes = _counters(
        "hatchery_train_hub_pushes", "Pushes of checkpoints to the Hub.", "result", "success", "failure"
    )
    hub_step = _gauge("hatchery_train_hub_step", "Step of the newest checkpoint on the Hub, 0 for none.")

    def __init__(self, job: JobInput[PretrainRunSpec], state: RunState, info: RunInfo) -> None:
        """Creates the run's series; this process starts or resumes from `state`."""
        spec = job.spec
        self.labels: Final = (job.namespace, job.name)
        self._sequences, self._info = spec.batch.sequences, info
        for attribute, row in vars(RunMetrics).items():
            if isinstance(row, LabelledMetric):
                for value in row.values:
                    getattr(self, attribute)[value]
            elif isinstance(row, Metric) and not row.optional:
                getattr(self, attribute)
        self.run_info[f"{spec.model.architecture}-{spec.model.size}", spec.precision, __version__].set(1)
        self.target_steps.set(spec.schedule.steps)
        self.step.set(state.step)
        self.checkpoint_step.set(state.step)
        self.checkpoint_interval.set(spec.checkpoint.every_steps)
        self.workers.set(info.workers)
        if info.device.peak is not None:
            self.peak_flops.set(info.device.peak * info.workers)
        self._set_device_memory()
        # alerts on a stall must also see a process that never completes its first step
        self.last_step_time.set_to_current_time()

    def updated(self, state: RunState, update: Update) -> None:
        """An update was done."""
        times, tokens = update.times, self._info.tokens_per_step
        self.step.set(state.step)
        self.steps.inc()
        self.tokens.inc(tokens)
        self.targets.inc(update.targets)
        self.samples.inc(self._sequences)
        self.loss["train"].set(update.loss)
        self.learning_rate.set(update.rate)
        self.gradient_norm.set(update.norm)
        self.step_seconds.observe(times.total)
        self.data_seconds.inc(times.data)
        self.phase_seconds["data"].inc(times.data)
        self.phase_seconds["compute"].inc(times.compute)
        self.phase_seconds["optimizer"].inc(times.optimizer)
        self.phase_seconds["other"].inc(times.other)
        self.model_flops.inc(tokens * self._info.flops_per_token)
        if (mfu := self._info.mfu(1, times.total)) is not None:
            self.mfu.set(mfu)
        if (share := goodput(state)) is not None:
            self.goodput.set(share)
        self._set_device_memory()
        self.last_step_time.set_to_current_time()

    def _set_device_memory(self) -> None:
        allocated, reserved = device_memory()
        self.device_memory["allocated"].set(allocated)
        self.device_memory["reserved"].set(reserved)

    def validated(self, loss: float, bits_per_byte: float | None) -> None:
        """The validation loss was computed."""
        self.loss["validation"].set(loss)
        if bits_per_byte is not None:
            self.bits_per_byte.set(bits_per_byte)

    def saved(self, step: int, seconds: float) -> None:
        """A checkpoint is complete."""
        self.checkpoint_step.set(step)
        self.checkpoint_seconds.observe(seconds)
        self.checkpoint_time.set_to_current_time()

    def checkpoint_failed(self) -> None:
        """A checkpoint could not be written."""
        self.checkpoint_failures.inc()

    def pushed(self, step: int) -> None:
        """A checkpoint is on the Hub."""
        self.hub_pushes["success"].inc()
        self.hub_step.set(step)

    def push_failed(self) -> None:
        """A push to the Hub failed."""
        self.hub_pushes["failure"].inc()

    def intervened(self, step: int, action: str) -> None:
        """The guard skipped a batch or rolled back; the run is at `step` now."""
        self.interventions[action].inc()
        self.step.set(step)

    def nonfinite_loss(self) -> None:
        """A loss was NaN or infinite."""
        self.nonfinite_losses.inc()
