"""What Prometheus sees of a training run.

Counters begin at 0 in every process, so that `rate` is right across restarts; `hatchery_train_step` is the whole run's.
"""

from typing import Final

from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.metrics import MetricWrapperBase

from hatchery_api import __version__
from hatchery_api.contract import JobInput
from hatchery_api.pretrain import PretrainRunSpec
from hatchery_jobs.pretrain.state import RunState, Update
from hatchery_jobs.progress import REGISTRY

LABELS: Final = ["namespace", "name"]
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
    LEARNING_RATE,
    GRADIENT_NORM,
    NON_FINITE,
    CHECKPOINT_SECONDS,
)
"""Metrics whose series exist from the start, so that a rate over the first minutes is not missing."""


class RunMetrics:
    """The metrics of one run, by its labels."""

    def __init__(self, job: JobInput[PretrainRunSpec], state: RunState) -> None:
        """Creates the series of a run; this process begins at a state of it."""
        spec = job.spec
        self._run = (job.namespace, job.name)
        self._sequences = spec.batch.sequences
        self._tokens = spec.batch.sequences * spec.data.sequence_length
        for metric in EVERY:
            metric.labels(*self._run)
        RUN_INFO.labels(*self._run, f"{spec.model.architecture}-{spec.model.size}", spec.precision, __version__).set(1)
        TARGET_STEPS.labels(*self._run).set(spec.schedule.steps)
        STEP.labels(*self._run).set(state.step)
        CHECKPOINT_STEP.labels(*self._run).set(state.step)
        CHECKPOINT_INTERVAL.labels(*self._run).set(spec.checkpoint.every_steps)
        # a process that never gets as far as its first step is stalled too
        LAST_STEP.labels(*self._run).set_to_current_time()

    def updated(self, step: int, update: Update) -> None:
        """One update is done."""
        STEP.labels(*self._run).set(step)
        STEPS.labels(*self._run).inc()
        TOKENS.labels(*self._run).inc(self._tokens)
        SAMPLES.labels(*self._run).inc(self._sequences)
        LOSS.labels(*self._run, "train").set(update.loss)
        LEARNING_RATE.labels(*self._run).set(update.rate)
        GRADIENT_NORM.labels(*self._run).set(update.norm)
        STEP_SECONDS.labels(*self._run).observe(update.seconds)
        DATA_SECONDS.labels(*self._run).inc(update.data_seconds)
        LAST_STEP.labels(*self._run).set_to_current_time()

    def measured(self, loss: float) -> None:
        """The validation split is measured."""
        LOSS.labels(*self._run, "validation").set(loss)

    def saved(self, step: int, seconds: float) -> None:
        """A checkpoint of a step is complete."""
        CHECKPOINT_STEP.labels(*self._run).set(step)
        CHECKPOINT_SECONDS.labels(*self._run).observe(seconds)
        LAST_CHECKPOINT.labels(*self._run).set_to_current_time()

    def not_finite(self) -> None:
        """A loss was no number."""
        NON_FINITE.labels(*self._run).inc()
