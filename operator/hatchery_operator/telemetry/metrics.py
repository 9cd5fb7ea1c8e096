"""The operator's Prometheus metrics: counters and gauges of the process, and series about every resource.

Series about resources are rendered from their status on each scrape, so they disappear with the resource. Their labels
are names and closed sets only, never a step, commit, path or error text: each resource has at most `SERIES_PER_RUN`
series, plus `RESULTS` for the results of an evaluation.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import Final, Literal, TypeVar, get_args

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

from hatchery_api import __version__
from hatchery_api.conditions import ConditionType, find_condition
from hatchery_api.kinds import KINDS
from hatchery_api.resources.evaluate import EvalRunStatus
from hatchery_api.resources.pretrain import PretrainRunSpec, PretrainRunStatus
from hatchery_api.status import RunStatus, StageState
from hatchery_operator.domain.devices import device_count
from hatchery_operator.domain.objects import Key, Run, parse_time

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
"""The Prometheus text format."""

ReconcileResult = Literal["success", "error", "conflict", "gone"]
"""Outcome of one reconcile."""

WATCHED: Final = (*(kind.kind for kind in KINDS), "Job")
"""Kinds with a watch."""

PHASES: Final[tuple[str, ...]] = get_args(StageState)
"""Phases of a resource; exactly one of them is 1."""

SERIES_PER_RUN: Final = 32
"""Most series of one resource, not counting the results of an evaluation."""

RESULTS: Final = 64
"""Most results of an evaluation; its status has the same limit."""

_MetricT = TypeVar("_MetricT", Counter, Gauge)
_API_REQUESTS: Final = (("GET", 200), ("POST", 201), ("PATCH", 200), ("DELETE", 200))
_DURATION_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """All metrics, in a registry of their own."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._reconciles = self._add(Counter, "hatchery_reconcile", "Reconciles by outcome.", "kind", "result")
        self._seconds = Histogram(
            "hatchery_reconcile_duration_seconds",
            "Duration of a reconcile.",
            ("kind",),
            buckets=_DURATION_BUCKETS,
            registry=self.registry,
        )
        self._requests = self._add(
            Counter, "hatchery_api_requests", "API server responses; code 0 is no response.", "verb", "code"
        )
        self._missed = self._add(Counter, "hatchery_watch_missed", "Changes found by a resync that no watch delivered.")
        self._outdated = self._add(
            Gauge,
            "hatchery_crd_outdated",
            "1 while the served CustomResourceDefinition lacks fields of this version.",
            "kind",
        )
        ages = self._add(
            Gauge,
            "hatchery_watch_age_seconds",
            "Time since a watch delivered a change or a resync proved that it missed none.",
            "kind",
        )
        self._add(Gauge, "hatchery_build_info", "The operator's version.", "version").labels(__version__).set(1)
        self._last_heard: dict[str, float] = {}
        self.heard(*WATCHED)
        for kind in WATCHED:
            ages.labels(kind).set_function(partial(self._watch_age, kind))
        self._create_series()
        self._page: RunPage | None = None

    def _add(self, metric: type[_MetricT], name: str, about: str, *labels: str) -> _MetricT:
        return metric(name, about, labels, registry=self.registry)

    def _watch_age(self, kind: str) -> float:
        return self._clock() - self._last_heard[kind]

    def _create_series(self) -> None:
        """Creates series at start: a counter that appears with its first increment has no rate at that moment."""
        for kind in KINDS:
            self._seconds.labels(kind.kind)
            self._outdated.labels(kind.kind)
            for result in get_args(ReconcileResult):
                self._reconciles.labels(kind.kind, result)
        for verb, code in _API_REQUESTS:
            self._requests.labels(verb, str(code))
            self._requests.labels(verb, "0")

    def heard(self, *kinds: str) -> None:
        """Records that the watches of these kinds are alive."""
        self._last_heard |= dict.fromkeys(kinds, self._clock())

    def resynced(self, missed: list[str]) -> None:
        """Counts the changes that watches missed, given by kind; a watch that missed none counts as alive."""
        self.heard(*(set(WATCHED) - set(missed)))
        self._missed.inc(len(missed))

    def reconciled(self, kind: str, result: ReconcileResult, seconds: float) -> None:
        """Counts a reconcile."""
        self._reconciles.labels(kind, result).inc()
        self._seconds.labels(kind).observe(seconds)

    def answered(self, verb: str, code: int) -> None:
        """Counts a response of the API server."""
        self._requests.labels(verb, str(code)).inc()

    def crd_outdated(self, kind: str, outdated: bool) -> None:
        """Records whether the served definition of a kind lacks fields of this version."""
        self._outdated.labels(kind).set(outdated)

    def watch(self, name: str, about: str, value: Callable[[], float]) -> None:
        """Adds a gauge whose value is read on each scrape."""
        Gauge(name, about, registry=self.registry).set_function(value)

    def watch_runs(self, runs: Callable[[], Iterable[Run]]) -> None:
        """Adds the series about resources."""
        self._page = RunPage(runs)

    def text(self) -> bytes:
        """All metrics in the Prometheus text format."""
        return generate_latest(self.registry) + (self._page.text().encode() if self._page else b"")


MetricSample = tuple[dict[str, str], float]
"""Labels beyond those that name the resource, and a value."""


