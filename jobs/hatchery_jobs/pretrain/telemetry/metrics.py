"""What Prometheus sees of a training run.

Counters begin at 0 in every process, so that `rate` is right across restarts; `hatchery_train_step` is the whole run's.
"""

from typing import Final

from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.metrics import MetricWrapperBase

from hatchery_api import __version__
from hatchery_api.contract import JobInput
from hatchery_api.resources.pretrain import PretrainRunSpec
from hatchery_jobs.pretrain.state import RunState, Update, goodput
from hatchery_jobs.pretrain.telemetry.hardware import device_memory
from hatchery_jobs.pretrain.telemetry.run_info import RunInfo
from hatchery_jobs.runtime import REGISTRY

LABELS: Final = ["namespace", "name"]
PHASES: Final = ("data", "compute", "optimizer", "other")
"""Parts of an update: waiting for rows, forward and backward pass, clipping and step, and what is left."""
ACTIONS: Final = ("skip", "rollback")
"""What the guard does instead of ending the run."""
STEP_BUCKETS_SECONDS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
CHECKPOINT_BUCKETS_SECONDS: Final = (0.1, 0.5, 1, 5, 10, 30, 60, 120, 300, 600)

LOSS: Final = Gauge("hatchery_train_loss", "Cross-entropy in nats per token.", [*LABELS, "split"], registry=REGISTRY)
STEP: Final = Gauge("hatchery_train_step", "Optimizer steps done in the whole run.", LABELS, registry=REGISTRY)
TARGET_STEPS: Final = Gauge(
    "hatchery_train_target_steps", "Optimizer steps of the whole run.", LABELS, registry=REGISTRY
)
STEPS: Final = Counter("hatchery_train_steps", "Optimizer steps since the process began.", LABELS, registry=REGISTRY)
TOKENS: Final = Counter(
    "hatchery_train_tokens", "Tokens trained on since the process began.", LABELS, registry=REGISTRY
)
SAMPLES: Final = Counter(
    "hatchery_train_samples", "Sequences trained on since the process began.", LABELS, registry=REGISTRY
)
STEP_SECONDS: Final = Histogram(
    "hatchery_train_step_duration_seconds",
    "Time of one update.",
    LABELS,
    registry=REGISTRY,
    buckets=STEP_BUCKETS_SECONDS,
)
DATA_SECONDS: Final = Counter(
    "hatchery_train_data_wait_seconds", "Time spent waiting for data.", LABELS, registry=REGISTRY
)
PHASE_SECONDS: Final = Counter(
    "hatchery_train_phase_seconds",
    "Time of updates by what it was spent on.",
    [*LABELS, "phase"],
    registry=REGISTRY,
)
TARGETS: Final = Counter("hatchery_train_targets", "Labels learnt from.", LABELS, registry=REGISTRY)
MODEL_FLOPS: Final = Counter(
    "hatchery_train_model_flops",
    "Floating-point operations of the model's own forward and backward passes.",
    LABELS,
    registry=REGISTRY,
)
PEAK_FLOPS: Final = Gauge(
    "hatchery_train_peak_flops",
    "Floating-point operations a second that all devices could do at best; absent for unknown devices.",
    LABELS,
    registry=REGISTRY,
)
MFU: Final = Gauge(
    "hatchery_train_mfu_ratio",
    "Share of the devices' peak that the last update took; absent for unknown devices.",
    LABELS,
    registry=REGISTRY,
)
GOODPUT: Final = Gauge(
    "hatchery_train_goodput_ratio",
    "Share of the workers' time that went into updates that were kept.",
    LABELS,
    registry=REGISTRY,
)
DEVICE_MEMORY: Final = Gauge(
    "hatchery_train_device_memory_peak_bytes",
    "Most memory that the lead's device had allocated, or kept reserved; 0 without a GPU.",
    [*LABELS, "state"],
    registry=REGISTRY,
)
WORKERS: Final = Gauge("hatchery_train_workers", "Processes that train together.", LABELS, registry=REGISTRY)
BITS_PER_BYTE: Final = Gauge(
    "hatchery_train_bpb", "Last measured loss in bits per byte of text.", LABELS, registry=REGISTRY
)
INTERVENTIONS: Final = Counter(
    "hatchery_train_interventions", "Batches skipped and roll-backs.", [*LABELS, "action"], registry=REGISTRY
)
LEARNING_RATE: Final = Gauge(
    "hatchery_train_learning_rate", "Learning rate of the last update.", LABELS, registry=REGISTRY
)
GRADIENT_NORM: Final = Gauge(
    "hatchery_train_gradient_norm", "Gradient norm of the last update before clipping.", LABELS, registry=REGISTRY
)
NON_FINITE: Final = Counter("hatchery_train_nonfinite_loss", "Losses that were no number.", LABELS, registry=REGISTRY)
LAST_STEP: Final = Gauge(
    "hatchery_train_last_step_timestamp_seconds", "When the last update was done.", LABELS, registry=REGISTRY
)
LAST_CHECKPOINT: Final = Gauge(
    "hatchery_train_checkpoint_last_success_timestamp_seconds",
    "When the newest checkpoint was complete.",
    LABELS,
    registry=REGISTRY,
)
CHECKPOINT_STEP: Final = Gauge(
    "hatchery_train_checkpoint_step", "Step of the newest checkpoint, 0 for none.", LABELS, registry=REGISTRY
)
CHECKPOINT_INTERVAL: Final = Gauge(
    "hatchery_train_checkpoint_interval_steps", "Steps between two checkpoints.", LABELS, registry=REGISTRY
)
CHECKPOINT_SECONDS: Final = Histogram(
    "hatchery_train_checkpoint_duration_seconds",
    "Time to write a checkpoint.",
    LABELS,
    registry=REGISTRY,
    buckets=CHECKPOINT_BUCKETS_SECONDS,
)
CHECKPOINT_FAILURES: Final = Counter(
    "hatchery_train_checkpoint_failures", "Checkpoints that could not be written.", LABELS, registry=REGISTRY
)
HUB_PUSHES: Final = Counter(
    "hatchery_train_hub_pushes", "Pushes of checkpoints to the Hub.", [*LABELS, "result"], registry=REGISTRY
)
HUB_STEP: Final = Gauge(
    "hatchery_train_hub_step", "Step of the newest checkpoint on the Hub, 0 for none.", LABELS, registry=REGISTRY
)
RUN_INFO: Final = Gauge(
    "hatchery_train_run_info",
    "1; what is trained, and by which version.",
    [*LABELS, "model", "precision", "version"],
    registry=REGISTRY,
)
EVERY: Final[tuple[MetricWrapperBase, ...]] = (
    STEP,
    TARGET_STEPS,
    STEPS,
    TOKENS,
    SAMPLES,
    STEP_SECONDS,
    DATA_SECONDS,
    TARGETS,
    MODEL_FLOPS,
    LEARNING_RATE,
    GRADIENT_NORM,
    NON_FINITE,
    CHECKPOINT_SECONDS,
    CHECKPOINT_FAILURES,
    HUB_STEP,
)
"""Metrics whose series exist from the start, so that a rate over the first minutes is not missing."""


