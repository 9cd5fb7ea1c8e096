"""Live progress: Kubeflow Trainer's status protocol, and two gauges for Prometheus.

Reporting never blocks or fails a stage: a request that fails is dropped, and the next update sends a newer one.
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
"""Minimum time between two requests."""

TIMEOUT_SECONDS: Final = 5.0
"""Timeout of a request."""

REGISTRY: Final = CollectorRegistry()
"""Registry behind `/metrics` of the pod."""

# `_created` series would double the number of series
disable_created_metrics()
ProcessCollector(registry=REGISTRY)

_DONE = Gauge("hatchery_stage_done", "Units of work done in this stage.", ["stage", "unit"], registry=REGISTRY)
_RATIO = Gauge("hatchery_stage_progress_ratio", "Share of this stage that is done.", ["stage"], registry=REGISTRY)


def serve_metrics(port: int = METRICS_PORT) -> Callable[[], None]:
    """Serves the registry on `/metrics`; returns a function that stops the server and frees the port."""
    server, thread = start_http_server(port, registry=REGISTRY)

    def _stop() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return _stop


@dataclass
class ProgressReporter:
    """Reports the progress of a stage, at most every `INTERVAL_SECONDS`."""

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
        """Reports that `done` of `total` units are done; `now` ignores the interval."""
        _DONE.labels(self.stage, unit).set(done)
        _RATIO.labels(self.stage).set(done / max(1, total))
        moment = self.clock()
        if self.first is None:
            self.first = (moment, done)  # work resumed from an earlier attempt does not count towards the speed
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
    """Posts to the operator on a background thread; drops updates while a request is in flight."""

    url: str
    ca_file: Path
    token_file: Path
    busy: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def from_environment(cls) -> "ProgressClient":
        """The client for the endpoint in the environment that the operator sets."""
        return cls(
            url=os.environ["KUBEFLOW_TRAINER_SERVER_URL"],
            ca_file=Path(os.environ.get("KUBEFLOW_TRAINER_SERVER_CA_CERT", "/nonexistent")),
            token_file=Path(os.environ.get("KUBEFLOW_TRAINER_SERVER_TOKEN", "/nonexistent")),
        )

    def post(self, status: TrainerStatus) -> None:
        """Sends the status without blocking."""
        if self.busy.acquire(blocking=False):
            threading.Thread(target=self._post, args=(status,), daemon=True).start()

    def _post(self, status: TrainerStatus) -> None:
        try:
            # both files change while the pod runs: tokens expire, and a restarted operator has a new certificate
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