@dataclass(frozen=True)
class _Family:
    """One metric about resources."""

    name: str
    about: str
    samples: Callable[[Run], Iterable[MetricSample]]
    labels: tuple[str, ...] = ()
    """Labels beyond those that name the resource."""
    by_kind: bool = True
    """Whether the resource's kind is a label; False for a metric of a single kind."""

    def lines(self, run: Run) -> str:
        """The samples of one resource in the Prometheus text format."""
        names = (*(("kind",) if self.by_kind else ()), "namespace", "name", *self.labels)
        lines = []
        for extra, value in self.samples(run):
            values = run.key._asdict() | extra
            labels = ",".join(f'{label}="{_escaped(values[label])}"' for label in names)
            lines.append(f"{self.name}{{{labels}}} {float(value)}\n")
        return "".join(lines)


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def phase_of(status: RunStatus) -> str:
    """A resource's phase: `Succeeded` or `Failed` once it has finished, before that the state of its current stage."""
    succeeded = find_condition(status.conditions, ConditionType.SUCCEEDED)
    if succeeded and succeeded.status != "Unknown":
        return "Succeeded" if succeeded.status == "True" else "Failed"
    stage = next((stage for stage in status.stages if stage.state != "Succeeded"), None)
    return stage.state if stage else "Waiting"


def _value(number: float | None) -> list[MetricSample]:
    return [] if number is None else [({}, number)]


def _time(text: str | None) -> list[MetricSample]:
    return _value(parse_time(text).timestamp() if text else None)


def _phases(run: Run) -> Iterable[MetricSample]:
    current = phase_of(run.status)
    return [({"phase": phase}, phase == current) for phase in PHASES]


def _conditions(run: Run) -> Iterable[MetricSample]:
    return [({"type": c.type, "status": c.status, "reason": c.reason}, 1) for c in run.status.conditions]


def _current_stage(run: Run) -> Iterable[MetricSample]:
    status = run.status
    return [({"stage": status.current_stage}, 1)] if status.current_stage and not status.completion_time else []


def _progress(run: Run) -> Iterable[MetricSample]:
    percentage = run.status.progress.percentage if run.status.progress else None
    return _value(None if percentage is None else percentage / 100)


def _held_devices(run: Run) -> Iterable[MetricSample]:
    if not isinstance(run.spec, PretrainRunSpec):
        return []
    is_training = phase_of(run.status) == "Running" and run.status.current_stage == run.kind.stages[-1]
    return _value(run.spec.parallelism.nodes * device_count(run.spec.placement.resources) if is_training else 0)


def _losses(run: Run) -> Iterable[MetricSample]:
    losses = run.status.loss if isinstance(run.status, PretrainRunStatus) else None
    by_split = {"train": losses.train, "validation": losses.eval, "initial": losses.initial} if losses else {}
    return [({"split": split}, loss) for split, loss in by_split.items() if loss is not None]


def _eval_results(run: Run) -> Iterable[MetricSample]:
    for result in run.status.results if isinstance(run.status, EvalRunStatus) else ():
        try:
            value = float(result.value)
        except ValueError:  # a pod wrote it: a value that is not a number must not break the whole page
            continue
        yield {"task": result.task, "metric": result.metric}, value


RUN_FAMILIES: Final = (
    _Family("hatchery_resource_phase", "1 for the current phase, 0 for the others.", _phases, ("phase",)),
    _Family("hatchery_resource_condition", "Current conditions.", _conditions, ("type", "status", "reason")),
    _Family("hatchery_run_current_stage", "1 for the current stage.", _current_stage, ("stage",)),
    _Family("hatchery_run_attempts", "Jobs created.", lambda run: _value(run.status.attempts)),
    _Family("hatchery_run_failures", "Failed attempts.", lambda run: _value(run.status.failures)),
    _Family(
        "hatchery_run_disruptions",
        "Pods lost to eviction, preemption or drain.",
        lambda run: _value(run.status.disruptions),
    ),
    _Family("hatchery_run_devices", "Accelerators held by a running training stage.", _held_devices),
    _Family("hatchery_run_start_timestamp_seconds", "Start time.", lambda run: _time(run.status.start_time)),
    _Family(
        "hatchery_run_completion_timestamp_seconds", "Completion time.", lambda run: _time(run.status.completion_time)
    ),
    _Family("hatchery_run_progress_ratio", "Completed share of the current stage.", _progress),
    _Family(
        "hatchery_run_last_heartbeat_timestamp_seconds",
        "Time of the last progress report.",
        lambda run: _time(run.status.progress.updated_at if run.status.progress else None),
    ),
    _Family(
        "hatchery_run_target_steps",
        "Optimizer steps of the whole run.",
        lambda run: _value(run.spec.schedule.steps if isinstance(run.spec, PretrainRunSpec) else None),
    ),
    _Family("hatchery_run_loss", "Cross-entropy of a finished run in nats per token.", _losses, ("split",)),
    _Family(
        "hatchery_run_perplexity",
        "Validation perplexity of a finished run.",
        lambda run: _value(run.status.perplexity if isinstance(run.status, PretrainRunStatus) else None),
    ),
    _Family("hatchery_eval_metric", "Results of an EvalRun.", _eval_results, ("task", "metric"), by_kind=False),
)
"""Every metric about resources: one entry adds one."""


class RunPage:
    """The text about all resources; a resource's lines are rendered again only when it has changed.

    Rendering a thousand resources at once would block the event loop for more than a tenth of a second.
    """

    def __init__(self, runs: Callable[[], Iterable[Run]]) -> None:
        self._runs = runs
        self._rendered: dict[Key, tuple[Run, Mapping[str, str]]] = {}

    def text(self) -> str:
        """All families in the Prometheus text format."""
        previous, self._rendered = self._rendered, {}
        for run in self._runs():
            before = previous.get(run.key)
            if before is None or before[0] is not run:
                before = run, {family.name: family.lines(run) for family in RUN_FAMILIES}
            self._rendered[run.key] = before
        pages = [lines for _, lines in self._rendered.values()]
        return "".join(
            f"# HELP {family.name} {family.about}\n# TYPE {family.name} gauge\n"
            + "".join([lines[family.name] for lines in pages])
            for family in RUN_FAMILIES
        )
