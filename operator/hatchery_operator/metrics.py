"""Prometheus metrics of the operator.

Numbers about resources are made from the cache when they are asked for, so they go when the resource goes.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from hatchery_api import __version__
from hatchery_api.status import EvalRunStatus, PretrainRunStatus
from hatchery_operator.objects import Run, parse_time

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
"""The text format Prometheus reads."""

_PERCENT: Final = 100
_RUN: Final = ("kind", "namespace", "name")
_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """All metrics, in a registry of their own."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._reconciles = Counter(
            "hatchery_reconcile", "Passes over resources.", ("kind", "result"), registry=self.registry
        )
        self._seconds = Histogram(
            "hatchery_reconcile_duration_seconds",
            "Time of a pass.",
            ("kind",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._requests = Counter(
            "hatchery_api_requests",
            "Answers of the API server; code 0 is none.",
            ("verb", "code"),
            registry=self.registry,
        )
        self.missed_changes = Counter(
            "hatchery_watch_missed", "Changes that a listing showed and no watch had told.", registry=self.registry
        )
        self._definitions = Gauge(
            "hatchery_crd_outdated",
            "1 while the served CustomResourceDefinition lacks fields of this version.",
            ("kind",),
            registry=self.registry,
        )
        build = Gauge("hatchery_build_info", "The operator's version.", ("version",), registry=self.registry)
        build.labels(__version__).set(1)

    def reconciled(self, kind: str, result: str, seconds: float) -> None:
        """Counts a pass."""
        self._reconciles.labels(kind, result).inc()
        self._seconds.labels(kind).observe(seconds)

    def answered(self, verb: str, code: int) -> None:
        """Counts an answer of the API server."""
        self._requests.labels(verb, str(code)).inc()

    def definition_outdated(self, kind: str, *, outdated: bool) -> None:
        """Says whether the definition of a kind is older than this version."""
        self._definitions.labels(kind).set(outdated)

    def watch(self, name: str, help_text: str, value: Callable[[], float]) -> None:
        """Adds a gauge that is read when it is asked for."""
        Gauge(name, help_text, registry=self.registry).set_function(value)

    def watch_runs(self, runs: Callable[[], Iterable[Run]]) -> None:
        """Adds the numbers about resources."""
        self.registry.register(_Runs(runs))

    def text(self) -> bytes:
        """All metrics as Prometheus reads them."""
        return generate_latest(self.registry)


class _Runs(Collector):
    """Numbers about resources, from their status."""

    def __init__(self, runs: Callable[[], Iterable[Run]]) -> None:
        self._runs = runs

    def describe(self) -> Iterator[Metric]:
        """The empty families: the registry need not collect to know the names."""
        return iter(_families().values())

    def collect(self) -> Iterator[Metric]:
        """The families with a sample for each resource."""
        families = _families()
        for run in self._runs():
            _add_run(families, run)
        return iter(families.values())


def _families() -> dict[str, GaugeMetricFamily]:
    named = {
        "condition": (
            "hatchery_resource_condition",
            "Conditions as they are now.",
            (*_RUN, "type", "status", "reason"),
        ),
        "attempts": ("hatchery_run_attempts", "Jobs created so far.", _RUN),
        "failures": ("hatchery_run_failures", "Attempts that failed.", _RUN),
        "progress": ("hatchery_run_progress_ratio", "Share of the current stage that is done.", _RUN),
        "heartbeat": (
            "hatchery_run_last_heartbeat_timestamp_seconds",
            "When a pod last reported progress.",
            _RUN,
        ),
        "steps": ("hatchery_run_target_steps", "Optimizer steps of the whole run.", _RUN),
        "loss": ("hatchery_train_loss", "Cross-entropy in nats per token, from the status.", (*_RUN[1:], "split")),
        "perplexity": ("hatchery_train_perplexity", "On the validation split, from the status.", _RUN[1:]),
        "eval": ("hatchery_eval_metric", "Results of an EvalRun.", (*_RUN[1:], "task", "metric")),
    }
    return {key: GaugeMetricFamily(name, text, labels=labels) for key, (name, text, labels) in named.items()}


def _add_run(families: dict[str, GaugeMetricFamily], run: Run) -> None:
    labels, status = tuple(run.key), run.status
    for condition in status.conditions:
        families["condition"].add_metric((*labels, condition.type, condition.status, condition.reason), 1)
    families["attempts"].add_metric(labels, status.attempts)
    families["failures"].add_metric(labels, status.failures)
    progress = status.progress
    if progress and progress.percentage is not None:
        families["progress"].add_metric(labels, progress.percentage / _PERCENT)
    if progress and progress.updated_at:
        families["heartbeat"].add_metric(labels, parse_time(progress.updated_at).timestamp())
    if isinstance(status, PretrainRunStatus):
        _add_pretrain(families, run, status)
    elif isinstance(status, EvalRunStatus):
        for measure in status.results:
            families["eval"].add_metric((*labels[1:], measure.task, measure.metric), float(measure.value))


def _add_pretrain(families: dict[str, GaugeMetricFamily], run: Run, status: PretrainRunStatus) -> None:
    labels = tuple(run.key)[1:]
    if status.steps is not None:
        families["steps"].add_metric(tuple(run.key), status.steps)
    losses = status.loss.model_dump() if status.loss else {}
    for split, loss in losses.items():
        if loss is not None:
            families["loss"].add_metric((*labels, split), loss)
    if status.perplexity is not None:
        families["perplexity"].add_metric(labels, status.perplexity)
