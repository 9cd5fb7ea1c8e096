"""Live progress from the pod: Kubeflow Trainer's status protocol, and two gauges for Prometheus.

Neither ever disturbs the work: a request that fails is dropped and the next one tries again.
"""

import os
import ssl
import threading
import time
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry, Gauge, ProcessCollector, disable_created_metrics, start_http_server

from hatchery_api.contract import METRICS_PORT, TrainerProgress, TrainerStatus
from hatchery_api.status import ProgressMetric
from hatchery_jobs.runtime.logs import log

INTERVAL_SECONDS: Final = 5.0
"""Shortest time between two requests."""

TIMEOUT_SECONDS: Final = 5.0
"""Longest time one request may take."""

REGISTRY: Final = CollectorRegistry()
"""What `/metrics` of the pod serves."""

# a series that says when another one began doubles their number and answers no question
disable_created_metrics()
ProcessCollector(registry=REGISTRY)

_DONE = Gauge("hatchery_stage_done", "Units of work done in this stage.", ["stage", "unit"], registry=REGISTRY)
_RATIO = Gauge("hatchery_stage_progress_ratio", "Share of this stage that is done.", ["stage"], registry=REGISTRY)


def serve_metrics(port: int = METRICS_PORT) -> Callable[[], None]:
    """Serves the registry on `/metrics`; returns the function that stops and frees the port."""
    server, thread = start_http_server(port, registry=REGISTRY)

    def _stop() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return _stop


@dataclass
class ProgressReporter:
    """Reports how far a stage is, at most every `INTERVAL_SECONDS`."""

    stage: str
    clock: Callable[[], float] = time.monotonic
    send: Callable[[TrainerStatus], None] | None = None
    started: float = field(init=False)
    first: tuple[float, int] | None = field(init=False, default=None)
    sent: float = field(init=False, default=float("-inf"))

    def __post_init__(self) -> None:
        self.started = self.clock()
        if self.send is None and "KUBEFLOW_TRAINER_SERVER_URL" in os.environ:
            self.send = ProgressClient.from_environment().post

    def update(
        self, done: int, total: int, unit: str, metrics: Mapping[str, float] | None = None, *, now: bool = False
    ) -> None:
        """Says that `done` of `total` units are done; `now` sends even within the interval."""
        _DONE.labels(self.stage, unit).set(done)
        _RATIO.labels(self.stage).set(done / max(1, total))
        moment = self.clock()
        if self.first is None:
            self.first = (moment, done)  # work taken over from an earlier attempt does not count as speed
        if self.send is None or (not now and moment - self.sent < INTERVAL_SECONDS):
            return
        self.sent = moment
        self.send(self._status(moment, done, total, unit, metrics or {}))

    def _status(self, moment: float, done: int, total: int, unit: str, metrics: Mapping[str, float]) -> TrainerStatus:
        assert self.first is not None  # noqa: S101 - set by update
        since, at_first = self.first
        speed = (done - at_first) / (moment - since) if moment > since else 0.0
        share = 100 * done // max(1, total)
        numbers = {"stage": self.stage, "done": str(done), "total": str(total), "unit": unit}
        numbers |= {name: f"{value:.6g}" for name, value in metrics.items()}
        return TrainerStatus(
            progress_percentage=min(100, share),
            estimated_remaining_seconds=round((total - done) / speed) if speed > 0 else None,
            metrics=[ProgressMetric(name=name, value=value) for name, value in numbers.items()],
            last_updated_time=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        )


@dataclass(frozen=True)
class ProgressClient:
    """Posts to the operator in a thread of its own; while one request is under way further ones are dropped."""

    url: str
    ca_file: Path
    token_file: Path
    busy: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def from_environment(cls) -> "ProgressClient":
        """The client that the operator's environment variables describe."""
        return cls(
            url=os.environ["KUBEFLOW_TRAINER_SERVER_URL"],
            ca_file=Path(os.environ.get("KUBEFLOW_TRAINER_SERVER_CA_CERT", "/nonexistent")),
            token_file=Path(os.environ.get("KUBEFLOW_TRAINER_SERVER_TOKEN", "/nonexistent")),
        )

    def post(self, status: TrainerStatus) -> None:
        """Sends without waiting."""
        if self.busy.acquire(blocking=False):
            threading.Thread(target=self._post, args=(status,), daemon=True).start()

    def _post(self, status: TrainerStatus) -> None:
        try:
            # both files change while the pod runs: the token expires, the operator has a new certificate at every start
            context = ssl.create_default_context(cafile=str(self.ca_file))
            request = urllib.request.Request(  # noqa: S310 - the URL is the operator's
                self.url,
                data=TrainerProgress(trainer_status=status).model_dump_json(by_alias=True, exclude_none=True).encode(),
                headers={
                    "Authorization": f"Bearer {self.token_file.read_text().strip()}",
                    "Content-Type": "application/json",
                },
                method="POST",
            )
            with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS, context=context):  # noqa: S310 - the same
                pass
        except (OSError, ValueError) as error:
            log("progress-not-sent", error=str(error))
        finally:
            self.busy.release()