class RunMetrics:
    """The metrics of one run, by its labels."""

    def __init__(self, job: JobInput[PretrainRunSpec], state: RunState, setup: RunInfo) -> None:
        """Creates the series of a run; this process begins at a state of it."""
        spec = job.spec
        self._run = (job.namespace, job.name)
        self._sequences, self._setup = spec.batch.sequences, setup
        for metric in EVERY:
            metric.labels(*self._run)
        for metric, values in ((PHASE_SECONDS, PHASES), (INTERVENTIONS, ACTIONS), (HUB_PUSHES, ("success", "failure"))):
            for value in values:
                metric.labels(*self._run, value)
        RUN_INFO.labels(*self._run, f"{spec.model.architecture}-{spec.model.size}", spec.precision, __version__).set(1)
        TARGET_STEPS.labels(*self._run).set(spec.schedule.steps)
        STEP.labels(*self._run).set(state.step)
        CHECKPOINT_STEP.labels(*self._run).set(state.step)
        CHECKPOINT_INTERVAL.labels(*self._run).set(spec.checkpoint.every_steps)
        WORKERS.labels(*self._run).set(setup.workers)
        if setup.device.peak is not None:
            PEAK_FLOPS.labels(*self._run).set(setup.device.peak * setup.workers)
        self._remember_memory()
        # a process that never gets as far as its first step is stalled too
        LAST_STEP.labels(*self._run).set_to_current_time()

    def updated(self, state: RunState, update: Update) -> None:
        """One update is done."""
        times, tokens = update.times, self._setup.tokens_per_step
        STEP.labels(*self._run).set(state.step)
        STEPS.labels(*self._run).inc()
        TOKENS.labels(*self._run).inc(tokens)
        TARGETS.labels(*self._run).inc(update.targets)
        SAMPLES.labels(*self._run).inc(self._sequences)
        LOSS.labels(*self._run, "train").set(update.loss)
        LEARNING_RATE.labels(*self._run).set(update.rate)
        GRADIENT_NORM.labels(*self._run).set(update.norm)
        STEP_SECONDS.labels(*self._run).observe(times.total)
        DATA_SECONDS.labels(*self._run).inc(times.data)
        for phase, seconds in zip(PHASES, (times.data, times.compute, times.optimizer, times.other), strict=True):
            PHASE_SECONDS.labels(*self._run, phase).inc(seconds)
        MODEL_FLOPS.labels(*self._run).inc(tokens * self._setup.flops_per_token)
        if (mfu := self._setup.mfu(1, times.total)) is not None:
            MFU.labels(*self._run).set(mfu)
        if (share := goodput(state)) is not None:
            GOODPUT.labels(*self._run).set(share)
        self._remember_memory()
        LAST_STEP.labels(*self._run).set_to_current_time()

    def _remember_memory(self) -> None:
        for kind, size in zip(("allocated", "reserved"), device_memory(), strict=True):
            DEVICE_MEMORY.labels(*self._run, kind).set(size)

    def measured(self, loss: float, bits_per_byte: float | None) -> None:
        """The validation split is measured."""
        LOSS.labels(*self._run, "validation").set(loss)
        if bits_per_byte is not None:
            BITS_PER_BYTE.labels(*self._run).set(bits_per_byte)

    def saved(self, step: int, seconds: float) -> None:
        """A checkpoint of a step is complete."""
        CHECKPOINT_STEP.labels(*self._run).set(step)
        CHECKPOINT_SECONDS.labels(*self._run).observe(seconds)
        LAST_CHECKPOINT.labels(*self._run).set_to_current_time()

    def checkpoint_failed(self) -> None:
        """A checkpoint could not be written."""
        CHECKPOINT_FAILURES.labels(*self._run).inc()

    def pushed(self, step: int) -> None:
        """The checkpoint of a step is on the Hub."""
        HUB_PUSHES.labels(*self._run, "success").inc()
        HUB_STEP.labels(*self._run).set(step)

    def push_failed(self) -> None:
        """A checkpoint did not get to the Hub."""
        HUB_PUSHES.labels(*self._run, "failure").inc()

    def intervened(self, step: int, action: str) -> None:
        """The guard left a batch out or went back; the run is at a step now."""
        INTERVENTIONS.labels(*self._run, action).inc()
        STEP.labels(*self._run).set(step)

    def not_finite(self) -> None:
        """A loss was no number."""
        NON_FINITE.labels(*self._run).inc()
