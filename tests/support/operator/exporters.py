"""The two real metrics pages, advanced step by step: the operator's over a cache of samples, and a training pod's."""

import asyncio
import itertools
import math
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from aiohttp import web
from tests.cluster.control_plane import Ports
from tests.support.operator.run_samples import REASONS, sample

from hatchery_api.contract import HubTarget, JobInput, Output
from hatchery_api.kinds import KINDS
from hatchery_api.resources.pretrain import PretrainRunSpec
from hatchery_jobs.pretrain.launcher.protocol import WorkerSpec
from hatchery_jobs.pretrain.state import RunState, Times, Update
from hatchery_jobs.pretrain.telemetry.hardware import Device, RunInfo
from hatchery_jobs.pretrain.telemetry.metrics import LabelledMetric, Metric, RunMetrics
from hatchery_jobs.pretrain.telemetry.recorder import LeadRecorder
from hatchery_operator.__main__ import Operator
from hatchery_operator.settings import LeaderElection, Settings
from hatchery_operator.telemetry import metrics_app, serve

NAMESPACE, NAME = "team", "PretrainRun-Running"
"""The PretrainRun of both pages."""


class OperatorExporter:
    """The operator's metrics page over a cache with a resource of every kind in every phase."""

    def __init__(self) -> None:
        self.port = Ports.free().api
        self._operator = Operator(Settings(leader_election=LeaderElection(enabled=False)))
        self._versions = itertools.count(1)
        self._loop = asyncio.new_event_loop()
        # a daemon: a test that fails while it starts must not wait for it for ever
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._runner: web.AppRunner

    def __enter__(self) -> Self:
        self.step()
        self._thread.start()
        app = metrics_app(self._operator._metrics)
        self._runner = asyncio.run_coroutine_threadsafe(serve(app, self.port), self._loop).result(10)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def step(self) -> None:
        """Changes all resources and counts a reconcile of each."""
        metrics, version = self._operator._metrics, next(self._versions)
        for kind, phase in itertools.product(KINDS, REASONS):
            manifest = sample(kind.kind, f"{kind.kind}-{phase}", phase, datetime.now(UTC))
            manifest["metadata"]["resourceVersion"] = str(version)
            self._operator._cache.put(manifest)
            metrics.reconciled(kind.kind, "error" if phase == "Failed" else "success", 0.01 * version)
            metrics.answered("PATCH", 200)
        metrics.answered("GET", 503)


class PodExporter:
    """The metrics page of a training pod, from the loop's own recorder."""

    def __init__(self, folder: Path) -> None:
        self.port = Ports.free().api
        spec = {
            "corpora": [{"corpusRef": {"name": "texts"}}],
            "tokenizerRef": {"name": "words"},
            "schedule": {"steps": 100_000},
            "checkpoint": {"everySteps": 10},
            "tracking": {"tensorboard": False},
        }
        job = JobInput[PretrainRunSpec](
            kind="PretrainRun",
            namespace=NAMESPACE,
            name=NAME,
            uid="1",
            stage="train",
            attempt=1,
            spec=PretrainRunSpec.model_validate(spec),
            output=Output(root=str(folder)),
            hub=HubTarget(endpoint="http://localhost"),
        )
        worker = WorkerSpec(
            job=job,
            tokens=folder,
            tokenizer=folder,
            folder=folder,
            local_folder=folder,
            first_node=True,
            metrics_port=self.port,
        )
        self._state = RunState()
        # a pod has one run; other tests of this process have left series of theirs
        for row in vars(RunMetrics).values():
            if isinstance(row, Metric | LabelledMetric):
                row.metric.clear()
        device = Device("cpu", 1e11)
        info = RunInfo(parameters=10**6, tokens_per_step=1024, flops_per_token=6e6, workers=2, device=device)
        self.recorder = LeadRecorder(worker, self._state, info)

    def step(self) -> None:
        """Five updates, and now and then a measurement and a checkpoint."""
        for _ in range(5):
            step = self._state.step + 1
            loss = 10 * math.exp(-step / 100) + 2
            times = Times(data=0.01, compute=0.03, optimizer=0.005, total=0.05)
            update = Update(loss=loss, norm=1.0, rate=1e-3, targets=1024, times=times, stop=False)
            seconds = {"train_seconds": step * 0.05, "wall_seconds": step * 0.06}
            self._state = self._state.model_copy(
                update={"step": step, "train_loss": loss, "eval_loss": loss, **seconds}
            )
            self.recorder.updated(self._state, update)
        self.recorder.validated(self._state, 1.0)
        self.recorder.saved(self._state, 0.0)
        self.recorder.pushed(self._state.step)
