"""Prometheus metrics of the operator: what it does. Those about the resources are in `run_metrics`."""

from collections.abc import Callable, Iterable
from functools import partial
from time import monotonic
from typing import Final, Literal, get_args

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
from hatchery_api.kinds import KINDS
from hatchery_operator.domain.objects import Run
from hatchery_operator.telemetry.run_metrics import RunPage

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
"""The text format Prometheus reads."""

Result = Literal["success", "error", "conflict", "gone"]
"""How a pass ends."""

WATCHED: Final = (*(kind.kind for kind in KINDS), "Job")
"""Kinds with a watch."""

_ANSWERS: Final = (("GET", 200), ("POST", 201), ("PATCH", 200), ("DELETE", 200))
_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """All metrics, in a registry of their own."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
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
        self._missed = Counter(
            "hatchery_watch_missed", "Changes that a listing showed and no watch had told.", registry=self.registry
        )
        self._definitions = Gauge(
            "hatchery_crd_outdated",
            "1 while the served CustomResourceDefinition lacks fields of this version.",
            ("kind",),
            registry=self.registry,
        )
        self._runs = RunPage(tuple)
        self._heard: dict[str, float] = {}
        self._add_watch_ages()
        self._create_series()
        build = Gauge("hatchery_build_info", "The operator's version.", ("version",), registry=self.registry)
        build.labels(__version__).set(1)

    def _add_watch_ages(self) -> None:
        ages = Gauge(
            "hatchery_watch_age_seconds",
            "Time since a watch told of a change, or a listing proved that there was none to tell.",
            ("kind",),
            registry=self.registry,
        )
        self.heard(*WATCHED)
        for kind in WATCHED:
            ages.labels(kind).set_function(partial(self._silence, kind))

    def _silence(self, kind: str) -> float:
        return self._clock() - self._heard[kind]

    def _create_series(self) -> None:
        """Series that are there from the start: the rate of a counter that has just appeared is missing, not 0."""
        for kind in KINDS:
            self._seconds.labels(kind.kind)
            self._definitions.labels(kind.kind)
            for result in get_args(Result):
                self._reconciles.labels(kind.kind, result)
        for verb, code in _ANSWERS:
            self._requests.labels(verb, str(code))
            self._requests.labels(verb, "0")

    def heard(self, *kinds: str) -> None:
        """Watches are known to be alive: they told of a change, or had none to tell."""
        self._heard |= dict.fromkeys(kinds, self._clock())

    def reconciled(self, kind: str, result: Result, seconds: float) -> None:
        """Counts a pass."""
        self._reconciles.labels(kind, result).inc()
        self._seconds.labels(kind).observe(seconds)

    def answered(self, verb: str, code: int) -> None:
        """Counts an answer of the API server."""
        self._requests.labels(verb, str(code)).inc()

    def resynced(self, missed: list[str]) -> None:
        """Counts the changes that watches missed, one kind each; a watch that missed nothing counts as alive."""
        self.heard(*(set(WATCHED) - set(missed)))
        self._missed.inc(len(missed))

    def crd_outdated(self, kind: str, outdated: bool) -> None:
        """Records whether the served definition of a kind is older than this version."""
        self._definitions.labels(kind).set(outdated)

    def watch(self, name: str, help_text: str, value: Callable[[], float]) -> None:
        """Adds a gauge that is read when it is asked for."""
        Gauge(name, help_text, registry=self.registry).set_function(value)

    def watch_runs(self, runs: Callable[[], Iterable[Run]]) -> None:
        """Adds the numbers about resources."""
        self._runs = RunPage(runs)

    def text(self) -> bytes:
        """All metrics as Prometheus reads them."""
        return generate_latest(self.registry) + self._runs.text().encode()
